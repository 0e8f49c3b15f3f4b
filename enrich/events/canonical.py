"""The canonical form of one event.

Canonical is UTF-8 JSON: keys in code point order, no spaces, null fields left out, `occurred_at` as RFC 3339 in UTC
with exactly six digits of the second. These bytes are what the journal stores and what content hashes are taken of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from enrich.errors import EventError, show
from enrich.events._struct import EventStruct, encoder, structs_of
from enrich.events.model import COLUMNS, EventBatch
from enrich.events.times import format_us, parse_rfc3339_us

__all__ = [
    "canonical_event",
    "canonical_events",
    "event_from_canonical",
    "format_us",
    "parse_rfc3339_us",
]

_FIELDS: Final = frozenset(COLUMNS)


def canonical_event(row: Mapping[str, Any]) -> bytes:
    """The canonical bytes of a validated row: a mapping of column names, `occurred_at` in int microseconds."""
    out = {k: v for k, v in row.items() if v is not None}
    out["occurred_at"] = format_us(out["occurred_at"])
    return orjson.dumps(out, option=orjson.OPT_SORT_KEYS)


def canonical_events(batch: EventBatch, start: int = 0) -> list[bytes]:
    """The canonical bytes of each event of a batch from index `start` on, attributes as they are kept."""
    if batch.canonical is not None:
        return batch.canonical[start:] if start else batch.canonical
    columns = {c: v[start:] for c, v in batch.columns.items()} if start else batch.columns
    structs: list[EventStruct] = structs_of(columns)
    return list(map(encoder().encode, structs))


def event_from_canonical(event: Mapping[str, Any]) -> dict[str, Any]:
    """The row (column names, `occurred_at` in int microseconds, nulls left out) of a decoded canonical event.

    Raises:
        EventError: `unknown_field` or `invalid_time` when this is no event that this version wrote.
    """
    if not _FIELDS.issuperset(event):
        name = min(str(k) for k in event if k not in _FIELDS)
        raise EventError(f"{show(name)} is no field of an event", code="unknown_field", field=name)
    row = dict(event)
    row["occurred_at"] = parse_rfc3339_us(row["occurred_at"])
    return row
