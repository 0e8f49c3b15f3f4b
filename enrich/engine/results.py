"""What the engine answers with: frozen, typed, and never a bare bool or None for a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from enrich.decisions import Cause, DecisionName, Defined, Outcome, ShadowVerdict, Verdict
from enrich.events import Rejection

__all__ = ["CheckReport", "Decision", "Evaluation", "Readiness", "RecordResult", "ReloadReport"]


@dataclass(frozen=True, slots=True)
class RecordResult:
    """What became of the events of one call.

    `seq` is the highest sequence number at which every accepted and duplicate event of the call is visible. `rejected`
    lists at most `max_rejections` of the `rejected_count` refused ones.
    """

    accepted: int
    duplicates: int
    rejected: Sequence[Rejection]
    rejected_count: int
    dropped_attributes: int
    seq: int

    @classmethod
    def of(cls, parts: Sequence[RecordResult]) -> RecordResult:
        """Several records' results as one call's."""
        return cls(
            sum(p.accepted for p in parts),
            sum(p.duplicates for p in parts),
            [r for p in parts for r in p.rejected],
            sum(p.rejected_count for p in parts),
            sum(p.dropped_attributes for p in parts),
            max(p.seq for p in parts),
        )

    def body(self, limit: int = 100) -> dict[str, Any]:
        """The answer of `POST /v1/events`."""
        return {
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "rejected": [
                {"index": r.index, "code": r.code, "field": r.field, "value": r.value, "message": r.message}
                for r in self.rejected[:limit]
            ],
            "rejected_count": self.rejected_count,
            "dropped_attributes": self.dropped_attributes,
            "seq": self.seq,
        }


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests can be answered, and every reason why not (or why only with old definitions)."""

    ready: bool
    reasons: Sequence[str] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """What a reload did. `problems` is empty when the directory's definitions are live."""

    changed: bool
    catalog: str
    policies: str | None = None
    problems: Sequence[str] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    def body(self) -> dict[str, Any]:
        return {
            "changed": self.changed,
            "catalog": self.catalog,
            "policies": self.policies,
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class CheckReport:
    """How many compiled values were compared with DuckDB's, and each difference found."""

    compared: int
    differences: Sequence[str] = field(default=())


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A policy's outcome where it is no decision, and the enriched input it was made on (None without any input).

    Neither recorded nor counted. `provenance` says of which policies: their name and revision.
    """

    outcome: Outcome
    input: Mapping[str, Any] | None
    provenance: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision of the gate.

    Attributes:
        decision_id: of its record; after a dry run of none.
        seq: nobody may hear of the decision before the journal is durable up to here.
        fate: `recorded` now, `repeated` from the record under its idempotency key, or a `dry_run` without any trace.
        stages_ns: what it spent its time on: `lock`, `context`, `evaluate`, `shadow`, `order`, in nanoseconds.
        provenance: name and revision of the policies; None of a decision that is repeated.
        shadow: what the shadow policies said; None when they were not to be asked, as in a dry run.
    """

    decision_id: str
    verdict: Verdict
    seq: int
    fate: Literal["recorded", "repeated", "dry_run"]
    stages_ns: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
    provenance: Mapping[str, str] | None = field(default=None, compare=False, repr=False)
    shadow: ShadowVerdict | None = field(default=None, compare=False, repr=False)

    @property
    def decision(self) -> DecisionName:
        """ALLOW, REQUIRE_HUMAN or DENY."""
        return self.verdict.decision

    @property
    def cause(self) -> Cause | None:
        """Why the policy's own answer does not stand; None when it does."""
        return self.verdict.cause

    @property
    def outcome(self) -> Defined:
        """What is answered, in the path's own shape."""
        return Defined(self.verdict.result)
