"""An index of the past that moves forward: it holds exactly the events up to one seq, read from DuckDB in blocks.

For replay, backtest and frames, which ask about many moments in the order of their seqs. Events are taken in by the
chunk, some of them ahead of time. An entity whose rows of the chunk are all visible, as far as the moment asked about
reaches, is answered from the chunk's block; one with a row learned later, from a tail that is filled row by row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa

from enrich.signals.plan import EntityPlan
from enrich.windows.block import Block, build_block
from enrich.windows.bulk import load
from enrich.windows.codes import Int64s, view
from enrich.windows.evaluate import Columns
from enrich.windows.index import Index
from enrich.windows.kind import Kind
from enrich.windows.layout import Record, form_for
from enrich.windows.located import Located
from enrich.windows.merge import merge, merge_from
from enrich.windows.rows import Positions, Staged, sorted_order
from enrich.windows.tail import Tail

__all__ = ["CursorSource", "RollingIndex"]

#: how many seqs one query covers, and how many of its rows are open at a time
_STRETCH: Final = 65_536
_CHUNK: Final = 8_192
_NO_TAILS: Final[dict[int, Tail]] = {}
_NEVER: Final = 1 << 62


class CursorSource(Protocol):
    """What gives DuckDB cursors: a `History`, or a DuckDB connection in UTC."""

    def cursor(self) -> Any: ...


class RollingIndex(Index):
    """Answers "the windows of this entity that end at this moment, as far as was known at `seq`".

    INVARIANT: it holds exactly `events_at(seq)`: events with a seq of at most `seq` that were not voided by then.

    For one thread; nothing else links or merges.

    Args:
        source: where cursors come from.
        relation: a table with the columns of `events`, void_seq among them. It must hold all events up to the seq asked
            for by the time that `advance` is called with it.
        at_seq: where to start; the events up to there are loaded in bulk.
        oldest_us: older events are left out: no window asked for, and no retention before it, may reach back further.
    """

    def __init__(
        self,
        plans: Mapping[str, EntityPlan],
        source: CursorSource,
        *,
        retention_us: int,
        relation: str = "events",
        at_seq: int = 0,
        oldest_us: int | None = None,
        chunk_rows: int | None = None,
    ) -> None:
        super().__init__(plans, retention_us=retention_us)
        self._cursor = source.cursor()
        self._relation, self._oldest_us = relation, oldest_us
        self._chunk_rows = chunk_rows or _CHUNK
        self._load(at_seq)

    def _load(self, seq: int) -> None:
        """Everything up to `seq`, at once."""
        self.seq = self._fetched = seq
        self._waiting: pa.Table | None = None
        self._chunks: dict[str, _Chunk] = {}
        self._chunk_end = seq
        self._void_seq = self._next_void(seq)
        for kind in self.kinds.values():
            kind.blocks = ()
        held = (
            f"(SELECT * REPLACE (NULL::BIGINT AS void_seq) FROM {self._relation} AS events"
            f" WHERE seq <= {seq:d} AND (void_seq IS NULL OR void_seq > {seq:d}))"
        )
        if seq:
            load(self, self._cursor, held, None, self._oldest_us)
        self._settled = {entity: kind.blocks for entity, kind in self.kinds.items()}

    def _next_void(self, seq: int) -> int:
        """The next seq at which an event is taken out."""
        (row,) = self._cursor.execute(
            f"SELECT coalesce(min(void_seq), {_NEVER}) FROM {self._relation} WHERE void_seq > {seq:d}"
        ).fetchall()
        return int(row[0])

    def advance(self, seq: int) -> None:
        """From here on it holds exactly the events up to `seq`.

        Raises:
            ValueError: a seq below the one it is at.
        """
        if seq < self.seq:
            raise ValueError(f"a rolling index at seq {self.seq} can't go back to {seq}")
        while seq > self._chunk_end:
            self._settle()
            self._open_next(seq)
            if seq >= self._void_seq:
                self._load(seq)
                return
        self.seq = seq

    def locate(
        self, entity: str, key: str | tuple[str, ...], as_of_us: int, windows_us: Sequence[int]
    ) -> Located | None:
        """See `Index.locate`; no lock is needed."""
        kind, chunk = self.kinds[entity], self._chunks.get(entity)
        kind.blocks, kind.tails = self._settled[entity], _NO_TAILS
        if chunk is not None:
            number = kind.names.get(key)
            if number is not None:
                chunk.show(kind, number, as_of_us, self.seq)
        return kind.locate(key, as_of_us, windows_us)

    def _settle(self) -> None:
        """The open chunk is visible as a whole."""
        for entity, chunk in self._chunks.items():
            self._link(entity, chunk.block)
        self._chunks = {}

    def _link(self, entity: str, block: Block) -> None:
        kind = self.kinds[entity]
        kind.blocks = (*self._settled[entity], block)
        first = merge_from([b.n for b in kind.blocks])
        if first is not None:
            merge(kind, first, self.lock, lambda: None, self._oldest_us)
        self._settled[entity] = kind.blocks

    def _open_next(self, seq: int) -> None:
        """Take in the rows up to `seq` that fill whole chunks, and open the chunk after them."""
        if self._waiting is None or not self._waiting.num_rows:
            self._fetch(seq)
        rows = self._waiting
        if rows is None or not rows.num_rows:
            self._chunk_end = self._fetched
            return
        seqs = rows.column("t_seq").to_numpy()
        passed = int(np.searchsorted(seqs, seq, side="right"))
        if passed >= self._chunk_rows:
            for entity, (source, order) in self._staged(rows.slice(0, passed)).items():
                if len(order):
                    self._link(entity, build_block(self.plans[entity], source, order, len(self.names[entity])))
            self._waiting, self._chunk_end = rows.slice(passed), int(seqs[passed - 1])
            if passed == len(seqs):
                self._chunk_end = self._fetched
            return
        opened = rows.slice(0, self._chunk_rows)
        self._waiting = rows.slice(opened.num_rows)
        self._chunk_end = self._fetched if not self._waiting.num_rows else int(seqs[opened.num_rows - 1])
        for entity, (source, order) in self._staged(opened).items():
            if len(order):
                block = build_block(self.plans[entity], source, order, len(self.names[entity]))
                self._chunks[entity] = _Chunk(self.plans[entity], source, order, block)

    def _fetch(self, seq: int) -> None:
        """Read the next rows, ahead of `seq` as far as they are there and nothing is voided meanwhile."""
        (row,) = self._cursor.execute(f"SELECT coalesce(max(seq), 0) FROM {self._relation}").fetchall()
        after = self._fetched
        self._void_seq = self._next_void(after)
        self._fetched = min(max(seq, int(row[0])), after + _STRETCH, self._void_seq - 1)
        where = f"seq > {after:d} AND seq <= {self._fetched:d} AND (void_seq IS NULL OR void_seq > {self._fetched:d})"
        if self._oldest_us is not None:
            where += f" AND occurred_at >= make_timestamptz({self._oldest_us:d})"
        self._waiting = self._cursor.sql(
            f"SELECT epoch_us(occurred_at) AS t_us, seq AS t_seq, {self.expressions.select}"
            f" FROM {self._relation} AS events WHERE {where} ORDER BY seq"
        ).to_arrow_table()

    def _staged(self, rows: pa.Table) -> dict[str, tuple[Staged, Positions]]:
        """Per kind of entity the rows, and in which order they make a block."""
        columns = Columns(self.expressions, self.names, self.texts, rows.num_rows)
        for batch in rows.combine_chunks().to_batches():
            columns.add(batch, batch.column("t_us").to_numpy(), batch.column("t_seq").to_numpy())
        columns.finish()
        sources = {entity: columns.staged(entity) for entity in self.kinds}
        return {entity: (s, sorted_order(s.ent, s.t, s.seq)) for entity, s in sources.items()}


class _Chunk:
    """The open rows of one kind of entity: as a block, and row by row for entities with rows that come later."""

    def __init__(self, plan: EntityPlan, source: Staged, order: Positions, block: Block) -> None:
        self.block = block
        self._plan, self._source, self._order = plan, source, order
        self._newest = view(_newest_so_far(block))
        self._tails: dict[int, _Filling] = {}

    def show(self, kind: Kind, number: int, as_of_us: int, seq: int) -> None:
        """Put into `kind` what is visible of an entity at `seq`."""
        block = self.block
        span = block.span(number)
        if span is None:
            return
        first, last = span
        end = bisect_right(block.t, as_of_us, first, last)
        if end == first:
            return
        if self._newest[end - 1] <= seq:
            kind.blocks = (*kind.blocks, block)
            return
        filling = self._tails.get(number)
        if filling is None:
            filling = self._tails[number] = self._rows(first, last)
        kind.tails = {number: filling.up_to(seq)}

    def _rows(self, first: int, last: int) -> _Filling:
        plan, source = self._plan, self._source
        at = self._order[first:last]
        at = at[np.argsort(source.seq[at])]
        forms = [form_for(total, peak) for total, peak in zip(source.totals, source.peaks, strict=True)]
        chunk = source.take(at, forms)
        totals = [c.tolist() for c in chunk.counts] + [_whole(limbs) for limbs in chunk.sums]
        codes = [v.tolist() for v in chunk.values]
        n = len(at)
        return _Filling(
            Tail(len(totals), [v.count for v in plan.values]),
            source.t[at].tolist(),
            source.seq[at].tolist(),
            list(zip(*totals, strict=True)) if totals else [()] * n,
            list(zip(*codes, strict=True)) if codes else [()] * n,
        )


class _Filling:
    """A tail, and the rows that it still gets, in order of seq."""

    def __init__(
        self, tail: Tail, times: list[int], seqs: list[int], totals: list[Record], codes: list[tuple[int, ...]]
    ) -> None:
        self._tail, self._times, self._seqs, self._totals, self._codes = tail, times, seqs, totals, codes
        self._next = 0

    def up_to(self, seq: int) -> Tail:
        end = bisect_right(self._seqs, seq, self._next)
        for i in range(self._next, end):
            self._tail.insert(self._times[i], self._seqs[i], self._totals[i], self._codes[i])
        self._next = end
        return self._tail


def _newest_so_far(block: Block) -> Int64s:
    """Per row the highest seq among the rows of its entity up to it."""
    seqs = block.sequences()
    low = int(seqs.min())
    width = int(seqs.max()) - low + 1
    rank = np.repeat(np.arange(len(block.entities), dtype=np.int64), np.diff(block.bounds)) * width
    newest: Int64s = np.maximum.accumulate(rank + (seqs - low)) - rank + low
    return newest


def _whole(limbs: Sequence[Int64s]) -> list[int]:
    """Python ints of what stands in limbs."""
    if len(limbs) == 1:
        plain: list[int] = limbs[0].tolist()
        return plain
    parts = [limb.tolist() for limb in limbs]
    return [sum(part << 32 * i for i, part in enumerate(row)) for row in zip(*parts, strict=True)]
