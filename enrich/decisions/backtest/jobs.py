"""What is tested, and what came of it: both travel between processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, get_args

__all__ = ["AGAINST", "Against", "Basis", "Count", "InputKind", "Job", "Tested"]

#: what the changed definitions are held against: what was decided, or what the live policies say of the same input
Against = Literal["recorded", "live"]
AGAINST: Final = get_args(Against)
#: whether a decision is tested on what was known when it was made, or on what is known now of the time before it
Basis = Literal["as_recorded", "event_time"]
InputKind = Literal["recorded", "synthesised"]


class Job(NamedTuple):
    """One decision of the past.

    Attributes:
        seq: of the decision's record, or of the event that is all there is of it.
        body: the record's JSON; of an event, what a record would say of it.
        input_after: canonical bytes of the input with the changed signals; None when they are the recorded ones.
    """

    seq: int
    body: str | bytes
    basis: Basis = "as_recorded"
    input: InputKind = "recorded"
    input_after: bytes | None = None


class Count(NamedTuple):
    """What decisions are counted by."""

    path: str
    basis: Basis
    input: InputKind
    before: str
    after: str
    cause_after: str | None


@dataclass(slots=True)
class Tested:
    """What came of some jobs.

    Attributes:
        flips: rows of `FLIPS`.
        changed_results: decisions that stay what they were, with another result around them.
        refused: (path, why a decision could not be tested) to how many.
    """

    counts: Counter[Count] = field(default_factory=Counter)
    flips: list[tuple[Any, ...]] = field(default_factory=list)
    changed_results: int = 0
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
