"""Times as text and as int64 microseconds since 1970-01-01 UTC, one at a time and in bulk; never rounded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa

from enrich.errors import EventError, show

__all__ = ["canonical_text", "canonical_times_us", "datetime_us", "format_many_us", "format_us", "parse_rfc3339_us"]

_EPOCH: Final = datetime(1970, 1, 1)
_EPOCH_UTC: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: the digits after the sixth must be zeros: a time that microseconds can't hold is refused, never rounded
_RFC3339: Final = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,6})0*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
#: of a canonical time, 2026-11-23T10:00:00.123456Z
_LENGTH: Final = 27
_ARROW_TIME: Final = pa.timestamp("us", "UTC")
#: below this many, a call into Arrow costs more than it saves
_BULK: Final = 48
#: the years 1 to 9999 in UTC, which `format_us` can write
_LEAST_US, _GREATEST_US = -62_135_596_800_000_000, 253_402_300_799_999_999


def format_us(us: int) -> str:
    """Microseconds since 1970 (UTC) as `2026-11-23T10:00:00.123456Z`.

    Raises:
        OverflowError: the time lies outside the years 1 to 9999.
    """
    return (_EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds") + "Z"


def format_many_us(times_us: Sequence[int]) -> list[str]:
    """`format_us` of each, in bulk; for the years 1 to 9999."""
    if len(times_us) < _BULK:
        return [format_us(us) for us in times_us]
    array = np.asarray(times_us, dtype=np.int64).view("datetime64[us]")
    return [text + "Z" for text in np.datetime_as_string(array, unit="us").tolist()]


def datetime_us(value: datetime) -> int | None:
    """An aware datetime as microseconds since 1970 (UTC); None for a naive one, or one with nanoseconds, or one outside
    the years 1 to 9999 in UTC.
    """
    if value.utcoffset() is None or getattr(value, "nanosecond", None):
        return None
    d = value - _EPOCH_UTC
    us = d.days * 86_400_000_000 + d.seconds * 1_000_000 + d.microseconds
    return us if _LEAST_US <= us <= _GREATEST_US else None


def parse_rfc3339_us(text: str) -> int:
    """An RFC 3339 time with an offset as microseconds since 1970 (UTC), exactly.

    Raises:
        EventError: `invalid_time` for anything else: no offset, no such day, a leap second, a time outside the years 1
            to 9999 in UTC, or more than six digits of a second unless the rest are zeros.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise EventError(
            f"{show(text)} is no RFC 3339 time with an offset and at most six digits of a second",
            code="invalid_time", field="occurred_at", value=show(text)[1:-1],
            hint="write a time like `2026-11-23T10:00:00.123456Z`",
        )  # fmt: skip
    day, time, fraction, offset = match.groups()
    try:
        value = datetime.fromisoformat(f"{day}T{time}{'+00:00' if offset in 'Zz' else offset}")
    except ValueError as e:
        raise EventError(
            f"{show(text)} is no time of the calendar: {e}",
            code="invalid_time", field="occurred_at", value=show(text)[1:-1],
        ) from e  # fmt: skip
    d = value - _EPOCH_UTC
    us = d.days * 86_400_000_000 + d.seconds * 1_000_000 + (int(fraction.ljust(6, "0")) if fraction else 0)
    if not _LEAST_US <= us <= _GREATEST_US:
        raise EventError(
            f"{show(text)} is outside the years 1 to 9999 in UTC",
            code="invalid_time", field="occurred_at", value=show(text)[1:-1],
        )  # fmt: skip
    return us


def canonical_text(text: str, us: int) -> str:
    """The canonical text of a time that `parse_rfc3339_us` read as `us`."""
    if len(text) == _LENGTH and text[10] == "T" and text[26] == "Z":
        return text
    return format_us(us)


def canonical_times_us(values: Sequence[Any]) -> list[int] | None:
    """Microseconds of strings that all have the canonical form already; None when any has not, whatever it is.

    The year 0, which Arrow reads, counts as canonical; it is out of the bounds of an event's time.
    """
    if len(values) < _BULK or set(map(type, values)) != {str} or set(map(len, values)) != {_LENGTH}:
        return None
    # Of 27 characters with these three in place, Arrow reads only YYYY-MM-DDTHH:MM:SS.ffffffZ.
    text, n = "".join(values), len(values)
    if text[10::_LENGTH] != "T" * n or text[19::_LENGTH] != "." * n or text[26::_LENGTH] != "Z" * n:
        return None
    try:
        array = pa.array(values, pa.string()).cast(_ARROW_TIME)
    except (pa.ArrowInvalid, UnicodeEncodeError):  # no such day; a lone surrogate
        return None
    result: list[int] = array.view(pa.int64()).to_numpy().tolist()
    return result
