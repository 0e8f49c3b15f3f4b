"""The events behind the numbers: pages for the API, frames for analysis, both at one stated sequence number."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import orjson
import polars as pl

from enrich.errors import BadRequestError, show
from enrich.events.canonical import format_us
from enrich.history.schema import EVENT_COLUMNS

__all__ = [
    "FILTERS",
    "MAX_LIMIT",
    "EventFilter",
    "EventsPage",
    "decode_cursor",
    "encode_cursor",
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
MAX_LIMIT: Final = 1000

_TIMES: Final = ("occurred_at", "recorded_at")
_SELECT: Final = ", ".join(f"epoch_us({c}) AS {c}" if c in _TIMES else c for c in EVENT_COLUMNS)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events: values by filter (see `FILTERS`), and bounds of occurred_at, inclusive, in microseconds."""

    values: Mapping[str, str]
    since_us: int | None = None
    until_us: int | None = None

    @classmethod
    def of(cls, since_us: int | None = None, until_us: int | None = None, **filters: str | None) -> EventFilter:
        """From keywords; a filter that is None does not filter.

        Raises:
            BadRequestError: `invalid_parameter`, a filter that does not exist.
        """
        for name in filters:
            if name not in FILTERS:
                raise BadRequestError(
                    f"no filter {show(name)}", code="invalid_parameter", hint=f"filters: {', '.join(FILTERS)}"
                )
        return cls({n: v for n, v in sorted(filters.items()) if v is not None}, since_us, until_us)

    def where(self) -> tuple[list[str], list[Any]]:
        """Conditions, and the values of their `?`."""
        conditions = [f"{FILTERS[name]} = ?" for name in self.values]
        values: list[Any] = list(self.values.values())
        for sign, bound in ((">=", self.since_us), ("<=", self.until_us)):
            if bound is not None:
                conditions.append(f"occurred_at {sign} make_timestamptz(?)")
                values.append(bound)
        return conditions, values


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
    if not 1 <= limit <= MAX_LIMIT:
        raise BadRequestError(f"limit {show(limit)} is not between 1 and {MAX_LIMIT}", code="invalid_parameter")
    conditions, values = wanted.where()
    if cursor is not None:
        at_seq, occurred_us, seq = decode_cursor(cursor, _tag(wanted), at_seq)
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
        following = encode_cursor(_tag(wanted), at_seq, last["occurred_at"], last["seq"])
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


def _tag(wanted: EventFilter) -> list[Any]:
    return [*(f"{n}={v}" for n, v in wanted.values.items()), wanted.since_us, wanted.until_us]


def encode_cursor(tag: Sequence[Any], at_seq: int, occurred_us: int, seq: int) -> str:
    """Where the page after this row begins; `tag` tells walks with other filters, or of something else, apart."""
    text = orjson.dumps([1, at_seq, occurred_us, seq, binascii.crc32(orjson.dumps(tag))])
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def decode_cursor(cursor: str, tag: Sequence[Any], reached: int) -> tuple[int, int, int]:
    """(seq of the walk, occurred_at, seq of the row) of a cursor.

    Raises:
        BadRequestError: `invalid_cursor`.
    """
    try:
        fields = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        fields = None
    if (
        not isinstance(fields, list)
        or len(fields) != 5
        or not all(type(f) is int and abs(f) < 1 << 62 for f in fields)
        or fields[0] != 1
        or not 0 <= fields[1] <= reached
    ):
        raise BadRequestError(f"cursor {show(cursor)} is none of this API", code="invalid_cursor")
    if fields[4] != binascii.crc32(orjson.dumps(tag)):
        raise BadRequestError(
            "the cursor belongs to a call with other filters",
            code="invalid_cursor",
            hint="repeat the filters of the first page with every cursor",
        )
    return fields[1], fields[2], fields[3]
