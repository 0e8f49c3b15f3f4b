"""The shipped policies: their own tests under a real `opa test`, and one answer from OPA and the embedded evaluator."""

from __future__ import annotations

import copy
import itertools
import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enrich.decisions import Defined, EmbeddedEvaluator, Prepared, load_policies
from tests.decisions.opa_server import ask, opa_binary, serve_opa

POLICIES = Path(__file__).parents[2] / "policies"
DECISION, REASONS = ("gantral", "authority", "decision"), ("gantral", "authority", "reasons")

GOOD: dict[str, Any] = {
    "instance": {"instance_id": "i-1", "workflow_id": "refund-approval", "materiality": "MEDIUM"},
    "identity": {"actor_id": "payments-refunder-03", "roles": ["agent"]},
    "history": {
        "status": "fresh",
        "suspended": False,
        "agent": {
            "id": "payments-refunder-03",
            "known": True,
            "last_1h": {"complete": True, "requests": 12, "requests_burst_5m": 3},
            "last_24h": {"complete": True, "attempts": 120, "failures": 2},
            "last_7d": {"complete": True, "human_decisions": 40, "rejections": 1},
            "enough_runs": True,
            "failed_significantly": False,
            "enough_decisions": True,
            "rejected_significantly": False,
        },
        "approvers": {
            "alice": {"last_1h": {"decisions": 3}, "last_24h": {"approval_streak": 4}},
            "bjorn": {"last_1h": {"decisions": 5}, "last_24h": {"approval_streak": 2}},
        },
    },
}


@pytest.fixture(scope="module")
def embedded() -> Prepared:
    return EmbeddedEvaluator().prepare(load_policies(POLICIES))


@pytest.fixture(scope="module")
def opa_port() -> Iterator[int]:
    with serve_opa(POLICIES) as port:
        yield port


def changed(**paths: Any) -> dict[str, Any]:
    """GOOD with values at dotted paths (`__` for the dot); None takes the path out."""
    request = copy.deepcopy(GOOD)
    for path, value in paths.items():
        *parents, last = path.split("__")
        at = request
        for parent in parents:
            at = at[parent]
        if value is None:
            del at[last]
        else:
            at[last] = value
    return request


def decide(embedded: Prepared, request: dict[str, Any]) -> tuple[str, list[str]]:
    raw = json.dumps(request, ensure_ascii=False).encode()
    decision = embedded.evaluate(DECISION, raw, strict_builtin_errors=True)
    reasons = embedded.evaluate(REASONS, raw, strict_builtin_errors=True)
    assert isinstance(decision, Defined)
    assert isinstance(reasons, Defined)
    assert set(decision.value) == {"decision", "approver_roles", "timeout", "escalation_roles"}
    return decision.value["decision"], reasons.value


@pytest.mark.parametrize("arguments", [["test"], ["check", "--strict"]], ids=lambda a: a[0])
def test_opa_takes_the_policies_and_their_tests(arguments: list[str]) -> None:
    done = subprocess.run(
        [opa_binary(), *arguments, "--bundle", str(POLICIES)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_policy_of_the_how_to_passes_its_own_tests(tmp_path: Path) -> None:
    page = (POLICIES.parent / "docs" / "how-to" / "write-a-policy.md").read_text()
    blocks = re.findall(r"```rego\n(package (\w+)\n.*?)```", page, re.DOTALL)
    assert [name for _, name in blocks] == ["refunds", "refunds_test"]
    shutil.copytree(POLICIES / "lib", tmp_path / "lib")
    for text, name in blocks:
        (tmp_path / f"{name}.rego").write_text(text)
    done = subprocess.run(
        [opa_binary(), "test", "--bundle", str(tmp_path), "--run", "refunds_test"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS: 4/4" in done.stdout


def test_the_policies_are_formatted() -> None:
    done = subprocess.run(
        [opa_binary(), "fmt", "--list", str(POLICIES)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("materiality", "without", "expected"),
    [
        ("LOW", (), "ALLOW"),
        ("MEDIUM", (), "ALLOW"),
        ("HIGH", (), "REQUIRE_HUMAN"),
        ("LOW", ("history",), "REQUIRE_HUMAN"),
        ("MEDIUM", ("history",), "REQUIRE_HUMAN"),
        ("HIGH", ("history",), "DENY"),
        ("MEDIUM", ("history__agent__enough_runs",), "REQUIRE_HUMAN"),
        ("LOW", ("history__agent__last_1h__requests",), "REQUIRE_HUMAN"),
    ],
)
def test_what_is_decided_without_opa_at_hand(
    embedded: Prepared, materiality: str, without: tuple[str, ...], expected: str
) -> None:
    request = changed(instance__materiality=materiality, **dict.fromkeys(without))
    assert decide(embedded, request)[0] == expected


def test_a_turn_for_the_worse_changes_the_decision(embedded: Prepared) -> None:
    verdict, reasons = decide(embedded, changed(history__agent__rejected_significantly=True))
    assert verdict == "DENY"
    assert reasons == ["humans rejected it significantly: 1 of 40 requests in the last 7 days"]


def leaves(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if at:
        yield at
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*at, key))


def spoiled(seed: int) -> dict[str, Any]:
    """GOOD at some materiality, with one to three places taken out or filled with what does not belong there."""
    rng = random.Random(seed)
    request = changed(instance__materiality=rng.choice(["LOW", "LOW", "MEDIUM", "MEDIUM", "HIGH"]))
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        paths = [p for p in leaves(request) if p[0] == "history"]
        if not paths:
            break
        *parents, last = rng.choice(paths)
        at = request
        for parent in parents:
            at = at[parent]
        junk: Any = rng.choice(["gone", True, False, None, "", "stale", 0, -1, 10**6, 0.5, [], {}])
        if junk == "gone":
            del at[last]
        else:
            at[last] = junk
    return request


def may_be_allowed(request: dict[str, Any]) -> bool:
    """What ALLOW needs at least, written down once more in another language."""
    history = request.get("history")
    if not isinstance(history, dict) or history.get("status") != "fresh" or history.get("suspended") is not False:
        return False
    agent = history.get("agent")
    if not isinstance(agent, dict) or agent.get("known") is not True:
        return False
    hour = agent.get("last_1h")
    if not isinstance(hour, dict):
        return False
    for name, limit in (("requests", 120), ("requests_burst_5m", 30)):
        value = hour.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value > limit:
            return False
    clear = [
        agent.get(companion) is True and agent.get(question) is False
        for question, companion in (
            ("failed_significantly", "enough_runs"),
            ("rejected_significantly", "enough_decisions"),
        )
    ]
    raised = agent.get("failed_significantly") is True or agent.get("rejected_significantly") is True
    asked = isinstance(agent.get("enough_runs"), bool) and isinstance(agent.get("enough_decisions"), bool)
    materiality = request["instance"]["materiality"]
    return asked and not raised and (materiality == "LOW" or (materiality == "MEDIUM" and any(clear)))


@pytest.mark.parametrize("seeds", [range(n, n + 100) for n in range(0, 600, 100)], ids=lambda r: f"{r.start}..")
def test_spoiled_history_is_allowed_exactly_where_it_may_be(embedded: Prepared, seeds: range) -> None:
    for seed in seeds:
        request = spoiled(seed)
        verdict, _ = decide(embedded, request)
        assert (verdict == "ALLOW") == may_be_allowed(request), (seed, request)


def test_opa_and_the_embedded_evaluator_decide_alike(embedded: Prepared, opa_port: int) -> None:
    for seed, path in itertools.product(range(150), (DECISION, REASONS)):
        request = spoiled(seed)
        status, _, body = ask(opa_port, "POST", "/v1/data/" + "/".join(path), json.dumps({"input": request}).encode())
        assert status == 200
        raw = json.dumps(request, ensure_ascii=False).encode()
        assert embedded.evaluate(path, raw) == Defined(body["result"]), (seed, request)
