"""Timing in process: subject and floor in turns, so that the machine's noise falls on both."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Row", "Timing", "in_turns"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured, the target, the ratio seen, and the figures behind it."""

    measured: str
    target: str
    seen: str
    figures: str
    reached: bool | None


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds a call."""

    p50: float
    p99: float

    def __str__(self) -> str:
        return f"p50 {self.p50:.1f} us, p99 {self.p99:.1f} us"


def in_turns(
    subjects: Sequence[Callable[[int], object]], *, turns: int = 60, calls: int = 250, warm: int = 300
) -> list[Timing]:
    """Time each subject (called with a running number) in alternating blocks of `calls`, after `warm` calls."""
    times: list[list[int]] = [[] for _ in subjects]
    clock = time.perf_counter_ns
    for subject in subjects:
        for i in range(warm):
            subject(i)
    gc.collect()
    gc.freeze()
    for turn in range(turns):
        for subject, seen in zip(subjects, times, strict=True):
            for i in range(turn * calls, (turn + 1) * calls):
                start = clock()
                subject(i)
                seen.append(clock() - start)
    gc.unfreeze()
    result = []
    for seen in times:
        seen.sort()
        result.append(Timing(seen[len(seen) // 2] / 1e3, seen[len(seen) * 99 // 100] / 1e3))
    return result
