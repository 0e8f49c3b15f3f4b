"""Answers: JSON bytes out, and every error in the one error body or, under the Data API's paths, in OPA's.

`Answer` is a Starlette response whose headers are ready bytes: building one costs about a microsecond, which the
request path can afford; Starlette's own encodes and scans its headers anew each time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson
from starlette.responses import Response

from enrich.decisions.data_api import refusal
from enrich.errors import BusyError, EnrichError, MethodNotAllowedError, UnauthorizedError

__all__ = ["JSON", "Answer", "error_answer", "json_answer", "status_of", "unhandled_answer"]

JSON: Final = b"application/json"

#: refusals whose class carries a more general status than HTTP has for their code
_STATUS: Final = {"body_too_large": 413, "too_many_events": 413, "body_timeout": 408}
_MAX_ERROR_BYTES: Final = 3072
_SHOWN_CHARACTERS: Final = 200
_SHOWN_ITEMS: Final = 10


class Answer(Response):
    """A complete response: `body` as it goes out, `status_code`, and headers as bytes."""

    def __init__(
        self,
        body: bytes,
        status_code: int = 200,
        content_type: bytes = JSON,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        self.status_code = status_code
        self.body = body
        self.background = None
        self.raw_headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]


def json_answer(value: Any, status_code: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> Answer:
    """`value` as JSON."""
    return Answer(orjson.dumps(value), status_code, JSON, headers)


def status_of(error: EnrichError) -> int:
    """The HTTP status for an error: its code's, else its class's."""
    return _STATUS.get(error.error_code, error.status)


def error_answer(error: EnrichError, request_id: str, *, data_api: bool = False) -> Answer:
    """`error` as an answer; with `data_api` in OPA's form `{"code","message","errors"}`."""
    headers = [(b"x-request-id", request_id.encode())]
    if isinstance(error, BusyError) or error.status == 503:
        headers.append((b"retry-after", b"%d" % getattr(error, "retry_after_seconds", 1)))
    if isinstance(error, UnauthorizedError):
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, MethodNotAllowedError):
        headers.append((b"allow", str(error.detail.get("allow", "")).encode()))
    if error.error_code == "body_timeout":
        headers.append((b"connection", b"close"))
    body = refusal(error).body if data_api else error.body()
    return Answer(_dumps(body), status_of(error), JSON, headers)


def _dumps(body: dict[str, Any]) -> bytes:
    """An error as JSON, a few kilobytes at most: whatever it quotes of the input is cut."""
    try:
        text = orjson.dumps(body, default=str)
    except (TypeError, ValueError):  # a lone surrogate, an integer beyond 64 bits
        return orjson.dumps(_short(body, 0))
    return text if len(text) <= _MAX_ERROR_BYTES else orjson.dumps(_short(body, 0))


def _short(value: Any, depth: int) -> Any:
    if isinstance(value, dict) and depth < 6:
        return {_short(str(k), 6): _short(v, depth + 1) for k, v in list(value.items())[:_SHOWN_ITEMS]}
    if isinstance(value, list | tuple) and depth < 6:
        return [_short(item, depth + 1) for item in value[:_SHOWN_ITEMS]]
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    text = (value if isinstance(value, str) else str(value)).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def unhandled_answer(request_id: str, *, data_api: bool = False) -> Answer:
    """The 500 for what nobody foresaw: says nothing of the cause, which stands in the log under `request_id`."""
    error = EnrichError("the request failed inside the engine", request_id=request_id)
    return error_answer(error, request_id, data_api=data_api)
