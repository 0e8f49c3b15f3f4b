"""The Data API, call by call, beside a real OPA that serves the same directory."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import pytest

from enrich.decisions import EmbeddedEvaluator, Evaluator, OpaEvaluator, Prepared, WasmEvaluator, load_policies
from enrich.decisions.data_api import ABSENT, DataAnswer, Redirect, answer, read, refusal
from enrich.decisions.protocol import TIMED_OUT, Failed
from enrich.errors import EnrichError
from enrich.events.json import strict_loads
from tests.decisions.opa_server import ask, opa_binary, serve_opa

POLICIES = Path(__file__).parent / "opa"
LOADS = functools.partial(strict_loads, max_bytes=1 << 20)


@dataclass(frozen=True)
class Call:
    method: Literal["GET", "POST"]
    target: str
    body: str | None = None
    type: str = "application/json"

    def __str__(self) -> str:
        return f"{self.method} {self.target} {self.body!r} {self.type.removeprefix('application/')}"


def post(target: str, body: str | None = None, type: str = "application/json") -> Call:
    return Call("POST", target, body, type)


def get(target: str) -> Call:
    return Call("GET", target)


V1, V0, YAML = "/v1/data/shop/", "/v0/data/shop/", "application/x-yaml"

CALLS = [
    # defined, undefined, missing
    post(V1 + "allow", '{"input":{"x":5}}'),
    post(V1 + "allow", '{"input":{"x":1}}'),
    post(V1 + "undefined_rule", '{"input":{}}'),
    post(V1 + "nope", '{"input":{}}'),
    post("/v1/data/nope/at/all", '{"input":{}}'),
    post(V0 + "allow", '{"x":5}'),
    post(V0 + "undefined_rule", "{}"),
    post(V0 + "nope", "{}"),
    post("/v0/data/nope/a%20b/1", "{}"),
    # packages, partial rules, base documents, deep paths
    post("/v1/data", '{"input":{"x":2,"key":"k"}}'),
    get("/v1/data"),
    post("/v1/data/shop", '{"input":{"x":2,"key":"k"}}'),
    post(V1 + "object", '{"input":{"x":2}}'),
    post(V1 + "object/k", '{"input":{"x":2}}'),
    post(V1 + "object/k", '{"input":{"x":0}}'),
    post(V1 + "members", "{}"),
    post(V1 + "members/3", '{"input":{}}'),
    post(V1 + "members/two", '{"input":{}}'),
    post(V1 + "members/2", '{"input":{}}'),
    post(V1 + "numbered/7", '{"input":{"key":"k"}}'),
    post(V1 + "numbered/k", '{"input":{"key":"k"}}'),
    post(V1 + "numbered/9", '{"input":{"key":"9"}}'),
    post(V1 + "branch", '{"input":{}}'),
    post(V1 + "branch/leaf", '{"input":{}}'),
    post(V1 + "branch/leaf/value", '{"input":{}}'),
    post(V1 + "branch/leaf/none", '{"input":{}}'),
    post(V1 + "doubled", '{"input":{"x":21}}'),
    post(V1 + "price", '{"input":{}}'),
    get(V1 + "stock"),
    get(V1 + "tariff"),
    get(V1 + "stock/list/1/q"),
    get(V1 + "stock/list/01"),
    get(V1 + "stock/list/-1"),
    get(V1 + "stock/list/9"),
    get(V1 + "stock/keys/7"),
    get(V1 + "stock/keys/a%2Fb"),
    get(V1 + "stock/keys/a%20b"),
    get(V1 + "stock/keys/a+b"),
    get(V1 + "stock/keys/%C3%B6"),
    get(V1 + "stock/empty"),
    get("/v1/data/shop%2Fstock/price"),
    # slashes
    get("/v1/data/"),
    get(V1 + "allow/"),
    post(V1 + "allow/", '{"input":{}}'),
    post("/v1/data//shop/allow", '{"input":{}}'),
    post("/v1/data/shop/../shop/allow", '{"input":{}}'),
    post("/v1/data/./shop//./allow", '{"input":{}}'),
    get("/v1/data/../data/shop/allow"),
    get("/v1/data/shop/%2e%2e/allow"),
    # no input, odd input
    post(V1 + "echo"),
    post(V1 + "echo", ""),
    post(V1 + "echo", "{}"),
    post(V1 + "echo", "null"),
    post(V1 + "echo", '{"input":null}'),
    post(V1 + "has_input", "{}"),
    post(V1 + "allow", "{}"),
    post(V1 + "echo", '{"input":[1]}'),
    post(V1 + "echo", '{"input":"text"}'),
    post(V1 + "echo", '{"input":false,"other":1}'),
    post(V1 + "echo", '{"Input":1}'),
    post(V1 + "echo", '{"input":{"n":9007199254740993,"f":0.1,"big":1e300,"s":"é\\u0001 😀"}}'),
    post(V0 + "echo", None),
    post(V0 + "is_null", None),
    post(V0 + "echo", "null"),
    post(V0 + "echo", '"text"'),
    post(V0 + "echo", "[1,2]"),
    get(V1 + "echo?input=%7B%22x%22%3A1%7D"),
    get(V1 + "echo?input=1&input=2"),
    get(V1 + "echo"),
    get(V1 + "allow?strict-builtin-errors"),
    # malformed
    post(V1 + "echo", "[]"),
    post(V1 + "echo", "3"),
    post(V1 + "echo", '"s"'),
    post(V1 + "echo", "{bad"),
    post(V0 + "echo", "{bad"),
    get(V1 + "echo?input="),
    get(V1 + "echo?input=nope"),
    get(V1 + "echo?input=1%202"),
    # failures
    post(V1 + "conflict", '{"input":{"c":1,"d":1}}'),
    post(V0 + "conflict", '{"c":1,"d":1}'),
    post("/v1/data/shop", '{"input":{"c":1,"d":1}}'),
    post(V1 + "number", '{"input":{"t":"z"}}'),
    post(V1 + "number", '{"input":{"t":"12"}}'),
    post(V1 + "number?strict-builtin-errors=true", '{"input":{"t":"z"}}'),
    post(V1 + "number?strict-builtin-errors=false", '{"input":{"t":"z"}}'),
    # POST /
    post("/", '{"x":1}'),
    post("/", '{"y":1}'),
    post("/", None),
    post("/", "{bad"),
    # YAML
    post(V1 + "echo", "input:\n  a: 1e3\n  b: yes\n  c: 012\n  d: 2026-11-23\n  e: ~\n  1: x\n", "application/yaml"),
    post(V1 + "echo", "input: {a: [1, 2.50, 'x'], b: True, c: \"q\"}", YAML),
    post(V1 + "echo", "input: [1", YAML),
    post(V1 + "echo", "- 1", YAML),
    post(V1 + "echo", "", YAML),
    post(V0 + "echo", "a: 1", YAML),
    post(V1 + "echo", '{"input":1}', "text/plain"),
]

#: where we answer otherwise on purpose: OPA's status, ours, our cause
DEVIATIONS = [
    (post(V1 + "echo", '{"input":1} tail'), 200, 400, "invalid_json"),
    (post(V1 + "echo", '{"input":1,"input":2}'), 200, 400, "duplicate_key"),
    (post(V1 + "echo", "input: {a: 1, a: 2}", YAML), 200, 400, "invalid_yaml"),
    (post(V1 + "echo", "a: &x 1\ninput: *x", YAML), 200, 400, "invalid_yaml"),
    (post(V0 + "double", "{}"), 500, 404, "undefined_document"),
    (post(V1 + "%22x", '{"input":{}}'), 500, 400, "invalid_parameter"),
    (post(V1 + "echo", '{"input":0.1000000000000000055511151231257827}'), 200, 400, "number_not_exact"),
]


#: parameters that add to the answer, or don't
ASKED_FOR = [
    *(f"{name}={value}" for name in ("provenance", "metrics", "instrument") for value in ("TRUE", "false", "1")),
    *("provenance", "metrics", "instrument", "pretty", "provenance=false&provenance=true", "explain=off", "explain"),
]


@pytest.fixture(scope="module")
def opa_port() -> Iterator[int]:
    with serve_opa(POLICIES) as port:
        yield port


@pytest.fixture(scope="module", params=["embedded", "wasm", "opa"])
def policies(request: pytest.FixtureRequest) -> Iterator[Prepared]:
    evaluator: Evaluator = EmbeddedEvaluator()
    if request.param == "wasm":
        evaluator = WasmEvaluator(opa_path=opa_binary())
    elif request.param == "opa":
        evaluator = OpaEvaluator(path=opa_binary())
    prepared = evaluator.prepare(load_policies(POLICIES))
    yield prepared
    prepared.close()


def theirs(port: int, call: Call) -> tuple[int, str | None, Any]:
    return ask(port, call.method, call.target, None if call.body is None else call.body.encode(), call.type)


def ours(policies: Prepared, call: Call) -> DataAnswer | Redirect:
    url = urlsplit(call.target)
    body = b"" if call.body is None else call.body.encode()
    try:
        query = read(call.method, url.path, parse_qs(url.query, keep_blank_values=True), call.type, body, loads=LOADS)
        if isinstance(query, Redirect):
            return query
        given = None if query.input is ABSENT else json.dumps(query.input, ensure_ascii=False).encode()
        return answer(query, policies.evaluate(query.path, given, strict_builtin_errors=query.strict))
    except EnrichError as error:
        return refusal(error)


def comparable(body: Any) -> Any:
    """What is held equal: everything, except the words of messages and the places of errors."""
    if isinstance(body, dict) and "code" in body:
        errors = [e["code"] for e in body.get("errors", ())] if body["code"] == "internal_error" else []
        message = body["message"] if body["code"] == "undefined_document" else None
        return body["code"], message, errors
    return body


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_a_call_is_answered_as_opa_answers_it(call: Call, opa_port: int, policies: Prepared) -> None:
    status, location, body = theirs(opa_port, call)
    got = ours(policies, call)
    assert got.status == status
    if isinstance(got, Redirect):
        assert got.location == location
    else:
        assert comparable(got.body) == comparable(body)
        json.dumps(got.body, allow_nan=False)


@pytest.mark.parametrize(("call", "status_there", "status", "cause"), DEVIATIONS, ids=str)
def test_a_named_deviation_refuses_where_opa_guesses(
    call: Call, status_there: int, status: int, cause: str, opa_port: int, policies: Prepared
) -> None:
    assert theirs(opa_port, call)[0] == status_there
    got = ours(policies, call)
    assert isinstance(got, DataAnswer)
    assert got.status == status
    assert cause in (got.body["code"], *(e["code"] for e in got.body.get("errors", ())))


@pytest.mark.parametrize("asked_for", ASKED_FOR)
@pytest.mark.parametrize("version", ["v1", "v0"])
def test_what_is_asked_for_besides_stands_in_the_answer_as_in_opas(
    version: str, asked_for: str, opa_port: int, policies: Prepared
) -> None:
    call = post(f"/{version}/data/shop/price?{asked_for}", '{"input":{}}')
    _, _, body = theirs(opa_port, call)
    url = urlsplit(call.target)
    parameters = parse_qs(url.query, keep_blank_values=True)
    query = read("POST", url.path, parameters, call.type, b'{"input":{}}', loads=LOADS)
    assert not isinstance(query, Redirect)
    got = answer(query, policies.evaluate(query.path, b"{}"), metrics={"n": 1}, provenance={"version": "x"})
    if version == "v0":
        assert got.body == body
    else:
        assert got.body.keys() == body.keys()
        assert got.body["result"] == body["result"]


def test_the_answer_carries_id_metrics_and_the_graver_warning(policies: Prepared) -> None:
    query = read("POST", "/v1/data/shop/allow", {"metrics": [""]}, "application/json", b"{}", loads=LOADS)
    assert not isinstance(query, Redirect)
    outcome = policies.evaluate(query.path, b"{}")
    got = answer(query, outcome, decision_id="d-1", metrics={"timer_rego_query_eval_ns": 5})
    assert got.body == {
        "decision_id": "d-1",
        "metrics": {"timer_rego_query_eval_ns": 5},
        "result": False,
        "warning": {"code": "api_usage_warning", "message": "'input' key missing from the request"},
    }
    graver = answer(query, outcome, warning={"code": "busy", "message": "no room"})
    assert graver.body["warning"]["code"] == "busy"


def test_an_evaluation_that_took_too_long_has_a_code_of_its_own() -> None:
    query = read("POST", "/v1/data/shop/allow", {}, "application/json", b'{"input":{}}', loads=LOADS)
    assert not isinstance(query, Redirect)
    shown = answer(query, Failed(TIMED_OUT, "the evaluation took longer than 5 s", ()))
    assert (shown.status, shown.body["code"]) == (504, "evaluation_timeout")
    assert shown.body["errors"] == [{"code": TIMED_OUT, "message": "the evaluation took longer than 5 s"}]
