"""The tables of the DuckDB file that follows the journal, their format version, and the way forward from older ones.

`events` holds every event of the journal up to the stored position, `event_keys` the idempotency keys (which outlive
the rows of voided and erased events), `decisions` every decision's record, `outcomes` what was reported of them,
`history_meta` one row: format, journal id and position. They change in one transaction, so that the file is always some
prefix of the journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import duckdb

from enrich.errors import DataDirError, NewerFormatError, show
from enrich.events.model import COLUMNS, INT_COLUMNS
from enrich.journal.format import Position

__all__ = [
    "DECISION_COLUMNS",
    "EVENT_COLUMNS",
    "FORMAT",
    "MIGRATIONS",
    "OUTCOME_COLUMNS",
    "create",
    "read_format",
    "upgrade",
]

#: the format that this version writes
FORMAT: Final = 3

#: columns of `events` and of `events_at(s)`, in order, with their DuckDB types
EVENT_COLUMNS: Final[Mapping[str, str]] = {
    **{
        c: "TIMESTAMPTZ"
        if c == "occurred_at"
        else "BIGINT"
        if c in INT_COLUMNS
        else "JSON"
        if c == "attributes"
        else "VARCHAR"
        for c in COLUMNS
    },
    "seq": "BIGINT",
    "recorded_at": "TIMESTAMPTZ",
}

_REQUIRED: Final = ("occurred_at", "source", "event_id", "kind", "outcome", "seq", "recorded_at")

#: columns of `decisions`, in order, with their DuckDB types; `body` is the record's, as the journal has it,
#: `shadow` the decision of the shadow policies
DECISION_COLUMNS: Final[Mapping[str, str]] = {
    "seq": "BIGINT NOT NULL",
    "decision_id": "VARCHAR NOT NULL",
    "as_of": "TIMESTAMPTZ NOT NULL",
    "path": "VARCHAR NOT NULL",
    "decision": "VARCHAR NOT NULL",
    "cause": "VARCHAR",
    "agent": "VARCHAR",
    "team": "VARCHAR",
    "workflow": "VARCHAR",
    "org": "VARCHAR",
    "idempotency_key": "VARCHAR",
    "request_hash": "VARCHAR NOT NULL",
    "caller": "VARCHAR",
    "body": "JSON NOT NULL",
    "shadow": "VARCHAR",
}


def _create_decisions(*without: str) -> str:
    return f"CREATE TABLE decisions ({', '.join(f'{c} {t}' for c, t in DECISION_COLUMNS.items() if c not in without)})"



#: columns of `outcomes`, what was reported of decisions, in order, with their DuckDB types
OUTCOME_COLUMNS: Final[Mapping[str, str]] = {
    "seq": "BIGINT NOT NULL",
    "decision_id": "VARCHAR NOT NULL",
    "body": "JSON NOT NULL",
}
_CREATE_OUTCOMES: Final = f"CREATE TABLE outcomes ({', '.join(f'{c} {t}' for c, t in OUTCOME_COLUMNS.items())})"

#: SQL that takes a file of format n to n + 1, by n; run in order, inside one transaction with the new version number
MIGRATIONS: Final[Mapping[int, Sequence[str]]] = {
    1: (_create_decisions("shadow"),),  # journals of that time hold no decisions
    # nobody had shadow policies then, and nothing was reported
    2: ("ALTER TABLE decisions ADD COLUMN shadow VARCHAR", _CREATE_OUTCOMES),
}


def _columns() -> str:
    return ", ".join(f"{c} {t}{' NOT NULL' if c in _REQUIRED else ''}" for c, t in EVENT_COLUMNS.items())


def create(con: duckdb.DuckDBPyConnection, *, journal_id: str, position: Position) -> None:
    """Create the tables of the newest format in an empty file, at the position before the journal's first record.

    No index on any column: an ART index makes the file slow to write and its queries no faster.
    """
    con.begin()
    try:
        con.execute(
            "CREATE TABLE history_meta (format INTEGER NOT NULL, journal_id VARCHAR NOT NULL, seq BIGINT NOT NULL,"
            " hash VARCHAR NOT NULL, pruned_before TIMESTAMPTZ, observed_since TIMESTAMPTZ)"
        )
        con.execute(f"CREATE TABLE events ({_columns()}, void_seq BIGINT)")
        con.execute(
            "CREATE TABLE event_keys (seq BIGINT NOT NULL, occurred_at TIMESTAMPTZ NOT NULL,"
            " key_hi UBIGINT NOT NULL, key_lo UBIGINT NOT NULL,"
            " content_hi UBIGINT NOT NULL, content_lo UBIGINT NOT NULL)"
        )
        con.execute(_create_decisions())
        con.execute(_CREATE_OUTCOMES)
        con.execute(
            "CREATE MACRO events_at(at_seq) AS TABLE SELECT * EXCLUDE (void_seq) FROM events"
            " WHERE events.seq <= at_seq AND (events.void_seq IS NULL OR events.void_seq > at_seq)"
        )
        con.execute("INSERT INTO history_meta VALUES (?, ?, ?, ?, NULL, NULL)", [FORMAT, journal_id, *position])
        con.commit()
    except BaseException:
        con.rollback()
        raise


def read_format(con: duckdb.DuckDBPyConnection) -> int | None:
    """The format version of an open file; None when the file has no tables at all.

    Raises:
        DataDirError: the file is a DuckDB database, but not one of this engine's.
    """
    tables = {row[0] for row in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not tables:
        return None
    if "history_meta" not in tables:
        raise DataDirError(f"the history file holds other tables: {show(', '.join(sorted(tables)))}")
    rows = con.execute("SELECT format FROM history_meta").fetchall()
    if len(rows) != 1:
        raise DataDirError(f"the history file has {show(len(rows))} meta rows instead of one")
    return int(rows[0][0])


def upgrade(
    con: duckdb.DuckDBPyConnection,
    found: int,
    *,
    target: int = FORMAT,
    migrations: Mapping[int, Sequence[str]] = MIGRATIONS,
) -> None:
    """Bring a file of format `found` to `target`, all steps in one transaction.

    Raises:
        NewerFormatError: `found` is newer than `target`.
        DataDirError: there is no way forward from `found`.
    """
    if found > target:
        raise NewerFormatError(
            f"the history file has format {show(found)}, newer than {show(target)}", found=found, supported=target
        )
    missing = [v for v in range(found, target) if v not in migrations]
    if missing:
        raise DataDirError(
            f"the history file has format {show(found)}, which can't be brought forward",
            hint="delete history.duckdb while the engine is stopped: it is rebuilt from the journal",
        )
    if found == target:
        return
    con.begin()
    try:
        for version in range(found, target):
            for statement in migrations[version]:
                con.execute(statement)
        con.execute("UPDATE history_meta SET format = ?", [target])
        con.commit()
    except BaseException:
        con.rollback()
        raise
