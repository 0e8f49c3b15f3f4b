"""Processes that test beside each other: what they raise arrives, and one that ends is an error, never a result."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import orjson
import pytest

from enrich.decisions import EmbeddedEvaluator, backtest, policy_set
from enrich.decisions.backtest import Job
from enrich.decisions.backtest.crew import Plan, _Process, _Processes, crew
from enrich.errors import EvaluationError, PayloadTooLargeError
from enrich.settings import Settings

POLICY = policy_set({"shop.rego": 'package shop\n\ndecision := "ALLOW" if input.n < 3\n'})


def _job(n: int) -> Job:
    record = {
        "decision_id": f"d-{n}", "as_of": "2026-11-20T10:00:00.000000Z", "path": "shop/decision", "entities": {},
        "input": {"n": n}, "decision": "DENY", "result": {"decision": "DENY"}, "cause": None,
    }  # fmt: skip
    return Job(n, orjson.dumps(record))


@pytest.fixture
def own() -> Iterator[backtest.Tester]:
    tester = backtest.Tester(EmbeddedEvaluator().prepare(POLICY), None, ["history"])
    yield tester
    tester.close()


def test_batches_come_back_in_their_order(own: backtest.Tester) -> None:
    batches = [[_job(n)] for n in range(8)]
    with crew(Plan(Settings(), POLICY, None, ("history",)), 1, own) as testers:
        found = [tested.flips for tested in testers.test(batches)]
    assert [[row[1] for row in flips] for flips in found] == [[0], [1], [2], [], [], [], [], []]


def test_what_a_process_raises_arrives_with_its_code(own: backtest.Tester) -> None:
    with (
        pytest.raises(PayloadTooLargeError) as raised,
        crew(Plan(Settings(), POLICY, None, ("history",), deadline=0.0), 1, own) as testers,
    ):
        list(testers.test([[_job(1)]]))
    assert raised.value.error_code == "backtest_too_long"
    assert "enrich backtest" in raised.value.detail["hint"]


def test_a_process_that_ends_is_an_error(own: backtest.Tester) -> None:
    with crew(Plan(Settings(), POLICY, None, ("history",)), 1, own) as testers:
        assert isinstance(testers, _Processes)
        process: _Process = testers._free.get()
        os.kill(process._process.pid, signal.SIGKILL)
        testers._free.put(process)
        with pytest.raises(EvaluationError):
            list(testers.test([[_job(1)], [_job(2)]]))
