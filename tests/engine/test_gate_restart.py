"""Decisions across restarts: signals, records and idempotency keys are the same from whatever is left of the data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from enrich import Engine
from enrich.journal import verify

from .gated import decide, hold, open_gated, request
from .support import DAY_US, event, now_us

AGENTS = ("a", "b", "c")


def state_of(engine: Engine, as_of_us: int) -> Any:
    """What is told of the decisions: contexts at one moment, the list, every record."""
    contexts = []
    for agent in AGENTS:
        for select in (None, ["agent.*"]):
            history = engine.context({"agent": agent, "team": "t"}, as_of=as_of_us, select=select)
            contexts.append({k: v for k, v in history.items() if k != "seq"})
    page = engine.decisions()
    keys = sorted(engine.gate.answered._held.items())
    records = [engine.decision(d["decision_id"]) for d in page.decisions]
    return contexts, page.decisions, records, keys, len(engine.keys), engine.events(limit=1000).events


def make(engine: Engine) -> None:
    engine.record([event(n, agent_id="b", team_id="other") for n in range(3)])
    for i, agent in enumerate(AGENTS * 3):
        decide(engine, request(agent, materiality="LOW"), idempotency_key=f"k{i % 5}-{agent}", caller="x" * (i % 2))
    hold(engine, {"decision": "REQUIRE_HUMAN", "score": 0.1})
    decide(engine, idempotency_key="human")
    hold(engine, "nonsense")
    decide(engine, request("b"), path=("shop", "allow"), idempotency_key="no")
    engine.break_glass.suspend("team", "other", reason="stop")
    assert decide(engine, request("b"), idempotency_key="held").cause == "suspended"


FORGET: list[tuple[str, ...]] = [
    (),
    ("index",),
    ("keys",),
    ("history.duckdb",),
    ("suspensions.json", "definitions.json"),
    ("history.duckdb", "index", "keys", "suspensions.json", "definitions.json"),
]


def test_whatever_is_left_beside_the_journal_decisions_are_the_same(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        make(engine)
        at = now_us() + 1_000_000
        expected = state_of(engine, at)
        assert len(expected[1]) == 12
    for forget in FORGET:
        for name in forget:
            path = tmp_path / "data" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        with open_gated(tmp_path) as engine:
            assert state_of(engine, at) == expected, forget
            assert decide(engine, request("b"), idempotency_key="held").fate == "repeated"
            assert engine.check().differences == ()
    report = verify(tmp_path / "data")
    assert (report.ok, report.problems) == (True, [])


def test_keys_older_than_a_day_are_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_gated(tmp_path) as engine:
        first = decide(engine, idempotency_key="k")
    from enrich.journal import Journal

    later = Journal.now_us
    monkeypatch.setattr(Journal, "now_us", lambda self: later(self) + DAY_US)
    with open_gated(tmp_path) as engine:
        assert len(engine.gate.answered) == 0
        assert decide(engine, idempotency_key="k").decision_id != first.decision_id


def test_an_engine_whose_keys_can_not_be_read_lets_go_of_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_gated(tmp_path) as engine:
        first = decide(engine, idempotency_key="k")

    def broken(*_: object) -> None:
        raise OSError("the disk went away")

    with monkeypatch.context() as patch:
        patch.setattr("enrich.history.History.keyed_decisions", broken)
        with pytest.raises(OSError, match="went away"):
            open_gated(tmp_path)
    with open_gated(tmp_path) as engine:
        assert decide(engine, idempotency_key="k").decision_id == first.decision_id


def test_a_flipped_byte_in_a_decision_is_found(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        decision = decide(engine)
    path = next(p for p in (tmp_path / "data/journal").glob("*.ndjson") if decision.decision_id in p.read_text())
    for before, after in ((b'"decision":"ALLOW"', b'"decision":"DENYY"'), (b'"caller":null', b'"caller":"ab"')):
        text = path.read_bytes()
        assert before in text
        path.write_bytes(text.replace(before, after))
        report = verify(tmp_path / "data")
        assert [p.seq for p in report.problems] == [decision.seq]
        path.write_bytes(text)
    assert verify(tmp_path / "data").ok


def test_decisions_outlive_the_retention_of_their_events(tmp_path: Path) -> None:
    with open_gated(tmp_path, retention_days=1) as engine:
        first = decide(engine)
        with pytest.MonkeyPatch.context() as patched:
            clock = engine.journal._clock
            patched.setattr(engine.journal, "_clock", lambda: clock() + 2 * DAY_US)
            engine.prune()
            assert engine.events().events == []
            assert engine.context({"agent": "a"})["agent"]["known"] is False
            assert engine.decision(first.decision_id)["seq"] == first.seq
