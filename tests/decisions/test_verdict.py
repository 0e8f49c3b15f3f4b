"""Only what is clearly a decision is one."""

from __future__ import annotations

from typing import Any

import pytest

from enrich.decisions import Defined, Failed, Outcome, Undefined
from enrich.decisions.protocol import TIMED_OUT
from enrich.decisions.verdict import Verdict, judge, refuse


@pytest.mark.parametrize(
    ("value", "decision"),
    [
        (True, "ALLOW"),
        (False, "DENY"),
        ("ALLOW", "ALLOW"),
        ("REQUIRE_HUMAN", "REQUIRE_HUMAN"),
        ({"decision": "DENY"}, "DENY"),
        ({"decision": "ALLOW", "approver_roles": []}, "ALLOW"),
    ],
)
def test_a_decision_is_passed_on_as_the_policy_wrote_it(value: Any, decision: str) -> None:
    verdict = judge(Defined(value), boolean=False)
    assert (verdict.decision, verdict.result, verdict.cause, verdict.warning) == (decision, value, None, None)


@pytest.mark.parametrize(
    "value",
    [1, 0, None, "", "allow", "Allow", [], ["ALLOW"], {}, {"decision": "allow"}, {"decision": True}, {"allow": True},
     {"decision": ["ALLOW"]}, {"decision": {"decision": "ALLOW"}}, 1.0],
)  # fmt: skip
def test_all_else_is_refused_in_the_path_s_shape(value: Any) -> None:
    assert judge(Defined(value), boolean=False) == Verdict("DENY", {"decision": "DENY"}, "malformed_decision")
    assert judge(Defined(value), boolean=True) == Verdict("DENY", False, "malformed_decision")


@pytest.mark.parametrize(
    ("outcome", "cause"),
    [
        (Undefined(True), "evaluation_undefined"),
        (Undefined(False), "evaluation_undefined"),
        (Failed("eval_conflict_error", "two"), "evaluation_failed"),
        (Failed(TIMED_OUT, "slow"), "evaluation_timeout"),
    ],
)
def test_no_answer_is_never_an_allow(outcome: Outcome, cause: str) -> None:
    verdict = judge(outcome, boolean=True)
    assert (verdict.decision, verdict.result, verdict.cause) == ("DENY", False, cause)
    assert verdict.warning is not None
    assert verdict.warning["code"] == cause


def test_a_refusal_names_its_cause() -> None:
    assert refuse("suspended", boolean=True).warning == {
        "code": "suspended",
        "message": "authority is suspended",
    }
