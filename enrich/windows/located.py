"""Where the windows of one entity lie, in every source that has rows of it, and the answers found there.

With one source every question is one look into that source's structures. With several, totals add up and the others are
put together exactly: a few big ranges keep their structures, the small rest becomes one short list.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from enrich.windows.block import Block
from enrich.windows.bursts import most_within
from enrich.windows.codes import view
from enrich.windows.columns import SLICE
from enrich.windows.layout import Record
from enrich.windows.tail import Tail
from enrich.windows.wavelet import Wavelet, select

if TYPE_CHECKING:
    from enrich.windows.kind import Kind

__all__ = ["Located", "Part"]

#: for order statistics, a partition in one native call of so many slices costs no more than a descent
_ALL_AT_ONCE: Final = 4
#: so few values are sorted rather than partitioned
_SORTED: Final = 256
_SORTED_IN_PYTHON: Final = 16

#: (source, row position at the windows' end, row position at each window's start)
Part = tuple[Block | Tail, int, list[int]]


class Located:
    """One entity at one moment; also its own `Probe` (see `enrich.signals.plan`).

    `end_record` and `start_records[w]` differ by the totals of window w. `known`: an event within retention before
    as_of. `first_us`: the oldest event held at or before as_of. Valid as long as the index's lock is held.
    """

    __slots__ = (
        "_as_of", "_kind", "_lasts", "_number", "_ordered", "_ordered_of", "_parts", "_since", "_windows",
        "end_record", "first_us", "known", "start_records",
    )  # fmt: skip

    #: the values of window and value column `_ordered_of`, sorted
    _ordered: list[int]

    def __init__(
        self,
        kind: Kind,
        number: int,
        as_of_us: int,
        windows_us: Sequence[int],
        parts: list[Part],
        end_record: Record,
        start_records: list[Record],
        known: bool,
        first_us: int,
    ) -> None:
        self._kind, self._number, self._as_of, self._windows, self._parts = kind, number, as_of_us, windows_us, parts
        self.end_record, self.start_records, self.known, self.first_us = end_record, start_records, known, first_us
        self._ordered_of: tuple[int, int] | None = None
        self._lasts: dict[int, tuple[int, int, Block | Tail, int]] = {}
        self._since: dict[tuple[int, int], int] = {}

    @property
    def probe(self) -> Located:
        """What answers questions that are no difference of totals."""
        return self

    def _ranges(self, w: int, c: int) -> list[tuple[Block | Tail, int, int]]:
        """Per source the compact positions lo..hi-1 of the window's rows with predicate `c`, where there are any."""
        parts = self._parts
        if len(parts) == 1:  # the records are that source's own, so their counts are its compact positions
            lo, hi = self.start_records[w][c], self.end_record[c]
            return [] if lo == hi else [(parts[0][0], lo, hi)]
        found = []
        for source, end, starts in parts:
            lo, hi = source.raw_count(c, starts[w]), source.raw_count(c, end)
            if lo != hi:
                found.append((source, lo, hi))
        return found

    def _decode(self, v: int, code: int) -> Any:
        decode = self._kind.decoders[v]
        return code if decode is None else decode(code)

    def _select(self, w: int, v: int, k: int, both: bool) -> tuple[int, int]:
        """The k-th code, and the one after it if `both` (else any)."""
        if self._ordered_of == (w, v):
            return self._ordered[k], self._ordered[k + 1] if both else 0
        ranges = self._ranges(w, self._kind.value_counts[v])
        rows = 0
        for _, lo, hi in ranges:
            rows += hi - lo
        most = _ALL_AT_ONCE * SLICE
        big: list[tuple[Wavelet, int, int]] = []
        small: list[Any] = []
        for source, lo, hi in ranges:
            if isinstance(source, Tail):
                small.append(source.codes[v][lo:hi])
            elif rows <= most or hi - lo <= SLICE:
                small.append(source.columns[v].codes[lo:hi])  # type: ignore[index]
            else:
                big.append((source.columns[v].order.at[self._number], lo, hi))  # type: ignore[union-attr]
        if big:
            return select(big, view(np.sort(np.concatenate(small))) if small else (), k, both)
        codes = small[0] if len(small) == 1 else np.concatenate(small)
        if rows <= _SORTED:  # kept: the next quantile of the same values is a look-up
            ordered: list[int]
            if rows > _SORTED_IN_PYTHON:
                ordered = np.sort(codes).tolist()
            else:
                ordered = sorted(codes if isinstance(codes, list) else codes.tolist())
            self._ordered_of, self._ordered = (w, v), ordered
            return ordered[k], ordered[k + 1] if both else 0
        if both:
            pair = np.partition(codes, (k, k + 1))
            return int(pair[k]), int(pair[k + 1])
        return int(np.partition(codes, k)[k]), 0

    def order(self, w: int, v: int, k: int) -> Any:
        """The k-th smallest value (0-based)."""
        return self._decode(v, self._select(w, v, k, False)[0])

    def order2(self, w: int, v: int, k: int) -> tuple[Any, Any]:
        """The k-th and the (k+1)-th smallest."""
        a, b = self._select(w, v, k, True)
        return self._decode(v, a), self._decode(v, b)

    def minimum(self, w: int, v: int) -> Any:
        """The smallest value, None when there is none."""
        found = [
            min(source.codes[v][lo:hi]) if isinstance(source, Tail) else source.columns[v].smallest.over(lo, hi)  # type: ignore[union-attr]
            for source, lo, hi in self._ranges(w, self._kind.value_counts[v])
        ]
        return self._decode(v, min(found)) if found else None

    def maximum(self, w: int, v: int) -> Any:
        """The largest value, None when there is none."""
        found = [
            max(source.codes[v][lo:hi]) if isinstance(source, Tail) else source.columns[v].largest.over(lo, hi)  # type: ignore[union-attr]
            for source, lo, hi in self._ranges(w, self._kind.value_counts[v])
        ]
        return self._decode(v, max(found)) if found else None

    def distinct(self, w: int, v: int) -> int:
        """How many different values there are."""
        hot: list[tuple[int, Block, int]] = []
        small: list[Any] = []
        for source, lo, hi in self._ranges(w, self._kind.value_counts[v]):
            if isinstance(source, Tail):
                small.append(source.codes[v][lo:hi])
            elif hi - lo <= SLICE:
                small.append(source.columns[v].codes[lo:hi])  # type: ignore[index]
            else:
                hot.append((lo, source, hi))
        if not hot:
            if not small:
                return 0
            return _count_distinct(small[0] if len(small) == 1 else np.concatenate(small))
        at = max(range(len(hot)), key=lambda i: hot[i][2] - hot[i][0])
        lo, block, hi = hot.pop(at)
        column, number = block.columns[v], self._number
        matrix = column.previous.at[number]  # type: ignore[union-attr]
        count = matrix.less(lo, hi, lo - matrix.start + 1)
        small += [b.columns[v].different(number, a, z) for a, b, z in hot]
        if small:
            codes = np.sort(np.concatenate(small))
            codes = codes[np.concatenate([np.ones(1, np.bool_), codes[1:] != codes[:-1]])]
            count += len(codes) - int(np.count_nonzero(column.holds(number, lo, hi, codes)))
        return count

    def last(self, w: int, v: int) -> tuple[Any, int] | None:
        """(value, occurred_at) of the last row by (occurred_at, seq); None when there is none."""
        place = self._last(w, v)
        if place is None:
            return None
        t, _, source, at = place
        code = source.codes[v][at] if isinstance(source, Tail) else int(source.columns[v].codes[at])  # type: ignore[index]
        return self._decode(v, code), t

    def _last(self, w: int, v: int) -> tuple[int, int, Block | Tail, int] | None:
        """(t, seq, source, compact position) of the last row of value column `v`.

        INVARIANT: all windows end at as_of, so that every window that holds such a row has the same last one.
        """
        c = self._kind.value_counts[v]
        if self.end_record[c] == self.start_records[w][c]:
            return None
        found = self._lasts.get(v)
        if found is None:
            found = self._lasts[v] = self._find_last(w, v, c)
        return found

    def _find_last(self, w: int, v: int, c: int) -> tuple[int, int, Block | Tail, int]:
        parts = self._parts
        if len(parts) == 1 and isinstance(parts[0][0], Block):
            block, hi = parts[0][0], self.end_record[c]
            row = block.columns[v].rows[hi - 1]
            return block.t[row], block.s[row] + block.seq_base, block, hi - 1
        found: list[tuple[int, int, Block | Tail, int]] = []
        for source, _, hi in self._ranges(w, c):
            if isinstance(source, Tail):
                t, seq = source.places[v][hi - 1]
            else:
                row = source.columns[v].rows[hi - 1]
                t, seq = source.t[row], source.s[row] + source.seq_base
            found.append((t, seq, source, hi - 1))
        return max(found, key=lambda place: place[:2])

    def since_break(self, w: int, c: int, v: int) -> int:
        """How many rows with predicate `c` stand after the last row of value column `v`."""
        place = self._last(w, v)
        if place is None:
            return self.end_record[c] - self.start_records[w][c]
        count = self._since.get((c, v))
        if count is None:
            count = self._since[c, v] = self._count_after(c, v, place)
        return count

    def _count_after(self, c: int, v: int, place: tuple[int, int, Block | Tail, int]) -> int:
        """How many rows up to as_of have predicate `c` and stand after `place`, a row of value column `v`."""
        t, seq, own, at = place
        if len(self._parts) == 1 and isinstance(own, Block):
            return self.end_record[c] - own.raw_count(c, own.columns[v].rows[at] + 1)
        count = 0
        for source, end, _ in self._parts:
            if source is own and not isinstance(source, Tail):
                after = source.columns[v].rows[at] + 1
            else:
                first, times, seqs, base = (
                    (0, source.times, source.seqs, 0)
                    if isinstance(source, Tail)
                    else (self._first(source), source.t, source.s, source.seq_base)
                )
                after = bisect_right(times, t, first, end)
                if after > first and times[after - 1] == t:
                    after = bisect_right(seqs, seq - base, bisect_left(times, t, first, after), after)
            count += source.raw_count(c, end) - source.raw_count(c, after)
        return count

    def _first(self, block: Block) -> int:
        """The entity's first row in a block where it has some."""
        span = block.span(self._number)
        return 0 if span is None else span[0]

    def burst(self, w: int, v: int) -> int:
        """The most rows of value column `v` within any interval (x - burst_us, x] inside the window."""
        column = self._kind.plan.values[v]
        if column.burst_us is None:
            return 0
        return most_within(
            self._ranges(w, column.count),
            v,
            column.count,
            self._number,
            self._as_of - self._windows[w],
            column.burst_us,
        )


def _count_distinct(codes: list[int] | npt.NDArray[Any]) -> int:
    if len(codes) <= 128:
        return len(set(codes if isinstance(codes, list) else codes.tolist()))
    ordered = np.sort(codes)
    return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))
