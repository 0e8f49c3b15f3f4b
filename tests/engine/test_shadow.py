"""Shadow policies are recorded beside the live ones, and change nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich import Engine
from enrich.decisions import Defined, Failed, Outcome, Undefined
from enrich.engine.shadow import _THREADS, Shadow
from enrich.errors import BadRequestError, ConfigError, PolicyError
from enrich.settings import Settings
from tests.engine.gated import AT_MOST, Held, decide, event_counts, open_gated, request

STRICT = 'package shop\n\ndefault decision := {"decision": "DENY"}\n\nallow := input.identity.actor_id == "a"\n'
#: both take far longer than anybody waits
LOOPS = 'package shop\n\ndecision := "ALLOW" if count([y | some x in numbers.range(1, 900000); y := x * x]) < 1\n'
SPENT = """\
package shop

decision := "ALLOW" if {
    some x in numbers.range(1, 3000)
    some y in numbers.range(1, 3000)
    x * y < 0
}
"""


def write_shadow(where: Path, text: str) -> Path:
    (where / "shadow").mkdir(parents=True, exist_ok=True)
    (where / "shadow" / "shop.rego").write_text(text)
    return where / "shadow"


def open_shadowed(where: Path, text: str = STRICT, **options: Any) -> Engine:
    return open_gated(where, shadow_policies=write_shadow(where, text), **{"shadow_limit_ms": 5000} | options)


def records(engine: Engine) -> list[dict[str, Any]]:
    return [dict(r.body or {}) for r in engine.journal.read() if r.type == "decision"]


def hold_shadow(engine: Engine, answer: Callable[[Any], Outcome], limit_seconds: float = 5.0) -> Held:
    """Shadow policies that say what the test says."""
    live = engine.live_policies
    assert live is not None
    assert live.shadow is not None
    held = Held(live.shadow.prepared)
    held.answer = answer
    engine._state.policies = replace(live, shadow=Shadow(held, live.shadow.evaluator, limit_seconds, "shadow"))
    return held


def said(engine: Engine) -> tuple[Any, Any, Any]:
    """Result, decision and cause of the newest record's shadow."""
    shadow = records(engine)[-1]["shadow"]
    return shadow["result"], shadow["decision"], shadow["cause"]


def test_what_it_would_decide_is_recorded_and_nothing_else(tmp_path: Path) -> None:
    with open_shadowed(tmp_path) as engine:
        first = decide(engine)
        live = engine.live_policies
        assert live is not None
        assert live.shadow is not None
        [record] = records(engine)
        assert (first.decision, record["decision"], record["event"]["outcome"]) == ("ALLOW", "ALLOW", "allowed")
        assert record["shadow"] == {
            "policy_hash": live.shadow.version,
            "evaluator": live.evaluator,
            "result": {"decision": "DENY"},
            "decision": "DENY",
            "cause": None,
        }
        assert record["policy_hash"] == live.version != live.shadow.version
        assert event_counts(engine) == {"allowed": 1, "denied": 0, "asked": 0}
        assert decide(engine, path=("shop", "allow")).decision == "ALLOW"
        assert said(engine) == (True, "ALLOW", None)
        seen = len(records(engine))
        assert decide(engine, dry_run=True).shadow is None
        assert len(records(engine)) == seen
        body = [r.body or {} for r in engine.journal.read() if r.type == "definitions"][-1]
        assert body["shadow_policies"]["modules"] == {"shop.rego": STRICT}
        assert body["shadow_policies"]["version"] == live.shadow.version


def test_it_sees_the_same_bytes(tmp_path: Path) -> None:
    with open_shadowed(tmp_path) as engine:
        held = hold_shadow(engine, lambda document: Defined(document["identity"]["actor_id"] == "a"))
        live = engine.live_policies
        assert live is not None
        watched = Held(live.prepared)
        engine._state.policies = replace(live, prepared=watched)
        decide(engine, {**request(), "amount": 1.0, "text": "\u2028"})
        assert held.seen == watched.seen


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Undefined(has_rules=False), ({"decision": "DENY"}, "DENY", "evaluation_undefined")),
        (Failed("eval_error", "broken"), ({"decision": "DENY"}, "DENY", "evaluation_failed")),
        (Failed("eval_cancel_error", "late"), (None, None, "evaluation_timeout")),
        (Defined({"decision": "MAYBE"}), ({"decision": "DENY"}, "DENY", "malformed_decision")),
        (Defined({"decision": "ALLOW", "n": 2**70}), ({"decision": "DENY"}, "DENY", "malformed_decision")),
        (Defined("REQUIRE_HUMAN"), ("REQUIRE_HUMAN", "REQUIRE_HUMAN", None)),
    ],
)
def test_whatever_it_says(tmp_path: Path, outcome: Outcome, expected: tuple[Any, Any, Any]) -> None:
    with open_shadowed(tmp_path) as engine:
        hold_shadow(engine, lambda _: outcome)
        assert decide(engine).decision == "ALLOW"
        assert said(engine) == expected


def test_an_evaluator_that_breaks_or_is_late_is_its_own_matter(tmp_path: Path) -> None:
    def breaks(_: Any) -> Outcome:
        raise MemoryError

    with open_shadowed(tmp_path) as engine:
        hold_shadow(engine, breaks)
        assert decide(engine).decision == "ALLOW"
        assert said(engine) == ({"decision": "DENY"}, "DENY", "evaluation_failed")
        held = hold_shadow(engine, lambda _: Defined(True), limit_seconds=0.05)
        held.gate.clear()  # deaf to the limit that it is given
        late = [decide(engine) and said(engine)[2] for _ in range(_THREADS + 2)]
        assert late[0] == "evaluation_timeout"
        assert late[-1] == "skipped"  # its threads are all late: nobody waits any more
        held.gate.set()
        assert [r["decision"] for r in records(engine)] == ["ALLOW"] * (_THREADS + 3)


def test_with_little_time_left_it_is_skipped(tmp_path: Path) -> None:
    with open_shadowed(tmp_path) as engine:
        held = hold_shadow(engine, lambda _: Defined(True))
        assert decide(engine, deadline=time.monotonic() + 4).decision == "ALLOW"
        assert (said(engine), held.seen) == ((None, None, "skipped"), [])


def test_where_the_live_policy_is_not_asked_neither_is_it(tmp_path: Path) -> None:
    with open_shadowed(tmp_path) as engine:
        engine.break_glass.suspend("agent", "a", reason="drill")
        assert decide(engine).cause == "suspended"
        assert records(engine)[-1]["shadow"] is None


@pytest.mark.parametrize("text", [LOOPS, SPENT])
def test_a_policy_without_an_end(tmp_path: Path, text: str) -> None:
    with open_shadowed(tmp_path, text, shadow_limit_ms=100) as engine:
        assert [decide(engine).decision for _ in range(4)] == ["ALLOW"] * 4
        assert {r["shadow"]["cause"] for r in records(engine)} <= {"evaluation_timeout", "skipped"}
        assert event_counts(engine)["allowed"] == 4


OUTCOMES = st.sampled_from(
    [
        Undefined(has_rules=True),
        Failed("eval_error", "broken"),
        Failed("eval_cancel_error", "late"),
        Defined(True),
        Defined({"decision": "DENY"}),
        Defined({"decision": "REQUIRE_HUMAN", "why": [1]}),
        Defined(float("nan")),
    ]
)


def one_of(outcome: Outcome, breaks: bool, _: Any) -> Outcome:
    if breaks:
        raise ZeroDivisionError
    return outcome


@contextmanager
def both(where: Path) -> Iterator[tuple[Engine, Engine]]:
    policy = AT_MOST.format(agent=3, team=5)
    with open_gated(where / "bare", policy) as bare, open_gated(
        where / "shadowed", policy, shadow_policies=write_shadow(where, STRICT), shadow_limit_ms=5000
    ) as shadowed:  # fmt: skip
        yield bare, shadowed


def test_decisions_are_those_without_it(tmp_path: Path) -> None:
    with both(tmp_path) as (bare, shadowed):
        run = iter(range(10_000))

        @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(st.lists(st.tuples(st.sampled_from("ab"), OUTCOMES, st.booleans()), min_size=1, max_size=8))
        def same(asked: list[tuple[str, Outcome, bool]]) -> None:
            n = next(run)
            for agent, outcome, breaks in asked:
                held = hold_shadow(shadowed, partial(one_of, outcome, breaks))
                document = request(f"{agent}{n}", f"t{n}")
                expected, found = decide(bare, document), decide(shadowed, document)
                assert (found.verdict, len(held.seen)) == (expected.verdict, 1)
                assert event_counts(shadowed, f"{agent}{n}") == event_counts(bare, f"{agent}{n}")

        same()
        different = {"shadow", "as_of", "salt", "decision_id", "event", "context_hash", "input", "input_hash"}
        different |= {"context_seq", "caller"}
        for one, other in zip(records(bare), records(shadowed), strict=True):
            assert {k: v for k, v in one.items() if k not in different} == {
                k: v for k, v in other.items() if k not in different
            }
            assert (one["shadow"], other["shadow"] is None) == (None, False)


def test_limits_hold_with_a_shadow_and_many_who_ask(tmp_path: Path) -> None:
    with open_shadowed(tmp_path, policy=AT_MOST.format(agent=5, team=100)) as engine:
        hold_shadow(engine, lambda _: Defined("ALLOW"))
        threads = [threading.Thread(target=decide, args=(engine,)) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert event_counts(engine) == {"allowed": 5, "denied": 11, "asked": 0}


def test_those_that_differ_are_found(tmp_path: Path) -> None:
    with open_shadowed(tmp_path) as engine:
        differs = decide(engine)
        agrees = decide(engine, path=("shop", "allow"))
        hold_shadow(engine, lambda _: Failed("eval_cancel_error", "late"))
        neither = decide(engine)

        def ids(**filters: Any) -> list[str]:
            return [d["decision_id"] for d in engine.decisions(**filters).decisions]

        assert ids(shadow="differs") == [differs.decision_id]
        assert ids(shadow="agrees") == [agrees.decision_id]
        assert ids() == [neither.decision_id, agrees.decision_id, differs.decision_id]
        assert [d.get("shadow") for d in engine.decisions().decisions] == [None, "ALLOW", "DENY"]
        with pytest.raises(BadRequestError) as caught:
            ids(shadow="maybe")
        assert (caught.value.error_code, caught.value.detail["field"]) == ("invalid_parameter", "shadow")


def test_it_is_loaded_and_replaced_with_the_live_ones(tmp_path: Path) -> None:
    with open_shadowed(tmp_path) as engine:
        assert decide(engine).shadow is not None
        write_shadow(tmp_path, STRICT.replace('"DENY"', '"REQUIRE_HUMAN"'))
        assert engine.reload().changed
        decide(engine)
        assert said(engine)[1] == "REQUIRE_HUMAN"
        write_shadow(tmp_path, "package shop\n\ndecision := {")
        (tmp_path / "policies" / "shop.rego").write_text('package shop\n\ndecision := "DENY"\n')
        report = engine.reload()  # both or neither
        assert (report.changed, report.problems[0].startswith("shadow policies: ")) == (False, True)
        assert (decide(engine).decision, said(engine)[1]) == ("ALLOW", "REQUIRE_HUMAN")
        assert (engine.health().ready, "shadow policies" in engine.health().warnings[0]) == (True, True)
        write_shadow(tmp_path, "package other\n\ndecision := true\n")
        assert engine.reload().ok
        assert decide(engine).decision == "DENY"
        assert said(engine) == ({"decision": "DENY"}, "DENY", "evaluation_undefined")


def test_a_bad_one_fails_the_start(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        open_shadowed(tmp_path, "package shop\n\ndecision := {")
    assert (caught.value.error_code, caught.value.detail["shadow"]) == ("rego_parse_error", True)
    with pytest.raises(ConfigError) as refused:
        Engine.open(queries=tmp_path / "queries", settings=Settings(shadow_policies=tmp_path / "shadow"))
    assert refused.value.detail["setting"] == "shadow_policies"
    with pytest.raises(ValueError, match="shadow_limit_ms"):
        Settings(shadow_policies=tmp_path, shadow_limit_ms=1000)
