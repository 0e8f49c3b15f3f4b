"""The most rows within any interval of fixed length inside a window, from one source or several.

For a row at time x the interval is (x - length, x]; the most is reached at some row. In a block `within` holds that
number for every row as if there were no window. A window that starts at w0 cuts intervals short for rows before
w0 + length; of those the last one sees all the others. So one source costs one search and one range maximum.

With several sources the largest one, A, keeps its structure and the times of the others, S, cut the window into pieces
inside which S adds a constant: piece by piece, most promising first, until no piece can beat what was found. Where S is
no small part of all rows, all are merged and searched in native calls instead.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from enrich.windows.block import Block
from enrich.windows.codes import Int64s
from enrich.windows.columns import SLICE
from enrich.windows.tail import Tail

__all__ = ["most_within"]

#: so many rows are sorted and searched in native calls while one row of a smaller source is cut at in Python
ROWS_PER_PIECE: Final = 64

Range = tuple[Block | Tail, int, int]


def most_within(ranges: Sequence[Range], v: int, c: int, number: int, start_us: int, length_us: int) -> int:
    """The answer over the rows at the given compact ranges, all of them later than `start_us`."""
    if not ranges:
        return 0
    total = sum(hi - lo for _, lo, hi in ranges)
    big = max(ranges, key=lambda r: 0 if isinstance(r[0], Tail) else r[2] - r[1])
    smaller = total - (big[2] - big[1])
    if isinstance(big[0], Tail) or (smaller and total <= max(4 * SLICE, ROWS_PER_PIECE * smaller)):
        # each range is in order: a stable sort only merges them
        return _by_sorting(np.sort(np.concatenate([_times(r, v) for r in ranges]), kind="stable"), length_us)
    others = [_times(r, v) for r in ranges if r is not big]
    largest = _Single(big[0], big[1], big[2], v, c, number, start_us, length_us)
    if not others:
        return largest.most(start_us, None)
    return _by_pieces(largest, np.sort(np.concatenate(others)).tolist(), start_us, length_us)


def _times(r: Range, v: int) -> Int64s:
    source, lo, hi = r
    if isinstance(source, Tail):
        return np.array([t for t, _ in source.places[v][lo:hi]], np.int64)
    times: Int64s = source.times[source.columns[v].arrays["rows"][lo:hi]]
    return times


def _by_sorting(times: Int64s, length_us: int) -> int:
    first = np.searchsorted(times, times - length_us, side="right")
    return int((np.arange(1, len(times) + 1) - first).max())


class _Single:
    """One block's rows of one entity within the window."""

    def __init__(
        self, block: Block, lo: int, hi: int, v: int, c: int, number: int, start_us: int, length_us: int
    ) -> None:
        self.lo, self.hi, self.clipped_before = lo, hi, start_us + length_us
        self._t, self._count, self._c = block.t, block.raw_count, c
        rows = block.columns[v].rows
        self._first, self._last = rows[lo], rows[hi - 1] + 1
        self._within: Any = block.columns[v].burst

    def before(self, t: int) -> int:
        """Compact position of the first row at or after `t`."""
        return self._count(self._c, bisect_left(self._t, t, self._first, self._last))

    def most(self, a: int, b: int | None) -> int:
        """The most that these rows alone reach at one of them in a <= time < b."""
        lo = max(self.lo, self.before(a))
        hi = self.hi if b is None else self.before(b)
        cut = min(max(lo, self.before(self.clipped_before)), hi)
        found = cut - self.lo if cut > lo else 0
        return max(found, self._within.over(cut, hi)) if cut < hi else found

    def until(self, x: int, start_us: int, length_us: int) -> int:
        """How many lie in (x - length, x]."""
        return self.before(x + 1) - max(self.lo, self.before(max(start_us, x - length_us) + 1))


def _by_pieces(largest: _Single, others: list[int], start_us: int, length_us: int) -> int:
    best = 0
    for i, s in enumerate(others):
        if i + 1 == len(others) or others[i + 1] != s:
            own = i + 1 - bisect_right(others, s - length_us)
            best = max(best, own + largest.until(s, start_us, length_us))
    alone = largest.most(start_us, None)
    cuts = sorted({start_us, *others, *(s + length_us for s in others)})
    pieces = [
        (bisect_right(others, a) - bisect_right(others, a - length_us), a, b)
        for a, b in zip(cuts, [*cuts[1:], None], strict=True)
    ]
    for added, a, b in sorted(pieces, key=lambda p: -p[0]):
        if added + alone <= best:
            break
        most = largest.most(a, b)
        if most:
            best = max(best, added + most)
    return best
