"""The embedded evaluator: what it answers, what it refuses at load, and that threads do not meet."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from enrich.decisions import (
    Condition,
    Defined,
    EmbeddedEvaluator,
    Failed,
    Outcome,
    Undefined,
    load_policies,
    policy_set,
)
from enrich.decisions._arity import ARITIES
from enrich.decisions.embedded import EmbeddedPolicies
from enrich.decisions.protocol import TIMED_OUT
from enrich.errors import PolicyError
from tests.decisions.opa_server import opa_binary

HEAD = "package p\n\nimport rego.v1\n\n"


def ask(rule: str, input: Any = None, path: str = "x", *, strict: bool = False) -> Outcome:
    given = None if input is None else json.dumps(input, ensure_ascii=False).encode()
    prepared = EmbeddedEvaluator().prepare(policy_set({"p.rego": HEAD + rule}))
    return prepared.evaluate(("p", *path.split("/")), given, strict_builtin_errors=strict)


def refusal(rule: str, **data: Any) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        EmbeddedEvaluator().prepare(policy_set({"p.rego": HEAD + rule}, data))
    return caught.value


def test_the_three_outcomes() -> None:
    assert ask("x := 1") == Defined(1)
    assert ask("x if input.y", {}) == Undefined(has_rules=True)
    assert ask("x := 1", path="z") == Undefined(has_rules=False)
    failed = ask("x := 1\nx := 2")
    assert isinstance(failed, Failed)
    assert failed.code == "eval_conflict_error"
    assert failed.error().error_code == "eval_conflict_error"


def test_a_false_and_a_null_are_values() -> None:
    assert ask("default x := false") == Defined(False)
    assert ask("x := null") == Defined(None)


def test_a_builtin_error_fails_only_when_strict() -> None:
    assert ask('x := to_number("z")') == Undefined(has_rules=True)
    strict = ask('x := to_number("z")', strict=True)
    assert isinstance(strict, Failed)
    assert strict.code == "eval_builtin_error"
    assert ask("x := 1 / input.n", {"n": 0}, strict=True) == Failed(
        "eval_builtin_error", "divide by zero", ({"code": "eval_builtin_error", "message": "divide by zero"},)
    )


def test_strictness_of_one_question_does_not_stay_for_the_next() -> None:
    prepared = EmbeddedEvaluator().prepare(policy_set({"p.rego": HEAD + 'x := to_number("z")'}))
    for strict in (False, True, False, True):
        outcome = prepared.evaluate(("p", "x"), b"{}", strict_builtin_errors=strict)
        assert isinstance(outcome, Failed) is strict


def test_no_input_is_undefined_and_the_last_one_does_not_stay() -> None:
    prepared = EmbeddedEvaluator().prepare(policy_set({"p.rego": HEAD + "x := input"}))
    assert prepared.evaluate(("p", "x"), b'{"a":1}') == Defined({"a": 1})
    assert prepared.evaluate(("p", "x"), None) == Undefined(has_rules=True)
    assert prepared.evaluate(("p", "x"), b"null") == Defined(None)


@pytest.mark.parametrize(
    "value",
    [0, 2**53, -(2**53), 2**63 - 1, 0.1, 1e300, -2.5, "é\U0001f600\"\\/", "", [], {}, [[None, True]], {"": {"a b": 1}}],
)  # fmt: skip
def test_a_value_comes_back_as_it_went_in(value: Any) -> None:
    assert ask("x := input", value) == Defined(value)


def test_a_number_beyond_doubles_is_a_failure_not_infinity() -> None:
    failed = ask("x := input", 1.7976931348623157e308)
    assert isinstance(failed, Failed)
    assert failed.code == "eval_error"


def test_an_integer_beyond_64_bits_is_the_nearest_double() -> None:
    assert ask("x := 123456789012345678901234567890 + 0") == Defined(1.2345678901234568e29)
    assert isinstance(ask("x := " + "9" * 400), Failed)


def test_a_lone_surrogate_is_a_failure() -> None:
    prepared = EmbeddedEvaluator().prepare(policy_set({"p.rego": HEAD + "x := input"}))
    assert isinstance(prepared.evaluate(("p", "x"), b'"\\ud800"'), Failed)
    assert prepared.evaluate(("p", "x"), b"1") == Defined(1)


def test_the_interpreters_own_failure_is_a_failure() -> None:
    assert isinstance(ask("x := input + 0", 5e-324), Failed)


def test_prepared_without_any_policy_everything_is_undefined() -> None:
    prepared = EmbeddedEvaluator().prepare(policy_set({}))
    assert prepared.evaluate(("a",), b"{}") == Undefined(has_rules=False)
    assert prepared.evaluate((), b"{}") == Defined({})


def test_the_rules_are_known_and_functions_are_none() -> None:
    text = "default decision := {}\nf(a) := a + 1\nx := f(1)\npart.deep contains 1\nobj[k] := 1 if some k in [1]"
    prepared = EmbeddedEvaluator().prepare(policy_set({"p.rego": HEAD + text}))
    assert prepared.rules == {("p", "decision"), ("p", "x"), ("p", "part", "deep"), ("p", "obj")}


@pytest.mark.parametrize(
    ("rule", "code", "line", "column", "named"),
    [
        ("deny if nosuch(input.x)", "unknown_function", 5, 9, "nosuch"),
        ('deny if {\n\ty := http.send({"method": "get"})\n\ty\n}', "unknown_function", 6, 7, "http.send"),
        ('deny if graphql.is_valid("a", "b")', "unknown_function", 5, 9, "graphql.is_valid"),
        ("deny if data.other.f(1)", "unknown_function", 5, 9, "data.other.f"),
        ('x := strings.replace_n({"": "b"}, "a")', "refused_function", 5, 6, "strings.replace_n"),
        ('x := semver.is_valid("1.02.3")', "refused_function", 5, 6, "semver.is_valid"),
        ("x := opa.runtime()", "refused_function", 5, 6, "opa.runtime"),
        ("f(a) := a\nx := f(1, 2)", "wrong_arity", 6, 6, "data.p.f"),
        ('deny if startswith("a")', "wrong_arity", 5, 9, "startswith"),
        ("x := count([1], 2, 3)", "wrong_arity", 5, 6, "count"),
        ("deny if input.risk == hihg", "unsafe_variable", 5, None, "data.p.deny"),
        ("x := 1 if y\ny := 1 if x", "recursion", 5, None, "data.p.x -> data.p.y -> data.p.x"),
        ("x := {", "rego_parse_error", 5, 6, ""),
    ],
)
def test_what_would_stay_silent_is_refused_with_its_place(
    rule: str, code: str, line: int, column: int | None, named: str
) -> None:
    error = refusal(rule)
    assert error.error_code == code
    assert error.detail["file"] == "p.rego"
    assert error.detail["line"] == line
    assert column is None or error.detail["column"] == column
    assert named in error.message
    assert error.message.startswith(f"p.rego:{line}:")
    assert error.detail["source"] == (HEAD + rule).splitlines()[line - 1]


def test_a_base_document_may_not_stand_where_a_rule_stands() -> None:
    assert refusal("x := 1", p={"x": 2}).error_code == "data_conflict"
    assert refusal("x := 1", p={"x": {"deep": 2}}).error_code == "data_conflict"
    assert refusal("x := 1", p=3).error_code == "data_conflict"
    assert EmbeddedEvaluator().prepare(policy_set({"p.rego": HEAD + "x := 1"}, {"p": {"y": 2}}))


def test_arities_are_those_of_the_real_opa() -> None:
    command = [opa_binary(), "capabilities", "--current"]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    declared = {b["name"]: b["decl"] for b in told["builtins"]}
    assert {n: len(d.get("args", ())) for n, d in declared.items() if "variadic" not in d} == ARITIES


#: strings that would break out of a string in the answer, were they not escaped there
BREAKING = ['x","decision":"ALLOW', 'x","b":"y', 'x"],"decision":["y', 'a"b', "\\", '\\"', 'x"},{"y":"z', "x"]


@pytest.mark.parametrize("shape", ['{"decision": "DENY", "who": %s}', "[%s]", "{%s}", "{%s: 1}", "%s"])
@pytest.mark.parametrize("call", ["trim_space(input.name)", 'trim(input.name, " ")', 'sprintf("%v", [input.name])'])
def test_a_callers_string_never_becomes_more_of_the_answer(call: str, shape: str) -> None:
    prepared = prepared_x("x := " + shape % call)
    for name in BREAKING:
        outcome = prepared.evaluate(("p", "x"), json.dumps({"name": name}).encode())
        if isinstance(outcome, Defined):
            value = outcome.value
            assert "ALLOW" not in (value.values() if isinstance(value, dict) else ()), name
            assert len(value if isinstance(value, list | dict) else [0]) == 1 + shape.count("DENY"), name
        else:
            assert isinstance(outcome, Failed), name
    prepared.close()


def test_a_call_in_the_head_of_a_comprehension_that_would_be_made_too_early_is_refused() -> None:
    error = refusal('f(at, names) := [concat(".", [at, upper(name)]) | some name in names]\nx := f("a", ["b"])')
    assert error.error_code == "unsafe_variable"
    assert "comprehension" in error.detail["hint"]


def worker_pids() -> set[int]:
    """Children of this process that run the worker's script."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rsplit(")", 1)[1].split()[1])
            command = (status.parent / "cmdline").read_bytes()
        except OSError:  # it ended while we looked
            continue
        if parent == os.getpid() and b"_worker.py" in command:
            found.add(int(status.parent.name))
    return found


def prepared_x(rule: str, **options: Any) -> EmbeddedPolicies:
    return EmbeddedEvaluator(**options).prepare(policy_set({"p.rego": HEAD + rule}))


def test_what_a_policy_prints_is_no_part_of_its_answer() -> None:
    rule = 'x := 1 if {\n\tprint("seen", input.name, input.absent)\n}'
    prepared = prepared_x(rule, limit_seconds=3.0)
    for _ in range(3):
        assert prepared.evaluate(("p", "x"), b'{"name":"a"}') == Defined(1)
    # more than the pipe holds
    assert prepared.evaluate(("p", "x"), json.dumps({"name": "a" * 200_000}).encode()) == Defined(1)
    prepared.close()


def test_a_worker_that_was_killed_is_replaced() -> None:
    before = worker_pids()
    prepared = prepared_x("x := 1")
    for pid in worker_pids() - before:
        os.kill(pid, signal.SIGKILL)
        # until it can be reaped: its command line is gone from /proc some time before
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert prepared.evaluate(("p", "x"), b"{}") == Defined(1)
    prepared.close()


def test_an_evaluation_past_its_limit_fails_and_the_next_one_is_answered() -> None:
    prepared = prepared_x(
        "x := count([1 | some a in input.l; some b in input.l; some c in input.l; a + b + c == 0])", limit_seconds=1.0
    )
    assert prepared.evaluate(("p", "x"), b'{"l": [1]}') == Defined(0)
    failed = prepared.evaluate(("p", "x"), json.dumps({"l": list(range(2000))}).encode())
    assert isinstance(failed, Failed)
    assert failed.code == "eval_cancel_error"
    assert prepared.evaluate(("p", "x"), b'{"l": [0]}') == Defined(1)
    prepared.close()


def test_closed_policies_leave_no_process_and_still_answer_who_holds_them() -> None:
    before = worker_pids()
    prepared = prepared_x("x := 1")
    assert worker_pids() - before
    prepared.close()
    assert worker_pids() == before
    assert prepared.evaluate(("p", "x"), b"{}") == Defined(1)
    assert worker_pids() == before


def test_forgotten_policies_leave_no_process() -> None:
    before = worker_pids()
    prepared = prepared_x("x := 1")
    assert prepared.evaluate(("p", "x"), b"{}") == Defined(1)
    del prepared
    gc.collect()
    assert worker_pids() == before


def test_policies_that_the_interpreter_does_not_survive_are_refused() -> None:
    modules = {
        "p.rego": HEAD + "x if data.q.f(1) with input as {}",
        "q.rego": "package q\n\nimport rego.v1\n\nf(a) if a > input.b",
    }
    with pytest.raises(PolicyError) as caught:
        EmbeddedEvaluator().prepare(policy_set(modules))
    assert caught.value.error_code == "evaluator_crash"


def test_sixteen_threads_each_get_their_own_answer() -> None:
    prepared = EmbeddedEvaluator().prepare(policy_set({"p.rego": HEAD + "x := input.n * 2"}))
    wrong: list[tuple[int, Outcome]] = []

    def work(start: int) -> None:
        for n in range(start, start + 40):
            outcome = prepared.evaluate(("p", "x"), b'{"n":%d}' % n)
            if outcome != Defined(n * 2):
                wrong.append((n, outcome))

    threads = [threading.Thread(target=work, args=(i * 1000,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def write(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def test_a_directory_is_read_like_an_opa_bundle(tmp_path: Path) -> None:
    policies = load_policies(
        write(
            tmp_path,
            {
                "a/p.rego": "package a.p\n",
                "a/p_test.rego": "package a.p_test\n",
                "a/data.json": '{"n": 1}',
                "data.yaml": "a:\n  m: [1]\n",
                "other.json": '{"not": "data"}',
                ".git/data.json": "{}",
            },
        )
    )
    assert policies.packages == {"a/p.rego": ("a", "p")}
    assert policies.data == {"a": {"n": 1, "m": [1]}}
    assert policies.version.startswith("sha256:")


def test_the_version_names_text_names_and_data() -> None:
    versions = {
        policy_set({"p.rego": HEAD}).version,
        policy_set({"q.rego": HEAD}).version,
        policy_set({"p.rego": HEAD + " "}).version,
        policy_set({"p.rego": HEAD}, {"a": 1}).version,
    }
    assert len(versions) == 4
    assert (
        policy_set({"p.rego": HEAD}, {"a": 1, "b": 2}).version == policy_set({"p.rego": HEAD}, {"b": 2, "a": 1}).version
    )


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"data.json": "{"}, "invalid_data"),
        ({"data.json": "[]"}, "invalid_data"),
        ({"data.json": '{"limit":1,"limit":1000}'}, "invalid_data"),
        ({"data.json": '{"limit":123456789012345678901}'}, "invalid_data"),
        ({"data.yaml": "a: [1"}, "invalid_data"),
        ({"data.json": '{"a":{"b":1}}', "a/data.json": '{"b":2}'}, "data_conflict"),
        ({"p.rego": "allow := true\n"}, "rego_parse_error"),
        ({"p.rego": 'package a["b c"]\n'}, "unsupported_package"),
    ],
)
def test_a_directory_that_can_not_be_read_is_refused(tmp_path: Path, files: dict[str, str], code: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policies(write(tmp_path, files))
    assert caught.value.error_code == code


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policies(tmp_path / "none")
    assert caught.value.error_code == "not_found"


_ENDLESS = """\
x if {
    input.y
    count([1 | some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); some k in [i, j]]) > 0
}
"""


def test_evaluations_that_do_not_end_are_counted_and_four_in_a_minute_are_too_many() -> None:
    prepared = EmbeddedEvaluator(workers=2).prepare(policy_set({"p.rego": HEAD + _ENDLESS + "\nz := 1"}))
    now = 1000.0
    prepared._pool._clock = lambda: now
    for abandoned in range(4):
        assert prepared.condition() == Condition(replaced=abandoned, abandoned=abandoned)
        outcome = prepared.evaluate(("p", "x"), b'{"y":1}', limit_seconds=0.05)
        assert isinstance(outcome, Failed)
        assert outcome.code == TIMED_OUT
        now += 10
    assert "4 evaluations or more" in prepared.condition().reasons[0]
    assert prepared.evaluate(("p", "z"), b"{}") == Defined(1)  # it is asked nevertheless
    now = 1060.0  # the first of the four is a minute ago
    assert prepared.condition() == Condition(replaced=4, abandoned=4)
    prepared.close()


def test_a_worker_that_was_killed_is_replaced_and_counted() -> None:
    prepared = EmbeddedEvaluator(workers=1).prepare(policy_set({"p.rego": HEAD + "x := 1"}))
    worker = prepared._pool._idle[0]
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.wait()
    assert prepared.evaluate(("p", "x"), b"{}") == Defined(1)
    assert prepared.condition() == Condition(replaced=1)
    prepared.close()
