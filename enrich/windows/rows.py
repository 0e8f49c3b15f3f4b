"""Rows on their way into a block: columns in any order, read in chunks through a permutation.

Two kinds of source give the same chunks: `Staged` holds what row expressions yielded, `Merged` takes the rows of
existing blocks back out of their running totals. Neither copies a whole column to give a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from enrich.signals.plan import EntityPlan
from enrich.windows.codes import Int64s
from enrich.windows.layout import limbs_of, magnitudes, square_limbs

if TYPE_CHECKING:
    from enrich.windows.block import Block

__all__ = ["Chunk", "Merged", "RowSource", "Staged", "sorted_order", "staged_from_cells", "staged_from_rows"]

Int32s = npt.NDArray[np.int32]
Positions = npt.NDArray[np.int64]

_SLICE = 512  # Python rows turned into columns at a time: well below a millisecond


@dataclass(slots=True)
class Chunk:
    """Some rows: per count 0 or 1 (int32), per sum its limbs, per value column codes (junk where its count is 0)."""

    counts: list[Int32s]
    sums: list[list[Int64s]]
    values: list[Int64s]


class RowSource(Protocol):
    """Rows of one kind of entity. `ent`, `t`, `seq` are parallel arrays; ent -1 belongs to no entity."""

    ent: Int32s
    t: Int64s
    seq: Int64s
    totals: list[float]
    peaks: list[int]

    def take(self, at: Positions, forms: Sequence[int]) -> Chunk:
        """The rows at positions `at`, sums in the given forms."""


class Staged:
    """Rows as evaluated: bits of all counts packed 64 to a word, sums as int64 (or limbs), values as codes."""

    def __init__(
        self,
        ent: Int32s,
        t: Int64s,
        seq: Int64s,
        bits: Sequence[npt.NDArray[np.uint64]],
        count_bits: Sequence[int],
        sums: Sequence[Sequence[Int64s]],
        squared: Sequence[bool],
        values: Sequence[npt.NDArray[Any]],
        bounds: Sequence[tuple[float, int]] | None = None,
    ) -> None:
        self.ent, self.t, self.seq = ent, t, seq
        self._bits, self._count_bits = bits, count_bits
        self._sums, self._squared, self._values = sums, squared, values
        if bounds is None:
            bounds = [magnitudes(limbs[0], sq) for limbs, sq in zip(sums, squared, strict=True)]
        self.totals = [total for total, _ in bounds]
        self.peaks = [peak for _, peak in bounds]

    def take(self, at: Positions, forms: Sequence[int]) -> Chunk:
        words = [w[at] for w in self._bits]
        one = np.uint64(1)
        counts = [((words[b >> 6] >> np.uint64(b & 63)) & one).astype(np.int32) for b in self._count_bits]
        sums = [
            square_limbs(_wide(limbs[0][at]), form) if squared else limbs_of([_wide(x[at]) for x in limbs], form)
            for limbs, squared, form in zip(self._sums, self._squared, forms, strict=True)
        ]
        return Chunk(counts, sums, [_wide(v[at]) for v in self._values])


def _wide(x: npt.NDArray[Any]) -> Int64s:
    wide: Int64s = x.astype(np.int64, copy=False)
    return wide


class _Gathered:
    """Rows that come as Python numbers, slice by slice, one sequence a column."""

    def __init__(self, plan: EntityPlan, n: int) -> None:
        self._n_counts = len(plan.counts)
        self._words = [np.zeros(n, np.uint64) for _ in range((self._n_counts + 63) // 64)]
        self._sums: list[list[Sequence[Int64s]]] = [[] for _ in plan.sums]
        self._totals = [0.0] * len(plan.sums)
        self._peaks = [0] * len(plan.sums)
        self._values = [np.empty(n, np.int64) for _ in plan.values]

    def add(self, a: int, b: int, totals: Sequence[Sequence[int]], codes: Iterable[Any]) -> None:
        """Rows a to b: the columns of counts and sums, and of value codes."""
        for c in range(self._n_counts):
            self._words[c >> 6][a:b] |= np.array(totals[c], np.uint64) << np.uint64(c & 63)
        for s, column in enumerate(totals[self._n_counts :]):
            try:
                x = np.array(column, np.int64)
            except OverflowError:
                self._bound(s, float(sum(map(abs, column))), max(max(column), -min(column)))
                limbs = [np.array([x >> i & 0xFFFF_FFFF for x in column], np.int64) for i in (0, 32, 64, 96)]
                self._sums[s].append(limbs)
            else:
                self._bound(s, *magnitudes(x, False))
                self._sums[s].append([x])
        for v, code in enumerate(codes):
            self._values[v][a:b] = code

    def _bound(self, s: int, total: float, peak: int) -> None:
        self._totals[s] += total
        self._peaks[s] = max(self._peaks[s], peak)

    def staged(self, ent: Int32s, t: Int64s, seq: Int64s) -> Staged:
        joined: list[list[Int64s]] = []
        for pieces in self._sums:
            form = max(map(len, pieces), default=1)
            whole = [limbs_of(piece, form) for piece in pieces]
            joined.append(
                [np.concatenate([w[i] for w in whole]) if whole else np.zeros(0, np.int64) for i in range(form)]
            )
        bounds = list(zip(self._totals, self._peaks, strict=True))
        plain = [False] * len(joined)
        return Staged(ent, t, seq, self._words, range(self._n_counts), joined, plain, self._values, bounds)


def staged_from_rows(
    plan: EntityPlan,
    ent: Int32s,
    t: Int64s,
    seq: Int64s,
    totals: Sequence[tuple[int, ...]],
    codes: Sequence[tuple[int, ...]],
    breathe: Callable[[], None] = lambda: None,
) -> Staged:
    """Rows given as Python tuples (counts then sums; value codes), for what stood in tails."""
    n = len(totals)
    gathered = _Gathered(plan, n)
    for a in range(0, n, _SLICE):
        b = min(n, a + _SLICE)
        gathered.add(a, b, list(zip(*totals[a:b], strict=True)), zip(*codes[a:b], strict=True))
        breathe()
    return gathered.staged(ent, t, seq)


def staged_from_cells(
    plan: EntityPlan,
    ent: Int32s,
    t: Int64s,
    seq: Int64s,
    rows: Sequence[tuple[Any, ...]],
    encode: Callable[[int, Sequence[Any]], Int64s],
) -> Staged:
    """Rows as the plan's row function gives them; `encode(v, column)` are the codes of value column v."""
    n, width = len(rows), len(plan.counts) + len(plan.sums)
    gathered = _Gathered(plan, n)
    for a in range(0, n, _SLICE):
        b = min(n, a + _SLICE)
        columns = list(zip(*rows[a:b], strict=True))
        gathered.add(a, b, columns[:width], (encode(v, column) for v, column in enumerate(columns[width:])))
    return gathered.staged(ent, t, seq)


class Merged:
    """The rows of several blocks. Position p counts through the blocks one after the other."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self._starts = np.cumsum([0] + [b.n for b in blocks])
        self.ent = np.concatenate([b.row_entities() for b in blocks])
        self.t = np.concatenate([b.times for b in blocks])
        self.seq = np.concatenate([b.sequences() for b in blocks])
        n_sums = len(blocks[0].layout.forms)
        self.totals = [sum(b.totals[s] for b in blocks) for s in range(n_sums)]
        self.peaks = [max(b.peaks[s] for b in blocks) for s in range(n_sums)]

    def take(self, at: Positions, forms: Sequence[int]) -> Chunk:
        n = len(at)
        first = self._blocks[0]
        counts = [np.empty(n, np.int32) for _ in range(first.layout.n_counts)]
        sums = [[np.empty(n, np.int64) for _ in range(form)] for form in forms]
        values = [np.zeros(n, np.int64) for _ in first.columns]
        for block, start, stop in zip(self._blocks, self._starts[:-1], self._starts[1:], strict=True):
            where = np.flatnonzero((at >= start) & (at < stop))
            if not len(where):
                continue
            rows = at[where] - start
            before, after = block.records[rows], block.records[rows + 1]
            for c, out in enumerate(counts):
                out[where] = after[f"c{c}"] - before[f"c{c}"]
            for s, form in enumerate(block.layout.forms):
                limbs = [after[f"s{s}.{i}"] - before[f"s{s}.{i}"] for i in range(form)]
                for out64, limb in zip(sums[s], limbs_of(limbs, forms[s]), strict=True):
                    out64[where] = limb
            for v, column in enumerate(block.columns):
                if column.codes is not None:
                    present = np.flatnonzero(counts[column.count][where])
                    values[v][where[present]] = column.codes[before[f"c{column.count}"][present]]
        return Chunk(counts, sums, values)


def _in_order(t: Int64s, seq: Int64s) -> bool:
    """Whether rows stand in (t, seq) order already."""
    later = t[1:] > t[:-1]
    if not bool(later.all()):
        later |= (t[1:] == t[:-1]) & (seq[1:] > seq[:-1])
    return bool(later.all())


def sorted_order(ent: Int32s, t: Int64s, seq: Int64s, oldest_us: int | None = None) -> Positions:
    """Positions of the rows that belong to an entity (and are not older than `oldest_us`) by (entity, t, seq)."""
    kept = ent >= 0
    if oldest_us is not None:
        kept &= t >= oldest_us
    every = bool(kept.all())
    at = np.arange(len(ent)) if every else np.flatnonzero(kept)
    if not len(at):
        return at
    e, u, s = (ent, t, seq) if every else (ent[at], t[at], seq[at])
    if _in_order(u, s):
        key = (e.astype(np.int64) << 32) | np.arange(len(e))
        key.sort()  # sorting plain values is vectorised, sorting indices is not
        key &= 0xFFFF_FFFF
        return key if every else at[key]
    low = int(u.min())
    shift = (int(u.max()) - low).bit_length()
    if shift + int(e.max()).bit_length() > 62:
        return at[np.lexsort((s, u, e))]
    key = (e.astype(np.int64) << shift) | (u - low)
    order = np.argsort(key, kind="stable")
    key = key[order]
    same = np.flatnonzero(key[1:] == key[:-1])
    if len(same):
        tied = np.zeros(len(key), np.bool_)
        tied[same] = tied[same + 1] = True
        place = np.flatnonzero(tied)
        group = order[place]
        order[place] = group[np.lexsort((s[group], key[place]))]
    return order if every else at[order]
