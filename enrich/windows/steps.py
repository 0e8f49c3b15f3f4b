"""Counts the elementary steps of answers, for tests of cost: one per element read in Python, one per record, and one
per 64 values handed to a native call."""

from __future__ import annotations

from typing import Any

from enrich.windows.block import Block
from enrich.windows.columns import BlockColumn
from enrich.windows.index import Index

__all__ = ["StepCounter"]


class _CountedView:
    """A sequence that counts how often one of its elements is read, and slices by their length."""

    def __init__(self, inner: Any, counter: StepCounter) -> None:
        self._inner, self._counter = inner, counter

    def __len__(self) -> int:
        return len(self._inner)

    def __getitem__(self, at: Any) -> Any:
        found = self._inner[at]
        self._counter.steps += 1 + len(found) // 64 if isinstance(at, slice) else 1
        return found


class StepCounter:
    """Puts counters into an index's blocks as they are now, for good: the index is only for counting afterwards.

    What the probe does with whole arrays of a source (sorting the distinct values of several, say) is counted by the
    length of what it takes out.
    """

    def __init__(self, index: Index) -> None:
        self.steps = 0
        for kind in index.kinds.values():
            for block in kind.blocks:
                self._count_block(block)

    def _view(self, inner: Any) -> Any:
        return None if inner is None else _CountedView(inner, self)

    def _count_block(self, block: Block) -> None:
        block.t, block.s, block.dense = self._view(block.t), self._view(block.s), self._view(block.dense)
        read, raw_count = block.read, block.raw_count

        def counted_read(buffer: Any, offset: int) -> tuple[int, ...]:
            self.steps += 1
            return read(buffer, offset)

        def counted_raw_count(c: int, at: int) -> int:
            self.steps += 1
            return raw_count(c, at)

        block.read, block.raw_count = counted_read, counted_raw_count
        for column in block.columns:
            self._count_column(column)

    def _count_column(self, column: BlockColumn) -> None:
        column.codes, column.rows = self._view(column.codes), self._view(column.rows)
        for extreme in (column.smallest, column.largest, column.burst):
            if extreme is not None:
                extreme.values = self._view(extreme.values)
                extreme.table = [self._view(level) for level in extreme.table]
        for wavelets in (column.order, column.previous):
            if wavelets is not None:
                for matrix in wavelets.at.values():
                    matrix.words = self._view(matrix.words)
