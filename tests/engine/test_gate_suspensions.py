"""A suspension against the gate: no ALLOW has a seq above that of an active suspension that covers it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from enrich import Engine

from .gated import decide, event_counts, hold, open_gated, request
from .support import event


@pytest.mark.parametrize(
    ("scope", "id_"), [("all", None), ("agent", "a"), ("team", "t"), ("workflow", "w"), ("org", "o")]
)
def test_one_that_comes_while_the_policy_is_asked_turns_the_decision(
    tmp_path: Path, scope: str, id_: str | None
) -> None:
    with open_gated(tmp_path) as engine:
        held = hold(engine, {"decision": "ALLOW"})
        held.gate.clear()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(decide, engine, request(org_id="o"))
            assert held.arrived.acquire(timeout=10)
            suspension = engine.break_glass.suspend(scope, id_, reason="stop")
            held.gate.set()
            decision = waiting.result()
        assert (decision.decision, decision.cause) == ("DENY", "suspended")
        assert suspension.seq is not None
        assert decision.seq > suspension.seq
        assert len(held.seen) == 1
        [body] = _bodies(engine)
        assert body["input"]["history"]["suspended"] is True
        assert [s["scope"] for s in body["suspensions"]] == [scope]
        assert event_counts(engine) == {"allowed": 0, "denied": 1, "asked": 0}


def test_a_suspended_agent_is_refused_without_asking_the_policy(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        held = hold(engine, {"decision": "ALLOW"})
        engine.break_glass.suspend("agent", "a", reason="stop")
        assert decide(engine).cause == "suspended"
        assert held.seen == []
        assert decide(engine, request("b")).decision == "ALLOW"
        engine.break_glass.lift("agent", "a")
        assert decide(engine).decision == "ALLOW"


def test_a_rule_that_is_true_or_false_is_refused_by_false_whatever_its_name(tmp_path: Path) -> None:
    policy = "package shop\n\ndefault permit := false\n\npermit if input.identity.actor_id\n\ngiven := input.given\n"
    with open_gated(tmp_path, policy, decision_paths=("permit", "given")) as engine:
        assert decide(engine, path=("shop", "permit")).verdict.result is True
        engine.break_glass.suspend("agent", "a", reason="stop")
        assert decide(engine, path=("shop", "permit")).verdict.result is False
        assert decide(engine, path=("shop", "given")).verdict.result == {"decision": "DENY"}


def test_who_leaves_out_the_id_that_would_tell_is_refused(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        hold(engine, {"decision": "ALLOW"})
        engine.break_glass.suspend("team", "other", reason="stop")
        assert decide(engine, request(team=None)).cause == "suspended"
        assert decide(engine, request()).decision == "ALLOW"


def test_a_team_that_becomes_known_while_the_policy_is_asked_counts(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        engine.break_glass.suspend("team", "bad", reason="stop")
        held = hold(engine, {"decision": "ALLOW"})
        held.gate.clear()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(decide, engine)
            assert held.arrived.acquire(timeout=10)
            engine.record([event(1, team_id="bad")])
            held.gate.set()
            assert waiting.result().cause == "suspended"


def test_the_race_as_it_comes(tmp_path: Path) -> None:
    """Deciders at full speed against suspensions that come and go: judged by the journal alone."""
    with open_gated(tmp_path, fsync=False) as engine:
        hold(engine, {"decision": "ALLOW"})
        stop = threading.Event()

        def decider(i: int) -> None:
            while not stop.is_set():
                decide(engine, request(f"a{i}"))

        with ThreadPoolExecutor(4) as pool:
            deciders = [pool.submit(decider, i) for i in range(4)]
            for _ in range(40):
                engine.break_glass.suspend("team", "t", reason="stop")
                decide(engine, request("between"))
                engine.break_glass.lift("team", "t")
            stop.set()
            for one in deciders:
                one.result()
        active, seen = False, {"ALLOW": 0, "DENY": 0}
        for record in engine.journal.read():
            body = record.body or {}
            if record.type == "suspension":
                active = body["action"] == "suspend"
            elif record.type == "decision":
                assert not (active and body["decision"] != "DENY")
                seen[body["decision"]] += 1
        assert seen["ALLOW"] > 0
        assert seen["DENY"] >= 40


def _bodies(engine: Engine) -> list[dict[str, Any]]:
    return [dict(r.body or {}) for r in engine.journal.read() if r.type == "decision"]
