"""`POST /v1/enrich`, entities, signals."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.decisions.opa_server import opa_binary

from .running import Running, event

INPUT = {"identity": {"actor_id": "enriched"}, "instance": {"workflow_id": "w-1"}, "amount": 1.50}


def test_history_stands_in_the_input_and_the_rest_is_as_sent(service: Running) -> None:
    service.http.post("/v1/events", json=event("e-1", agent_id="enriched", workflow_id="w-1"))
    answer = service.http.post("/v1/enrich", json={"input": INPUT})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    enriched = answer.json()["input"]
    history = enriched.pop("history")
    assert enriched == INPUT
    assert history["agent"]["id"] == "enriched"
    assert history["agent"]["known"] is True
    assert history["agent"]["last_24h"] == {
        "complete": history["agent"]["last_24h"]["complete"],
        "executions": 1,
        "failures": 1,
        "failure_rate": 1.0,
    }
    assert history["status"] == "fresh"
    assert history["catalog"].startswith("sha256:")


def test_what_is_not_selected_is_not_there(service: Running) -> None:
    answer = service.http.post("/v1/enrich", json={"input": INPUT, "select": ["agent.last_24h.failures"]}).json()
    agent = answer["input"]["history"]["agent"]
    assert set(agent) == {"id", "known", "last_24h"}
    assert set(agent["last_24h"]) == {"complete", "failures"}


def test_a_missing_id_is_unknown_with_zero_counts(service: Running) -> None:
    agent = service.http.post("/v1/enrich", json={"input": {}}).json()["input"]["history"]["agent"]
    assert (agent["id"], agent["known"], agent["last_1h"]["executions"]) == (None, False, 0)
    assert "failure_rate" not in agent["last_1h"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"input": {"history": {}}}, "history_forged"),
        ({"input": {"history": None}}, "history_forged"),
        ({"input": {"identity": {"actor_id": 7}}}, "invalid_entity_id"),
        ({"input": {"identity": {"actor_id": ""}}}, "invalid_entity_id"),
        ({"input": {"identity": {"actor_id": " a"}}}, "invalid_entity_id"),
        ({"input": {"identity": {"actor_id": "x" * 1_000_000}}}, "invalid_entity_id"),
        ({"input": {"identity": "a"}}, "invalid_entity_id"),
        ({"input": {"approval": {"candidate_ids": ["p"] * 33}}}, "invalid_entity_id"),
        ({"input": []}, "invalid_input"),
        ({"input": None}, "invalid_input"),
        ({}, "missing_input"),
        ([], "invalid_body"),
        (None, "invalid_body"),
        ({"input": {}, "as_of": "2026-01-01T00:00:00Z"}, "unknown_field"),
        ({"input": {}, "select": "agent.*"}, "invalid_select"),
        ({"input": {}, "select": [1]}, "invalid_select"),
        ({"input": {}, "select": ["agent.last_24h.colour"]}, "unknown_signal"),
        ({"input": {}, "select": ["*" * 100_000]}, "invalid_select"),
        ({"input": {}, "select": ["agent.*"] * 100_000}, None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_request_is_a_400(service: Running, body: Any, code: str | None) -> None:
    headers = {"content-type": "application/json"}
    answer = service.http.post("/v1/enrich", content=json.dumps(body), headers=headers)
    if code is None:
        assert answer.status_code < 500
        return
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == code
    assert len(answer.content) < 4096


def test_numbers_come_back_as_sent_or_are_refused(service: Running) -> None:
    sent = b'{"input":{"a":1.0,"b":9007199254740993,"c":18446744073709551615,"d":1e-7,"e":0.1}}'
    answer = service.http.post("/v1/enrich", content=sent, headers={"content-type": "application/json"})
    assert b'"b":9007199254740993' in answer.content
    assert b'"c":18446744073709551615' in answer.content
    assert b'"a":1.0' in answer.content
    for number in (b"18446744073709551616", b"0.12345678901234567890", b"1e999"):
        answer = service.http.post(
            "/v1/enrich", content=b'{"input":{"x":' + number + b"}}", headers={"content-type": "application/json"}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "number_not_exact"), number


@pytest.mark.parametrize("name", ["a/b", "ünïcode", "a b", "100%", "a?b#c", "..", ".", "%2F", "é" * 100, "a+b"])
def test_ids_are_percent_decoded_per_segment(service: Running, name: str) -> None:
    from urllib.parse import quote

    posted = service.http.post("/v1/events", json=event(f"odd-{name}"[:200], agent_id=name, workflow_id=f"w{name}"))
    assert posted.json()["accepted"] == 1, posted.text
    # percent-encode dots too: an HTTP client resolves them as path steps otherwise
    encoded = quote(name, safe="").replace(".", "%2E")
    answer = service.http.get(f"/v1/entities/agent/{encoded}")
    assert (answer.status_code, answer.json()["id"], answer.json()["known"]) == (200, name, True)
    pair = service.http.get(f"/v1/entities/agent_workflow/{encoded}/w{encoded}").json()
    assert (pair["id"], pair["last_24h"]["runs"]) == ([name, f"w{name}"], 1)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/entities/agent", 404, "no_such_path"),
        ("/v1/entities/agent/", 400, "invalid_entity_id"),
        ("/v1/entities/agent/a/b", 400, "invalid_entity_id"),
        ("/v1/entities/agent_workflow/a", 400, "invalid_entity_id"),
        ("/v1/entities/agent/a/b/c", 404, "no_such_path"),
        ("/v1/entities/colour/a", 404, "unknown_entity"),
        ("/v1/entities/agent/%FF", 400, "invalid_utf8"),
        ("/v1/entities/agent/%00", 400, "invalid_entity_id"),
        ("/v1/entities/agent/" + "x" * 201, 400, "invalid_entity_id"),
        ("/v1/entities/agent/a?as_of=now", 400, "invalid_time"),
        ("/v1/entities/agent/a?at=now", 400, "unknown_parameter"),
        ("/v1/signals/nothing/sql?id=a&window=24h", 404, None),
        ("/v1/signals/agent_runs/sql?window=24h", 400, "missing_parameter"),
        ("/v1/signals/agent_runs/sql?id=a&window=9y", 400, None),
        ("/v1/signals/agent_runs/nothing", 404, "no_such_path"),
    ],
)
def test_a_path_that_leads_nowhere_says_why(service: Running, path: str, status: int, code: str | None) -> None:
    answer = service.http.get(path)
    assert answer.status_code == status, answer.text
    if code:
        assert answer.json()["error"]["code"] == code


def test_another_moment_is_answered_for(service: Running) -> None:
    service.http.post("/v1/events", json=event("past", agent_id="past"))
    now = service.http.get("/v1/entities/agent/past").json()
    then = service.http.get("/v1/entities/agent/past", params={"as_of": "2026-01-01T00:00:00+00:00"}).json()
    assert (now["last_1h"]["executions"], then["last_1h"]["executions"]) == (1, 0)
    assert then["as_of"] == "2026-01-01T00:00:00.000000Z"


def test_the_catalog_its_schema_and_its_sql_are_served(service: Running) -> None:
    assert "failure_rate" in service.http.get("/v1/signals").text
    answer = service.http.get("/v1/signals/agent_runs/sql", params={"id": "it's", "window": "24h"})
    assert "it''s" in answer.json()["sql"]


def test_the_schema_is_that_of_the_enriched_input(service: Running, tmp_path: Path) -> None:
    schema = service.http.get("/v1/signals/schema.json").json()
    assert (schema["title"], schema["required"]) == ("input", ["history"])
    for document in ({}, INPUT, {"identity": {"actor_id": None}}):
        enriched = service.http.post("/v1/enrich", json={"input": document}).json()["input"]
        holds(schema, enriched)
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "history.json").write_text(json.dumps(schema["properties"]["history"]))
    annotation = "# METADATA\n# scope: package\n# schemas: [input.history: schema.history]\npackage p\n\n"
    for signal, status in (("failures", 0), ("failres", 1)):
        rule = f"deny if {{\n\tinput.identity.actor_id\n\tinput.history.agent.last_24h.{signal} > 2\n}}\n"
        (tmp_path / "p.rego").write_text(annotation + rule)
        command = [opa_binary(), "check", str(tmp_path / "p.rego"), "-s", str(tmp_path / "schemas")]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)
        assert checked.returncode == status, checked.stderr


def holds(schema: dict[str, Any], value: dict[str, Any]) -> None:
    """What is required is there, and in a closed object nothing else, however deep."""
    assert set(schema["required"]) <= set(value)
    if schema.get("additionalProperties") is False:
        assert set(value) <= set(schema["properties"])
    for name, inner in schema["properties"].items():
        if "properties" in inner and name in value:
            holds(inner, value[name])
