"""Background work: tails become blocks, small blocks become bigger ones. Readers go on meanwhile.

Sizes form tiers: a block is merged with all younger ones once these hold a quarter of its rows, so an event is
rewritten O(log n) times and an entity is looked up in a handful of blocks. While nothing arrives there is time to go
further: a thirty-second part is enough then, so that mostly one block is left. New blocks are built from immutable
ones outside the lock; under it tuples are swapped, nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np

from enrich.windows.block import Block, build_block
from enrich.windows.kind import Kind
from enrich.windows.rows import Merged, sorted_order, staged_from_rows
from enrich.windows.tail import Tail

__all__ = ["Breather", "flush", "freeze", "merge", "merge_from", "needs_flush"]

MAX_BLOCKS = 4  # more than these are merged
FANOUT = 4
IDLE_FANOUT = 32
FLUSH_ROWS = 8_192  # tail rows of one kind of entity
FLUSH_TAIL = 256  # rows of the longest tail


class Breather:
    """Called between small pieces of work, gives way to other threads about once a millisecond.

    Without it a thread that waits for the GIL gets it only after the switch interval, 5 ms.
    """

    def __init__(self, work_seconds: float = 0.001, pause_seconds: float = 0.0002) -> None:
        self._work, self._pause = work_seconds, pause_seconds
        self._since = time.perf_counter()

    def __call__(self) -> None:
        if time.perf_counter() - self._since >= self._work:
            time.sleep(self._pause)
            self._since = time.perf_counter()


def needs_flush(kind: Kind) -> bool:
    """Whether the tails have grown long enough to become a block."""
    return bool(kind.frozen) or kind.tail_rows >= FLUSH_ROWS or kind.longest_tail >= FLUSH_TAIL


def freeze(kind: Kind) -> None:
    """Starts new tails; the old ones are never written again. The caller holds the index's lock."""
    if kind.tails:
        kind.frozen = (*kind.frozen, kind.tails)
        kind.tails, kind.tail_rows, kind.longest_tail = {}, 0, 0


def flush(kind: Kind, lock: Lock, breathe: Callable[[], None]) -> Block | None:
    """Turns the frozen tails into one block, appends and returns it; None when there are none."""
    frozen = kind.frozen
    if not frozen:
        return None
    block = _block_of_tails(kind, frozen, breathe)
    with lock:
        kind.blocks = (*kind.blocks, block)
        kind.frozen = kind.frozen[len(frozen) :]
    return block


def _block_of_tails(kind: Kind, frozen: Sequence[dict[int, Tail]], breathe: Callable[[], None]) -> Block:
    numbers: list[int] = []
    times: list[int] = []
    seqs: list[int] = []
    totals: list[tuple[int, ...]] = []
    codes: list[tuple[int, ...]] = []
    for tails in frozen:
        for number, tail in tails.items():
            numbers += [number] * len(tail.times)
            times += tail.times
            seqs += tail.seqs
            totals += [row for row, _ in tail.rows]
            codes += [code for _, code in tail.rows]
            breathe()
    arrays = (np.array(numbers, np.int32), np.array(times, np.int64), np.array(seqs, np.int64))
    breathe()
    staged = staged_from_rows(kind.plan, *arrays, totals, codes, breathe)
    return build_block(kind.plan, staged, sorted_order(*arrays), len(kind.names), breathe)


def merge_from(sizes: Sequence[int], idle: bool = False) -> int | None:
    """The first of the blocks (oldest first) to be merged with all after it; None when there are few enough."""
    if idle:
        return next((i for i in range(len(sizes) - 1) if sizes[i] <= IDLE_FANOUT * sum(sizes[i + 1 :])), None)
    if len(sizes) <= MAX_BLOCKS:
        return None
    for i in range(len(sizes) - 1):
        if sizes[i] <= FANOUT * sum(sizes[i + 1 :]):
            return i
    return len(sizes) - 2


def merge(kind: Kind, first: int, lock: Lock, breathe: Callable[[], None], oldest_us: int | None) -> None:
    """Merges the blocks from `first` on into one, leaving out rows before `oldest_us`."""
    merged = kind.blocks[first:]
    source = Merged(merged)
    order = sorted_order(source.ent, source.t, source.seq, oldest_us)
    block = build_block(kind.plan, source, order, len(kind.names), breathe)
    with lock:
        # only this thread takes blocks away, others append: what was merged still stands at the same places
        after = kind.blocks[first + len(merged) :]
        kind.blocks = (*kind.blocks[:first], *((block,) if block.n else ()), *after)
