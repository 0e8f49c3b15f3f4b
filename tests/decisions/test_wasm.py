"""The wasm evaluator: what it answers, what it refuses at load, its limits, and that threads do not meet."""

from __future__ import annotations

import gc
import json
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest
import wasmtime

from enrich.decisions import Defined, Failed, Outcome, Undefined, WasmEvaluator, policy_set
from enrich.decisions._wasm_instance import Clock
from enrich.decisions.wasm import WasmPolicies
from enrich.errors import PolicyError
from tests.decisions.opa_server import opa_binary

HEAD = "package p\n\nimport rego.v1\n\n"
#: one module for all that only asks: compiling takes longer than asking
RULES = r"""
one := 1
undefined_one if input.y
conflict := 1
conflict := 2
number := to_number(input.t)
ratio := 1 / input.n
total := input.a + input.b
echo := input
largest := max(input.l)
members := {v | some v in input.l}
keyed := {1: "a", "k": {"x": [10, 20]}, null: 0.5}
f(x) := 1 if x > 1
f(x) := 2 if x > 0
g := f(input.n)
shown := sprintf(input.form, input.l)
pairs := count([1 | some a in input.l; some b in input.l; some c in input.l; a + b + c == -1])
grown := count([x | some a in numbers.range(1, 1000); some b in numbers.range(1, 1000); x := format_int(a * b, 2)])
default allow := false
allow if input.n > 5
"""


@pytest.fixture(scope="module")
def rules() -> WasmPolicies:
    return prepared(RULES, memory_bytes=64 << 20)


def prepared(rule: str, data: dict[str, Any] | None = None, **options: Any) -> WasmPolicies:
    return WasmEvaluator(opa_path=opa_binary(), **options).prepare(policy_set({"p.rego": HEAD + rule}, data))


def ask(rules: WasmPolicies, path: str, input: Any = None, **options: Any) -> Outcome:
    given = None if input is None else json.dumps(input, ensure_ascii=False).encode()
    return rules.evaluate(("p", *path.split("/")), given, **options)


def refusal(rule: str, **data: Any) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        prepared(rule, data)
    return caught.value


def test_the_three_outcomes(rules: WasmPolicies) -> None:
    assert ask(rules, "one") == Defined(1)
    assert ask(rules, "undefined_one", {}) == Undefined(has_rules=True)
    assert ask(rules, "none") == Undefined(has_rules=False)
    for conflict in ("conflict", "g"):
        failed = ask(rules, conflict, {"n": 5})
        assert isinstance(failed, Failed)
        assert failed.code == "eval_conflict_error"
    assert ask(rules, "one") == Defined(1)


def test_the_rules_are_known_and_functions_are_none(rules: WasmPolicies) -> None:
    assert ("p", "keyed") in rules.rules
    assert ("p", "f") not in rules.rules
    assert rules.booleans == {("p", "allow"), ("p", "undefined_one")}


def test_errors_of_built_ins_fail_only_when_strict(rules: WasmPolicies) -> None:
    for strict in (False, True, False):
        for path, input, code in [
            ("number", {"t": "z"}, "eval_builtin_error"),
            ("ratio", {"n": 0}, "eval_builtin_error"),
            ("ratio", {"n": "a"}, "eval_type_error"),
            ("shown", {"form": 1, "l": []}, "eval_type_error"),
        ]:
            outcome = ask(rules, path, input, strict_builtin_errors=strict)
            if strict:
                assert isinstance(outcome, Failed), path
                assert (outcome.code, outcome.errors[0]["code"]) == (code, code)
            else:
                assert outcome == Undefined(has_rules=True)


def test_an_answer_that_is_none_is_no_error(rules: WasmPolicies) -> None:
    assert ask(rules, "largest", {"l": []}, strict_builtin_errors=True) == Undefined(has_rules=True)
    assert ask(rules, "largest", {"l": [9, 10]}, strict_builtin_errors=True) == Defined(10)
    assert isinstance(ask(rules, "largest", {"l": 3}, strict_builtin_errors=True), Failed)


def test_no_input_is_undefined_and_the_last_one_does_not_stay(rules: WasmPolicies) -> None:
    assert ask(rules, "echo", {"a": 1}) == Defined({"a": 1})
    assert ask(rules, "echo") == Undefined(has_rules=True)
    assert rules.evaluate(("p", "echo"), b"null") == Defined(None)


@pytest.mark.parametrize(
    "value",
    [0, 2**53, -(2**53), 2**63 - 1, 0.1, 1e300, -2.5, 5e-324, 1.7976931348623157e308, "é\U0001f600\"\\/\x00", "", [],
     {}, [[None, True]], {"": {"a b": 1}}, "[1e999]", 9007199254740993],
)  # fmt: skip
def test_a_value_comes_back_as_it_went_in(rules: WasmPolicies, value: Any) -> None:
    assert ask(rules, "echo", value) == Defined(value)


@pytest.mark.parametrize("given", [b"1e400", b'"\\ud800"', b"[" * 20_000 + b"]" * 20_000, b"9" * 400])
def test_what_can_not_be_carried_over_is_a_failure(rules: WasmPolicies, given: bytes) -> None:
    assert isinstance(rules.evaluate(("p", "echo"), given), Failed)
    assert ask(rules, "one") == Defined(1)


def test_integers_are_exact_and_beyond_64_bits_the_nearest_double(rules: WasmPolicies) -> None:
    assert ask(rules, "total", {"a": 2**53 - 1, "b": 1}) == Defined(2**53)
    assert ask(rules, "total", {"a": 2**63, "b": 10**29}) == Defined(float(2**63 + 10**29))


def test_sets_are_arrays_in_order(rules: WasmPolicies) -> None:
    given = [3, "b", None, 10, "a", True, [1], {"a": 1}, 9.5]
    assert ask(rules, "members", {"l": given}) == Defined([None, True, 3, 9.5, 10, "a", "b", [1], {"a": 1}])


@pytest.mark.parametrize(
    ("path", "found"),
    [("keyed/k/x/1", 20), ("keyed/1", "a"), ("members/9", 9), ("members/a", "a"), ("keyed/k/x/2", None),
     ("members/1", None)],
)  # fmt: skip
def test_a_path_goes_on_into_the_answer(rules: WasmPolicies, path: str, found: Any) -> None:
    expected = Undefined(has_rules=True) if found is None else Defined(found)
    assert ask(rules, path, {"l": ["a", 9, "1"]}) == expected


def test_base_documents_stand_beside_rules() -> None:
    both = prepared("x := data.p.limit + 1", {"p": {"limit": 4}, "q": {"l": [1]}})
    assert ask(both, "x") == Defined(5)
    assert ask(both, "limit") == Defined(4)
    assert both.evaluate((), None) == Defined({"p": {"limit": 4, "x": 5}, "q": {"l": [1]}})
    assert both.evaluate(("q", "l", "0"), None) == Defined(1)


def test_without_any_rule_everything_is_undefined() -> None:
    nothing = WasmEvaluator(opa_path=opa_binary()).prepare(policy_set({}))
    assert nothing.evaluate(("a",), b"{}") == Undefined(has_rules=False)
    assert nothing.evaluate((), b"{}") == Defined({})
    assert prepared("").evaluate(("p",), b"{}") == Defined({})


@pytest.mark.parametrize(
    ("rule", "code", "line", "column", "named"),
    [
        ("deny if nosuch(input.x)", "unknown_function", 5, None, "nosuch"),
        ('deny if {\n\ty := http.send({"method": "get"})\n\ty\n}', "unknown_function", 6, 7, "http.send"),
        ("deny if yaml.is_valid(input.x)", "unknown_function", 5, 9, "yaml.is_valid"),
        ("f(a) := a\nx := f(1, 2)", "wrong_arity", 6, None, "data.p.f"),
        ("deny if input.risk == hihg", "unsafe_variable", 5, None, "hihg"),
        ("x := 1 if y\ny := 1 if x", "recursion", 5, None, "data.p.x"),
        ("x := {", "rego_parse_error", 5, None, "eof"),
        ("x := 1\nx(a) := 2", "rego_compile_error", 5, None, "conflict"),
    ],
)
def test_what_does_not_compile_or_is_not_there_is_refused_with_its_place(
    rule: str, code: str, line: int, column: int | None, named: str
) -> None:
    error = refusal(rule)
    assert (error.error_code, error.detail["file"], error.detail["line"]) == (code, "p.rego", line)
    assert column is None or error.detail["column"] == column
    assert named in error.message
    assert error.message.startswith(f"p.rego:{line}:")
    assert error.detail["source"] == (HEAD + rule).splitlines()[line - 1]


def test_a_base_document_may_not_stand_where_a_rule_stands() -> None:
    assert refusal("x := 1", p={"x": 2}).error_code == "data_conflict"


def test_a_missing_opa_is_refused_when_policies_load(tmp_path: Path) -> None:
    evaluator = WasmEvaluator(opa_path=str(tmp_path / "opa"))
    with pytest.raises(PolicyError) as caught:
        evaluator.prepare(policy_set({"p.rego": HEAD + "x := 1"}))
    assert caught.value.error_code == "opa_missing"
    assert "opa" not in evaluator.version


def test_the_version_names_opa_and_the_runtime() -> None:
    version = WasmEvaluator(opa_path=opa_binary()).version
    assert version.startswith("opa 1.")
    assert ", wasmtime " in version


def test_an_evaluation_past_its_limit_fails_in_time_and_the_next_one_is_answered(rules: WasmPolicies) -> None:
    assert ask(rules, "pairs", {"l": [1]}) == Defined(0)
    began = time.monotonic()
    # short of what it takes until its memory is spent, which is another failure
    failed = ask(rules, "pairs", {"l": list(range(3000))}, limit_seconds=0.05)
    assert isinstance(failed, Failed)
    assert failed.code == "eval_cancel_error"
    # hours of work: any bound shows that it was stopped
    assert time.monotonic() - began < 60
    assert ask(rules, "pairs", {"l": [1]}) == Defined(0)


def test_time_goes_by_for_policies_however_seldom_the_clock_gets_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    class Engine:
        def increment_epoch(self) -> None:
            told.append(time.monotonic())

    tick = 0.01
    clock = Clock(cast("wasmtime.Engine", Engine()), tick)
    rest = threading.Event().wait
    monkeypatch.setattr(clock._stopped, "wait", lambda seconds: rest(10 * seconds))
    with clock:
        began = time.monotonic()
        while not told or told[-1] - began < 0.3:
            rest(tick)
            assert clock.ticks(1.0) >= 99  # those that are late are still to come
    assert len(told) >= 0.5 * (told[-1] - began) / tick


def test_policies_are_closed_while_the_last_instance_is_taken(rules: WasmPolicies) -> None:
    class Outrun(list[Any]):
        def __bool__(self) -> bool:
            return True  # it was so a moment ago

    pool = WasmEvaluator().prepare(rules.policies)._pool
    assert pool is not None
    pool._idle = Outrun(pool._idle)
    pool.close()
    assert len(pool._idle) == 0


def test_memory_is_bounded(rules: WasmPolicies) -> None:
    assert isinstance(ask(rules, "grown", {}, limit_seconds=60), Failed)
    assert isinstance(ask(rules, "echo", "x" * (65 << 20)), Failed)
    assert ask(rules, "one") == Defined(1)


def test_base_documents_that_take_more_memory_than_there_is_are_refused() -> None:
    with pytest.raises(PolicyError) as caught:
        prepared("x := 1", {"q": list(range(300_000))}, memory_bytes=4 << 20)
    assert caught.value.error_code == "evaluator_crash"


def test_when_all_instances_are_taken_the_wait_has_a_limit() -> None:
    one = prepared(
        "x := count([1 | some a in input.l; some b in input.l; some c in input.l; a + b + c == -1])", instances=1
    )
    given = json.dumps({"l": list(range(3000))}).encode()
    busy = threading.Thread(target=one.evaluate, args=(("p", "x"), given), kwargs={"limit_seconds": 2.0})
    busy.start()
    time.sleep(0.3)
    failed = one.evaluate(("p", "x"), b"{}", limit_seconds=0.1)
    busy.join()
    assert isinstance(failed, Failed)
    assert failed.code == "eval_cancel_error"
    assert one.evaluate(("p", "x"), b'{"l":[]}') == Defined(0)


def test_sixteen_threads_each_get_their_own_answer(rules: WasmPolicies) -> None:
    wrong: list[Outcome] = []

    def work(start: int) -> None:
        for n in range(start, start + 100):
            for outcome, expected in (
                (ask(rules, "total", {"a": n, "b": n}), n * 2),
                (ask(rules, "shown", {"form": "%d", "l": [n]}), str(n)),
            ):
                if outcome != Defined(expected):
                    wrong.append(outcome)
            if not isinstance(ask(rules, "shown", {"form": n, "l": []}, strict_builtin_errors=True), Failed):
                wrong.append(Defined(n))

    threads = [threading.Thread(target=work, args=(i * 1000,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_closed_policies_still_answer_who_holds_them() -> None:
    one = prepared("x := 1")
    one.close()
    assert one.evaluate(("p", "x"), b"{}") == Defined(1)
    del one
    gc.collect()


def test_what_a_policy_prints_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(prepared('x := 1 if print("seen", input.name)'), "x", {"name": "a"}) == Defined(1)
    assert capfd.readouterr() == ("", "")
