"""A tail: the newest rows of one entity, as Python lists, until they are merged into a block."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import add

from enrich.windows.layout import Record

__all__ = ["Tail"]


class Tail:
    """Rows sorted by (t, seq). `records[i]` holds the totals of the first i rows; per value column v, `codes[v]` and
    `places[v]` (t, seq) hold the rows that have its predicate.

    A row in order costs O(1), a late one O(rows of this tail); the index keeps tails short.
    """

    __slots__ = ("codes", "places", "records", "rows", "seqs", "times", "value_counts")

    def __init__(self, width: int, value_counts: Sequence[int]) -> None:
        self.times: list[int] = []
        self.seqs: list[int] = []
        self.rows: list[tuple[Record, tuple[int, ...]]] = []
        self.records: list[Record] = [(0,) * width]
        self.value_counts = value_counts
        self.codes: list[list[int]] = [[] for _ in value_counts]
        self.places: list[list[tuple[int, int]]] = [[] for _ in value_counts]

    def insert(self, t: int, seq: int, totals: Record, codes: tuple[int, ...]) -> None:
        """Takes in a row whose seq is above every seq here."""
        times, records = self.times, self.records
        if not times or t >= times[-1]:
            times.append(t)
            self.seqs.append(seq)
            self.rows.append((totals, codes))
            records.append(tuple(map(add, records[-1], totals)))
            for v, c in enumerate(self.value_counts):
                if totals[c]:
                    self.codes[v].append(codes[v])
                    self.places[v].append((t, seq))
            return
        at = bisect_right(times, t)
        before = records[at]
        times.insert(at, t)
        self.seqs.insert(at, seq)
        self.rows.insert(at, (totals, codes))
        total = before
        suffix = []
        for row, _ in self.rows[at:]:
            total = tuple(map(add, total, row))
            suffix.append(total)
        records[at + 1 :] = suffix
        for v, c in enumerate(self.value_counts):
            if totals[c]:
                self.codes[v].insert(before[c], codes[v])
                self.places[v].insert(before[c], (t, seq))

    def raw_count(self, c: int, at: int) -> int:
        """How many of the first `at` rows have predicate `c`."""
        return self.records[at][c]
