"""Times: nanoseconds since 1970, in UTC or a named zone, by the proleptic Gregorian calendar."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from fractions import Fraction
from typing import Any, Final
from zoneinfo import ZoneInfo

from enrich.decisions._builtins._values import BuiltinError, NoAnswerError, check, integer, wrong
from enrich.decisions._terms import RegoObject, RegoSet

__all__ = ["TIMES"]

_SECOND: Final = 10**9
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: what OPA gives back: what 64 bits hold
_FIRST, _LAST = -(1 << 63), (1 << 63) - 1
_RFC3339: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_DURATION: Final = re.compile(r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+")
_PIECE: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS: Final = {
    "ns": 1, "us": 1000, "µs": 1000, "μs": 1000, "ms": 10**6, "s": _SECOND, "m": 60 * _SECOND, "h": 3600 * _SECOND
}  # fmt: skip


def _moment(value: Any) -> tuple[datetime, int, str]:
    """Nanoseconds, or an array of them, a zone and a layout: the second in its zone, what is left of it, the layout."""
    zone: tzinfo = UTC
    layout = ""
    nanoseconds = value
    if isinstance(value, list) and not isinstance(value, RegoSet | RegoObject):
        if not value:
            raise wrong(1, "must be either number (ns) or [number (ns), string (tz)] but got array")
        nanoseconds = value[0]
        if len(value) > 1:
            zone = _zone(check(1, value[1], "string"))
        if len(value) > 2:
            layout = check(1, value[2], "string")
    check(1, nanoseconds, "number")
    if isinstance(nanoseconds, float) and not nanoseconds.is_integer():
        raise BuiltinError("timestamp too big")
    nanoseconds = int(nanoseconds)
    if not _FIRST <= nanoseconds <= _LAST:
        raise BuiltinError("timestamp too big")
    seconds, left = divmod(nanoseconds, _SECOND)
    return (_EPOCH + timedelta(seconds=seconds)).astimezone(zone), left, layout


def _zone(name: str) -> tzinfo:
    if name in ("", "UTC"):
        return UTC
    if name == "Local":
        raise NoAnswerError("the machine's own time zone is not supported")
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise BuiltinError(f"unknown time zone {name}") from error


def _nanoseconds(moment: datetime, left: int) -> int:
    apart = moment - _EPOCH
    total = (apart.days * 86400 + apart.seconds) * _SECOND + left
    if not _FIRST <= total <= _LAST:
        raise BuiltinError("time outside of valid range")
    return total


def _parse_rfc3339(text: Any) -> int:
    found = _RFC3339.fullmatch(check(1, text, "string"))
    if found is None:
        if re.match(r"\d{4}-\d\d-\d\dT\d:", text, re.ASCII):
            raise NoAnswerError("time.parse_rfc3339_ns: an hour of one digit is not supported")
        raise BuiltinError(f"parsing time {text}: no RFC 3339")
    year, month, day, hour, minute, second = (int(found[i]) for i in range(1, 7))
    offset = 0
    if found[8] != "Z":
        hours, minutes = int(found[8][1:3]), int(found[8][4:])
        if hours > 24 or minutes >= 60:
            raise BuiltinError(f"parsing time {text}: offset out of range")
        offset = (hours * 3600 + minutes * 60) * (-1 if found[8][0] == "-" else 1)
    try:
        days = (date(year, month, day) - date(1970, 1, 1)).days
    except ValueError as error:
        if year == 0:
            raise BuiltinError("time outside of valid range") from error
        raise BuiltinError(f"parsing time {text}: day out of range") from error
    if hour > 23 or minute > 59 or second > 59:
        raise BuiltinError(f"parsing time {text}: hour, minute or second out of range")
    left = int((found[7] or "")[:9].ljust(9, "0"))
    total = (days * 86400 + hour * 3600 + minute * 60 + second - offset) * _SECOND + left
    if not _FIRST <= total <= _LAST:
        raise BuiltinError("time outside of valid range")
    return total


def _date(value: Any) -> list[int]:
    moment, _, _ = _moment(value)
    return [moment.year, moment.month, moment.day]


def _clock(value: Any) -> list[int]:
    moment, _, _ = _moment(value)
    return [moment.hour, moment.minute, moment.second]


def _weekday(value: Any) -> str:
    moment, _, _ = _moment(value)
    return ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")[moment.weekday()]


def _add_date(value: Any, years: Any, months: Any, days: Any) -> int:
    moment, left, _ = _moment(value)
    if moment.tzinfo is not UTC:
        raise NoAnswerError("time.add_date: another zone than UTC is not supported")
    month = moment.month - 1 + integer(3, months)
    year = moment.year + integer(2, years) + month // 12
    apart = integer(4, days)
    if not 1 <= year <= 9999 or abs(apart) > 10**6:
        raise BuiltinError("time outside of valid range")
    # a day that the month does not have runs over into the next
    first = moment.replace(year=year, month=month % 12 + 1, day=1)
    try:
        return _nanoseconds(first + timedelta(days=moment.day - 1 + apart), left)
    except OverflowError as error:
        raise BuiltinError("time outside of valid range") from error


def _diff(one: Any, other: Any) -> list[int]:
    first, first_left, _ = _moment(one)
    second, second_left, _ = _moment(other)
    second = second.astimezone(first.tzinfo)
    # as instants: two local times of one zone compare by the clock on the wall
    if (first.astimezone(UTC), first_left) > (second.astimezone(UTC), second_left):
        first, second = second, first
    year, month, day = second.year - first.year, second.month - first.month, second.day - first.day
    hour, minute, second_ = second.hour - first.hour, second.minute - first.minute, second.second - first.second
    if second_ < 0:
        second_, minute = second_ + 60, minute - 1
    if minute < 0:
        minute, hour = minute + 60, hour - 1
    if hour < 0:
        hour, day = hour + 24, day - 1
    if day < 0:
        day, month = day + calendar.monthrange(first.year, first.month)[1], month - 1
    if month < 0:
        month, year = month + 12, year - 1
    return [year, month, day, hour, minute, second_]


def _format(value: Any) -> str:
    moment, left, layout = _moment(value)
    if layout not in ("", "RFC3339Nano", "RFC3339"):
        raise NoAnswerError(f"time.format: the layout `{layout}` is not supported")
    offset = moment.utcoffset() or timedelta(0)
    minutes, odd = divmod(int(offset.total_seconds()), 60)
    if odd:
        raise NoAnswerError("time.format: an offset of seconds is not supported")
    shown = "Z" if minutes == 0 else f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    fraction = f".{left:09d}".rstrip("0").rstrip(".") if layout != "RFC3339" else ""
    return f"{moment.year:04d}{moment.strftime('-%m-%dT%H:%M:%S')}{fraction}{shown}"


def _duration(text: Any) -> int:
    check(1, text, "string")
    if text in ("0", "+0", "-0"):
        return 0
    if re.search(r"[dwy]", text):
        raise NoAnswerError("time.parse_duration_ns: days, weeks and years are not supported")
    if _DURATION.fullmatch(text) is None:
        raise BuiltinError(f"time: invalid duration {text}")
    total = 0
    for amount, unit in _PIECE.findall(text):
        # each piece by itself is cut to whole nanoseconds
        total += int(Fraction(amount if amount[-1] != "." else amount[:-1]) * _UNITS[unit])
    total = -total if text[0] == "-" else total
    if not _FIRST <= total <= _LAST:
        raise BuiltinError(f"time: invalid duration {text}")
    return total


#: by name
TIMES: Final[dict[str, Callable[..., Any]]] = {
    "time.add_date": _add_date,
    "time.clock": _clock,
    "time.date": _date,
    "time.diff": _diff,
    "time.format": _format,
    "time.parse_duration_ns": _duration,
    "time.parse_rfc3339_ns": _parse_rfc3339,
    "time.weekday": _weekday,
}
