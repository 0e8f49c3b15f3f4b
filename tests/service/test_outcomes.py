"""`POST /v1/decisions/{id}/outcome` and `enrich outcome`: what is in flight is settled, once."""

from __future__ import annotations

import json
from typing import Any

from .running import Running, enrich

PATH = "/v1/data/test/authority/decision"


def decided(service: Running, agent: str) -> str:
    declared = {"amount_minor": 500, "currency": "EUR"}
    document = {"identity": {"actor_id": agent}, "context": {"attributes": declared}}
    answer = service.http.post(PATH, json={"input": document})
    assert answer.json()["result"] == {"decision": "ALLOW"}
    return str(answer.json()["decision_id"])


def in_flight(service: Running, agent: str) -> dict[str, Any]:
    found: dict[str, Any] = service.http.get(f"/v1/entities/agent/{agent}?select=agent.in_flight").json()["in_flight"]
    return found


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_an_outcome_settles_what_is_in_flight_once(service: Running) -> None:
    id_ = decided(service, "settler")
    assert in_flight(service, "settler")["declared_amount_minor_by_currency"] == {"EUR": 500}
    url, report = f"/v1/decisions/{id_}/outcome", {"outcome": "succeeded", "amount_minor": 450, "currency": None}
    answer = service.http.post(url, json=report)
    assert (answer.status_code, set(answer.json())) == (200, {"decision_id", "outcome", "occurred_at", "seq"})
    assert service.http.post(url, json=report).json() == answer.json()
    assert code(service.http.post(url, json=report | {"amount_minor": 1})) == (409, "already_settled")
    assert in_flight(service, "settler")["count"] == 0
    record = service.http.get(f"/v1/decisions/{id_}").json()
    assert (record["lease"], record["outcome"]["amount_minor"], record["outcome"]["seq"]) == (
        3600, 450, answer.json()["seq"],
    )  # fmt: skip
    [run] = service.http.get("/v1/events?agent=settler&kind=execution").json()["events"]
    assert (run["amount_minor"], run["currency"], run["decision_id"]) == (450, "EUR", id_)


def test_what_can_not_be_reported(service: Running) -> None:
    id_ = decided(service, "silent")
    url = f"/v1/decisions/{id_}/outcome"
    for content, expected in [
        (b'{"outcome": "allowed"}', "invalid_outcome"),
        (b'{"outcome": "failed", "amount_minor": 1.5}', "wrong_type"),
        (b'{"outcome": "cancelled", "amount_minor": 1}', "cancelled_with_amount"),
        (b'{"outcome": "failed", "agent_id": "b"}', "unknown_field"),
        (b'{"outcome": "failed", "self": "b"}', "unknown_field"),
        (b'{"amount_minor": 1}', "missing_field"),
        (b"[]", "invalid_body"),
        (b"{", "invalid_json"),
    ]:
        answer = service.http.post(url, content=content, headers={"content-type": "application/json"})
        assert code(answer) == (400, expected), content
    report = {"outcome": "failed"}
    assert code(service.http.post("/v1/decisions/nobody/outcome", json=report)) == (404, "unknown_decision")
    for path in (f"/v1/decisions/{id_}", f"{url}s", f"{url}/x"):
        assert code(service.http.post(path, json=report)) == (404, "no_such_path")
    assert in_flight(service, "silent")["count"] == 1


def test_the_command_line_reports(service: Running) -> None:
    id_ = decided(service, "commanded")
    said = ("--outcome", "failed", "--cost-microusd", "7")
    done = enrich("outcome", id_, *said, "--url", service.url, cwd=service.directory)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("failed at ")
    shown = json.loads(enrich("decision", id_, "--url", service.url, cwd=service.directory).stdout)
    assert shown["outcome"] | {"seq": 0, "occurred_at": "", "caller": ""} == {
        "outcome": "failed", "cost_microusd": 7, "seq": 0, "occurred_at": "", "caller": "",
    }  # fmt: skip
    assert in_flight(service, "commanded")["count"] == 0
