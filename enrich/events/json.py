"""Strict JSON in, canonical JSON out.

Strict means that what is decoded is what was sent: no duplicate keys of which one wins, no numbers rounded on the way,
no text that UTF-8 can't hold, nothing after the end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NoReturn

import msgspec
import orjson

from enrich.errors import BadRequestError, NumberNotExactError, show

__all__ = ["canonical_again", "canonical_json", "strict_loads"]

_UINT64_MAX: Final = 2**64 - 1
_INT64_MIN: Final = -(2**63)
#: up to this size the key that stands twice is named
_NAMED_BYTES: Final = 1 << 16
#: some strings of a document with what stands before each, or what stands after the last one
_PIECE: Final = re.compile(rb'(?:[^"]*"[^"\\]*(?:\\.[^"\\]*)*"){1,2048}|[^"]+', re.DOTALL)
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
#: a number that may not be exact: fifteen digits and an exponent of two always are
_SUSPECT: Final = re.compile(rb"-?(?:[0-9.]{16,}(?:[eE][-+]?[0-9]+)?|[0-9.]+[eE][-+]?[0-9]{3,})")
_NOT_FINITE: Final = re.compile(r"-?(?:NaN|Infinity)")
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_OPTIONS: Final = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


def strict_loads(
    data: bytes | bytearray | memoryview,
    *,
    max_bytes: int,
    max_depth: int = 64,
    check: Callable[[Any], object] | None = None,
) -> Any:
    """Decode one JSON document, losing nothing.

    Args:
        data: UTF-8 without a byte order mark.
        max_bytes: the longest document that is read.
        max_depth: how deep arrays and objects may nest; a bare number has depth 0.
        check: sees the value before anything else is spent on it, and raises what refuses it.

    Returns:
        dict, list, str, int (64 bits, signed or unsigned), float, bool or None.

    Raises:
        BadRequestError: with code `body_too_large`, `invalid_utf8`, `invalid_json` (lone surrogates, trailing bytes),
            `number_not_finite`, `duplicate_key` or `too_deep`.
        NumberNotExactError: an integer beyond 64 bits, or a decimal that the double nearest to it is not written as.
    """
    if len(data) > max_bytes:
        raise BadRequestError(
            f"{len(data)} bytes are more than {max_bytes}", code="body_too_large", max_bytes=max_bytes
        )
    data = bytes(data)
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as e:
        _explain(data, e)
    if check is not None:
        check(value)
    if data.count(b"[") + data.count(b"{") > max_depth and _is_deeper(value, max_depth):
        raise _too_deep(max_depth)
    written = orjson.dumps(value)
    # INVARIANT: what a value is written as, white space aside, has lost nothing: each key stands in it once, and each
    # number's text is the number's own.
    if written != data and written != msgspec.json.format(data, indent=-1):
        _check_numbers(data)
        if _count_members(written) != _count_members(data):
            _name_the_duplicate(data)
    return value


def canonical_json(value: object) -> bytes:
    """The canonical bytes: UTF-8, keys sorted by code point, no spaces, numbers as orjson writes them.

    Raises:
        BadRequestError: `number_not_finite`, or `invalid_json` for what JSON does not have (sets, lone surrogates,
            keys that are no strings).
        NumberNotExactError: an integer beyond 64 bits.
    """
    try:
        data = orjson.dumps(value, option=_OPTIONS)
    except TypeError as e:
        if "64-bit" in str(e):
            raise NumberNotExactError("an integer does not fit in 64 bits") from e
        raise BadRequestError(f"this is no JSON: {e}", code="invalid_json") from e
    if b"null" in data and _has_non_finite(value):
        raise _not_finite("NaN or Infinity")
    return data


def canonical_again(value: object) -> bytes:
    """`canonical_json` of what is known to have no number that is not finite: it was checked, or never had any."""
    return orjson.dumps(value, option=_OPTIONS)


def _without_strings(data: bytes) -> Iterator[bytes]:
    """A valid document without its strings, in pieces, so that no thread holds the interpreter for all of it."""
    for piece in _PIECE.finditer(data):
        yield _STRING.sub(b"", piece[0])


def _count_members(data: bytes) -> int:
    """How many keys the objects of a valid document have in all, those that stand twice counted twice."""
    return sum(bare.count(b":") for bare in _without_strings(data))


def _check_numbers(data: bytes) -> None:
    for bare in _without_strings(data):
        for found in _SUSPECT.finditer(bare):
            _check_number(found[0].decode())


def _check_number(text: str) -> None:
    if text.removeprefix("-").isdigit():
        exact = len(text) <= 20 and _INT64_MIN <= int(text) <= _UINT64_MAX
        if not exact:
            raise NumberNotExactError(f"{show(text)} does not fit in 64 bits", value=text[:80])
        return
    written = repr(float(text))
    try:
        exact = written == text or Decimal(text) == Decimal(written)
    except InvalidOperation:  # an exponent beyond all reason
        exact = False
    if not exact:
        raise NumberNotExactError(f"{show(text)} is not exactly what a double is written as", value=text[:80])


def _name_the_duplicate(data: bytes) -> NoReturn:
    """Raise for the key that stands twice; large documents are not read again for its name."""
    if len(data) <= _NAMED_BYTES:
        json.loads(data, object_pairs_hook=_distinct)
    raise BadRequestError("a key stands twice in one object", code="duplicate_key")


def _is_deeper(value: object, max_depth: int) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(max_depth):
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return False
    return True


def _has_non_finite(value: object) -> bool:
    """Whether a number that orjson writes as null stands anywhere; depth is bounded, as orjson has written it."""
    if isinstance(value, float):
        return value != value or value in (float("inf"), float("-inf"))
    if isinstance(value, Mapping):
        return any(map(_has_non_finite, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_non_finite, value))
    return False


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise BadRequestError(f"{show(key)} stands twice in one object", code="duplicate_key", key=key[:200])
        seen.add(key)


def _not_finite(text: str) -> BadRequestError:
    return BadRequestError(
        f"{show(text)} is no JSON number", code="number_not_finite", hint="leave the field out, or send null"
    )


def _too_deep(max_depth: int | None = None) -> BadRequestError:
    deep = "too deep" if max_depth is None else f"deeper than {max_depth}"
    return BadRequestError(f"arrays and objects nest {deep}", code="too_deep", max_depth=max_depth)


def _explain(data: bytes, error: orjson.JSONDecodeError) -> NoReturn:
    """Raise what says best why orjson could not decode, from the place where it stopped."""
    try:
        text = data.decode()
    except UnicodeDecodeError as e:
        raise BadRequestError(
            f"byte {e.start} is not UTF-8: {e.reason}", code="invalid_utf8", position=e.start
        ) from error
    if text.startswith("\ufeff"):
        raise BadRequestError("a byte order mark stands before the JSON", code="invalid_json") from error
    if "depth" in error.msg or "ecursion" in error.msg:
        raise _too_deep() from error
    at = error.pos
    if found := _NOT_FINITE.match(text, at) or _NOT_FINITE.match(text, max(0, at - 1)):
        raise _not_finite(found[0]) from error
    if (found := _NUMBER.match(text, at)) and abs(float(found[0])) == float("inf"):
        raise NumberNotExactError(f"{show(found[0])} does not fit in a double", value=found[0][:80]) from error
    raise BadRequestError(
        f"malformed JSON: {error.msg}", code="invalid_json", line=error.lineno, column=error.colno
    ) from error
