"""The wasm evaluator beside the real OPA: every operator on values of every type, and on whatever comes along."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.decisions import Defined, WasmEvaluator, load_policies
from enrich.decisions._builtins import BuiltinError, NoAnswerError
from enrich.decisions._builtins._sprintf import sprintf
from enrich.decisions.wasm import WasmPolicies
from tests.conformance.judge import equal
from tests.decisions.opa_server import ask, opa_binary, serve_opa

VALUES = [
    'null', 'true', 'false', '0', '-1', '1', '1.0', '1.5', '-2.5', '9', '10', '1e3', '0.1', '9007199254740992',
    '9007199254740993', '1e22', '""', '"a"', '"b"', '"10"', '"9"', '"é"', '"\\u0000"', '[]', '[1]', '[1,2]', '[2]',
    '["a"]', '[null]', '[[1]]', '{}', '{"a":1}', '{"a":2}', '{"b":1}', '{"a":1,"b":2}', '{1:2}', '{null:1}',
    'set()', '{1}', '{1,2}', '{2}', '{"a"}', '{[1]}', '{null}', '{{}}',
]  # fmt: skip
OPERATORS = {
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "plus": "+", "minus": "-", "mul": "*",
    "div": "/", "rem": "%", "and": "&", "or": "|",
}  # fmt: skip
FUNCTIONS = [
    "count", "sum", "max", "min", "sort", "abs", "round", "ceil", "floor", "to_number", "type_name", "json.marshal",
    "object.keys", "is_number", "is_set", "product", "upper", "lower", "trim_space", "strings.reverse",
    "json.unmarshal",
]  # fmt: skip


def module(name: str, of: str) -> str:
    """One rule an operator: by position, the value of every pair for which there is one."""
    rules = [f"package {name}\n\nimport rego.v1\n"]
    for rule, operator in OPERATORS.items():
        body = f"some i, a in {of}\n\tsome j, b in {of}\n\tx := a {operator} b"
        rules.append(f"op_{rule}[i][j] := x if {{\n\t{body}\n}}\n")
    for number, function in enumerate(FUNCTIONS):
        rules.append(f"call_{number}[i] := x if {{\n\tsome i, a in {of}\n\tx := {function}(a)\n}}\n")
    return "\n".join(rules)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("operators")
    joined = ", ".join(VALUES)
    # concatenated, so that OPA's type checker does not see what stands where
    fixed = f"values := array.concat([{joined}], data.listed.none)\n\nnone := [x | some x in [input.nothing]]\n"
    (at / "listed.rego").write_text(f"package listed\n\n{fixed}")
    (at / "fixed.rego").write_text(module("fixed", "data.listed.values"))
    (at / "given.rego").write_text(module("given", "input"))
    calls = "sprintf_[i] := x if {\n\tsome i, c in input\n\tx := sprintf(c[0], c[1])\n}\n"
    (at / "calls.rego").write_text(f"package calls\n\nimport rego.v1\n\n{calls}")
    return at


@pytest.fixture(scope="module")
def wasm(directory: Path) -> WasmPolicies:
    return WasmEvaluator(opa_path=opa_binary(), limit_seconds=60).prepare(load_policies(directory))


@pytest.fixture(scope="module")
def port(directory: Path) -> Iterator[int]:
    with serve_opa(directory) as port:
        yield port


def theirs(port: int, path: str, input: Any) -> Any:
    body = json.dumps({"input": input}).encode()
    status, _, answer = ask(port, "POST", f"/v1/data/{path}", body)
    assert status == 200, answer
    return answer["result"]


@pytest.mark.parametrize("rule", [*(f"op_{name}" for name in OPERATORS), *(f"call_{i}" for i in range(len(FUNCTIONS)))])
def test_every_type_on_both_sides_of_every_operator(rule: str, wasm: WasmPolicies, port: int) -> None:
    got = wasm.evaluate(("fixed", rule), b"{}")
    expected = theirs(port, f"fixed/{rule}", {})
    assert isinstance(got, Defined)
    assert expected, "nothing was compared"
    assert differing(got.value, expected) == []


def differing(ours: Any, theirs: Any) -> list[str]:
    """Where two nested objects differ, with the values that the positions stand for."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and all(k.isdecimal() for k in ours.keys() | theirs.keys()):
        found = []
        for key in sorted(ours.keys() | theirs.keys(), key=int):
            told = VALUES[int(key)]
            if key not in ours or key not in theirs:
                found.append(f"{told}: {ours.get(key, 'undefined')!r} is to be {theirs.get(key, 'undefined')!r}")
            else:
                found += [f"{told} {d}" for d in differing(ours[key], theirs[key])]
        return found
    return [] if equal(ours, theirs) else [f"{ours!r} is to be {theirs!r}"]


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(-1e6, 1e6).map(lambda f: round(f, 4))
    | st.text(max_size=4)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(values, min_size=2, max_size=3))
def test_whatever_comes_along_is_answered_as_opa_answers_it(wasm: WasmPolicies, port: int, given: list[Any]) -> None:
    got = wasm.evaluate(("given",), json.dumps(given, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    assert isinstance(got, Defined)
    assert equal(got.value, theirs(port, "given", given))


FORMS = [
    "%v", "%d", "%s", "%f", "%.2f", "%.0f", "%5d|", "%-5d|", "%05d", "%+d", "% d", "%x", "%X", "%o", "%b", "%e", "%g",
    "%q", "%t", "%10s|", "%-10s|", "%.1s", "%5v|", "%8.3f|", "%+.1f", "%08.2f", "%%", "%", "100%", "%z", "%.3e", "a%vb",
    "%d %s", "%[1]d", "%*d",
]  # fmt: skip
SHOWN = [
    0, 1, -5, 255, 2**53, 2**63 - 1, 2**70, 1.5, -0.25, 1e21, 1e20, 1e6, 123456789.5, 1e-5, 0.0001, 1e300, 3.5, "",
    "abc", 'é"x', True, None, [1, "a"], {"b": 1, "a": [2.5]},
]  # fmt: skip


def test_sprintf_writes_what_opa_writes_or_nothing(port: int) -> None:
    calls = [[form, [value]] for form in FORMS for value in SHOWN]
    calls += [["%d %s", [1]], ["x", [1, "a"]], ["%v %v", [[], "é"]]]
    expected = theirs(port, "calls/sprintf_", calls)
    answered = set()
    for number, (form, arguments) in enumerate(calls):
        try:
            got = sprintf(form, arguments)
        except (BuiltinError, NoAnswerError):
            continue
        assert got == expected[str(number)], (form, arguments)
        answered.add((form, str(arguments[0])))
    sure: list[tuple[str, list[Any]]] = [
        ("%v", SHOWN), ("%s", [1, "abc", None]), ("%d", [1, 2**70]), ("%.2f", [1.5, 1e300]), ("%5d|", [-5]),
        ("%x", [255]),
    ]  # fmt: skip
    for form, values in sure:
        assert {(form, str(v)) for v in values} <= answered
