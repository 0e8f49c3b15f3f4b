"""HTTP/1.1 on one connection: uvicorn's, with bounds on what a request may hold before anyone has looked at it.

What is no HTTP is answered in the one error body, and an offer to go on with another protocol is passed over.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

__all__ = ["MAX_HEAD_BYTES", "MAX_HEAD_FIELDS", "BoundedProtocol"]

MAX_HEAD_BYTES: Final = 65_536
MAX_HEAD_FIELDS: Final = 100
_HEAD_SECONDS: Final = 10.0
_CODES: Final = {
    400: ("invalid_http", "this is no HTTP request that can be read"),
    431: ("head_too_large", "the head of the request is too large"),
}


class _RefusedError(Exception):
    """Stops the parser; it becomes the answer that `_refusal` names."""


class BoundedProtocol(HttpToolsProtocol):
    """Answers 431 to a head that is too long, has too many fields or goes on after a body (trailers), and closes.

    A head has ten seconds to arrive. On shutdown a request whose body is not complete is dropped at once. `Upgrade` is
    ignored, as HTTP allows: the request is answered as if the field were not there.
    """

    _refusal = 400
    _in_head = False
    _progress = False
    _upgrading = False
    _pending = 0
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Also bounds how long a connection may say nothing."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the timer."""
        self._end_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counts what arrives without a head or a part of a body being complete: the parser keeps it in memory."""
        self._progress = False
        self._unset_keepalive_if_required()
        self._feed(data)
        self._pending = 0 if self._progress else self._pending + len(data)
        if self._pending > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refusal = 431
            self.send_400_response("")

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._pass_over_upgrade(data[upgrade.args[0] :])
        except HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("")

    def _pass_over_upgrade(self, rest: bytes) -> None:
        """Reads the head again, without the offer.

        The parser takes all that follows such a head for the other protocol's. A client that offers `h2c` with every
        first request, as Java's does, would have its body taken for an empty one: a policy asked without its input.
        """
        if not self._upgrading:  # CONNECT, which nothing here takes
            self.send_400_response("")
            return
        self._upgrading = False
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self._feed(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._end_timer()
        self._head_timer = self.loop.call_later(_HEAD_SECONDS, self.timeout_keep_alive_handler)

    def on_url(self, url: bytes) -> None:
        """Counted like a field."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field; after the head it is a trailer."""
        self._count(len(name) + len(value))
        if not self._in_head or len(self.headers) >= MAX_HEAD_FIELDS:
            self._refuse()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_head, self._progress = False, True
        self._end_timer()
        self._upgrading = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self._upgrading:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._progress = True
        if not self._upgrading:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers what the parser refuses, and closes.

        INVARIANT: a refusal never stands where the answer to an earlier request is awaited. That one is complete and
        may be recorded already: it gets its own answer, and the connection ends with it.
        """
        self._end_timer()
        cycle: Any = self.cycle
        if cycle is None or cycle.response_complete:
            self._write_refusal()
        elif not cycle.more_body:
            cycle.keep_alive = False
            self.flow.pause_reading()
        elif self.pipeline or cycle.response_started:
            self.transport.close()
        else:
            self._write_refusal()

    def _write_refusal(self) -> None:
        code, message = _CODES[self._refusal]
        body = orjson.dumps({"error": {"code": code, "message": message, "detail": {}}})
        self.transport.write(
            STATUS_LINE[self._refusal]
            + b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            + body
        )
        self.transport.close()

    def shutdown(self) -> None:
        """Drops a request whose body is still on its way: nothing of it has been done."""
        cycle: Any = self.cycle
        if cycle is not None and cycle.more_body and not cycle.response_started:
            self.transport.close()
        else:
            super().shutdown()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse()

    def _refuse(self) -> None:
        self._refusal = 431
        raise _RefusedError

    def _end_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
