"""Histories full of ties, late events, other agents and missing ids, in DuckDB and in memory."""

from __future__ import annotations

from typing import Any, Final

import duckdb
from hypothesis import strategies as st

from enrich.events import format_us
from enrich.events.model import COLUMNS
from enrich.history import schema
from enrich.in_flight import IN_FLIGHT_COLUMNS, REACH_US, InFlight, InFlightQuestion, in_flight_bulk
from enrich.journal import Position

__all__ = ["BASE_US", "LEASE_US", "Answers", "columns_of", "database", "events_of", "fill", "moments"]

BASE_US: Final = 1_780_000_000_000_000
LEASE_US: Final = 1_000
#: every id that a history names, by entity
IDS: Final = {"agent": ("a", "b", "x"), "team": ("t", "u"), "workflow": ("w",), "org": ("o",)}
_FAR: Final = REACH_US + LEASE_US

_offsets = st.one_of(
    st.integers(0, 4 * LEASE_US),
    st.sampled_from([0, 1, LEASE_US - 1, LEASE_US, LEASE_US + 1, 2 * LEASE_US]),
    st.sampled_from([-_FAR, -_FAR + 1, -REACH_US, -REACH_US + 500, -REACH_US + LEASE_US, -_FAR + 2_000]),
)
_amounts = st.one_of(st.none(), st.integers(0, 5), st.sampled_from([2**63 - 1]))


def _maybe(*values: str) -> st.SearchStrategy[str | None]:
    return st.sampled_from([None, *values])


_authority = st.fixed_dictionaries(
    {
        "kind": st.just("authority"),
        "outcome": st.sampled_from(
            ["allowed", "allowed", "approved", "overridden", "required_human", "required_human", "denied", "rejected",
             "timed_out"]
        ),
        "at": _offsets,
        "decision_id": _maybe("d1", "d2", "d3"),
        "agent_id": st.sampled_from(["a", "a", "b", None]),
        "team_id": _maybe("t", "u"),
        "workflow_id": st.just("w"),
        "org_id": _maybe("o"),
        "instance_id": _maybe("i", "j"),
        "declared_amount_minor": _amounts,
        "declared_cost_microusd": _amounts,
        "currency": _maybe("EUR", "USD"),
    }
)  # fmt: skip
_run = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["execution", "execution", "step"]),
        "outcome": st.sampled_from(["succeeded", "cancelled"]),
        "at": _offsets,
        "decision_id": _maybe("d1", "d2", "d3", "d4"),
        "agent_id": st.sampled_from(["a", "b", None]),
        "workflow_id": st.just("w"),
        "instance_id": _maybe("i", "j"),
        "declared_amount_minor": _amounts,
    }
)
#: batches of events as they come, each with its offset from `BASE_US` under `at`
events_of = st.lists(st.lists(st.one_of(_authority, _authority, _run), min_size=1, max_size=4), max_size=12)
moments = st.lists(_offsets, min_size=1, max_size=6)


def columns_of(batch: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """A batch as `InFlight.feed` takes it."""
    rows = [e | {"occurred_at": BASE_US + e["at"], "source": "tests"} for e in batch]
    return {c: [row.get(c) for row in rows] for c in IN_FLIGHT_COLUMNS}


def database() -> duckdb.DuckDBPyConnection:
    """A history's tables, empty."""
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET threads = 1")
    schema.create(con, journal_id="tests", position=Position(0, ""))
    return con


def fill(con: duckdb.DuckDBPyConnection, batches: list[list[dict[str, Any]]]) -> None:
    """The same events in place of those that are there, seqs counted from 1."""
    con.execute("DELETE FROM events")
    names = [c for c in COLUMNS if c not in ("occurred_at", "source", "event_id", "attributes")]
    rows = [
        [format_us(BASE_US + e["at"]), "tests", f"e{n}", *(e.get(c) for c in names), n, format_us(BASE_US)]
        for n, e in enumerate((e for batch in batches for e in batch), 1)
    ]
    if rows:
        con.execute(
            f"INSERT INTO events (occurred_at, source, event_id, {', '.join(names)}, seq, recorded_at)"
            f" VALUES {', '.join(['(' + ', '.join('?' * len(rows[0])) + ')'] * len(rows))}",
            [value for row in rows for value in row],
        )


class Answers:
    """What memory said of one kind of entity, to be held against what DuckDB says of the same moments."""

    def __init__(self, con: duckdb.DuckDBPyConnection, entity: str, lease_us: int = LEASE_US) -> None:
        self._con, self._entity, self._lease_us = con, entity, lease_us
        self._questions: list[InFlightQuestion] = []
        self._given: list[Any] = []

    def ask(self, memory: InFlight, as_of_us: int, seq: int) -> list[Any]:
        """Ask about everybody, as of a moment, with everything up to `seq` fed."""
        ids = IDS[self._entity]
        given = [memory.read(self._entity, id_, as_of_us) for id_ in ids]
        self._questions += [InFlightQuestion(self._entity, id_, as_of_us, seq, self._lease_us) for id_ in ids]
        self._given += given
        return given

    def compare(self) -> None:
        for question, given, found in zip(
            self._questions, self._given, in_flight_bulk(self._con, self._questions), strict=True
        ):
            assert given == found, question
