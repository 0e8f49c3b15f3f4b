"""The gate over HTTP: every route to a decision is guarded, decisions are recorded, and limits hold among clients."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engine.gated import AT_MOST, decide, open_gated

from .running import Running, definitions, serving

DECISION = "test/authority/decision"
PATH = f"/v1/data/{DECISION}"
LIMIT = 10


def asked(agent: str, **instance: Any) -> dict[str, Any]:
    return {"input": {"identity": {"actor_id": agent}, "instance": instance}}


def code(answer: httpx.Response) -> str:
    body = answer.json()
    return str(body["error"]["code"] if "error" in body else body["code"])


COVERED = [
    ("GET", "/v1/data"),
    ("GET", "/v1/data?input={}"),
    ("POST", "/v1/data"),
    ("POST", "/v0/data"),
    ("GET", "/v1/data/test"),
    ("POST", "/v1/data/test"),
    ("POST", "/v0/data/test/authority"),
    ("GET", "/v1/data/test/authority"),
    ("POST", "/v1/data/te%73t/%61uthority"),
    ("GET", f"/v1/data/{DECISION}/decision"),
    ("POST", f"/v1/data/{DECISION}/decision"),
    ("POST", f"/v0/data/{DECISION}/decision"),
    ("POST", f"/v1/data/{DECISION}/0/x"),
]


@pytest.mark.parametrize(("method", "path"), COVERED)
@pytest.mark.parametrize("given", [True, False])
def test_what_holds_a_decision_or_is_a_part_of_one_is_refused(
    service: Running, method: str, path: str, given: bool
) -> None:
    document = asked("covered")
    content = document["input"] if "/v0/" in path else document
    options: dict[str, Any] = {"json": content} if given and method == "POST" else {}
    answer = service.http.request(method, path, **options)
    # under v0 no body is `null`, which is no input that history can be put into
    expected = "decision_path_required" if given or "/v0/" not in path else "invalid_parameter"
    assert (answer.status_code, code(answer)) == (400, expected), answer.text
    assert set(answer.json()) == {"code", "message", "errors"}


def test_every_way_to_a_decision_counts_and_others_do_not(service: Running) -> None:
    agent = f"counted-{uuid.uuid4()}"
    document = asked(agent)
    raw = json.dumps(document["input"])
    ways = [
        service.http.post(PATH, json=document),
        service.http.get(PATH, params={"input": raw}),
        service.http.post(f"/v0/data/{DECISION}", json=document["input"]),
        service.http.post(PATH, content=f"input: {raw}", headers={"content-type": "application/yaml"}),
        service.http.post("/v1/data/te%73t/authority/decision", json=document),
    ]
    assert [a.status_code for a in ways] == [200] * 5
    ids = {a.json()["decision_id"] for i, a in enumerate(ways) if i != 2}
    for path in ("asked", "known"):
        other = service.http.post(f"/v1/data/test/authority/{path}", json=document)
        assert other.status_code == 200
        assert other.json()["decision_id"] not in ids
    page = service.http.get("/v1/decisions", params={"agent": agent}).json()
    assert len(page["decisions"]) == 5
    assert ids < {d["decision_id"] for d in page["decisions"]}
    events = service.http.get("/v1/events", params={"agent": agent, "kind": "authority"}).json()["events"]
    assert [e["outcome"] for e in events] == ["allowed"] * 5


def test_a_decision_by_its_id_and_pages_of_them(service: Running) -> None:
    agent = f"listed-{uuid.uuid4()}"
    ids = [service.http.post(PATH, json=asked(agent, n=n)).json()["decision_id"] for n in range(5)]
    record = service.http.get(f"/v1/decisions/{ids[2]}").json()
    assert (record["decision_id"], record["path"], record["result"]) == (ids[2], DECISION, {"decision": "ALLOW"})
    assert record["input"]["instance"] == {"n": 2}
    assert record["input"]["history"]["agent"]["id"] == agent
    assert "salt" not in record
    parameters = {"agent": agent, "limit": "2", "decision": "ALLOW", "path": DECISION, "since": record["as_of"]}
    seen: list[str] = []
    while True:
        page = service.http.get("/v1/decisions", params=parameters).json()
        seen += [d["decision_id"] for d in page["decisions"]]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert seen == list(reversed(ids[2:]))
    for path, status, expected in (
        ("/v1/decisions/nothing", 404, "unknown_decision"),
        ("/v1/decisions/a/b", 404, "no_such_path"),
        ("/v1/decisions?colour=red", 400, "unknown_parameter"),
        ("/v1/decisions?limit=0", 400, "invalid_parameter"),
        ("/v1/decisions?since=yesterday", 400, "invalid_time"),
        ("/v1/decisions?cursor=x", 400, "invalid_cursor"),
    ):
        answer = service.http.get(path)
        assert (answer.status_code, code(answer)) == (status, expected)


def test_a_suspended_agent_is_answered_200_with_the_cause(service: Running) -> None:
    line = 'enrich_decisions_total{cause="suspended",decision="DENY",fate="recorded"}'
    before = service.metric(line)
    service.http.put("/v1/suspensions/agent/held", json={"reason": "stop"})
    answer = service.http.post(PATH, json=asked("held"))
    assert (answer.status_code, answer.json()["result"]) == (200, {"decision": "DENY"})
    assert answer.json()["warning"]["code"] == "suspended"
    service.http.delete("/v1/suspensions/agent/held")
    assert service.metric(line) == before + 1
    assert service.http.post(PATH, json=asked("held")).json()["result"] == {"decision": "ALLOW"}


def test_an_idempotency_key_is_a_header(service: Running) -> None:
    agent, key = f"keyed-{uuid.uuid4()}", {"idempotency-key": str(uuid.uuid4())}
    first, again = (service.http.post(PATH, json=asked(agent), headers=key).json() for _ in range(2))
    assert first == again
    conflict = service.http.post(PATH, json=asked(agent, n=1), headers=key)
    assert (conflict.status_code, code(conflict)) == (409, "idempotency_conflict")
    assert len(service.http.get("/v1/decisions", params={"agent": agent}).json()["decisions"]) == 1
    for bad in ([("idempotency-key", "x" * 201)], [("idempotency-key", "")], [("idempotency-key", "a")] * 2):
        refused = service.http.post(PATH, json=asked(agent), headers=bad)
        assert (refused.status_code, code(refused)) == (400, "invalid_idempotency_key")


def test_a_dry_run_says_so_and_leaves_no_trace(service: Running) -> None:
    agent = f"dry-{uuid.uuid4()}"
    answer = service.http.post(PATH + "?dry_run=true", json=asked(agent)).json()
    assert (answer["dry_run"], answer["result"]) == (True, {"decision": "ALLOW"})
    service.http.post(f"/v0/data/{DECISION}?dry_run=true", json=asked(agent)["input"])
    assert service.http.get("/v1/decisions", params={"agent": agent}).json()["decisions"] == []
    assert service.http.get(f"/v1/decisions/{answer['decision_id']}").status_code == 404
    assert "dry_run" not in service.http.post(PATH, json=asked(agent)).json()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"json": {"input": {}}}, "missing_agent"),
        ({"content": b""}, "missing_agent"),
        ({"json": {"input": {"identity": {"actor_id": None}}}}, "missing_agent"),
        ({"json": {"input": []}}, "invalid_parameter"),
    ],
)
def test_nobody_is_decided_about(service: Running, options: dict[str, Any], expected: str) -> None:
    answer = service.http.post(PATH, **options)
    assert (answer.status_code, code(answer)) == (400, expected)


@pytest.fixture
def limited(tmp_path: Path) -> Path:
    """Definitions that allow an agent and a team so many decisions an hour."""
    open_gated(tmp_path, AT_MOST.format(agent=LIMIT, team=LIMIT)).close()
    return tmp_path


def shop(agent: str, team: str) -> dict[str, Any]:
    return {"input": {"identity": {"actor_id": agent}, "instance": {"owning_team_id": team}}}


@pytest.mark.parametrize("agents", [1, 64])
def test_limits_hold_among_64_clients(limited: Path, agents: int) -> None:
    with serving(limited, environment={"ENRICH_DEADLINE_MS": "20000"}) as running:
        clients = [httpx.Client(base_url=running.url, timeout=30) for _ in range(64)]
        ready = threading.Barrier(64)

        def ask(i: int) -> str:
            ready.wait()
            answer = clients[i].post("/v1/data/shop/decision", json=shop(f"agent-{i % agents}", "t"))
            return str(answer.json()["result"]["decision"])

        with ThreadPoolExecutor(64) as pool:
            decisions = Counter(pool.map(ask, range(64)))
        for client in clients:
            client.close()
        assert decisions == {"ALLOW": LIMIT, "DENY": 64 - LIMIT}


#: about one agent it does not come to an end
ENDLESS = """\
package shop

decision := "ALLOW" if {
    input.identity.actor_id == "busy"
    some x in numbers.range(1, 3000)
    some y in numbers.range(1, 3000)
    x * y < 0
}

decision := "ALLOW" if {
    input.identity.actor_id != "busy"
    input.history.agent.last_1h.allowed < 10
}
"""


def test_nobody_waits_for_an_agent_that_many_ask_about(tmp_path: Path) -> None:
    """More of them than there are evaluations at once wait for the one that is decided on."""
    open_gated(tmp_path, ENDLESS).close()
    with (
        serving(tmp_path, environment={"ENRICH_DEADLINE_MS": "60000"}) as running,
        httpx.Client(base_url=running.url, timeout=90, limits=httpx.Limits(max_connections=40)) as client,
        ThreadPoolExecutor(40) as pool,
    ):

        def ask(_: int) -> None:
            with contextlib.suppress(httpx.HTTPError):
                client.post("/v1/data/shop/decision", json=shop("busy", "t"))

        waiting = [pool.submit(ask, i) for i in range(40)]
        while running.metric("enrich_evaluation_queue_depth") < 40:
            assert not any(one.done() for one in waiting)
        answer = running.http.post("/v1/data/shop/decision", json=shop("other", "u"), timeout=90)
        ended = sum(one.done() for one in waiting)
        running.process.kill()
    assert (answer.status_code, answer.json()["result"]) == (200, "ALLOW")
    assert ended < 40 - 32


@pytest.mark.parametrize("failpoint", ["journal.write:9", "engine.applied:9", "journal.after_fsync:7"])
def test_a_limit_holds_across_kill_9(limited: Path, failpoint: str) -> None:
    """Killed between append and answer: what was answered is in the journal once, and what was not may be."""
    answered: list[dict[str, Any]] = []
    with serving(limited, environment={"ENRICH_FAILPOINT": failpoint}) as running:

        def ask(i: int) -> None:
            with httpx.Client(base_url=running.url, timeout=30) as client:
                while True:
                    try:
                        answer = client.post("/v1/data/shop/decision", json=shop(f"agent-{i}", "t"))
                    except httpx.HTTPError:
                        return
                    if answer.status_code == 200:
                        answered.append(answer.json())

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, range(4)))
        assert running.process.wait(20) == -signal.SIGKILL
    from enrich.journal import verify

    report = verify(limited / "data")
    assert (report.ok, report.problems) == (True, [])
    with open_gated(limited) as engine:
        records = {}
        for record in engine.journal.read():
            if record.type == "decision":
                body = record.body or {}
                assert body["decision_id"] not in records
                records[body["decision_id"]] = body
        for answer in answered:
            assert records[answer["decision_id"]]["result"] == answer["result"]
        allowed = [b for b in records.values() if b["decision"] == "ALLOW"]
        assert len(allowed) <= LIMIT
        assert engine.context({"team": "t"})["team"]["last_1h"]["team_allowed"] == len(allowed)
        assert len(engine.events(team="t", limit=1000).events) == len(records)
        while decide(engine, shop("again", "t")["input"]).decision == "ALLOW":
            allowed.append({})
        assert len(allowed) == LIMIT


def test_without_decision_paths_nothing_is_gated(tmp_path: Path) -> None:
    with serving(definitions(tmp_path), environment={"ENRICH_DECISION_PATHS": ""}) as running:
        whole = running.http.post("/v1/data", json=asked("a"))
        assert whole.json()["result"]["test"]["authority"]["decision"] == {"decision": "ALLOW"}
        running.http.post(PATH, json={"input": {}})
        assert running.http.get("/v1/decisions").json()["decisions"] == []
