"""A block: rows of one kind of entity that arrived together, sorted by (entity, occurred_at, seq), immutable.

Row i's record, the running totals over rows 0..i of the whole block, stands at `records[i + 1]`; `records[0]` is
zero, so "before the first row" needs no special case. A window of one entity is the difference of two records.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from enrich.signals.plan import EntityPlan
from enrich.windows.codes import Int64s, view
from enrich.windows.columns import WITH_CODES, BlockColumn, build_column
from enrich.windows.layout import Layout, Record, form_for
from enrich.windows.rows import Int32s, Positions, RowSource

__all__ = ["Block", "build_block"]

_CHUNK = 16_384  # rows per native call: about a millisecond of work, cache-resident
_SPARSE_MAX = 16_384  # entities in a dict at most; more stand in a dense array


def _no_breath() -> None:
    return None


class Block:
    """Immutable once linked; only `seq_base` is set at link, before any reader sees the block.

    `entities` (int32, sorted) and `bounds` (int64, one longer) say which rows belong to whom. `spans(number)` gives the
    rows of an entity as (start, end), or None.
    """

    def __init__(
        self,
        layout: Layout,
        entities: Int32s,
        bounds: Int64s,
        times: Int64s,
        seqs: npt.NDArray[Any],
        seq_base: int,
        records: npt.NDArray[Any],
        totals: list[float],
        peaks: list[int],
        columns: list[BlockColumn],
        n_entities: int,
    ) -> None:
        self.layout, self.entities, self.bounds = layout, entities, bounds
        self.times, self.seqs, self.seq_base, self.records = times, seqs, seq_base, records
        self.totals, self.peaks, self.columns = totals, peaks, columns
        self.n = len(times)
        self.saved: dict[str, Any] | None = None  # where it stands on disk, see `store`
        self.size = layout.size
        self.read = layout.read
        self.t: Any = view(times)
        self.s: Any = view(seqs)
        self.buffer: Any = view(records.view(np.uint8).reshape(-1))
        self.raw_count: Callable[[int, int], int] = self._counter()
        self.sparse: dict[int, tuple[int, int]] | None = None
        self.dense: Any = None
        self.dense_n = 0
        if len(entities) <= _SPARSE_MAX and n_entities > 8 * len(entities):
            at = bounds.tolist()
            self.sparse = dict(zip(entities.tolist(), pairwise(at), strict=True))
        else:
            self.dense_n = int(entities[-1]) + 1 if len(entities) else 0
            width = np.zeros(self.dense_n + 1, np.int64)
            width[entities + 1] = np.diff(bounds)
            self.dense = view(np.cumsum(width))

    def _counter(self) -> Callable[[int, int], int]:
        """(count index, row position) -> how many rows before that position had the predicate, over the whole block."""
        words: Any = self.buffer.cast("i") if len(self.buffer) else None
        stride = self.size // 4
        return lambda c, at: int(words[at * stride + c])

    def span(self, number: int) -> tuple[int, int] | None:
        """First and one-past-last row of an entity, None when it has no row here."""
        if self.sparse is not None:
            return self.sparse.get(number)
        if number >= self.dense_n:
            return None
        start, end = self.dense[number], self.dense[number + 1]
        return None if start == end else (start, end)

    def record(self, at: int) -> Record:
        """Running totals before row `at`."""
        return self.read(self.buffer, at * self.size)

    def row_entities(self) -> Int32s:
        """The entity number of each row (int32)."""
        return np.repeat(self.entities, np.diff(self.bounds))

    def sequences(self) -> Int64s:
        """The seq of each row (int64)."""
        return self.seqs.astype(np.int64) + self.seq_base

    def nbytes(self) -> int:
        """Bytes held in arrays."""
        own = sum(a.nbytes for a in (self.entities, self.bounds, self.times, self.seqs, self.records))
        return own + (self.dense.nbytes if self.dense is not None else 0) + sum(c.nbytes() for c in self.columns)


def build_block(
    plan: EntityPlan,
    source: RowSource,
    order: Positions,
    n_entities: int,
    breathe: Callable[[], None] = _no_breath,
) -> Block:
    """A block of the rows at `order`, which must be sorted by (entity, t, seq).

    `breathe` is called between pieces of about a millisecond, so that a background build gives way.
    """
    n = len(order)
    forms = [form_for(total, peak) for total, peak in zip(source.totals, source.peaks, strict=True)]
    layout = Layout(len(plan.counts), forms)
    records = np.empty(n + 1, layout.dtype)
    records[:1].view(np.uint8)[:] = 0
    parts: list[list[npt.NDArray[Any]]] = [[] for _ in plan.values]
    needs = [bool(v.uses & WITH_CODES) for v in plan.values]
    count_carry = [0] * len(plan.counts)
    limb_carry = [[0] * form for form in forms]
    times = np.empty(n, np.int64)
    seqs = np.empty(n, np.int64)
    ents = np.empty(n, np.int32)
    for a in range(0, n, _CHUNK):
        b = min(n, a + _CHUNK)
        at = order[a:b]
        times[a:b], seqs[a:b], ents[a:b] = source.t[at], source.seq[at], source.ent[at]
        chunk = source.take(at, forms)
        rows = records[a + 1 : b + 1]
        for v, column in enumerate(plan.values):
            if needs[v]:
                parts[v].append(_narrow(chunk.values[v][chunk.counts[column.count] != 0]))
        for c, counts in enumerate(chunk.counts):
            counts[0] += count_carry[c]
            running = np.cumsum(counts, dtype=np.int32)  # straight into the strided field costs five times as much
            rows[f"c{c}"] = running
            count_carry[c] = int(running[-1])
        for s, limbs in enumerate(chunk.sums):
            for i, limb in enumerate(limbs):
                limb[0] += limb_carry[s][i]
                running = np.cumsum(limb)
                rows[f"s{s}.{i}"] = running
                limb_carry[s][i] = int(running[-1])
        breathe()
    first = np.flatnonzero(np.concatenate([np.ones(min(n, 1), np.bool_), ents[1:] != ents[:-1]]))
    bounds = np.append(first, n).astype(np.int64)
    base = int(seqs.min()) if n else 0
    seqs -= base
    small = seqs.astype(np.uint32) if n and int(seqs.max()) < 2**32 else seqs
    entities = ents[first]
    columns = []
    for v, column in enumerate(plan.values):
        codes = np.concatenate(parts[v]) if parts[v] else (np.zeros(0, np.int64) if needs[v] else None)
        parts[v] = []
        columns.append(build_column(column, codes, records, entities, bounds, times, breathe))
    return Block(
        layout, entities, bounds, times, small, base, records, source.totals, source.peaks, columns, n_entities
    )


def _narrow(codes: Int64s) -> npt.NDArray[Any]:
    """The same codes as int32 when they fit (np.concatenate widens again where chunks differ)."""
    if not len(codes) or (int(codes.min()) >= -(2**31) and int(codes.max()) < 2**31):
        return codes.astype(np.int32)
    return codes
