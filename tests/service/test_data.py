"""OPA's Data API over HTTP; what its answers mean is held to a real OPA in tests/decisions."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from .running import Running, event

PATH = "/v1/data/test/authority/decision"
INPUT = {"identity": {"actor_id": "decided"}}


def test_history_decides(service: Running) -> None:
    document = {"input": {"identity": {"actor_id": "two-failures"}}}
    before = service.http.post(PATH, json=document).json()
    assert before["result"] == {"decision": "ALLOW"}
    for i in range(2):
        service.http.post("/v1/events", json=event(f"d-{i}", agent_id="two-failures"))
    assert service.http.post(PATH, json=document).json()["result"] == {"decision": "DENY"}
    query = {"input": json.dumps(document["input"])}
    assert service.http.get(PATH, params=query).json()["result"] == {"decision": "DENY"}
    v0 = service.http.post("/v0/data/test/authority/decision", json=document["input"])
    assert v0.json() == {"decision": "DENY"}


def test_yaml_is_read(service: Running) -> None:
    body = b"input:\n  identity: {actor_id: two-failures-yaml}\n"
    answer = service.http.post(PATH, content=body, headers={"content-type": "application/x-yaml"})
    assert answer.json()["result"] == {"decision": "ALLOW"}


YAML_REFUSED: list[tuple[bytes, int, str]] = [
    (b"input: {x: [" + b"1, " * 30_000 + b"1]}", 413, "body_too_large"),
    (b"input: " + b"[" * 64 + b"]" * 64, 400, "too_deep"),
    (b"- " * 30_000 + b"x", 400, "too_deep"),
    (b"[" * 60_000, 400, "too_deep"),
    *(
        (b"input: {x: %s}" % tagged, 400, "invalid_yaml")
        for tagged in (b"!!map {a: 1}", b"!!float 1", b"!!binary aGk=", b"!!set {b}", b"!!str 1", b"!own 1", b"! 1")
    ),
    (b"input: {!!str x: 1}", 400, "invalid_yaml"),
    (b"input: {x: 0.1000000000000000055511151231257827}", 400, "number_not_exact"),
    (b"input: {x: 18446744073709551616}", 400, "number_not_exact"),
    (b"input: {x: 0x" + b"f" * 5000 + b"}", 400, "number_not_exact"),
    (b"input: {x: 1e999}", 400, "number_not_exact"),
]


@pytest.mark.parametrize(("body", "status", "code"), YAML_REFUSED)
def test_yaml_says_no_more_than_json_and_is_short(service: Running, body: bytes, status: int, code: str) -> None:
    began = time.monotonic()
    answer = service.http.post(PATH, content=body, headers={"content-type": "application/yaml"})
    assert time.monotonic() - began < 5
    assert answer.status_code == status, answer.text
    error = _data_error(answer)
    assert code in (error["code"], error["errors"][0]["code"])


@pytest.mark.parametrize("body", [b"", b"{}"])
def test_no_input_is_answered_with_a_warning(service: Running, body: bytes) -> None:
    json_type = {"content-type": "application/json"}
    answer = service.http.post("/v1/data/test/authority/asked", content=body, headers=json_type)
    assert answer.status_code == 200
    assert answer.json()["warning"]["code"] == "api_usage_warning"
    assert "result" not in answer.json()
    answer = service.http.post(PATH, content=body, headers=json_type)  # a decision needs an agent
    assert (answer.status_code, _data_error(answer)["code"]) == (400, "missing_agent")


def test_what_is_undefined(service: Running) -> None:
    answer = service.http.post("/v1/data/nothing/here", json={"input": INPUT})
    assert (answer.status_code, set(answer.json())) == (200, {"decision_id"})
    answer = service.http.post("/v0/data/nothing/here", json=INPUT)
    assert (answer.status_code, answer.json()["code"]) == (404, "undefined_document")


def test_a_trailing_slash_is_redirected_with_its_query(service: Running) -> None:
    answer = service.http.get(PATH + "/?input=%7B%7D")
    assert (answer.status_code, answer.headers["location"]) == (301, PATH + "?input=%7B%7D")


def test_pretty_and_metrics(service: Running) -> None:
    answer = service.http.post(PATH + "?pretty&metrics=true", json={"input": INPUT})
    assert answer.text.startswith("{\n  ")
    assert answer.json()["metrics"]["timer_rego_query_eval_ns"] > 0


def test_a_gzip_body_is_read_within_the_limit(service: Running) -> None:
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    body = gzip.compress(json.dumps({"input": INPUT}).encode())
    assert service.http.post(PATH, content=body, headers=packed).json()["result"] == {"decision": "ALLOW"}
    forged = gzip.compress(b'{"input":{"history":{}}}')
    refused: list[tuple[bytes, int, str]] = [
        (forged, 400, "history_forged"),
        (gzip.compress(b'{"input":{"a":"' + b"x" * 100_000_000 + b'"}}'), 413, "body_too_large"),
        (body[:-9], 400, "invalid_gzip"),
        (body + b"{}", 400, "invalid_gzip"),
        (b'{"input":{}}', 400, "invalid_gzip"),
    ]
    for sent, status, code in refused:
        answer = service.http.post(PATH, content=sent, headers=packed)
        assert (answer.status_code, _data_error(answer)["code"]) == (status, code)
    other = packed | {"content-encoding": "br"}
    assert service.http.post(PATH, content=body, headers=other).status_code == 415


def test_a_document_is_not_asked_for_by_head(service: Running) -> None:
    answer = service.http.head(PATH)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert service.http.head("/health").status_code == 200


def _data_error(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert {"code", "message"} <= set(body) <= {"code", "message", "errors"}, body
    return dict(body)


FORGED = [
    ("POST", PATH, {"json": {"input": {"history": {"agent": {}}}}}),
    ("POST", PATH, {"json": {"INPUT": {"history": {}}}}),
    ("GET", PATH, {"params": {"input": '{"history":{}}'}}),
    ("GET", PATH, {"params": {"input": '{"h\\u0069story":null}'}}),
    ("POST", "/v0/data/test/authority/decision", {"json": {"history": {}}}),
    ("POST", "/", {"json": {"history": {}}}),
    ("POST", PATH, {"content": b"input: {history: {}}", "headers": {"content-type": "application/yaml"}}),
]


@pytest.mark.parametrize(("method", "path", "options"), FORGED)
def test_a_callers_own_history_is_refused_by_every_way(
    service: Running, method: str, path: str, options: dict[str, Any]
) -> None:
    answer = service.http.request(method, path, **options)
    assert answer.status_code == 400
    assert _data_error(answer)["code"] == "history_forged"


def test_history_at_a_configured_path_is_refused_there_and_at_the_top(tmp_path: Path) -> None:
    from .running import definitions, serving

    directory, at = definitions(tmp_path), "context.attributes.history"
    policy = directory / "policies" / "authority.rego"
    policy.write_text(policy.read_text().replace("input.history", f"input.{at}"))
    with serving(directory, environment={"ENRICH_INPUT_HISTORY": at}) as other:
        both: list[dict[str, Any]] = [{"history": {}}, {"context": {"attributes": {"history": {}}}}]
        for forged in both:
            for answer in (
                other.http.post(PATH, json={"input": forged}),
                other.http.get(PATH, params={"input": json.dumps(forged)}),
            ):
                assert (answer.status_code, _data_error(answer)["code"]) == (400, "history_forged")
            answer = other.http.post("/v1/enrich", json={"input": forged})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "history_forged")
        enriched = other.http.post("/v1/enrich", json={"input": {"context": {"domain": "x"}}}).json()["input"]
        assert set(enriched["context"]) == {"domain", "attributes"}
        assert enriched["context"]["attributes"]["history"]["status"] == "fresh"


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("POST", PATH, {"content": b"[]"}, 400),
        ("POST", PATH, {"content": b"{"}, 400),
        ("POST", PATH, {"content": b'{"input":{"a":1,"a":2}}'}, 400),
        ("POST", PATH, {"content": b'{"input":7}'}, 400),
        ("POST", PATH, {"content": b'{"input":{"x":1e999}}'}, 400),
        ("POST", PATH, {"content": b'{"input":' + b"[" * 100_000}, 400),
        ("POST", PATH, {"content": b"x" * 10_000_000}, 413),
        ("POST", PATH, {"content": b"a: &a [*a]", "headers": {"content-type": "application/yaml"}}, 400),
        ("GET", PATH + "?input=%FF", {}, 400),
        ("GET", PATH + "?input={", {}, 400),
        ("GET", PATH + "?" + "&".join(f"p{i}=" for i in range(100)), {}, 400),
        ("GET", "/v1/data/%FF", {}, 400),
        ("PUT", PATH, {}, 405),
        ("PATCH", PATH, {}, 405),
        ("DELETE", "/v1/data", {}, 405),
        ("GET", "/", {}, 405),
    ],
)
def test_a_bad_request_is_refused_in_opas_form(
    service: Running, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    answer = service.http.request(method, path, **options)
    assert answer.status_code == status, answer.text
    assert _data_error(answer)["code"]
    assert len(answer.content) < 4096
