"""The windows room in a few plain lines: totals and probes from a list of rows, to hold the compiler on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from enrich.events.model import COLUMNS
from enrich.signals.plan import EntityPlan, WindowFunction

__all__ = ["Naive"]


class Naive:
    """One entity's events, answered row by row.

    Args:
        events: sparse dicts, in order of seq (1, 2, ...); only those of the entity at hand.
        seqs: their sequence numbers.
    """

    def __init__(self, plan: EntityPlan, events: Sequence[Mapping[str, Any]], seqs: Sequence[int]) -> None:
        self.plan = plan
        columns = {c: [e.get(c) for e in events] for c in COLUMNS}
        cells = list(plan.rows(columns, len(events)))
        order = sorted(range(len(events)), key=lambda i: (events[i]["occurred_at"], seqs[i]))
        self.times = [events[i]["occurred_at"] for i in order]
        self.rows = [cells[i] for i in order]
        self._window: list[tuple[int, tuple[Any, ...]]] = []

    def answer(self, function: WindowFunction, us: int, as_of: int, raw: list[Any] | None = None) -> dict[str, Any]:
        """The signals of the window (as_of - us, as_of]."""
        inside = [(t, r) for t, r in zip(self.times, self.rows, strict=True) if as_of - us < t <= as_of]
        before = [r for t, r in zip(self.times, self.rows, strict=True) if t <= as_of - us]
        width = len(self.plan.counts) + len(self.plan.sums)
        start = [sum(r[i] for r in before) for i in range(width)]
        end = [s + sum(r[i] for _, r in inside) for i, s in enumerate(start)]
        self._window = inside
        return function(end, start, as_of, self, 0, [] if raw is None else raw)

    def _values(self, v: int) -> list[tuple[int, Any]]:
        place = len(self.plan.counts) + len(self.plan.sums) + v
        return [(t, r[place]) for t, r in self._window if r[place] is not None]

    def order(self, w: int, v: int, k: int) -> Any:
        return sorted(x for _, x in self._values(v))[k]

    def order2(self, w: int, v: int, k: int) -> tuple[Any, Any]:
        found = sorted(x for _, x in self._values(v))
        return found[k], found[k + 1]

    def minimum(self, w: int, v: int) -> Any:
        return min(x for _, x in self._values(v))

    def maximum(self, w: int, v: int) -> Any:
        return max(x for _, x in self._values(v))

    def distinct(self, w: int, v: int) -> int:
        return len({x for _, x in self._values(v)})

    def last(self, w: int, v: int) -> tuple[Any, int] | None:
        found = self._values(v)
        return (found[-1][1], found[-1][0]) if found else None

    def since_break(self, w: int, c: int, v: int) -> int:
        place = len(self.plan.counts) + len(self.plan.sums) + v
        run = 0
        for _, row in self._window:
            if row[place] is not None:
                run = 0
            elif row[c]:
                run += 1
        return run

    def burst(self, w: int, v: int) -> int:
        us = self.plan.values[v].burst_us
        assert us is not None
        times = [t for t, _ in self._values(v)]
        return max((sum(1 for u in times if t <= u < t + us) for t in times), default=0)
