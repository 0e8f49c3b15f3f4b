"""What was in flight at a decision: fed in order it is what its definition says, and another answer is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.decisions.replay import flight
from enrich.decisions.replay.flight import RollingFlights, SqlFlights, recorded_flights
from enrich.in_flight import IN_FLIGHT_ENTITIES, REACH_US, in_flight_object
from tests.in_flight.model import BASE_US, database, events_of, fill, moments

IDS = {"agent": "a", "team": "t", "workflow": "w", "org": None}
NOTHING = in_flight_object(0, 0, {})
MINUTE_US = 60_000_000


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with database() as made:
        yield made


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=events_of, asked=moments, lease=st.sampled_from([1, 3600]), stretch=st.sampled_from([1, 3, 1_000]))
def test_both_ways_agree_with_each_other_and_notice_what_differs(
    con: duckdb.DuckDBPyConnection, batches: Any, asked: Any, lease: int, stretch: int
) -> None:
    fill(con, batches)
    count = sum(map(len, batches))
    rolling, sql = RollingFlights(con, None), SqlFlights(con, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flight, "_STRETCH", stretch)
        for n, at in enumerate(asked):
            seq, as_of_us = n * count // len(asked), BASE_US + at
            zero = dict.fromkeys(IN_FLIGHT_ENTITIES, NOTHING)
            reasons = sql.check(zero, zero, IDS, as_of_us, seq, lease * 1_000_000)
            assert rolling.check(zero, zero, IDS, as_of_us, seq, lease * 1_000_000) == reasons
            assert bool(sql.check({}, zero, IDS, as_of_us, seq, lease * 1_000_000))
            assert [r.code for r in reasons] in ([], ["in_flight_differs"])
            more = {"org": in_flight_object(1, 0, {})}
            found = rolling.check(more, more, IDS, as_of_us, seq, lease * 1_000_000)
            assert [r.code for r in found] == ["in_flight_differs"]


def test_an_action_that_was_allowed_is_told(con: duckdb.DuckDBPyConnection) -> None:
    one = {
        "kind": "authority", "outcome": "allowed", "at": 0, "decision_id": "d1", "agent_id": "a", "team_id": None,
        "workflow_id": "w", "org_id": None, "instance_id": None, "declared_amount_minor": 7,
        "declared_cost_microusd": None, "currency": "EUR",
    }  # fmt: skip
    fill(con, [[one]])
    for flights in (RollingFlights(con, None), SqlFlights(con, None)):
        right, none = {"agent": in_flight_object(1, 0, {"EUR": 7})}, {"agent": NOTHING}
        assert flights.check(right, ["agent"], IDS, BASE_US + 5, 1, MINUTE_US) == []
        for wrong, flying in ((none, ["agent"]), ({}, ["agent"]), (right, []), ({"agent": {"count": 1}}, ["agent"])):
            [reason] = flights.check(wrong, flying, IDS, BASE_US + 5, 1, MINUTE_US)
            assert reason.code == "in_flight_differs"
        assert flights.check(none, ["agent"], IDS, BASE_US + 60_000_000, 1, MINUTE_US) == []
    pruned = RollingFlights(con, BASE_US - REACH_US)
    assert [r.code for r in pruned.check(right, right, IDS, BASE_US + 5, 1, MINUTE_US)] == ["history_pruned"]
    assert recorded_flights({"agent": {"in_flight": {"count": 1}}, "team": {}, "x": 1}) == {"agent": {"count": 1}}
