"""An index that moves forward: at every seq the answers of a list of the events up to there."""

from __future__ import annotations

import random
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.events.model import COLUMNS, INT_COLUMNS
from enrich.windows import RollingIndex, rolling
from tests.windows.check import check_all
from tests.windows.model import PLANS, Model, random_event

RETENTION_US = 500
SPAN_US = 300


def table(rows: list[dict[str, Any]], void: dict[int, int] | None = None) -> duckdb.DuckDBPyConnection:
    """The events with seq 1, 2, ...; `void` says from which seq on one is out."""
    arrays: dict[str, pa.Array] = {}
    for name in COLUMNS:
        values = [e.get(name) for e in rows]
        if name == "occurred_at":
            arrays[name] = pa.array(values, pa.timestamp("us", tz="UTC"))
        else:
            arrays[name] = pa.array(values, pa.int64() if name in INT_COLUMNS else pa.string())
    arrays["seq"] = pa.array(range(1, len(rows) + 1), pa.int64())
    arrays["void_seq"] = pa.array([(void or {}).get(s) for s in range(1, len(rows) + 1)], pa.int64())
    connection = duckdb.connect(":memory:")
    connection.register("rows", pa.table(arrays))
    connection.execute("CREATE TABLE events AS FROM rows")
    return connection


def drawn(rng: random.Random, n: int, extremes: bool = False) -> list[dict[str, Any]]:
    """Events of which some are late and some are not."""
    late = rng.choice((0, 5, SPAN_US))
    rows = [random_event(rng, SPAN_US, 2, extremes) for _ in range(n)]
    return sorted(rows, key=lambda e: e["occurred_at"] + rng.randrange(late + 1))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.booleans(), st.data())
def test_at_every_seq_it_answers_like_a_list(seed: int, extremes: bool, data: Any) -> None:
    rng = random.Random(seed)
    rows = drawn(rng, rng.choice((0, 1, 5, 40, 90)), extremes)
    start = data.draw(st.integers(0, len(rows)))
    steps = sorted(data.draw(st.lists(st.integers(start, len(rows) + 3), max_size=5)))
    void = {s: rng.randrange(s + 1, len(rows) + 4) for s in range(1, len(rows)) if rng.random() < 0.05}
    with pytest.MonkeyPatch.context() as patch, table(rows, void) as connection:
        patch.setattr(rolling, "_STRETCH", rng.choice((1, 7, 20, 65_536)))
        index = RollingIndex(
            PLANS, connection, retention_us=RETENTION_US, at_seq=start, chunk_rows=rng.choice((1, 4, 16, 8_192))
        )
        for seq in (start, *steps):
            index.advance(seq)
            model = Model()
            model.add(rows, 1)
            model.events = [r for r in model.events if r[1] <= seq < void.get(r[1], 10**9)]
            check_all(index, model, [0, rng.randrange(SPAN_US), SPAN_US, 2 * SPAN_US + 400])


def test_events_that_arrive_meanwhile_are_seen_once_it_is_there() -> None:
    rows = drawn(random.Random(3), 40)
    with table(rows) as connection:
        connection.execute("CREATE TABLE known AS FROM events WHERE seq <= 10")
        index = RollingIndex(PLANS, connection, retention_us=RETENTION_US, relation="known", at_seq=4)
        for seq in (7, 10, 10):
            index.advance(seq)
        connection.execute("INSERT INTO known FROM events WHERE seq > 10")
        for seq in (10, 11, 25, 40):
            index.advance(seq)
            model = Model()
            model.add(rows[:seq], 1)
            check_all(index, model, [SPAN_US // 2, SPAN_US])


def test_events_older_than_asked_for_are_left_out() -> None:
    rows = drawn(random.Random(5), 40)
    with table(rows) as connection:
        index = RollingIndex(PLANS, connection, retention_us=RETENTION_US, at_seq=20, oldest_us=100)
        for seq in (20, 40):
            index.advance(seq)
            model = Model()
            model.add(rows[:seq], 1)
            model.events = [r for r in model.events if r[0] >= 100]
            check_all(index, model, [SPAN_US, SPAN_US + 200])


def test_it_never_goes_back() -> None:
    with table(drawn(random.Random(1), 5)) as connection:
        index = RollingIndex(PLANS, connection, retention_us=RETENTION_US, at_seq=3)
        with pytest.raises(ValueError, match="at seq 3 can't go back to 2"):
            index.advance(2)
