"""From events as sent to events in order: parse, reserve, prepare, and the ordered step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate
from typing import Any, Final, TypeAlias

import polars as pl
import pyarrow as pa

from enrich.engine.ordering import Ordering
from enrich.engine.results import RecordResult
from enrich.engine.startup import Parts
from enrich.engine.state import State
from enrich.errors import BusyError
from enrich.events import EventBatch, EventParser, Parsed, Rejection
from enrich.journal import PreparedRecord, Reservation
from enrich.windows import Index, PreparedBlock

__all__ = ["Events", "Recorder"]

#: mappings as decoded from JSON, or a table of the events' columns
Events: TypeAlias = Sequence[Any] | pa.Table | pl.DataFrame


#: batches of at least so many events may be prepared in two threads
_BESIDE_EVENTS: Final = 4_000


class Recorder:
    """Gives events their place in the journal and makes them visible; durability is waited for by the caller."""

    def __init__(self, parts: Parts, state: State, ordering: Ordering) -> None:
        self._journal = parts.journal
        self._keys = parts.keys
        self._follower = parts.follower
        self._ordering = ordering
        self._bulk_events = parts.settings.bulk_events
        self._most = parts.settings.max_request_events
        self._state = state

    def record_all(self, events: Events, *, two_threads: bool = False) -> RecordResult:
        """One record, or one after the other where there are more than `max_request_events`: what stops a later one
        leaves the earlier ones, which a retry finds as duplicates."""
        if len(events) <= self._most:
            return self.record(events, two_threads=two_threads)
        starts = range(0, len(events), self._most)
        return RecordResult.of(
            [self.record(_part(events, i, i + self._most), i, two_threads=two_threads) for i in starts]
        )

    def record(self, events: Events, first_index: int = 0, *, two_threads: bool = False) -> RecordResult:
        """One record of events: prepared, ordered and visible on return.

        Args:
            first_index: what the first of `events` is called in rejections.
            two_threads: prepare a big batch in two threads: quicker, at the cost of whoever needs the cores meanwhile.
        """
        self._state.check_open()
        if len(events) > self._bulk_events and self._follower.full:
            raise BusyError("history is too far behind the journal to take more in bulk")
        parsed, reservation, seq = self._place(events, two_threads)
        rejected = _rejected(parsed, reservation, first_index)
        return RecordResult(
            len(reservation.new),
            len(reservation.duplicates),
            rejected,
            len(rejected),
            parsed.dropped_attributes,
            seq,
        )

    def record_each(self, requests: Sequence[Sequence[Any]]) -> list[RecordResult]:
        """Several small requests as one record, each with its own result; what a record costs is shared by all."""
        if len(requests) == 1:
            return [self.record(requests[0])]
        self._state.check_open()
        events = [event for request in requests for event in request]
        parsed, reservation, seq = self._place(events)
        owners = [r for r, request in enumerate(requests) for _ in request]
        starts = [0, *accumulate(map(len, requests))]
        accepted = Counter(owners[parsed.indices[i]] for i in reservation.new)
        duplicates = Counter(owners[parsed.indices[i]] for i in reservation.duplicates)
        dropped = _dropped(parsed, events, owners) if parsed.dropped_attributes else {}
        rejected: list[list[Rejection]] = [[] for _ in requests]
        for rejection in _rejected(parsed, reservation, 0):
            owner = owners[rejection.index]
            rejected[owner].append(replace(rejection, index=rejection.index - starts[owner]))
        return [
            RecordResult(accepted[r], duplicates[r], rejected[r], len(rejected[r]), dropped.get(r, 0), seq)
            for r in range(len(requests))
        ]

    def _place(self, events: Events, two_threads: bool = False) -> tuple[Parsed, Reservation, int]:
        """Order what is new; what became of each event, and the seq from which on all of it is visible."""
        while True:
            parser = self._state.parser
            now = self._journal.now_us()
            if isinstance(events, pa.Table | pl.DataFrame):
                parsed = parser.parse_frame(events, now)
            else:
                parsed = parser.parse(events, now)
            batch = parsed.batch
            reservation = self._keys.check_and_reserve(batch.keys, batch.contents)
            try:
                fresh = batch if len(reservation.new) == batch.n else batch.take(reservation.new)
                seq = reservation.known_seq
                if fresh.n:
                    ordered = self._order(fresh, reservation, parser, two_threads)
                    if ordered is None:  # other definitions went live before the events had their place
                        self._keys.release(reservation)
                        continue
                    seq = max(seq, ordered)
            except BaseException:
                self._keys.release(reservation)
                raise
            if not fresh.n:
                self._keys.release(reservation)
            return parsed, reservation, seq or self._journal.durable.seq

    def _order(
        self, batch: EventBatch, reservation: Reservation, parser: EventParser, two_threads: bool
    ) -> int | None:
        """The last seq of the batch, now visible; None when `parser` or the index is no longer the live one."""
        state = self._state
        live = state.live
        block, record = self._prepare(live.index, batch, two_threads)
        # a new catalog may keep attributes that the old one dropped
        placed = self._ordering.place(batch, record, block, reservation, live, lambda: state.parser is not parser)
        return None if placed is None else placed.last_seq

    def _prepare(self, index: Index, batch: EventBatch, two_threads: bool) -> tuple[PreparedBlock, PreparedRecord]:
        """What needs no order, for the index and for the journal; of a big batch side by side, since both spend a good
        part of it in native code."""
        if not two_threads or batch.n < _BESIDE_EVENTS:
            return index.prepare(batch), self._journal.prepare_events(batch)
        with ThreadPoolExecutor(1, "enrich-prepare") as beside:
            preparing = beside.submit(self._journal.prepare_events, batch)
            try:
                block = index.prepare(batch)
            except BaseException:
                self._journal.discard(preparing.result())
                raise
            return block, preparing.result()


def _part(events: Events, start: int, end: int) -> Events:
    """Rows `start` to `end`."""
    if isinstance(events, pa.Table | pl.DataFrame):
        return events.slice(start, end - start)
    return events[start:end]


def _dropped(parsed: Parsed, events: Sequence[Any], owners: Sequence[int]) -> Counter[int]:
    """Attributes that were not kept, by the request they came with."""
    dropped: Counter[int] = Counter()
    for index, kept in zip(parsed.indices, parsed.batch.columns["attributes"], strict=True):
        dropped[owners[index]] += len(events[index].get("attributes") or ()) - len(kept or ())
    return dropped


def _rejected(parsed: Parsed, reservation: Reservation, first_index: int) -> list[Rejection]:
    conflicts = [_conflict(parsed.batch, i, parsed.indices[i]) for i in reservation.conflicts]
    if not conflicts and not first_index:
        return parsed.rejected
    rejected = sorted([*parsed.rejected, *conflicts], key=lambda r: r.index)
    return [replace(r, index=r.index + first_index) for r in rejected]


def _conflict(batch: EventBatch, i: int, index: int) -> Rejection:
    source, event_id = batch.columns["source"][i], batch.columns["event_id"][i]
    why = f"event_id `{event_id}` of source `{source}` is known with other content"
    return Rejection(index, "event_conflict", "event_id", event_id, why)
