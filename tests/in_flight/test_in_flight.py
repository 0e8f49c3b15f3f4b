"""What is in flight: in memory as DuckDB has it, at every moment, however the events come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.in_flight import IN_FLIGHT_ENTITIES, REACH_US, InFlight

from .model import BASE_US, LEASE_US, Answers, columns_of, database, events_of, fill, moments

quick = settings(max_examples=90, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
entities = st.sampled_from(("agent", *IN_FLIGHT_ENTITIES))


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with database() as made:
        yield made


@quick
@given(batches=events_of, asked=moments, lease_us=st.sampled_from([LEASE_US, 1, 3 * LEASE_US]), entity=entities)
def test_memory_says_what_duckdb_says_at_any_moment(
    con: duckdb.DuckDBPyConnection, batches: Any, asked: Any, lease_us: int, entity: str
) -> None:
    fill(con, batches)
    memory, answers, now_us, seq = InFlight(lease_us), Answers(con, entity, lease_us), BASE_US, 0
    for i, batch in enumerate(batches):
        memory.feed(columns_of(batch))
        seq += len(batch)
        now_us = max(now_us, BASE_US + asked[i % len(asked)])
        memory.advance(now_us)  # as the engine does, so that most answers come from the totals
        answers.ask(memory, now_us, seq)
    for at in asked:
        answers.ask(memory, BASE_US + at, seq)
    answers.compare()


@quick
@given(batches=events_of, asked=moments, entity=entities)
def test_what_is_let_go_of_is_never_missed(
    con: duckdb.DuckDBPyConnection, batches: Any, asked: Any, entity: str
) -> None:
    fill(con, batches)
    memory, answers, now_us, seq = InFlight(LEASE_US, LEASE_US), Answers(con, entity), BASE_US, 0
    for i, batch in enumerate(batches):
        memory.feed(columns_of(batch))
        seq += len(batch)
        now_us += abs(asked[i % len(asked)]) % (2 * LEASE_US)
        while memory.step(now_us, 1):
            pass
        answers.ask(memory, now_us, seq)
    memory.step(now_us)
    fresh = InFlight(LEASE_US, LEASE_US)
    fresh.load(con, now_us)
    for at in (now_us - LEASE_US, now_us - LEASE_US // 2, now_us, now_us + 1, now_us + 2 * LEASE_US):
        assert answers.ask(memory, at, seq) == answers.ask(fresh, at, seq)
    answers.compare()
    for at in (now_us - LEASE_US - 1, now_us - 10 * LEASE_US):
        assert memory.read(entity, "a", at) is None
    while memory.step(now_us + 2 * REACH_US, 1):
        pass
    assert memory.stats() == {"decisions": 0, "instances": 0, "entities": 0, "wakes": 0}
