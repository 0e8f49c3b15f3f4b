"""Every answer against a list of rows, over random events, splits, moments, merges and restarts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.windows import Index, SavedPosition, bursts, columns, located, merge
from tests.windows.check import check_all
from tests.windows.model import PLANS, Model, batch, random_event

RETENTION_US = 500


@pytest.fixture(params=[2_048, 0, 3], ids=["sliced", "structured", "mixed"])
def slice_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Also with limits so low that the structures of hot entities answer for a handful of rows."""
    for module in (columns, located, bursts):
        monkeypatch.setattr(module, "SLICE", request.param)
    monkeypatch.setattr(bursts, "ROWS_PER_PIECE", 64 if request.param == 2_048 else 0)
    monkeypatch.setattr(merge, "MAX_BLOCKS", 1 if request.param else 2)
    monkeypatch.setattr(merge, "FLUSH_TAIL", 4)
    return int(request.param)


@pytest.mark.usefixtures("slice_rows")
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.integers(0, 2**32), st.sampled_from(["late", "in order", "all at once"]), st.booleans())
def test_answers_are_those_of_a_list(
    tmp_path_factory: pytest.TempPathFactory, data: Any, seed: int, order: str, extremes: bool
) -> None:
    rng = random.Random(seed)
    steps = data.draw(st.lists(st.sampled_from(["tail", "block", "duckdb", "merge", "save"]), min_size=1, max_size=8))
    span = {"late": 300, "in order": 300, "all at once": 3}[order]
    index = Index(PLANS, retention_us=RETENTION_US)
    model, seq = Model(), 1
    for step in steps:
        if step == "merge":
            index.merge_step()
        elif step == "save":
            directory = tmp_path_factory.mktemp("index")
            position = SavedPosition("j", seq - 1, "h")
            index.save(directory, position, "c")
            index = Index(PLANS, retention_us=RETENTION_US)
            assert index.load(directory, "c") == position
        else:
            events = [random_event(rng, span, 2, extremes) for _ in range(rng.randrange(1, 16))]
            if order == "in order":
                events.sort(key=lambda e: e["occurred_at"])
            index._block_rows = 10**9 if step == "tail" else 1
            index._duckdb_rows = 1 if step == "duckdb" else 10**9
            index.link(index.prepare(batch(events)), seq)
            model.add(events, seq)
            seq += len(events)
    check_all(index, model, [0, span // 3, rng.randrange(span), span, 2 * span + 400])


def test_an_entity_without_events_is_not_located() -> None:
    index = Index(PLANS, retention_us=RETENTION_US)
    assert index.locate("agent", "a0", 100, [10]) is None
    index.link(index.prepare(batch([random_event(random.Random(1), 10, 1) | {"agent_id": "a0", "occurred_at": 50}])), 1)
    assert index.locate("agent", "a0", 49, [10]) is None
    found = index.locate("agent", "a0", 50, [10])
    assert found is not None
    assert found.known
    later = index.locate("agent", "a0", 50 + RETENTION_US, [10])
    assert later is not None
    assert not later.known


def test_squares_and_sums_beyond_64_bits_are_exact(tmp_path: Path) -> None:
    top = 2**63 - 1
    index = Index(PLANS, retention_us=RETENTION_US)
    for seq, rows in ((1, 1), (2, 300), (302, 600)):
        events = [
            random_event(random.Random(i), 10, 1) | {"agent_id": "a0", "cost_microusd": top, "amount_minor": top}
            for i in range(rows)
        ]
        index.link(index.prepare(batch(events)), seq)
    for _ in range(2):
        found = index.locate("agent", "a0", 100, [1_000])
        assert found is not None
        totals = [a - b for a, b in zip(found.end_record, found.start_records[0], strict=True)]
        assert totals[6:] == [901 * top, -901 * top, 901 * top * top]
        index.save(tmp_path, SavedPosition("j", 901, "h"), "c")
        index = Index(PLANS, retention_us=RETENTION_US)
        assert index.load(tmp_path, "c") is not None


def test_what_is_older_than_asked_for_goes_with_a_merge() -> None:
    index = Index(PLANS, retention_us=RETENTION_US, block_rows=1, duckdb_rows=10**9)
    model, seq, rng = Model(), 1, random.Random(3)
    for _ in range(6):
        events = [random_event(rng, 300, 2) for _ in range(20)]
        index.link(index.prepare(batch(events)), seq)
        model.add([e for e in events if e["occurred_at"] >= 100], seq)
        model.events = [(t, s, e) for t, s, e in model.events if t >= 100]
        seq += 20
    assert index.merge_step(oldest_us=100)
    by_seq = {id(e): s for _, s, e in model.events}
    assert len(by_seq) == len(model.events)
    for entity in ("agent",):
        found = index.locate(entity, "a0", 300, [10**6])
        assert found is not None
        assert found.first_us >= 100
        assert found.end_record[2] - found.start_records[0][2] == len(
            [e for _, _, e in model.events if e["agent_id"] == "a0" and e["cost_microusd"] is not None]
        )
