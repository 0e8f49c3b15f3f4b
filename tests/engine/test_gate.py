"""The gate: limits hold to the last decision, whatever is not an ALLOW is a refusal, and suspensions win every race."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from enrich.decisions import Defined, Failed, Undefined
from enrich.decisions.protocol import TIMED_OUT
from enrich.engine.results import Decision, Evaluation
from enrich.errors import BadRequestError, BusyError, EnrichError, IndexNotReadyError, NotFoundError
from enrich.settings import Settings

from .gated import AT_MOST, PATH, decide, event_counts, hold, open_gated, request, write_policy
from .support import FaultyDisk

LIMIT = 10
THREADS = 64


def _at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    ready = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        ready.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_an_agent_is_allowed_exactly_as_often_as_its_policy_says(tmp_path: Path) -> None:
    with open_gated(tmp_path, AT_MOST.format(agent=LIMIT, team=1000)) as engine:
        decisions = _at_once([partial(decide, engine)] * THREADS)
        assert [d.decision for d in decisions].count("ALLOW") == LIMIT
        assert all(d.cause is None for d in decisions)
        assert event_counts(engine) == {"allowed": LIMIT, "denied": THREADS - LIMIT, "asked": 0}
        assert len({d.decision_id for d in decisions}) == len({d.seq for d in decisions}) == THREADS
        assert decide(engine).decision == "DENY"


def test_a_team_is_allowed_exactly_as_often_whoever_of_it_asks(tmp_path: Path) -> None:
    with open_gated(tmp_path, AT_MOST.format(agent=1000, team=LIMIT)) as engine:
        calls = [partial(decide, engine, request(f"agent-{i}")) for i in range(THREADS)]
        decisions = _at_once(calls)
        assert [d.decision for d in decisions].count("ALLOW") == LIMIT
        assert engine.context({"team": "t"})["team"]["last_1h"]["team_allowed"] == LIMIT


def test_those_who_share_nothing_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        hold(engine, {"decision": "ALLOW"}).sleep_seconds = 0.05
        began = time.monotonic()
        apart = _at_once([partial(decide, engine, _alone(i)) for i in range(16)])
        seconds = time.monotonic() - began
        assert all(d.decision == "ALLOW" for d in apart)
        assert seconds < 16 * 0.05 / 2
        began = time.monotonic()
        _at_once([partial(decide, engine, _alone(0))] * 8)
        assert time.monotonic() - began >= 8 * 0.05


def _alone(i: int) -> dict[str, Any]:
    document = request(f"agent-{i}", f"team-{i}")
    document["instance"]["workflow_id"] = f"workflow-{i}"
    return document


def test_the_next_context_has_seen_the_decision(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        hold(engine, lambda asked: Defined(asked["instance"]["answer"]))
        counted = {"allowed": 0, "denied": 0, "asked": 0}
        for name, answer in (("allowed", "ALLOW"), ("asked", "REQUIRE_HUMAN"), ("denied", "DENY"), ("allowed", True)):
            decision = decide(engine, request(answer=answer))
            counted[name] += 1
            assert event_counts(engine) == counted
            assert engine.context({"agent": "a"})["seq"] >= decision.seq
            assert engine.durable_seq >= decision.seq


@pytest.mark.parametrize(
    ("outcome", "cause"),
    [
        (Undefined(has_rules=True), "evaluation_undefined"),
        (Undefined(has_rules=False), "evaluation_undefined"),
        (Failed("eval_conflict_error", "two values"), "evaluation_failed"),
        (Failed(TIMED_OUT, "too slow"), "evaluation_timeout"),
        (Defined(None), "malformed_decision"),
        (Defined("allow"), "malformed_decision"),
        (Defined({"decision": "ALLOWED"}), "malformed_decision"),
        (Defined({"decision": "ALLOW", "n": 2**70}), "malformed_decision"),
        (Defined({"decision": "ALLOW", "n": float("nan")}), "malformed_decision"),
        (Defined({"decision": "ALLOW", "text": "\ud800"}), "malformed_decision"),
        (RuntimeError("garbage"), "evaluation_failed"),
    ],
)
def test_whatever_is_not_clearly_a_decision_is_refused_and_recorded(tmp_path: Path, outcome: Any, cause: str) -> None:
    def answer(asked: Any) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with open_gated(tmp_path) as engine:
        hold(engine, answer)
        for path, shape in ((PATH, {"decision": "DENY"}), (("shop", "allow"), False)):
            refused = decide(engine, path=path)
            assert (refused.decision, refused.cause, refused.outcome.value) == ("DENY", cause, shape)
            assert refused.verdict.warning is not None
            assert refused.verdict.warning["code"] == cause
        assert event_counts(engine)["denied"] == 2
        records = [r for r in engine.journal.read() if r.type == "decision"]
        assert [(r.body or {})["cause"] for r in records] == [cause, cause]


def test_a_policy_that_does_not_end_is_refused_before_the_deadline(tmp_path: Path) -> None:
    with open_gated(tmp_path, _SLOW, deadline_ms=700) as engine:
        began = time.monotonic()
        refused = decide(engine)
        assert (refused.decision, refused.cause) == ("DENY", "evaluation_timeout")
        assert time.monotonic() - began < 5


_SLOW = """\
package shop

decision := {"decision": "ALLOW"} if {
    count([1 | some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); some k in [i, j]]) > 0
}
"""


def test_a_clock_that_lies_behind_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_gated(tmp_path) as engine:
        decide(engine)
        clock = engine.journal._clock
        monkeypatch.setattr(engine.journal, "_clock", lambda: clock() - 3_600_000_000)
        held = hold(engine)
        refused = decide(engine)
        assert (refused.decision, refused.cause) == ("DENY", "history_unavailable")
        assert held.seen == []
        assert event_counts(engine) == {"allowed": 1, "denied": 1, "asked": 0}


def test_past_the_deadline_nothing_is_appended(tmp_path: Path) -> None:
    with open_gated(tmp_path, max_waiting=10_000) as engine:
        held = hold(engine, {"decision": "ALLOW"})
        head = engine.journal.head
        with pytest.raises(BusyError):
            decide(engine, deadline=time.monotonic() - 1)
        held.sleep_seconds = 0.2
        with pytest.raises(BusyError, match="in time"):
            decide(engine, deadline=time.monotonic() + 0.1)
        held.gate.clear()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(decide, engine)
            assert held.arrived.acquire(timeout=10)
            with pytest.raises(BusyError, match="same entity"):
                decide(engine, deadline=time.monotonic() + 0.05)
            assert engine.journal.head == head
            held.gate.set()
            assert first.result().decision == "ALLOW"
        assert event_counts(engine)["allowed"] == 1


def test_the_queue_before_a_busy_entity_is_bounded(tmp_path: Path) -> None:
    with open_gated(tmp_path, decision_queue=1) as engine:
        held = hold(engine, {"decision": "ALLOW"})
        held.gate.clear()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(decide, engine)
            assert held.arrived.acquire(timeout=10)
            second = pool.submit(decide, engine)
            while engine.gate.waiting < 1:
                time.sleep(0.001)
            with pytest.raises(BusyError):
                decide(engine)
            held.gate.set()
            assert {first.result().decision, second.result().decision} == {"ALLOW"}


def test_a_journal_that_can_not_be_written_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FaultyDisk.put_in(monkeypatch)
    with open_gated(tmp_path) as engine:
        disk.full = True
        with pytest.raises(EnrichError) as caught:
            decide(engine)
        assert (caught.value.error_code, caught.value.status) == ("journal_full", 503)
        disk.full = False
        assert event_counts(engine)["allowed"] == 0
        assert decide(engine).decision == "ALLOW"


def test_no_answer_leaves_before_its_record_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FaultyDisk.put_in(monkeypatch)
    engine = open_gated(tmp_path)
    disk.close_gate()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(decide, engine)
        assert disk.arrived.wait(10)
        time.sleep(0.05)
        assert not waiting.done()
        assert event_counts(engine)["allowed"] == 1  # counted, and others need not wait for the disk
        disk.broken = True
        disk.gate.set()
        with pytest.raises(EnrichError) as caught:
            waiting.result()
        assert (caught.value.error_code, caught.value.status) == ("journal_failed", 503)
    with pytest.raises(EnrichError):
        decide(engine)
    with pytest.raises(EnrichError):
        engine.close()


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({}, "missing_agent"),
        ({"identity": {"actor_id": None}}, "missing_agent"),
        (None, "missing_agent"),
        ({"identity": {"actor_id": 7}}, "invalid_entity_id"),
        ({"identity": {"actor_id": "a"}, "history": {}}, "history_forged"),
        ({"identity": {"actor_id": "a"}, "x": {1, 2}}, "invalid_json"),
        ({"identity": {"actor_id": "a"}, "x": 2**80}, "number_not_exact"),
    ],
)
def test_what_can_not_be_decided_is_refused_and_not_recorded(tmp_path: Path, document: Any, code: str) -> None:
    with open_gated(tmp_path) as engine:
        head = engine.journal.head
        with pytest.raises(EnrichError) as caught:
            engine.decide(PATH, document)
        assert (caught.value.error_code, caught.value.status) == (code, 400)
        assert engine.journal.head == head


def test_what_lies_above_or_below_a_decision_is_not_handed_out(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        for path in ((), ("shop",), ("shop", "decision", "decision"), ("shop", "allow", "x")):
            for document in (request(), None):
                with pytest.raises(BadRequestError) as caught:
                    engine.decide(path, document)
                assert caught.value.error_code == "decision_path_required"
        asked = engine.decide(("shop", "asked"), request())
        assert isinstance(asked, Evaluation)
        assert asked.outcome == Defined("a")
        assert event_counts(engine) == {"allowed": 0, "denied": 0, "asked": 0}


def test_paths_that_are_decisions_are_a_setting(tmp_path: Path) -> None:
    with open_gated(tmp_path, decision_paths=()) as engine:
        assert isinstance(engine.decide(PATH, request()), Evaluation)
        assert isinstance(engine.decide((), None), Evaluation)
    with open_gated(tmp_path, decision_paths=("shop.asked",)) as engine:
        assert isinstance(engine.decide(PATH, request()), Evaluation)
        assert engine.decide(("shop", "asked"), request("ALLOW")).outcome == Defined("ALLOW")
    with pytest.raises(EnrichError, match="is no rule") as caught:
        open_gated(tmp_path, decision_paths=("shop.verdict",))
    assert caught.value.error_code == "invalid_setting"
    with pytest.raises(ValueError, match="rules are wanted"):
        Settings(decision_paths=("shop/decision",))


def test_a_reload_that_takes_a_decision_path_away_is_refused(tmp_path: Path) -> None:
    with open_gated(tmp_path, decision_paths=("shop.decision",)) as engine:
        write_policy(tmp_path, "package shop\n\nallow := true\n")
        report = engine.reload()
        assert not report.ok
        assert "shop.decision" in report.problems[0]
        assert decide(engine).decision == "ALLOW"


def test_a_reload_while_a_policy_is_asked_takes_nothing_away(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        held = hold(engine, {"decision": "ALLOW"})
        held.gate.clear()
        catalog = engine.catalog.version
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(decide, engine)
            assert held.arrived.acquire(timeout=10)
            text = (tmp_path / "queries" / "agent.sql").read_text()
            (tmp_path / "queries" / "agent.sql").write_text(text.replace("1h", "1h, 24h"))
            assert engine.reload().changed
            held.gate.set()
            decision = waiting.result()
        assert decision.decision == "ALLOW"
        record = next(r for r in engine.journal.read() if r.type == "decision")
        assert (record.body or {})["catalog"] == catalog != engine.catalog.version
        assert engine.context({"agent": "a"})["agent"]["last_24h"]["allowed"] == 1


def test_a_limit_holds_while_definitions_go_live(tmp_path: Path) -> None:
    with open_gated(tmp_path, AT_MOST.format(agent=LIMIT, team=1000), fsync=False) as engine:
        path = tmp_path / "queries" / "team.sql"
        text, done = path.read_text(), threading.Event()

        def reload() -> int:
            count = 0
            while count < 2 or not done.is_set():  # the second may come late on a busy machine
                count += 1
                path.write_text(text.replace("1h", ("1h, 2h", "1h")[count % 2]))
                assert engine.reload().ok
            return count

        with ThreadPoolExecutor(9) as pool:
            reloads = pool.submit(reload)
            asked = [pool.submit(decide, engine) for _ in range(160)]
            allowed = [f.result().decision for f in asked].count("ALLOW")
            done.set()
            assert reloads.result() > 1
        assert allowed == LIMIT
        assert event_counts(engine) == {"allowed": LIMIT, "denied": 160 - LIMIT, "asked": 0}
        assert engine.check().differences == ()


def test_an_engine_that_closes_ends_the_policies_that_are_live_then(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        first = engine.live_policies
        write_policy(tmp_path, AT_MOST.format(agent=5, team=5))
        assert engine.reload().changed
        assert engine.live_policies is not first
        held = hold(engine)
    assert held.closed


def test_without_policies_or_once_closed_nothing_is_decided(tmp_path: Path) -> None:
    engine = open_gated(tmp_path)
    engine.close()
    with pytest.raises(IndexNotReadyError):
        decide(engine)
    from enrich import Engine

    with Engine.open(tmp_path / "data", queries=tmp_path / "queries") as bare, pytest.raises(NotFoundError) as caught:
        bare.decide(PATH, request())
    assert caught.value.error_code == "no_policies"


def test_a_dry_run_decides_and_leaves_no_trace(tmp_path: Path) -> None:
    with open_gated(tmp_path, AT_MOST.format(agent=1, team=10)) as engine:
        head = engine.journal.head
        for _ in range(3):
            assert decide(engine, dry_run=True, idempotency_key="k").decision == "ALLOW"
        assert engine.journal.head == head
        assert len(engine.gate.answered) == 0
        real: Decision = decide(engine, idempotency_key="k")
        assert (real.decision, real.fate) == ("ALLOW", "recorded")
        assert (decide(engine, dry_run=True).decision, decide(engine, dry_run=True).fate) == ("DENY", "dry_run")
