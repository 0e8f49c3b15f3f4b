"""One decision of the past, asked again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from enrich.context import canonical_json
from enrich.decisions import EmbeddedEvaluator, backtest, policy_set
from enrich.decisions.backtest import Job
from enrich.decisions.backtest.flips import moved

POLICY = """\
package shop

default decision := {"decision": "DENY"}

decision := {"decision": "ALLOW", "limit": 5} if few

few if input.history.agent.n < 5

odd := x if { some x in [1, 2]; input.history.agent.n == 7 }
"""


@pytest.fixture(scope="module")
def tester() -> Iterator[backtest.Tester]:
    before = EmbeddedEvaluator().prepare(policy_set({"shop.rego": POLICY.replace("5", "3")}))
    after = EmbeddedEvaluator().prepare(policy_set({"shop.rego": POLICY}))
    made = backtest.Tester(after, before, ["history"], rules_of=100)
    yield made
    made.close()


def body(tester: backtest.Tester, n: int, decision: str = "DENY", **changes: Any) -> dict[str, Any]:
    document = {"history": {"agent": {"n": n}, "seq": n}}
    assert tester._before is not None
    return {
        "decision_id": "d-1",
        "as_of": "2026-11-20T10:00:00.000000Z",
        "path": "shop/decision",
        "entities": {"agent": "a", "team": None, "workflow": None, "org": None, "approvers": []},
        "input": document,
        "input_hash": "sha256:" + hashlib.sha256(canonical_json(document)).hexdigest(),
        "policy_hash": tester._before.version,
        "decision": decision,
        "result": {"decision": decision},
        "cause": None,
        **changes,
    }


def job(record: dict[str, Any], **more: Any) -> Job:
    return Job(7, orjson.dumps(record), **more)


def rules(row: tuple[Any, ...]) -> Any:
    return row[15]


def test_a_flip_names_the_rules_that_changed(tester: backtest.Tester) -> None:
    found = tester.test([job(body(tester, 4)), job(body(tester, 6))])
    [row] = found.flips
    assert row[:2] == ("d-1", 7)
    assert row[7:10] == ("DENY", "ALLOW", "deny-to-allow")
    assert rules(row) == [{"name": "shop.few", "before": None, "after": "true"}]
    assert sum(found.counts.values()) == 2


def test_rules_are_not_known_of_other_policies_and_of_packages_in_conflict(tester: backtest.Tester) -> None:
    [row] = tester.test([job(body(tester, 4, policy_hash="sha256:other"))]).flips
    assert rules(row) is None
    [row] = tester.test([job(body(tester, 7, "ALLOW"))]).flips
    assert rules(row) is None


def test_an_input_that_is_not_the_one_decided_on_is_not_tested(tester: backtest.Tester) -> None:
    record = body(tester, 4)
    record["input"]["history"]["agent"]["n"] = 2
    found = tester.test([job(record)])
    assert not found.counts
    assert found.refused == {("shop/decision", "the recorded input is not the one that was decided on"): 1}


@pytest.mark.parametrize("cause", ["suspended", "history_unavailable"])
def test_what_came_before_the_policy_stays(tester: backtest.Tester, cause: str) -> None:
    found = tester.test([job(body(tester, 4, cause=cause))])
    assert not found.flips
    assert [count.cause_after for count in found.counts] == [cause]


def test_another_result_around_the_same_decision_is_no_flip(tester: backtest.Tester) -> None:
    found = tester.test([job(body(tester, 4, "ALLOW"))])
    assert (found.flips, found.changed_results) == ([], 1)


def test_the_changed_input_is_what_the_changed_policy_is_asked_on(tester: backtest.Tester) -> None:
    changed = canonical_json({"history": {"agent": {"n": 1}, "seq": 9}})
    [row] = tester.test([job(body(tester, 6), input_after=changed)]).flips
    assert row[9] == "deny-to-allow"
    assert row[14] == [{"name": "agent.n", "before": "6", "after": "1"}]


def test_what_was_in_flight_is_not_made_up() -> None:
    policy = 'package shop\n\ndecision := "ALLOW" if input.history.agent.in_flight.count < 2\n'
    tester = backtest.Tester(EmbeddedEvaluator().prepare(policy_set({"shop.rego": policy})), None, ["history"])
    try:
        record: dict[str, Any] = {
            "decision_id": "d-1", "as_of": "2026-11-20T10:00:00.000000Z", "path": "shop/decision", "entities": {},
            "input": {"history": {"agent": {"n": 1}}}, "decision": "DENY", "result": {"decision": "DENY"},
            "cause": None,
        }  # fmt: skip
        found = tester.test([job(record)])
        reason = "the policy reads what is in flight, and the record does not say it"
        assert found.refused == {("shop/decision", reason): 1}
        record["input"] = {"history": {"agent": {"in_flight": {"count": 1}}}}
        assert len(tester.test([job(record)]).flips) == 1
    finally:
        tester.close()


def test_signals_that_moved() -> None:
    before = {"agent": {"n": 1, "last_1h": {"rate": 0.5, "x": True}}, "seq": 1, "as_of": "t"}
    after = {"agent": {"n": 1.0, "last_1h": {"x": 1}, "last_24h": {"y": "z"}}, "seq": 2, "as_of": "u"}
    assert [(c["name"], c["before"], c["after"]) for c in moved(before, after)] == [
        ("agent.last_1h.rate", "0.5", None),
        ("agent.last_1h.x", "true", "1"),
        ("agent.last_24h.y", None, '"z"'),
        ("agent.n", "1", "1.0"),
    ]
