"""Reading a request: its body within a limit, its content type, its query, its id."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Collection
from time import monotonic
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.requests import Request
from starlette.types import Message

from enrich.errors import BadRequestError, PayloadTooLargeError, UnsupportedMediaTypeError, show

__all__ = [
    "ClientGoneError",
    "content_type",
    "header",
    "limit_of",
    "path_segments",
    "query",
    "read_body",
    "refuse_body",
    "unpacked",
]

#: how long a body may take, and how long it may stand still
_BODY_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 10.0
_MAX_LIMIT: Final = 1000
#: zlib's for a gzip header with the largest window
_GZIP: Final = 31


class ClientGoneError(Exception):
    """The client hung up before its body was complete: nobody is left to answer."""


def header(request: Request, name: bytes) -> bytes | None:
    """The first header of that lower-case name."""
    for key, value in request.scope["headers"]:
        if key == name:
            return bytes(value)
    return None


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body; counted as it arrives: neither a lying Content-Length nor a chunked body passes the limit.

    Raises:
        PayloadTooLargeError: more than `max_bytes`, announced or arrived.
        BadRequestError: `body_timeout`, it stands still for ten seconds or is not complete after thirty.
        ClientGoneError: the client hung up in the middle.
    """
    declared = header(request, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(int(declared), max_bytes)
    started = monotonic()
    message = await _receive(request, started)
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > max_bytes:
            raise _too_large(len(body), max_bytes)
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        if size > max_bytes:
            raise _too_large(size, max_bytes)
        message = await _receive(request, started)
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        parts.append(part)
        size += len(part)
    if size > max_bytes:
        raise _too_large(size, max_bytes)
    return b"".join(parts)


async def refuse_body(request: Request) -> None:
    """
    Raises:
        BadRequestError: `unexpected_body`.
    """
    if (await read_body(request, 1024)).strip():
        raise BadRequestError("this call takes no body", code="unexpected_body")


async def _receive(request: Request, started: float) -> Message:
    try:
        async with asyncio.timeout(min(_IDLE_SECONDS, started + _BODY_SECONDS - monotonic())):
            return await request.receive()
    except TimeoutError:
        raise BadRequestError("the body did not arrive in time", code="body_timeout") from None


def _too_large(size: int, max_bytes: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"the body has more than {max_bytes} bytes", size_bytes=size, max_bytes=max_bytes, hint="send less per request"
    )


def unpacked(request: Request, body: bytes, max_bytes: int) -> bytes:
    """The body without its `gzip`, never more of it than `max_bytes`.

    Raises:
        UnsupportedMediaTypeError: it is encoded in another way.
        PayloadTooLargeError: it unpacks to more than `max_bytes`.
        BadRequestError: `invalid_gzip`, it is damaged, cut off, or goes on behind its end.
    """
    encoding = (header(request, b"content-encoding") or b"identity").strip().lower()
    if encoding == b"identity":
        return body
    if encoding != b"gzip":
        raise UnsupportedMediaTypeError(f"content encoding {show(encoding.decode('latin-1'))} is not read here")
    unpacking = zlib.decompressobj(_GZIP)
    try:
        plain = unpacking.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise BadRequestError("the body is no gzip", code="invalid_gzip") from error
    if len(plain) > max_bytes:
        raise _too_large(len(plain), max_bytes)
    if not unpacking.eof or unpacking.unused_data:
        raise BadRequestError("the body's gzip has no end, or goes on behind it", code="invalid_gzip")
    return plain


def content_type(
    request: Request, accepted: Collection[bytes], *, default: bytes, packed: bool = False
) -> bytes:
    """The request's media type, without parameters and in lower case; `default` when it names none.

    Args:
        packed: the body may be encoded: the caller unpacks it.

    Raises:
        UnsupportedMediaTypeError: it is not one of `accepted`, its charset is not UTF-8, or the body is compressed.
    """
    raw = header(request, b"content-type")
    if not packed and header(request, b"content-encoding") not in (None, b"identity"):
        raise UnsupportedMediaTypeError("a compressed body is not read", hint="send it without content-encoding")
    if raw is None or raw in accepted:
        return default if raw is None else raw
    media, _, parameters = raw.partition(b";")
    media = media.strip().lower()
    if media not in accepted:
        raise UnsupportedMediaTypeError(
            f"content type {show(raw.decode('latin-1'))} is not read here",
            accepted=[kind.decode() for kind in sorted(accepted)],
        )
    charset = parameters.lower().replace(b" ", b"").replace(b'"', b"")
    if b"charset=" in charset and b"charset=utf-8" not in charset and b"charset=us-ascii" not in charset:
        raise UnsupportedMediaTypeError(f"charset in {show(raw.decode('latin-1'))} is not UTF-8")
    return media


def query(request: Request, known: Collection[str]) -> dict[str, str]:
    """The query parameters, each at most once and each known.

    Raises:
        BadRequestError: `unknown_parameter`, `repeated_parameter`, or `invalid_utf8`.
    """
    raw: bytes = request.scope["query_string"]
    if not raw:
        return {}
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=64)
    except UnicodeDecodeError as error:
        raise BadRequestError("the query is not UTF-8", code="invalid_utf8") from error
    except ValueError as error:
        raise BadRequestError("the query has too many parameters", code="invalid_parameter") from error
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise BadRequestError(
                f"no such parameter: {show(name)}", code="unknown_parameter", parameter=name[:80], known=sorted(known)
            )
        if name in found:
            raise BadRequestError(f"parameter {show(name)} stands twice", code="repeated_parameter", parameter=name)
        found[name] = value
    return found


def path_segments(request: Request, prefix: bytes) -> list[str]:
    """The path behind `prefix`, split at its slashes, each segment percent-decoded on its own (`%2F` stays inside one).

    Raises:
        BadRequestError: a segment is not UTF-8 once decoded.
    """
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    try:
        return [unquote_to_bytes(part).decode("utf-8") for part in raw[len(prefix) :].split(b"/")]
    except UnicodeDecodeError as error:
        raise BadRequestError("a path segment is not UTF-8", code="invalid_utf8") from error


def limit_of(text: str | None) -> int:
    """How many entries a page may have, 100 unless told.

    Raises:
        BadRequestError: `invalid_parameter`, not a number from 1 to 1000.
    """
    if text is None:
        return 100
    if text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= _MAX_LIMIT:
        return int(text)
    raise BadRequestError(
        f"limit {show(text)} is not between 1 and {_MAX_LIMIT}", code="invalid_parameter", parameter="limit"
    )
