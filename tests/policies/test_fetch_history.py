"""The policy of docs/how-to/fetch-history.md, in a real OPA that asks a running service."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from enrich.decisions import EmbeddedEvaluator, load_policies, policy_set
from enrich.errors import PolicyError
from tests.decisions.opa_server import ask, opa_binary, serve_opa
from tests.service.running import Running, definitions, event, serving

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "fetch-history.md"
TOKENS = {f"ENRICH_TOKENS_{scope.upper()}": f"{scope}-token" for scope in ("read", "ingest", "admin")}
AGENT = "päyments refunder/03"
ALLOW, DENY = {"decision": "ALLOW"}, {"decision": "DENY"}


def policy() -> str:
    [text] = re.findall(r"```rego\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(text)


def bundle(directory: Path, url: str, cache_seconds: int, max_age_seconds: int) -> Path:
    directory.mkdir()
    (directory / "fetched.rego").write_text(policy())
    settings = {"url": url, "cache_seconds": cache_seconds, "max_age_seconds": max_age_seconds}
    (directory / "data.json").write_text(json.dumps({"enrich": settings}))
    return directory


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Running]:
    with serving(definitions(tmp_path), environment=TOKENS) as running:
        yield running


def send(running: Running, event_id: str, outcome: str) -> None:
    sent = running.http.post(
        "/v1/events", json=event(event_id, agent_id=AGENT, outcome=outcome),
        headers={"authorization": "Bearer ingest-token"},
    )  # fmt: skip
    assert sent.json()["accepted"] == 1


def decide(port: int, agent: Any = AGENT, **instance: str) -> Any:
    given = {"identity": {"actor_id": agent}, "instance": {"owning_team_id": "t", **instance}}
    status, _, body = ask(port, "POST", "/v1/data/fetched/decision", json.dumps({"input": given}).encode())
    assert status == 200
    return body["result"]


def becomes(port: int, wanted: Any) -> None:
    deadline = time.monotonic() + 30
    while decide(port) != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_it_reads_history_and_fails_closed(
    service: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = {"authorization": "Bearer admin-token"}
    send(service, "e-1", "succeeded")
    with ExitStack() as stack:

        def opa(name: str, token: str, cache_seconds: int, max_age_seconds: int) -> int:
            monkeypatch.setenv("ENRICH_TOKEN", token)
            return stack.enter_context(
                serve_opa(bundle(tmp_path / name, service.url, cache_seconds, max_age_seconds))
            )

        patient, quick = opa("patient", "read-token", 3600, 3600), opa("quick", "read-token", 1, 3600)
        strict, stranger = opa("strict", "read-token", 3600, 2), opa("stranger", "ingest-token", 1, 3600)
        for port in (patient, quick, strict):
            becomes(port, ALLOW)  # the first call of a slow machine may take longer than its timeout
        assert decide(stranger) == DENY
        for agent in ("nobody", "", None, 5, "."):
            assert decide(quick, agent) == DENY, agent

        for n in (2, 3):
            send(service, f"e-{n}", "failed")
        becomes(quick, DENY)  # once its second is over
        becomes(strict, DENY)  # too old, and still in the cache
        becomes(patient, ALLOW)  # which shows that it is the cache that answers

        for where in ("all", "team/t", "org/o"):  # of the last, the request has no id
            assert service.http.put(f"/v1/suspensions/{where}", json={"reason": "tests"}, headers=admin).is_success
            assert decide(patient) == DENY, where
            assert service.http.delete(f"/v1/suspensions/{where}", headers=admin).is_success
        assert service.http.put("/v1/suspensions/org/o", json={"reason": "tests"}, headers=admin).is_success
        deadline = time.monotonic() + 30
        while decide(patient, org_id="other") != ALLOW:
            assert time.monotonic() < deadline
        assert decide(patient, org_id="o") == DENY

        assert service.stop() == 0
        assert decide(patient, org_id="other") == DENY  # nobody says any more what is suspended
        assert decide(quick) == DENY


def test_opa_takes_the_policy_as_it_stands(tmp_path: Path) -> None:
    where = bundle(tmp_path / "b", "http://127.0.0.1:1", 5, 30)
    for arguments in (["check", "--strict"], ["fmt", "--list"]):
        done = subprocess.run(
            [opa_binary(), *arguments, str(where / "fetched.rego")],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_embedded_evaluator_refuses_it() -> None:
    """So it stands in the docs, and in no directory of policies that ships."""
    asks = 'package p\n\nx := http.send({"method": "GET", "url": "http://127.0.0.1:1"})\n'
    with pytest.raises(PolicyError, match=r"http\.send") as refused:
        EmbeddedEvaluator().prepare(policy_set({"asks.rego": asks}, {}))
    assert refused.value.error_code == "unknown_function"
    with pytest.raises(PolicyError):
        EmbeddedEvaluator().prepare(policy_set({"fetched.rego": policy()}, {}))
    shipped = load_policies(PAGE.parents[2] / "policies")
    assert not any("http.send" in text for text in shipped.modules.values())
    EmbeddedEvaluator().prepare(shipped).close()
