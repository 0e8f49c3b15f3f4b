"""The events behind the numbers: pages for the API, frames for analysis, both at one stated sequence number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import orjson
import polars as pl

from enrich.events.canonical import format_us
from enrich.history.filters import Filter, check_limit
from enrich.history.schema import EVENT_COLUMNS

__all__ = [
    "FILTERS",
    "EventFilter",
    "EventsPage",
    "events_frame",
    "events_page",
]

#: name of a filter to the column that it compares
FILTERS: Final[Mapping[str, str]] = {
    "agent": "agent_id",
    "team": "team_id",
    "workflow": "workflow_id",
    "org": "org_id",
    "approver": "actor_id",
    "kind": "kind",
    "outcome": "outcome",
}

_TIMES: Final = ("occurred_at", "recorded_at")
_SELECT: Final = ", ".join(f"epoch_us({c}) AS {c}" if c in _TIMES else c for c in EVENT_COLUMNS)


class EventFilter(Filter):
    """Which events."""

    __slots__ = ()
    NAME = "events"
    COLUMNS = FILTERS
    TIME = "occurred_at"


@dataclass(frozen=True, slots=True)
class EventsPage:
    """Events newest first by (occurred_at, seq), each as it was sent plus `seq` and `recorded_at`, nulls left out.

    `next_cursor` is None on the last page; `seq` is the sequence number at which all pages of one walk hold.
    """

    events: Sequence[Mapping[str, Any]]
    next_cursor: str | None
    seq: int


def events_page(
    con: duckdb.DuckDBPyConnection, wanted: EventFilter, *, at_seq: int, cursor: str | None = None, limit: int = 100
) -> EventsPage:
    """A page of the events up to `at_seq`, or up to the seq of the walk that `cursor` continues.

    Raises:
        BadRequestError: `invalid_cursor`, not from this call or from one with other filters; `invalid_parameter`, a
            limit that is not 1 to 1000.
    """
    check_limit(limit)
    conditions, values = wanted.where()
    if cursor is not None:
        at_seq, occurred_us, seq = wanted.decode(cursor, at_seq)
        # The plain bound lets DuckDB skip row groups, which it does not do for a row comparison.
        conditions += ["e.occurred_at <= make_timestamptz(?)", "(e.occurred_at, seq) < (make_timestamptz(?), ?)"]
        values += [occurred_us, occurred_us, seq]
    where = " AND ".join(conditions) or "true"
    rows = con.execute(
        f"SELECT {_SELECT} FROM events_at(?) AS e WHERE {where} ORDER BY e.occurred_at DESC, seq DESC LIMIT ?",
        [at_seq, *values, limit + 1],
    ).fetchall()
    events = [_event(row) for row in rows[:limit]]
    following = None
    if len(rows) > limit:
        last = dict(zip(EVENT_COLUMNS, rows[limit - 1], strict=True))
        following = wanted.encode(at_seq, last["occurred_at"], last["seq"])
    return EventsPage(events, following, at_seq)


def events_frame(con: duckdb.DuckDBPyConnection, wanted: EventFilter, *, at_seq: int) -> pl.DataFrame:
    """All events of the filter up to `at_seq`, ordered by seq.

    Returns:
        The columns of an event in their order, then `seq` (Int64) and `recorded_at`; times Datetime("us", "UTC"),
        numbers Int64, the rest String, `attributes` canonical JSON.
    """
    conditions, values = wanted.where()
    where = " AND ".join(conditions) or "true"
    relation = con.sql(
        f"SELECT {', '.join(EVENT_COLUMNS)} FROM events_at(?) WHERE {where} ORDER BY seq", params=[at_seq, *values]
    )
    frame = pl.from_arrow(relation.to_arrow_table())
    if not isinstance(frame, pl.DataFrame):
        raise TypeError(f"a table became {type(frame)}")
    return frame


def _event(row: Sequence[Any]) -> dict[str, Any]:
    event = {name: value for name, value in zip(EVENT_COLUMNS, row, strict=True) if value is not None}
    for name in _TIMES:
        event[name] = format_us(event[name])
    if "attributes" in event:
        event["attributes"] = orjson.loads(event["attributes"])
    return event
