"""What a second set of policies would have decided: recorded beside a decision, and never part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from enrich.decisions.verdict import Cause, DecisionName, Verdict

__all__ = ["ShadowVerdict"]


@dataclass(frozen=True, slots=True)
class ShadowVerdict:
    """What shadow policies said.

    Attributes:
        decision: None when they were not asked to the end: `cause` is then `skipped` or `evaluation_timeout`, which the
            small limit of a shadow explains and the live one need not share.
        result: their own answer, or the refusal that would have stood for it; null without a decision.
    """

    policy_hash: str
    evaluator: Mapping[str, str]
    result: Any
    decision: DecisionName | None
    cause: Cause | Literal["skipped"] | None

    @classmethod
    def of(cls, policy_hash: str, evaluator: Mapping[str, str], verdict: Verdict | None) -> ShadowVerdict:
        """From a verdict; None says that they were not asked."""
        if verdict is None:
            return cls(policy_hash, evaluator, None, None, "skipped")
        if verdict.cause == "evaluation_timeout":
            return cls(policy_hash, evaluator, None, None, verdict.cause)
        return cls(policy_hash, evaluator, verdict.result, verdict.decision, verdict.cause)

    def body(self) -> dict[str, Any]:
        """As it stands in the decision's record."""
        return {
            "policy_hash": self.policy_hash,
            "evaluator": dict(self.evaluator),
            "result": self.result,
            "decision": self.decision,
            "cause": self.cause,
        }
