"""The precise check of one event: the judge of what is accepted, and the only place that names a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

import orjson

from enrich.errors import EventError
from enrich.events.model import (
    AUTHORITY_OUTCOMES,
    COLUMNS,
    INT64_MAX,
    INT_COLUMNS,
    KINDS,
    MATERIALITIES,
    MAX_ATTRIBUTE_BYTES,
    MAX_ATTRIBUTES,
    MIN_TIME_US,
    RUN_OUTCOMES,
    STRING_COLUMNS,
)
from enrich.events.refusals import BAD_CHARACTERS, Unreadable, refuse, string_problem
from enrich.events.times import datetime_us, format_us, parse_rfc3339_us

__all__ = ["Bounds", "check_event"]

_FIELDS: Final = frozenset(COLUMNS)
_REQUIRED: Final = ("source", "event_id", "occurred_at", "kind", "outcome")
_ENTITIES: Final = ("agent_id", "team_id", "workflow_id", "org_id")
_IDS: Final = frozenset({"source", *(c for c in STRING_COLUMNS if c.endswith("_id"))})
_INT64_MIN: Final = -(2**63)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Accepted are `MIN_TIME_US` <= occurred_at, `oldest_us` < occurred_at <= `newest_us`, no source in `reserved`."""

    oldest_us: int
    newest_us: int
    reserved: frozenset[str]


def check_event(event: object, bounds: Bounds) -> dict[str, Any]:
    """One event as a validated row: its non-null columns, occurred_at in int microseconds, nothing of the caller's.

    Raises:
        EventError: with a code of `REFUSAL_CODES`, `field` and `value`.
    """
    if isinstance(event, Unreadable):
        raise EventError(event.message, code=event.code)
    if not isinstance(event, Mapping):
        raise refuse("not_an_object", None, event, "is no object")
    for name in event:
        if name not in _FIELDS:
            raise refuse("unknown_field", _field_name(name), name, "is no field of an event")
    for name in _REQUIRED:
        if event.get(name) is None:
            raise refuse("missing_field", name, None, "is absent")
    row: dict[str, Any] = {"occurred_at": _time_us(event["occurred_at"], bounds)}
    for name in STRING_COLUMNS:
        if (value := event.get(name)) is not None:
            row[name] = _string(name, value)
    for name in INT_COLUMNS:
        if (value := event.get(name)) is not None:
            row[name] = _integer(name, value)
    _check_meaning(row, bounds)
    if (value := event.get("attributes")) is not None and (attributes := _attributes(value)):
        row["attributes"] = attributes
    return row


def _field_name(name: object) -> str:
    text = name if isinstance(name, str) else type(name).__name__
    return BAD_CHARACTERS.sub("?", text[:80])


def _time_us(value: object, bounds: Bounds) -> int:
    if isinstance(value, datetime):
        exact = datetime_us(value)
        if exact is None:
            raise refuse(
                "invalid_time",
                "occurred_at",
                value.isoformat(),
                "is naive, finer than a microsecond or outside the years 1 to 9999",
            )
        us, value = exact, format_us(exact)
    elif isinstance(value, str):
        us = parse_rfc3339_us(str.__str__(value))
    else:
        raise refuse("wrong_type", "occurred_at", value, "is no RFC 3339 string")
    if us < MIN_TIME_US:
        raise refuse("invalid_time", "occurred_at", value, "is before 2000")
    if us > bounds.newest_us:
        raise refuse("in_future", "occurred_at", value, f"is after {format_us(bounds.newest_us)}")
    if us <= bounds.oldest_us:
        raise refuse("too_old", "occurred_at", value, f"is not after {format_us(bounds.oldest_us)}")
    return us


def _string(name: str, value: object) -> str:
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, str):
        raise refuse("wrong_type", name, value, "is no string")
    text = str.__str__(value)
    if problem := string_problem(text):
        raise refuse("invalid_id" if name in _IDS else "invalid_string", name, text, problem)
    return text


def _integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse("wrong_type", name, value, "is no integer")
    if not 0 <= value <= INT64_MAX:
        raise refuse("out_of_range", name, value, "is not between 0 and 2^63 - 1")
    return int(value)


def _check_meaning(row: Mapping[str, Any], bounds: Bounds) -> None:
    kind, outcome = row["kind"], row["outcome"]
    if kind not in KINDS:
        raise refuse("invalid_kind", "kind", kind, f"is none of {', '.join(KINDS)}")
    outcomes = AUTHORITY_OUTCOMES if kind == "authority" else RUN_OUTCOMES
    if outcome not in outcomes:
        raise refuse("invalid_outcome", "outcome", outcome, f"is no outcome of {kind}: {', '.join(outcomes)}")
    if (materiality := row.get("materiality")) is not None and materiality not in MATERIALITIES:
        raise refuse("invalid_materiality", "materiality", materiality, f"is none of {', '.join(MATERIALITIES)}")
    if not any(name in row for name in _ENTITIES):
        raise refuse("no_entity", None, row["event_id"], f"names none of {', '.join(_ENTITIES)}")
    if row["source"] in bounds.reserved:
        raise refuse("reserved_source", "source", row["source"], "is a name that the engine itself uses")


def _attributes(value: object) -> dict[str, str | int | bool]:
    def bad(value: object, why: str) -> Exception:
        return refuse("invalid_attributes", "attributes", value, why)

    if not isinstance(value, Mapping):
        raise bad(value, "is no object")
    if len(value) > MAX_ATTRIBUTES:
        raise bad(value, f"has more than {MAX_ATTRIBUTES} keys")
    out: dict[str, str | int | bool] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise bad(key, "is no string, and so no key")
        if problem := string_problem(str.__str__(key)):
            raise bad(key, f"(a key) {problem}")
        if isinstance(item, Enum):
            item = item.value
        if isinstance(item, str):
            text = str.__str__(item)
            if BAD_CHARACTERS.search(text):
                raise bad(text, f"(of key {key}) has control characters or lone surrogates")
            out[str.__str__(key)] = text
        elif isinstance(item, bool):
            out[str.__str__(key)] = item
        elif isinstance(item, int):
            if not _INT64_MIN <= item <= INT64_MAX:
                raise bad(item, f"(of key {key}) does not fit in 64 bits")
            out[str.__str__(key)] = int(item)
        else:
            raise bad(item, f"(of key {key}) is no string, integer or bool")
    if len(orjson.dumps(out)) > MAX_ATTRIBUTE_BYTES:
        raise bad(value, f"take more than {MAX_ATTRIBUTE_BYTES} bytes as JSON")
    return out
