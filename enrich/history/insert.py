"""Events of journal records into `events` and `event_keys`, decisions into `decisions` and
outcomes into `outcomes`, in bulk and natively.

Inline events come as canonical JSON, large batches as Parquet sidecars; DuckDB reads both itself, without the GIL, so
that a request beside it waits for neither.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import groupby
from typing import Final

import duckdb
import pyarrow as pa

from enrich.errors import JournalCorruptError, show
from enrich.events.model import COLUMNS
from enrich.history.packed import packed_table
from enrich.history.records import QueuedRecord
from enrich.history.schema import DECISION_COLUMNS, EVENT_COLUMNS, OUTCOME_COLUMNS

__all__ = ["insert_decisions", "insert_outcomes", "insert_records"]

_NAMES: Final = ", ".join(EVENT_COLUMNS)
_SIDECAR_VALUES: Final = ", ".join(COLUMNS)
_SIDECAR_SEQ: Final = "($seqs::BIGINT[])[file_index::BIGINT + 1] + file_row_number"
_KEY_HALVES: Final = ", ".join(
    f"('0x' || hex({c})[{a}:{b}])::UBIGINT" for c in ("key", "content") for a, b in ((1, 16), (17, 32))
)
#: occurred_at is left out: its text would be parsed again, the number is at hand
_JSON_SHAPE: Final = json.dumps({c: EVENT_COLUMNS[c] for c in COLUMNS[1:]})
_JSON_VALUES: Final = ", ".join(f"e.{c}" for c in COLUMNS[1:])

#: columns of `decisions` that stand in its body under the same name
_BODY_TEXTS: Final = ("decision_id", "path", "decision", "cause", "idempotency_key", "request_hash", "caller")
_BODY_ENTITIES: Final = ("agent", "team", "workflow", "org")


def insert_decisions(con: duckdb.DuckDBPyConnection, records: Sequence[QueuedRecord]) -> None:
    """Insert the decisions among `records` (in journal order) inside the caller's transaction."""
    found = [r for r in records if r.decision is not None and r.packed is not None]
    if not found:
        return
    table = pa.table(
        {
            "seq": pa.array([r.seq for r in found], pa.int64()),
            # as_of is the time of the decision's own event, which is at hand as a number
            "as_of_us": pa.array([_occurred_us(r) for r in found], pa.int64()),
            "line": pa.array([r.decision for r in found], pa.large_binary()).cast(pa.large_string()),
        }
    )
    values = {name: f"line ->> '$.{name}'" for name in _BODY_TEXTS}
    values |= {name: f"line ->> '$.entities.{name}'" for name in _BODY_ENTITIES}
    values |= {"seq": "seq", "as_of": "make_timestamptz(as_of_us)", "body": "line"}
    values["shadow"] = "line ->> '$.shadow.decision'"
    con.register("incoming", table)
    try:
        con.execute(
            f"INSERT INTO decisions ({', '.join(DECISION_COLUMNS)}) SELECT"
            f" {', '.join(values[c] for c in DECISION_COLUMNS)} FROM incoming"
        )
    finally:
        con.unregister("incoming")


def insert_outcomes(con: duckdb.DuckDBPyConnection, records: Sequence[QueuedRecord]) -> None:
    """Insert the reported outcomes among `records` (in journal order) inside the caller's transaction."""
    found = [r for r in records if r.outcome is not None]
    if not found:
        return
    table = pa.table(
        {
            "seq": pa.array([r.seq for r in found], pa.int64()),
            "line": pa.array([r.outcome for r in found], pa.large_binary()).cast(pa.large_string()),
        }
    )
    con.register("incoming", table)
    try:
        con.execute(
            f"INSERT INTO outcomes ({', '.join(OUTCOME_COLUMNS)})"
            " SELECT seq, line ->> '$.decision_id', line FROM incoming"
        )
    finally:
        con.unregister("incoming")


def _occurred_us(record: QueuedRecord) -> int:
    packed = record.packed
    if packed is None or packed.count != 1:
        raise JournalCorruptError(f"decision {show(record.seq)} has no event of its own", seq=record.seq)
    return int.from_bytes(packed.occurred_us, sys.byteorder, signed=True)


def insert_records(con: duckdb.DuckDBPyConnection, records: Sequence[QueuedRecord]) -> int:
    """Insert all events of `records` (in journal order) inside the caller's transaction.

    Returns:
        How many events were inserted.

    Raises:
        JournalCorruptError: a record's events are missing, or are not as many as it says.
    """
    total = 0
    for in_sidecars, group in groupby(filter(_has_events, records), key=lambda r: r.sidecar is not None):
        insert = _insert_sidecars if in_sidecars else _insert_inline
        total += insert(con, list(group))
    return total


def _has_events(record: QueuedRecord) -> bool:
    if record.sidecar is not None or record.packed is not None:
        return True
    if record.type == "events" and not record.pruned:
        raise JournalCorruptError(f"record {show(record.seq)} has no events", seq=record.seq)
    return False


def _insert_inline(con: duckdb.DuckDBPyConnection, records: Sequence[QueuedRecord]) -> int:
    table = packed_table([(r.seq, r.at_us, r.packed) for r in records if r.packed is not None])
    con.register("incoming", table)
    try:
        con.execute(
            f"INSERT INTO events ({_NAMES}) SELECT make_timestamptz(occurred_us), {_JSON_VALUES}, seq,"
            f" make_timestamptz(at_us) FROM (SELECT from_json(line, '{_JSON_SHAPE}') AS e, occurred_us, seq, at_us"
            " FROM incoming)"
        )
        con.execute(
            "INSERT INTO event_keys SELECT seq, make_timestamptz(occurred_us), key_hi, key_lo, content_hi, content_lo"
            " FROM incoming"
        )
    finally:
        con.unregister("incoming")
    return int(table.num_rows)


def _insert_sidecars(con: duckdb.DuckDBPyConnection, records: Sequence[QueuedRecord]) -> int:
    """A sidecar holds exactly its record's events in seq order: the seq is that of the record plus the row's number."""
    paths = [str(r.sidecar) for r in records]
    found = con.execute("SELECT num_rows FROM parquet_file_metadata($paths)", {"paths": paths}).fetchall()
    for record, (rows,) in zip(records, found, strict=True):
        if rows != record.count:
            raise JournalCorruptError(
                f"sidecar of record {show(record.seq)} has {show(rows)} events, the record says {show(record.count)}",
                seq=record.seq,
            )
    values = {"paths": paths, "seqs": [r.seq for r in records]}
    con.execute(
        f"INSERT INTO events ({_NAMES}) SELECT {_SIDECAR_VALUES}, {_SIDECAR_SEQ},"
        " make_timestamptz(($ats::BIGINT[])[file_index::BIGINT + 1]) FROM read_parquet($paths)",
        {**values, "ats": [r.at_us for r in records]},
    )
    con.execute(
        f"INSERT INTO event_keys SELECT {_SIDECAR_SEQ}, occurred_at, {_KEY_HALVES} FROM read_parquet($paths)", values
    )
    return sum(r.count for r in records)
