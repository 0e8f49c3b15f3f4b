"""From what a policy answered to one of three decisions, and the refusal in a path's own shape.

INVARIANT: whatever is not clearly an ALLOW or a REQUIRE_HUMAN is a refusal, and says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from enrich.decisions.protocol import TIMED_OUT, Defined, Failed, Outcome

__all__ = ["OUTCOMES", "Cause", "DecisionName", "Verdict", "judge", "refuse"]

DecisionName = Literal["ALLOW", "REQUIRE_HUMAN", "DENY"]
#: the outcome of a decision's own event
OUTCOMES: Final = {"ALLOW": "allowed", "REQUIRE_HUMAN": "required_human", "DENY": "denied"}
#: why the policy's own answer does not stand
Cause = Literal[
    "suspended",
    "history_unavailable",
    "evaluation_undefined",
    "evaluation_failed",
    "evaluation_timeout",
    "malformed_decision",
]
_MESSAGES: Final[dict[Cause, str]] = {
    "suspended": "authority is suspended",
    "history_unavailable": "history can't be relied on",
    "evaluation_undefined": "the policy says nothing",
    "evaluation_failed": "the policy could not be evaluated",
    "evaluation_timeout": "the policy took too long",
    "malformed_decision": "the policy's answer is no decision",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is answered and recorded. `cause` is None when `result` is the policy's own."""

    decision: DecisionName
    result: Any
    cause: Cause | None = None

    @property
    def warning(self) -> dict[str, str] | None:
        """What stands beside a refusal in the answer."""
        return None if self.cause is None else {"code": self.cause, "message": _MESSAGES[self.cause]}


def judge(outcome: Outcome, *, boolean: bool) -> Verdict:
    """The decision that an outcome at a decision path is.

    A boolean is ALLOW or DENY, as is a string or an object's `decision` that names one of the three; all else is
    refused.

    Args:
        boolean: see `refuse`.
    """
    if isinstance(outcome, Failed):
        return refuse("evaluation_timeout" if outcome.code == TIMED_OUT else "evaluation_failed", boolean=boolean)
    if not isinstance(outcome, Defined):
        return refuse("evaluation_undefined", boolean=boolean)
    value = outcome.value
    if isinstance(value, bool):
        return Verdict("ALLOW" if value else "DENY", value)
    name = value.get("decision") if isinstance(value, dict) else value
    if name == "ALLOW" or name == "REQUIRE_HUMAN" or name == "DENY":
        return Verdict(name, value)
    return refuse("malformed_decision", boolean=boolean)


def refuse(cause: Cause, *, boolean: bool) -> Verdict:
    """DENY in the shape of the path.

    Args:
        boolean: who asks there expects true or false. INVARIANT: their refusal is `false`: an object would be taken
            for true.
    """
    return Verdict("DENY", False if boolean else {"decision": "DENY"}, cause)
