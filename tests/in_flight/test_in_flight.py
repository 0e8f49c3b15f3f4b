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


def said(at: int, outcome: str = "allowed", **changes: Any) -> dict[str, Any]:
    made = {"kind": "authority", "outcome": outcome, "at": at, "decision_id": "d", "agent_id": "a", "workflow_id": "w"}
    return made | changes


def ended(at: int, **changes: Any) -> dict[str, Any]:
    made = {"kind": "execution", "outcome": "succeeded", "at": at, "agent_id": "a", "workflow_id": "w"}
    return made | changes


#: what happened, in the order of seqs; then how many are in flight for agent `a` at some moments
L, FAR = LEASE_US, LEASE_US + REACH_US
CASES: dict[str, tuple[list[dict[str, Any]], dict[int, int]]] = {
    "from the very moment until the lease is over": ([said(5)], {4: 0, 5: 1, L + 4: 1, L + 5: 0}),
    "an approval repeats or follows": (
        [said(0, "required_human"), said(10, "approved"), said(20, "approved")],
        {9: 0, 10: 1, 20: 1, L + 19: 1, L + 20: 0},
    ),
    "the later seq wins at one time": ([said(5), said(5, "rejected")], {5: 0}),
    "the later seq wins at one time, the other way round": ([said(5, "rejected"), said(5, "overridden")], {5: 1}),
    "a rejection takes it back, an override gives it again": (
        [said(0), said(10, "rejected"), said(20, "overridden")],
        {9: 1, 10: 0, 19: 0, 20: 1},
    ),
    "a rejection that comes late": ([said(10), said(0, "rejected")], {0: 0, 10: 1}),
    "asking again says neither": ([said(0), said(1, "required_human")], {1: 1}),
    "a run that ended": ([said(0), ended(7, decision_id="d")], {6: 1, 7: 0}),
    "a run that ended before, by its clock": ([said(10), ended(3, decision_id="d")], {10: 0}),
    "what ended stays ended": ([said(0), ended(3, decision_id="d"), said(10, "approved")], {2: 1, 3: 0, 10: 0}),
    "a run's event comes first": ([ended(3, decision_id="d"), said(0)], {2: 1, 3: 0}),
    "twice": ([said(0), ended(3, decision_id="d"), ended(4, decision_id="d")], {2: 1, 3: 0}),
    "a step ends nothing": ([said(0), ended(3, decision_id="d", kind="step")], {3: 1}),
    "another agent's run": ([said(0), ended(3, decision_id="d", agent_id="b")], {3: 1}),
    "a run of nobody's": ([said(0), ended(3, decision_id="d", agent_id=None)], {3: 0}),
    "another agent's word": ([said(0), said(3, "rejected", agent_id="b")], {3: 1}),
    "nobody's word": ([said(0), said(3, "rejected", agent_id=None)], {3: 0}),
    "an instance's end, at that very microsecond": (
        [said(5, instance_id="i"), ended(5, instance_id="i")],
        {5: 0},
    ),
    "an instance's end before": ([said(5, instance_id="i"), ended(4, instance_id="i")], {5: 1}),
    "an instance's end that is still to come": (
        [said(0, instance_id="i"), ended(60, instance_id="i")],
        {0: 1, 59: 1, 60: 0},
    ),
    "an end that is still to come, known first": (
        [ended(60, instance_id="i"), said(0, instance_id="i")],
        {0: 1, 59: 1, 60: 0},
    ),
    "another agent's instance": ([said(0, instance_id="i"), ended(5, instance_id="i", agent_id="b")], {5: 1}),
    "an instance with another decision's run": (
        [said(0, instance_id="i"), ended(5, instance_id="i", decision_id="e")],
        {5: 1},
    ),
    "an instance ended and was allowed again": (
        [said(0, instance_id="i"), ended(5, instance_id="i"), said(6, "approved")],
        {4: 1, 5: 0, 6: 1},
    ),
    "each without a decision is its own": (
        [said(0, decision_id=None), said(0, decision_id=None), said(1, "rejected", decision_id=None)],
        {0: 2, 1: 2, L: 0},
    ),
    "an end seven days before is forgotten": ([ended(-FAR + 50, decision_id="d"), said(0)], {0: 0, 49: 0, 50: 1}),
    "an agent's name seven days before is forgotten": (
        [said(-FAR + 50, "required_human", agent_id="b"), said(0)],
        {49: 0, 50: 1},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_cases(con: duckdb.DuckDBPyConnection, name: str) -> None:
    events, counts = CASES[name]
    fill(con, [events])
    for together in (True, False):
        memory, answers = InFlight(LEASE_US), Answers(con, "agent")
        memory.advance(BASE_US)
        for batch in [events] if together else [[e] for e in events]:
            memory.feed(columns_of(batch))
        for at, count in counts.items():  # by the totals, then by going through the actions
            memory.advance(BASE_US + at)
            assert answers.ask(memory, BASE_US + at, len(events))[0]["count"] == count, at
        for at, count in counts.items():
            assert answers.ask(memory, BASE_US + at, len(events))[0]["count"] == count, at
    answers.compare()


def test_what_is_declared(con: duckdb.DuckDBPyConnection) -> None:
    amounts = [
        said(0, "required_human", declared_amount_minor=400, currency="EUR", declared_cost_microusd=7),
        said(5, "approved"),
        said(9, "approved", declared_amount_minor=300, currency="USD"),
        said(9, decision_id="e", declared_amount_minor=0),
        said(9, decision_id=None, declared_amount_minor=2**63 - 1, currency="JPY", declared_cost_microusd=2**63 - 1),
    ]
    fill(con, [amounts])
    memory, answers = InFlight(LEASE_US), Answers(con, "agent")
    memory.feed(columns_of(amounts))
    seen = [answers.ask(memory, BASE_US + at, len(amounts))[0] for at in (0, 5, 9)]
    answers.compare()
    assert seen[:2] == [
        NOTHING,
        {"count": 1, "declared_amount_minor": 400, "declared_amount_minor_by_currency": {"EUR": 400},
         "declared_cost_microusd": 7},
    ]  # fmt: skip
    # the cost is beyond 64 bits; amounts of three currencies are no one amount
    assert seen[2] == {"count": 3, "declared_amount_minor_by_currency": {"USD": 300, "": 0, "JPY": 2**63 - 1}}
    more = [said(10, decision_id=None, declared_amount_minor=1, currency="JPY")]
    fill(con, [amounts, more])
    memory.feed(columns_of(more))
    assert answers.ask(memory, BASE_US + 10, len(amounts) + 1)[0] == {"count": 4}
    answers.compare()


def test_a_busy_entity_at_another_moment_than_the_present_is_not_gone_through() -> None:
    memory = InFlight(LEASE_US)
    n = 20_001
    columns = columns_of([said(0)]) | {"decision_id": [None]}
    memory.feed({name: values * n for name, values in columns.items()})
    memory.advance(BASE_US + 5)
    assert [memory.read("agent", "a", BASE_US + at) for at in (4, LEASE_US)] == [None, None]
    found = memory.read("agent", "a", BASE_US + 5)
    assert found is not None
    assert found["count"] == n


NOTHING = {
    "count": 0,
    "declared_amount_minor": 0,
    "declared_amount_minor_by_currency": {},
    "declared_cost_microusd": 0,
}
