"""The history that definitions are compared on where there is none."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from pathlib import Path

import pytest

from enrich import Engine
from enrich.engine import made_up_events
from enrich.events.model import AUTHORITY_OUTCOMES, RUN_OUTCOMES
from enrich.windows import kind
from tests.engine.support import now_us

QUERIES = Path(__file__).parents[2] / "queries"
DAY_US = 86_400_000_000


def test_every_event_is_one_and_the_shipped_sets_agree_with_duckdb_on_them(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "data", queries=QUERIES) as engine:
        events = made_up_events(engine.journal.now_us(), 45 * DAY_US, ["tool", "retries"])
        recorded = engine.record(events)
        assert (recorded.accepted, recorded.rejected_count) == (len(events), 0)
        report = engine.check()
        assert report.differences == ()
        assert report.compared > 1_000


def test_it_holds_what_definitions_go_wrong_on() -> None:
    now = now_us()
    events = made_up_events(now, 45 * DAY_US, ["tool"])
    assert events == made_up_events(now, 45 * DAY_US, ["tool"])
    outcomes = {(e["kind"], e["outcome"]) for e in events}
    runs = {(kind, outcome) for kind in ("execution", "step") for outcome in RUN_OUTCOMES}
    assert outcomes == runs | {("authority", outcome) for outcome in AUTHORITY_OUTCOMES}
    ties = Counter((e["agent_id"], e["occurred_at"]) for e in events)
    assert max(ties.values()) > 1
    assert any("duration_ms" not in e for e in events)
    assert {type(v) for e in events for v in e.get("attributes", {}).values()} == {str, int, bool}


def test_a_compiler_that_is_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine.open(tmp_path / "data", queries=QUERIES) as engine:
        engine.record(made_up_events(engine.journal.now_us(), 45 * DAY_US, []))
        monkeypatch.setattr(kind, "bisect_right", bisect_left)
        assert engine.check().differences
