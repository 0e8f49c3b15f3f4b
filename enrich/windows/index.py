"""The exact sliding-window index over all kinds of entities."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from enrich.events.model import EventBatch
from enrich.signals.plan import EntityPlan
from enrich.windows.block import Block, build_block
from enrich.windows.codes import Names
from enrich.windows.evaluate import Evaluator, Expressions
from enrich.windows.kind import Kind
from enrich.windows.layout import Record
from enrich.windows.located import Located
from enrich.windows.merge import Breather, flush, freeze, merge, merge_from, needs_flush
from enrich.windows.rows import RowSource, sorted_order, staged_from_cells
from enrich.windows.store import SavedPosition, Snapshot, read_index, restore, write_index

__all__ = ["Index", "PreparedBlock"]

#: (entity number, occurred_at, place in the batch, totals, value codes)
TailRow = tuple[int, int, int, Record, tuple[int, ...]]


@dataclass(slots=True)
class PreparedBlock:
    """A batch ready to be linked: per kind of entity rows for the tails or a finished block, seqs counted from 0."""

    n: int
    tails: list[tuple[Kind, list[TailRow]]]
    blocks: list[tuple[Kind, Block]]


class Index:
    """Answers "the windows of this entity that end at this moment" from what has been linked so far.

    `lock` guards everything that readers see: hold it over `link` and over all that is read for one context, so that a
    context sees whole batches only. `prepare` and `merge_step` do their work outside it.

    Args:
        plans: what to keep, per kind of entity.
        retention_us: how far back `known` looks; no window is longer.
        block_rows: batches of at least this many events are linked as blocks, smaller ones as tail rows.
        duckdb_rows: batches of at least this many events have their row expressions evaluated by DuckDB.
    """

    def __init__(
        self,
        plans: Mapping[str, EntityPlan],
        *,
        retention_us: int,
        block_rows: int = 128,
        duckdb_rows: int = 5_000,
    ) -> None:
        self.lock = threading.Lock()
        self._merging = threading.Lock()
        self.plans = plans
        self.retention_us = retention_us
        self._block_rows, self._duckdb_rows = block_rows, duckdb_rows
        self.texts = Names()
        self.kinds = {entity: Kind(plan, self.texts, retention_us) for entity, plan in plans.items()}
        self.names = {entity: kind.names for entity, kind in self.kinds.items()}
        self.expressions = Expressions(plans)
        self._evaluator = Evaluator(self.expressions)

    def prepare(self, batch: EventBatch) -> PreparedBlock:
        """Does all that needs no order: evaluates row expressions, numbers entities, builds blocks of big batches."""
        prepared = PreparedBlock(batch.n, [], [])
        if batch.n >= self._duckdb_rows:
            columns = self._evaluator.evaluate(batch, self.names, self.texts)
            for entity, kind in self.kinds.items():
                self._add_block(prepared, kind, columns.staged(entity))
            return prepared
        if batch.n < self._block_rows:
            for kind in self.kinds.values():
                rows = self._rows(kind, batch)
                if rows:
                    prepared.tails.append((kind, rows))
            return prepared
        t = np.array(batch.columns["occurred_at"], np.int64)
        seq = np.arange(batch.n, dtype=np.int64)
        for kind in self.kinds.values():
            keys = _keys(kind, batch)
            if keys is not None:
                cells = list(kind.plan.rows(batch.columns, batch.n))
                ent = kind.names.numbers(keys)
                self._add_block(
                    prepared, kind, staged_from_cells(kind.plan, ent, t, seq, cells, kind.column_codes)
                )
        return prepared

    def _add_block(self, prepared: PreparedBlock, kind: Kind, source: RowSource) -> None:
        order = sorted_order(source.ent, source.t, source.seq)
        if len(order):
            prepared.blocks.append((kind, build_block(kind.plan, source, order, len(kind.names))))

    def _rows(self, kind: Kind, batch: EventBatch) -> list[TailRow]:
        number, width = kind.names.number, kind.width
        times = batch.columns["occurred_at"]
        keys = _keys(kind, batch)
        if keys is None:
            return []
        rows = []
        for i, row in enumerate(kind.plan.rows(batch.columns, batch.n)):
            key = keys[i]
            if key is not None:
                rows.append((number(key), times[i], i, tuple(row[:width]), kind.codes(row)))
        return rows

    def link(self, prepared: PreparedBlock, first_seq: int) -> None:
        """Makes a prepared batch visible; event i gets seq `first_seq + i`. The caller holds `lock`, seqs rise.

        A block costs O(1), a tail row O(1) when it comes in order.
        """
        for kind, rows in prepared.tails:
            insert = kind.insert
            for number, t, i, totals, codes in rows:
                insert(number, t, first_seq + i, totals, codes)
        for kind, block in prepared.blocks:
            block.seq_base += first_seq
            kind.blocks = (*kind.blocks, block)

    def locate(
        self, entity: str, key: str | tuple[str, ...], as_of_us: int, windows_us: Sequence[int]
    ) -> Located | None:
        """The windows of one entity that end at `as_of_us`; None when it has no event at or before that.

        Row i counts in a window when `as_of_us - window < occurred_at <= as_of_us`. The caller holds `lock` until it is
        done with the answer.
        """
        return self.kinds[entity].locate(key, as_of_us, windows_us)

    def load_from_duckdb(
        self,
        cursor: Any,
        relation: str = "events",
        progress: Callable[[int], None] | None = None,
        oldest_us: int | None = None,
    ) -> None:
        """Builds the index from a table of events (columns as in `COLUMNS`, plus seq and void_seq).

        Args:
            cursor: a DuckDB cursor; its settings decide how many threads evaluate.
            relation: a table or view; rows with a void_seq are left out.
            progress: called with the number of rows read so far.
            oldest_us: older rows are left out.
        """
        from enrich.windows.bulk import load  # the bulk path is not needed by readers

        load(self, cursor, relation, progress, oldest_us)

    def merge_step(self, oldest_us: int | None = None, idle: bool = False) -> bool:
        """Does one piece of background merging; returns whether there was any to do.

        For a maintenance thread, which calls again at once on True and after a moment on False. The lock is held only
        to swap tuples, the GIL given up about once a millisecond.

        Args:
            oldest_us: rows older than this may be dropped; no window that will be asked for may reach back further.
            idle: nothing is being linked, so that merging may go further than keeping up asks for.
        """
        with self._merging:
            for kind in self.kinds.values():
                if needs_flush(kind):
                    with self.lock:
                        freeze(kind)
                    flush(kind, self.lock, Breather())
                    return True
                first = merge_from([b.n for b in kind.blocks], idle)
                if first is not None:
                    merge(kind, first, self.lock, Breather(), oldest_us)
                    return True
        return False

    def save(
        self,
        directory: Path,
        position: SavedPosition | Callable[[], SavedPosition],
        catalog_version: str,
        settle: Callable[[SavedPosition], None] | None = None,
    ) -> SavedPosition:
        """Saves what is linked at one moment, so that `load` finds it; linking goes on meanwhile.

        Args:
            directory: holds nothing but this index.
            position: what the index has seen; a function is called under `lock`, at the very moment that is saved.
            catalog_version: of the plans.
            settle: called with the position before the new index replaces the old one, to wait until it is durable.

        Returns:
            The position saved.

        Raises:
            OSError: the disk does not take it; the index saved before stays.
        """
        with self._merging:
            with self.lock:
                at = position() if callable(position) else position
                earlier = {entity: kind.blocks for entity, kind in self.kinds.items()}
                for kind in self.kinds.values():
                    freeze(kind)
                names = {entity: len(kind.names) for entity, kind in self.kinds.items()}
                texts = len(self.texts)
            blocks: dict[str, tuple[Block, ...]] = {}
            for entity, kind in self.kinds.items():
                flushed = flush(kind, self.lock, Breather())
                blocks[entity] = earlier[entity] if flushed is None else (*earlier[entity], flushed)
            snapshot = Snapshot(
                blocks,
                {entity: self.names[entity].keys[:n] for entity, n in names.items()},
                self.texts.keys[:texts],
            )
            write_index(directory, snapshot, at, catalog_version, settle)
        return at

    def load(self, directory: Path, catalog_version: str) -> SavedPosition | None:
        """Maps a saved index into this empty one.

        Returns:
            What it has seen; None when there is no whole index of this format and catalog. A position that the journal
            does not have means that this index must not be used.
        """
        found = read_index(directory, catalog_version, self.plans)
        if found is None:
            return None
        position, snapshot = found
        restore(self.texts, snapshot.texts)
        for entity, kind in self.kinds.items():
            restore(kind.names, snapshot.names[entity])
        with self.lock:
            for entity, kind in self.kinds.items():
                kind.blocks = snapshot.blocks[entity]
        return position

    def stats(self) -> dict[str, dict[str, int]]:
        """Per kind of entity: entities, blocks, rows in blocks, tail rows, bytes in arrays."""
        return {
            entity: {
                "entities": len(kind.names),
                "blocks": len(kind.blocks),
                "rows": sum(b.n for b in kind.blocks),
                "tail_rows": kind.tail_rows + sum(len(t.times) for f in kind.frozen for t in f.values()),
                "bytes": sum(b.nbytes() for b in kind.blocks),
            }
            for entity, kind in self.kinds.items()
        }


def _keys(kind: Kind, batch: EventBatch) -> Sequence[Any] | None:
    """The key of each event, None where it has none; None when no event has one."""
    columns = [batch.columns[k] for k in kind.plan.key_columns]
    keys: Sequence[Any] = columns[0]
    if len(columns) > 1:
        keys = [None if None in pair else pair for pair in zip(*columns, strict=True)]
    return None if all(k is None for k in keys) else keys
