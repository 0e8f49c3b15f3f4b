"""HTTP/1.1 to one OPA, over TCP or a Unix socket: connections are kept, every call has a deadline, and an answer is
whole or is none.

httptools reads answers; a call has one header of its own, so that requests are put together here. General clients
cost a call five to twenty times as much.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httptools

from enrich.errors import ConfigError, show

__all__ = ["Address", "Connection", "Connections", "NoAnswerError", "Reply", "TookTooLongError"]

_MAX_ANSWER_BYTES: Final = 16 << 20
_MAX_HEADERS: Final = 100
_IDLE: Final = 64
_CHUNK: Final = 1 << 16
_TCP: Final = re.compile(r"http://(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9._-]+))(?::(?P<port>\d{1,5}))?/?")
_UNIX: Final = re.compile(r"unix://(?P<path>/[^\x00]+)")


class NoAnswerError(Exception):
    """No answer, or one that is no HTTP, not whole, or too long; the text says which."""


class TookTooLongError(NoAnswerError):
    """No whole answer before the deadline."""


class _NothingYetError(NoAnswerError):
    """The connection was gone before a byte of the answer came."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where an OPA listens: a path, or host and port."""

    path: Path | None = None
    host: str = ""
    port: int = 0

    @classmethod
    def of(cls, url: str) -> Address:
        """From `http://host:port` or `unix:///path`.

        Raises:
            ConfigError: it is neither.
        """
        if found := _UNIX.fullmatch(url):
            return cls(path=Path(found["path"]))
        if (found := _TCP.fullmatch(url)) and int(found["port"] or 8181) < 65_536:
            return cls(host=found["v6"] or found["host"], port=int(found["port"] or 8181))
        raise ConfigError(
            f"opa_url {show(url)} is no address",
            hint="write http://127.0.0.1:8181 or unix:///run/opa.sock",
            setting="opa_url",
        )

    def connect(self, seconds: float) -> socket.socket:
        if self.path is None:
            made = socket.create_connection((self.host, self.port), timeout=seconds)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(seconds)
            made.connect(str(self.path))
        except BaseException:
            made.close()
            raise
        return made


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    body: bytes


class _Reading:
    """What httptools calls while an answer comes in."""

    __slots__ = ("complete", "framed", "headers", "lasting", "parts", "size")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.headers = 0
        self.framed = False
        self.lasting = True
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers += 1
        if self.headers > _MAX_HEADERS or self.complete:
            raise ValueError("too many headers")
        # INVARIANT: an answer says how long it is, or how much is there would pass for all of it
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self.framed = True
        elif name == b"connection" and value.lower() != b"keep-alive":
            self.lasting = False

    def on_body(self, body: bytes) -> None:
        self.size += len(body)
        if self.size > _MAX_ANSWER_BYTES:
            raise ValueError("too long")
        self.parts.append(body)

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a second answer")

    def on_message_complete(self) -> None:
        self.complete = True


class Connection:
    """One connection; whoever has it has it alone."""

    def __init__(self, address: Address, deadline: float) -> None:
        try:
            self._socket = address.connect(_left(deadline))
        except TimeoutError as error:
            raise TookTooLongError("no connection in time") from error
        except OSError as error:
            raise NoAnswerError(f"no connection: {error.strerror or error}") from error

    def ask(self, request: bytes, deadline: float) -> tuple[Reply, bool]:
        """One call; also whether the connection can be used for another one.

        Raises:
            NoAnswerError, TookTooLongError: the connection is of no more use.
        """
        reading = _Reading()
        parser = httptools.HttpResponseParser(reading)
        received = 0
        try:
            self._socket.settimeout(_left(deadline))
            self._socket.sendall(request)
            while not reading.complete:
                self._socket.settimeout(_left(deadline))
                data = self._socket.recv(_CHUNK)
                if not data:
                    raise (NoAnswerError if received else _NothingYetError)("the connection was closed")
                received += len(data)
                if received > 2 * _MAX_ANSWER_BYTES:
                    raise NoAnswerError("the answer is too long")
                parser.feed_data(data)
        except TimeoutError as error:
            raise TookTooLongError("no answer in time") from error
        except (ConnectionResetError, BrokenPipeError) as error:
            kind = NoAnswerError if received else _NothingYetError
            raise kind("the connection was closed") from error
        except OSError as error:
            raise NoAnswerError(f"the connection failed: {error.strerror or error}") from error
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise NoAnswerError("the answer is no HTTP") from error
        if not reading.framed:
            raise NoAnswerError("the answer does not say how long it is")
        lasting = reading.lasting and parser.get_http_version() == "1.1"
        return Reply(parser.get_status_code(), b"".join(reading.parts)), lasting

    def alive(self) -> bool:
        """Whether the other end still holds it open, and has not said anything unasked."""
        try:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN | select.POLLHUP | select.POLLERR)
            return not poll.poll(0)
        except (OSError, ValueError):  # closed meanwhile
            return False

    def close(self) -> None:
        self._socket.close()


class Connections:
    """The connections to one address; made when they are needed, kept while they are good. Thread-safe."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, request: bytes, deadline: float) -> Reply:
        """One call over any of them. One that died while it was idle is replaced by a new one, once: a call reads only,
        so that asking twice does nothing twice.

        Args:
            deadline: on `time.monotonic`'s clock.

        Raises:
            NoAnswerError, TookTooLongError.
        """
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        if kept is not None and not kept.alive():
            kept.close()
            kept = None
            self.drop()
        if kept is not None:
            with contextlib.suppress(_NothingYetError):
                return self._ask(kept, request, deadline)
            self.drop()
        return self._ask(Connection(self.address, deadline), request, deadline)

    def _ask(self, connection: Connection, request: bytes, deadline: float) -> Reply:
        try:
            reply, reusable = connection.ask(request, deadline)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            reusable = reusable and not self._closed and len(self._idle) < _IDLE
            if reusable:
                self._idle.append(connection)
        if not reusable:
            connection.close()
        return reply

    def drop(self) -> None:
        """Close what is idle: where one is dead the others are too."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close what is idle now, and the others after their call."""
        with self._lock:
            self._closed = True
        self.drop()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TookTooLongError("no time is left")
    return left
