"""`/v1/backtest` and `enrich backtest`: changed definitions on a service's past, and on a data directory's."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from .running import AGENT_SET, POLICY, Running, definitions, enrich, event, serving

STRICT = POLICY.replace(">= 2", ">= 1")
PATH = "/v1/data/test/authority/decision"
DECIDED = 4


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Four decisions: two about an agent that failed once, two about one that never did."""
    directory = definitions(tmp_path_factory.mktemp("backtest"))
    (directory / "changed").mkdir()
    (directory / "changed" / "authority.rego").write_text(STRICT)
    with serving(directory, environment={"ENRICH_BACKTEST_DECISIONS": str(DECIDED)}) as running:
        assert running.http.post("/v1/events", json=event("1")).json()["accepted"] == 1
        for agent in ("a-1", "a-2") * (DECIDED // 2):
            answer = running.http.post(PATH, json={"input": {"identity": {"actor_id": agent}}})
            assert answer.json()["result"] == {"decision": "ALLOW"}
        yield running
        assert "unhandled" not in running.log.read_text()


@pytest.fixture(scope="module")
def stopped(decided: Running, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same past as a directory that nobody holds."""
    directory = tmp_path_factory.mktemp("stopped")
    for name in ("queries", "policies", "changed"):
        shutil.copytree(decided.directory / name, directory / name)
    (directory / "enrich.toml").write_text('policies = "policies"\n')
    with serving(directory) as running:
        running.http.post("/v1/events", json=event("1")).raise_for_status()
        for agent in ("a-1", "a-2") * (DECIDED // 2):
            running.http.post(PATH, json={"input": {"identity": {"actor_id": agent}}}).raise_for_status()
        running.stop()
    return directory


def ask(service: Running, **body: Any) -> Any:
    return service.http.post("/v1/backtest", json=body)


def test_flips_are_counted_and_listed(decided: Running) -> None:
    found = ask(decided, policies={"authority.rego": STRICT}).raise_for_status().json()
    assert (found["tested"], found["not_tested"], found["flipped"]) == (DECIDED, 0, 2)
    assert found["flips_by"]["kind"] == [{"kind": "allow-to-deny", "flips": 2}]
    assert found["flips_by"]["agent"] == [{"agent": "a-1", "kind": "allow-to-deny", "flips": 2}]
    assert [flip["agent"] for flip in found["flips"]] == ["a-1", "a-1"]
    assert found["flips"][0]["result_after"] == {"decision": "DENY"}
    assert any(note.startswith("open-loop") for note in found["notes"])
    assert ask(decided).json()["flipped"] == 0


def test_changed_signals_are_tried(decided: Running) -> None:
    doubled = AGENT_SET.replace("count(*) FILTER", "2 * count(*) FILTER")
    found = ask(decided, queries={"agent_runs.sql": doubled, "agent_workflow_runs": _pair(decided)})
    body = found.raise_for_status().json()
    assert body["flips_by"]["signal"][0]["signal"].startswith("agent.last_")
    assert {flip["agent"] for flip in body["flips"]} == {"a-1"}
    moved = {one["name"]: (one["before"], one["after"]) for one in body["flips"][0]["moved"]}
    assert moved["agent.last_24h.failures"] == (1, 2)


def _pair(service: Running) -> str:
    return (service.directory / "queries" / "agent_workflow_runs.sql").read_text()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"policies": {"authority.rego": "package test.authority\n\ndecision := {"}}, 400, "rego_parse_error"),
        ({"policies": {"../authority.rego": POLICY}}, 400, "invalid_body"),
        ({"policies": {"/tmp/authority.rego": POLICY}}, 400, "invalid_body"),
        ({"policies": POLICY}, 400, "invalid_body"),
        ({"policies": {"authority.rego": 7}}, 400, "invalid_body"),
        ({"agent": 7}, 400, "invalid_body"),
        ({"processes": "64"}, 400, "unknown_field"),
        ({"since": "yesterday"}, 400, "invalid_time"),
        ({"against": "tomorrow"}, 400, "invalid_parameter"),
        ({"queries": {"agent_runs": "SELECT nonsense"}}, 400, "invalid_definitions"),
    ],
)
def test_what_can_not_be_tried_is_refused(decided: Running, body: dict[str, Any], status: int, code: str) -> None:
    answer = ask(decided, **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_more_decisions_than_one_call_tests_are_refused(decided: Running) -> None:
    sent = {"input": {"identity": {"actor_id": "one-too-many"}}}
    decided.http.post(PATH, json=sent).raise_for_status()
    answer = ask(decided)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_decisions")
    assert "enrich backtest" in answer.json()["error"]["detail"]["hint"]
    assert ask(decided, agent="one-too-many").json()["tested"] == 1


def test_the_command_asks_a_service(decided: Running, tmp_path: Path) -> None:
    out = tmp_path / "flips.parquet"
    done = enrich(
        "backtest", "--policies=changed", "--agent=a-1", "--url", decided.url, "--out", out, cwd=decided.directory
    )
    assert done.returncode == 0, done.stderr
    assert "2 of 2 decisions would be others" in done.stdout
    assert pl.read_parquet(out)["agent"].to_list() == ["a-1", "a-1"]
    refused = enrich("backtest", "--live-policies=policies", "--url", decided.url, cwd=decided.directory)
    assert "live_policies_and_url" in refused.stderr


def test_the_command_opens_a_directory(stopped: Path) -> None:
    done = enrich("backtest", "--policies=changed", "--data=data", "--out=flips.csv", cwd=stopped)
    assert done.returncode == 0, done.stderr
    assert "2 of 4 decisions would be others than what was decided" in done.stdout
    for line in ("allow-to-deny", "test.authority.decision", "open-loop", "policy authority.rego: changed"):
        assert line in done.stdout
    with (stopped / "flips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["allow-to-deny"] * 2
    assert json.loads(rows[0]["rules"])[0]["name"] == "test.authority.decision"


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--fail-on=deny-to-allow,allow-to-deny", "--max-slowdown=0.001"], 1, ["2 allow-to-deny", "times as long"]),
        (["--fail-on=deny-to-allow,allow-to-require-human", "--max-slowdown=1000"], 0, []),
        (["--agent=nobody", "--fail-on=deny-to-allow"], 1, ["no decision was tested"]),
        (["--fail-on=allow"], 1, ["no flip is called"]),
        (["--out=flips.xlsx"], 1, ["is of no kind that is written"]),
        (["--map=action"], 1, ["maps nothing"]),
    ],
)
def test_exit_codes(stopped: Path, flags: list[str], code: int, said: list[str]) -> None:
    done = enrich("backtest", "--policies=changed", "--data=data", "--json", *flags, cwd=stopped)
    assert done.returncode == code, done.stderr
    for reason in said:
        assert reason in done.stderr


def test_a_policy_that_does_not_load_is_told_with_its_place(stopped: Path) -> None:
    (stopped / "broken").mkdir()
    (stopped / "broken" / "authority.rego").write_text("package test.authority\n\ndecision := {\n")
    done = enrich("backtest", "--policies=broken", "--data=data", cwd=stopped)
    assert done.returncode == 1
    assert "rego_parse_error" in done.stderr
    assert "authority.rego" in done.stderr
