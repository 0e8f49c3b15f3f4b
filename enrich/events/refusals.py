"""Why an event is refused: the stable codes, and the refusal as a value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from enrich.errors import EventError, show
from enrich.events.model import MAX_STRING

__all__ = ["BAD_CHARACTERS", "REFUSAL_CODES", "Rejection", "Unreadable", "clip", "refuse", "string_problem"]

#: Unicode category Cc, and the surrogates, which no UTF-8 text can hold
BAD_CHARACTERS: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

#: every code that `EventParser` gives, with its meaning; docs/reference/events.md has the same table
REFUSAL_CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "not_an_object": "the event is no object",
        "unknown_field": "a field that events do not have",
        "missing_field": "source, event_id, occurred_at, kind or outcome is absent or null",
        "wrong_type": "a value of another type; a bool or a float is no integer, a number is no string",
        "out_of_range": "an integer below 0 or above 2^63 - 1",
        "invalid_id": "an id that is empty, padded, over 200 characters, or has control characters or lone surrogates",
        "invalid_string": "the same for a string field that is no id",
        "invalid_kind": "kind is none of execution, step, authority",
        "invalid_outcome": "an outcome that this kind of event does not have",
        "invalid_materiality": "materiality is none of LOW, MEDIUM, HIGH",
        "no_entity": "agent_id, team_id, workflow_id and org_id are all absent",
        "reserved_source": "a source name that the engine itself uses",
        "invalid_time": "no RFC 3339 time with an offset, finer than a microsecond, or before 2000",
        "in_future": "occurred_at is further ahead of the engine's clock than max_clock_skew",
        "too_old": "occurred_at is as old as the retention or older",
        "invalid_attributes": "attributes that are not flat, or have a bad key or value, more than 64 keys or 8 KiB",
        "invalid_json": "an NDJSON line is no JSON, or has lone surrogates",
        "invalid_utf8": "an NDJSON line is not UTF-8",
        "duplicate_key": "an object in an NDJSON line has a key twice",
        "too_deep": "an NDJSON line nests deeper than 16",
        "number_not_finite": "an NDJSON line has NaN or Infinity for a number",
        "number_not_exact": "an NDJSON line has a number that neither 64 bits nor a double hold exactly",
        "line_too_long": "an NDJSON line is longer than 256 KiB",
    }
)


@dataclass(frozen=True, slots=True)
class Rejection:
    """One refused event: its index in the input, a code of `REFUSAL_CODES`, the field (None when it is the event as a
    whole), the offending value shortened for a log line, and a message for people."""

    index: int
    code: str
    field: str | None
    value: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What stands in the place of an event that could not even be decoded; the parser refuses it by this code."""

    code: str
    message: str


def clip(value: object) -> str:
    """A value as short text that is cheap and safe to make, whatever the value is."""
    if isinstance(value, bool | float) or value is None:
        return repr(value)
    if isinstance(value, int):
        return repr(int(value)) if value.bit_length() <= 256 else f"an integer of {value.bit_length()} bits"
    if isinstance(value, str):
        return show(str.__str__(value[:200]))[1:-1]
    return type(value).__name__


def refuse(code: str, field: str | None, value: object, why: str) -> EventError:
    """The error for one refused event; `why` completes a sentence that begins with the value."""
    text = clip(value)
    subject = f"{field} `{text}`" if field else f"`{text}`"
    return EventError(f"{subject} {why}", code=code, field=field, value=text)


def string_problem(text: str) -> str | None:
    """Why a text can't be an id, or any other string field; None when it can."""
    if not text:
        return "is empty"
    if len(text) > MAX_STRING:
        return f"is longer than {MAX_STRING} characters"
    if BAD_CHARACTERS.search(text):
        return "has control characters or lone surrogates"
    if text != text.strip():
        return "begins or ends with white space"
    return None
