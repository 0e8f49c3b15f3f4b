"""`/v1/suspensions` over HTTP."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from .running import Running


def enriched(service: Running, agent: str, **instance: Any) -> dict[str, Any]:
    body = {"input": {"identity": {"actor_id": agent}, "instance": instance}, "select": []}
    answer = service.http.post("/v1/enrich", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["input"]["history"])


def test_suspend_see_and_lift(service: Running) -> None:
    id_ = "über/agent 1"
    path = f"/v1/suspensions/agent/{quote(id_, safe='')}"
    assert service.http.get(path).json()["error"]["code"] == "not_suspended"
    put = service.http.put(path, json={"reason": "it misbehaves", "by": "oncall"})
    assert put.status_code == 200, put.text
    made = put.json()["suspension"]
    assert (made["scope"], made["id"], made["reason"], made["by"]) == ("agent", id_, "it misbehaves", "oncall")
    history = enriched(service, id_)
    assert history["suspended"]
    assert history["suspensions"] == [{**made, "match": "id"}]
    assert history["seq"] >= put.json()["seq"] >= made["seq"]
    assert service.http.get(path).json()["suspension"] == made
    assert made in service.http.get("/v1/suspensions").json()["suspensions"]
    lifted = service.http.delete(f"{path}?by=oncall")
    assert lifted.status_code == 200, lifted.text
    assert lifted.json()["lifted"] == made
    assert not enriched(service, id_)["suspended"]
    assert service.http.delete(path).status_code == 404


def test_everyone_is_suspended_without_an_id(service: Running) -> None:
    try:
        assert service.http.put("/v1/suspensions/all", json={"reason": "stop"}).status_code == 200
        found = enriched(service, "whoever")["suspensions"]
        assert [(s["scope"], "id" in s, s["match"]) for s in found] == [("all", False, "all")]
        assert service.http.get("/v1/suspensions/all").json()["suspension"]["reason"] == "stop"
    finally:
        assert service.http.delete("/v1/suspensions/all").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("PUT", "/v1/suspensions/agent/x", {}, 400, "invalid_reason"),
        ("PUT", "/v1/suspensions/agent/x", {"reason": ""}, 400, "invalid_reason"),
        ("PUT", "/v1/suspensions/agent/x", {"reason": "r", "until": "2020-01-01T00:00:00Z"}, 400, "invalid_time"),
        ("PUT", "/v1/suspensions/agent/x", {"reason": "r", "whom": "x"}, 400, "unknown_field"),
        ("PUT", "/v1/suspensions/agent/x", ["r"], 400, "invalid_body"),
        ("PUT", "/v1/suspensions/agent/%20x", {"reason": "r"}, 400, "invalid_entity_id"),
        ("PUT", "/v1/suspensions/agent/", {"reason": "r"}, 400, "invalid_entity_id"),
        ("PUT", "/v1/suspensions/agent/%ff", {"reason": "r"}, 400, "invalid_utf8"),
        ("PUT", "/v1/suspensions/approver/x", {"reason": "r"}, 404, "unknown_scope"),
        ("PUT", "/v1/suspensions/agent", {"reason": "r"}, 404, "no_such_path"),
        ("PUT", "/v1/suspensions/agent/x/y", {"reason": "r"}, 404, "no_such_path"),
        ("PUT", "/v1/suspensions/all/x", {"reason": "r"}, 400, "invalid_entity_id"),
        ("DELETE", "/v1/suspensions/agent/nobody", None, 404, "not_suspended"),
        ("DELETE", "/v1/suspensions/agent/nobody", {"a": 1}, 400, "unexpected_body"),
        ("GET", "/v1/suspensions/agent/nobody?x=1", None, 400, "unknown_parameter"),
        ("POST", "/v1/suspensions/agent/x", {"reason": "r"}, 405, "method_not_allowed"),
    ],
)
def test_what_can_not_be_done_is_said(
    service: Running, method: str, path: str, body: Any, status: int, code: str
) -> None:
    answer = service.http.request(method, path, json=body) if body is not None else service.http.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert service.http.get("/v1/suspensions").json()["suspensions"] == []
