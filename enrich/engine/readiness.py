"""Whether an engine can answer, and what an operator should know besides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from enrich.engine.results import Readiness
from enrich.engine.state import State

if TYPE_CHECKING:
    from enrich.engine.engine import Engine

__all__ = ["readiness"]


def readiness(engine: Engine, state: State, problems: Sequence[str], merging: str | None) -> Readiness:
    """Ready when every answer can be exact.

    Args:
        problems: of the last reload.
        merging: why the index is not merged at the moment; None when it is.
    """
    reasons = []
    if state.broken is not None:
        reasons.append(state.broken.message)
    if state.closed:
        reasons.append("the engine is closed")
    if engine.journal.failed is not None:
        reasons.append(str(engine.journal.failed))
    if engine.clock_behind:
        reasons.append(f"the system clock lies {engine.journal.clock_behind_us // 1_000_000} s behind the journal")
    if state.policies is not None:
        reasons += state.policies.condition().reasons
    warnings = [f"reload failed: {p}" for p in problems]
    failure = engine.follower.error
    if failure is not None:
        warnings.append(f"history does not follow the journal: {failure.message}")
    if merging is not None:
        warnings.append(merging)
    return Readiness(not reasons, tuple(reasons), tuple(warnings))
