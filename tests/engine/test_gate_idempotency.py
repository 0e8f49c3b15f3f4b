"""Idempotency keys: one decision per key, whatever repeats it, and suspensions before all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from enrich.decisions.answered import HELD_US
from enrich.errors import BadRequestError, BusyError, ConflictError
from tests.engine.test_gate_record import bodies

from .gated import AT_MOST, decide, event_counts, hold, open_gated, request


def test_the_recorded_answer_is_given_again_and_counted_once(tmp_path: Path) -> None:
    with open_gated(tmp_path, AT_MOST.format(agent=1, team=10)) as engine:
        first = decide(engine, idempotency_key="k")
        again = decide(engine, idempotency_key="k")
        assert (first.fate, again.fate) == ("recorded", "repeated")
        assert (again.decision_id, again.verdict) == (first.decision_id, first.verdict)
        assert event_counts(engine)["allowed"] == 1
        assert decide(engine, idempotency_key="other").decision == "DENY"


def test_keys_belong_to_a_caller_and_a_path(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        ids = [
            decide(engine, path=path, caller=caller, idempotency_key="k").decision_id
            for caller in ("", "x", "y")
            for path in (("shop", "decision"), ("shop", "allow"))
        ]
        assert len(set(ids)) == 6


def test_another_request_under_a_key_is_a_conflict(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        decide(engine, idempotency_key="k")
        head = engine.journal.head
        for other in (request("b"), request(amount=1), {**request(), "x": None}):
            with pytest.raises(ConflictError) as caught:
                decide(engine, other, idempotency_key="k")
            assert (caught.value.error_code, caught.value.status) == ("idempotency_conflict", 409)
        assert engine.journal.head == head
        reordered = dict(reversed(request().items()))
        assert decide(engine, reordered, idempotency_key="k").fate == "repeated"


def test_at_once_the_first_decides_and_the_others_wait(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        held = hold(engine, {"decision": "ALLOW"})
        held.sleep_seconds = 0.02
        with ThreadPoolExecutor(16) as pool:
            same = [pool.submit(decide, engine, idempotency_key="k") for _ in range(8)]
            # of another agent: only the key's lock is shared
            other = [pool.submit(decide, engine, _other(), idempotency_key="k") for _ in range(8)]
        first, second = ([f.exception() for f in fs] for fs in (same, other))
        assert sorted((first == [None] * 8, second == [None] * 8)) == [False, True]
        assert sum(isinstance(e, ConflictError) for e in (*first, *second)) == 8
        assert len(held.seen) == 1
        assert len(bodies(engine)) == 1


def _other() -> dict[str, Any]:
    document = request("b", "u")
    document["instance"]["workflow_id"] = "v"
    return document


def test_a_restart_remembers(tmp_path: Path) -> None:
    refused = {"decision": "ALLOWED"}
    with open_gated(tmp_path) as engine:
        first = decide(engine, idempotency_key="k", caller="x")
        hold(engine, refused)
        malformed = decide(engine, idempotency_key="m")
    for forget in ("nothing", "history.duckdb"):
        (tmp_path / "data" / forget).unlink(missing_ok=True)
        with open_gated(tmp_path) as engine:
            again = decide(engine, idempotency_key="k", caller="x")
            assert (again.fate, again.decision_id, again.verdict) == ("repeated", first.decision_id, first.verdict)
            also = decide(engine, idempotency_key="m")
            assert (also.fate, also.decision_id, also.verdict) == ("repeated", malformed.decision_id, malformed.verdict)
            with pytest.raises(ConflictError):
                decide(engine, request("b"), idempotency_key="k", caller="x")
            assert event_counts(engine) == {"allowed": 1, "denied": 1, "asked": 0}


def test_a_suspension_comes_before_the_recorded_answer(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        first = decide(engine, idempotency_key="k")
        engine.break_glass.suspend("agent", "a", reason="stop")
        refused = decide(engine, idempotency_key="k")
        assert (refused.decision, refused.cause, refused.fate) == ("DENY", "suspended", "recorded")
        fresh = decide(engine, idempotency_key="new")
        assert decide(engine, idempotency_key="new").decision_id == fresh.decision_id  # a refusal may be repeated
        engine.break_glass.lift("agent", "a")
        assert decide(engine, idempotency_key="k").decision_id == first.decision_id
        assert [b["idempotency_key"] for b in bodies(engine)] == ["k", None, "new"]


def test_a_key_is_free_again_after_24_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_gated(tmp_path, idempotency_keys=1) as engine:
        first = decide(engine, idempotency_key="k")
        with pytest.raises(BusyError, match="1 idempotency keys"):
            decide(engine, idempotency_key="other")
        assert decide(engine).fate == "recorded"  # who brings no key needs no room
        clock = engine.journal._clock
        monkeypatch.setattr(engine.journal, "_clock", lambda: clock() + HELD_US)
        second = decide(engine, idempotency_key="k")
        assert second.fate == "recorded"
        assert second.decision_id != first.decision_id
        assert len(engine.gate.answered) == 1


@pytest.mark.parametrize("key", ["", "x" * 201, "a\nb", "a\x00", "\udc80"])
def test_what_is_no_key_is_refused(tmp_path: Path, key: str) -> None:
    with open_gated(tmp_path) as engine, pytest.raises(BadRequestError) as caught:
        decide(engine, idempotency_key=key)
    assert (caught.value.error_code, caught.value.status) == ("invalid_idempotency_key", 400)
