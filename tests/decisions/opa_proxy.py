"""What stands before a real OPA in tests of faults: it passes calls on, later, or says something else instead."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Proxy", "proxied"]

#: from the real answer's body to the bytes that are sent instead of it, head included
Spoil = Callable[[bytes], bytes]


class Proxy:
    """A running proxy. Queries of documents are delayed and spoilt; what an OPA holds is shown as it is."""

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.delay_seconds = 0.0
        self.spoil: Spoil | None = None
        self.in_flight = 0
        self.most_in_flight = 0
        self.asked = 0
        self.lock = threading.Lock()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self.lock:
            self.asked += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield
        finally:
            with self.lock:
                self.in_flight -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    proxy: Proxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: whoever asks may hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._pass_on(None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.proxy.counted():
            time.sleep(self.server.proxy.delay_seconds)
            self._pass_on(body)

    def _pass_on(self, body: bytes | None) -> None:
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.proxy.upstream, timeout=20)
        try:
            upstream.request(self.command, self.path, body=body)
            answer = upstream.getresponse()
            data = answer.read()
        finally:
            upstream.close()
        spoil = self.server.proxy.spoil
        if body is not None and spoil is not None:
            self.wfile.write(spoil(data))
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    """A proxy before the OPA on a port."""
    proxy = Proxy(port)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.proxy, proxy.port = proxy, server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
