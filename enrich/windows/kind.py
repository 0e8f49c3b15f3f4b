"""One kind of entity in the index: its ids, its blocks, its tails, and the search over all of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import add, sub
from typing import Any

import numpy as np

from enrich.signals.plan import EntityPlan, ValueType
from enrich.windows.block import Block
from enrich.windows.codes import Int64s, Names, decoder, double_codes, encoder
from enrich.windows.layout import Record
from enrich.windows.located import Located, Part
from enrich.windows.tail import Tail

__all__ = ["Kind"]


class Kind:
    """All of one kind of entity. `blocks` is replaced, never changed in place; `frozen` tails are becoming a block.

    The caller holds the index's lock for `locate` and `insert`.
    """

    def __init__(self, plan: EntityPlan, texts: Names, retention_us: int) -> None:
        self.plan, self.texts, self.retention_us = plan, texts, retention_us
        self.names = Names()
        self.blocks: tuple[Block, ...] = ()
        self.tails: dict[int, Tail] = {}
        self.frozen: tuple[dict[int, Tail], ...] = ()
        self.tail_rows = 0
        self.longest_tail = 0
        self.width = len(plan.counts) + len(plan.sums)
        self.value_counts = [v.count for v in plan.values]
        self.encoders = [encoder(v.value.type, texts) for v in plan.values]
        self.decoders = [decoder(v.value.type, texts) for v in plan.values]

    def codes(self, row: tuple[Any, ...]) -> tuple[int, ...]:
        """The value codes of a row as the plan's row function gives it; 0 where the row does not have the predicate."""
        values = row[self.width :]
        return tuple(
            0 if not row[c] else (value if encode is None else encode(value))
            for value, c, encode in zip(values, self.value_counts, self.encoders, strict=True)
        )

    def column_codes(self, v: int, column: Sequence[Any]) -> Int64s:
        """The codes of value column `v`; anything where a row has no value."""
        type_ = self.plan.values[v].value.type
        if type_ is ValueType.VARCHAR:
            return self.texts.numbers(column).astype(np.int64)
        if type_ is ValueType.DOUBLE:
            return double_codes(np.array([0.0 if x is None else x for x in column]))
        return np.array([x or 0 for x in column], np.int64)

    def insert(self, number: int, t: int, seq: int, totals: Record, codes: tuple[int, ...]) -> None:
        """Takes one row into its entity's tail."""
        tail = self.tails.get(number)
        if tail is None:
            tail = self.tails[number] = Tail(self.width, self.value_counts)
        tail.insert(t, seq, totals, codes)
        self.tail_rows += 1
        if len(tail.times) > self.longest_tail:
            self.longest_tail = len(tail.times)

    def locate(self, key: Any, as_of_us: int, windows_us: Sequence[int]) -> Located | None:
        """The windows of entity `key` that end at `as_of_us`; None when it has no event at or before that."""
        number = self.names.shards[hash(key) & 63].get(key)
        if number is None:
            return None
        parts: list[Part] = []
        end_record: Any = None
        start_records: list[Any] = []
        first_us = newest_us = 0
        for block in self.blocks:
            if number < block.dense_n:
                dense = block.dense
                first = dense[number]
                last = dense[number + 1]
            elif block.sparse is not None and number in block.sparse:
                first, last = block.sparse[number]
            else:
                continue
            t = block.t
            end = bisect_right(t, as_of_us, first, last)
            if end == first:
                continue
            starts: list[int] = []
            read, buffer, size = block.read, block.buffer, block.size
            parts.append((block, end, starts))
            if end_record is None:
                end_record = read(buffer, end * size)
                for w in windows_us:
                    at = bisect_right(t, as_of_us - w, first, end)
                    starts.append(at)
                    start_records.append(read(buffer, at * size))
                first_us = t[first]
                newest_us = t[end - 1]
                continue
            base = read(buffer, first * size)
            end_record = tuple(map(add, end_record, map(sub, read(buffer, end * size), base)))
            for i, w in enumerate(windows_us):
                at = bisect_right(t, as_of_us - w, first, end)
                starts.append(at)
                if at != first:
                    start_records[i] = tuple(map(add, start_records[i], map(sub, read(buffer, at * size), base)))
            first_us, newest_us = min(first_us, t[first]), max(newest_us, t[end - 1])
        for tails in (self.tails, *self.frozen) if self.frozen else (self.tails,):
            tail = tails.get(number)
            if tail is None:
                continue
            times, records = tail.times, tail.records
            end = bisect_right(times, as_of_us)
            if not end:
                continue
            starts = [bisect_right(times, as_of_us - w, 0, end) for w in windows_us]
            parts.append((tail, end, starts))
            if end_record is None:
                end_record = records[end]
                start_records = [records[at] for at in starts]
                first_us, newest_us = times[0], times[end - 1]
                continue
            end_record = tuple(map(add, end_record, records[end]))
            for i, at in enumerate(starts):
                if at:
                    start_records[i] = tuple(map(add, start_records[i], records[at]))
            first_us, newest_us = min(first_us, times[0]), max(newest_us, times[end - 1])
        if end_record is None:
            return None
        known = newest_us > as_of_us - self.retention_us
        return Located(self, number, as_of_us, windows_us, parts, end_record, start_records, known, first_us)
