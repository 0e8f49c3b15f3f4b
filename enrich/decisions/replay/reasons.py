"""What replay says about a decision: a verdict, why, and what was looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

__all__ = ["REASONS", "Reason", "Replayed", "VerdictName", "canonical", "worst"]

VerdictName = Literal["VALID", "INVALID", "INCONCLUSIVE"]

#: code of a reason to (the verdict it makes, what it says); docs/how-to/replay.md holds the same list.
#: INVALID: what stands there is not what was decided, or can't have been decided so. INCONCLUSIVE: nothing shows that
#: it is wrong, and something that would prove it is missing. VALID: worth knowing, and no more.
REASONS: Final[Mapping[str, tuple[VerdictName, str]]] = {
    "line_damaged": ("INVALID", "its line in the journal has not the form or the hash of a record"),
    "line_displaced": ("INVALID", "its line does not follow the line before it"),
    "body_damaged": ("INVALID", "its record does not have its hash"),
    "not_in_journal": ("INVALID", "DuckDB has the decision, the journal does not"),
    "copy_differs": ("INVALID", "DuckDB's copy of the record is not what the journal has"),
    "hash_differs": ("INVALID", "a hash in the record is not that of what it names"),
    "record_inconsistent": ("INVALID", "two parts of the record contradict each other"),
    "policy_differs": ("INVALID", "the policy answers otherwise on the recorded input"),
    "signals_differ": ("INVALID", "the events known then give other signals"),
    "in_flight_differs": ("INVALID", "the events known then leave other actions in flight"),
    "selection_differs": ("INCONCLUSIVE", "the record holds less of the history than its policy can read"),
    "chain_broken": ("INCONCLUSIVE", "the journal's chain is broken elsewhere, before this record or behind it"),
    "body_gone": ("INCONCLUSIVE", "its record was pruned, erased or redacted, and a later record says so"),
    "catalog_gone": ("INCONCLUSIVE", "the journal has no sound definitions with the catalog that was live"),
    "policy_gone": ("INCONCLUSIVE", "the journal has no sound definitions with the policies that were live"),
    "settings_gone": ("INCONCLUSIVE", "the journal has no sound definitions with the settings that were live"),
    "catalog_unusable": ("INCONCLUSIVE", "this version does not load the catalog that was live, or reads it otherwise"),
    "policy_unusable": ("INCONCLUSIVE", "the evaluator does not load the policies that were live"),
    "evaluator_differs": ("INCONCLUSIVE", "another evaluator, or version of it, was asked, and answers otherwise"),
    "not_evaluated": ("INCONCLUSIVE", "the policy gave no answer this time"),
    "failure_not_repeated": ("INCONCLUSIVE", "the evaluation failed then and does not fail now"),
    "timeout_not_repeated": ("INCONCLUSIVE", "the refusal was for want of time, which can't be replayed"),
    "input_redacted": ("INCONCLUSIVE", "the policy can have read a value that the record does not keep"),
    "not_repeatable": ("INCONCLUSIVE", "the policies read a clock, a network or chance"),
    "history_pruned": ("INCONCLUSIVE", "events of the time that the signals look at were let go of"),
    "history_erased": ("INCONCLUSIVE", "events that the decision may have seen were erased since"),
    "history_behind": ("INCONCLUSIVE", "DuckDB has not followed the journal to where the decision stood"),
    "history_missing": ("INCONCLUSIVE", "there is no DuckDB history to compute the signals from"),
    "other_evaluator_agrees": ("VALID", "another evaluator, or version of it, gives the same answer"),
    "signals_not_judged": ("VALID", "signals of which DuckDB is no judge were not compared: variances, and overflows"),
}  # fmt: skip
_ORDER: Final = ("VALID", "INCONCLUSIVE", "INVALID")


@dataclass(frozen=True, slots=True)
class Reason:
    """One finding; `detail` is JSON-ready."""

    code: str
    message: str
    detail: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, code: str, more: str = "", **detail: Any) -> Reason:
        """A reason with its standing message, and what it is about."""
        text = REASONS[code][1]
        return cls(code, f"{text}: {more}" if more else text, detail)

    @property
    def verdict(self) -> VerdictName:
        return REASONS[self.code][0]

    def body(self) -> dict[str, Any]:
        return {"code": self.code, "verdict": self.verdict, "message": self.message, **self.detail}


def worst(reasons: Iterable[Reason]) -> VerdictName:
    """INVALID before INCONCLUSIVE before VALID."""
    return max((r.verdict for r in reasons), key=_ORDER.index, default="VALID")


@dataclass(frozen=True, slots=True)
class Replayed:
    """A decision replayed.

    Attributes:
        checked: what was looked at: `line`, `chain`, `copy`, `hashes`, `record`, `policy`, `signals`, `in_flight`.
    """

    decision_id: str | None
    seq: int
    as_of: str | None
    path: str | None
    decision: str | None
    reasons: tuple[Reason, ...]
    checked: tuple[str, ...]

    @property
    def verdict(self) -> VerdictName:
        return worst(self.reasons)

    def body(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "decision_id": self.decision_id,
            "seq": self.seq,
            "as_of": self.as_of,
            "path": self.path,
            "decision": self.decision,
            "verdict": self.verdict,
            "reasons": [reason.body() for reason in self.reasons],
            "checked": list(self.checked),
        }


def canonical(value: Any) -> bytes:
    """`canonical_json` for what was read from canonical JSON, or computed as a context is: its numbers are finite."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
