"""The thread that lets DuckDB follow the journal: behind the disk, in large transactions, never in a caller's way."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import duckdb

from enrich.errors import EnrichError
from enrich.history.records import AppendedLike, JournalLike, PreparedLike, QueuedRecord, RecordLike
from enrich.history.store import History
from enrich.journal.format import Position

__all__ = ["Follower", "FollowerFailure", "FollowerStatus", "Lag"]

_NICE: Final = 10
_MAX_BACKOFF_SECONDS: Final = 30.0
_HURRY_SECONDS: Final = 0.002
_READ_PAUSE_EVERY: Final = 16


@dataclass(frozen=True, slots=True)
class Lag:
    """How far DuckDB is behind what was submitted.

    `records` counts those submitted since the follower started, `events` is a difference of sequence numbers. `seconds`
    is the age of the oldest record that is missing, or somewhat more.
    """

    records: int
    events: int
    seconds: float


@dataclass(frozen=True, slots=True)
class FollowerFailure:
    """Why applying does not succeed at the moment: decisions go on, DuckDB stands still."""

    code: str
    message: str
    since_us: int
    attempts: int
    retry_seconds: float

    def __str__(self) -> str:
        return f"{self.message} ({self.code}, {self.attempts} attempts)"


@dataclass(frozen=True, slots=True)
class FollowerStatus:
    applied: Position
    submitted_seq: int
    lag: Lag
    full: bool
    running: bool
    failure: FollowerFailure | None
    applied_events: int
    transactions: int
    apply_seconds: float


class Follower:
    """Applies submitted records to a `History`, in the background.

    INVARIANT: nothing is applied whose seq is above the journal's durable seq.

    Records wait in memory up to `max_queued_events` events; what does not fit, and everything after a failure, is read
    again from the journal. Past `max_backlog_events` the status is `full`: bulk ingest is to be refused until DuckDB
    has caught up.
    """

    def __init__(
        self,
        history: History,
        journal: JournalLike,
        *,
        now_us: Callable[[], int] | None = None,
        batch_events: int = 20_000,
        batch_seconds: float = 0.2,
        max_queued_events: int = 50_000,
        max_backlog_events: int = 2_000_000,
        first_backoff_seconds: float = 0.1,
    ) -> None:
        """
        Args:
            history: open for writing; no one else may apply to it while the follower runs.
            journal: what to read again from, and the source of the durable seq.
            now_us: the clock for lags, microseconds; default: the journal's.
            batch_events: a transaction holds about this many events at most.
            batch_seconds: how long a first record waits for others before a transaction begins.
            max_queued_events: of events that wait in memory (those in sidecars count little).
            max_backlog_events: `full` above this.
            first_backoff_seconds: pause after a first failure; it doubles up to 30 s.
        """
        self._history = history
        self._journal = journal
        self._now_us = now_us or journal.now_us
        self._batch_events = batch_events
        self._batch_seconds = batch_seconds
        self._max_queued_events = max_queued_events
        self._max_backlog_events = max_backlog_events
        self._first_backoff_seconds = first_backoff_seconds
        lock = threading.Lock()
        self._work = threading.Condition(lock)
        self._progress = threading.Condition(lock)
        self._queue: deque[QueuedRecord] = deque()
        self._queued_events = 0
        self._submitted_seq = max(history.position.seq, journal.durable.seq)
        self._submitted_records = 0
        self._first_submitted_seq = self._submitted_seq + 1
        self._applied_records = 0
        self._behind_since_us = self._now_us()
        self._last_applied_at_us = 0
        self._wanted_seq = 0
        self._stop_at: int | None = None  # stop once this seq is applied; 0: at once
        self._ended = False
        self._failure: FollowerFailure | None = None
        self._applied_events = 0
        self._transactions = 0
        self._apply_seconds = 0.0
        self._reader: Iterator[RecordLike] | None = None
        self._reader_at = -1
        self._carried: QueuedRecord | None = None
        self._thread = threading.Thread(target=self._run, name="enrich-history", daemon=True)

    def start(self) -> None:
        """Start the thread; it first reads what the journal has beyond the history's position."""
        self._thread.start()

    @property
    def applied(self) -> Position:
        return self._history.position

    @property
    def full(self) -> bool:
        """Whether bulk ingest should be refused until DuckDB has caught up."""
        return self._submitted_seq - self._history.position.seq > self._max_backlog_events

    @property
    def error(self) -> FollowerFailure | None:
        """Why DuckDB does not follow at the moment; None when it does."""
        return self._failure

    def submit(self, prepared: PreparedLike, appended: AppendedLike) -> None:
        """Hand over the record that was just appended. Called in the journal's order; it takes microseconds."""
        queued = QueuedRecord.of(prepared, appended)
        weight = queued.weight
        with self._work:
            if self._submitted_seq <= self._history.position.seq:
                self._behind_since_us = queued.at_us
            self._submitted_seq = queued.last_seq
            self._submitted_records += 1
            before = self._queued_events
            if before and before + weight > self._max_queued_events:
                return  # it is read again from the journal when its turn comes
            self._queue.append(queued)
            self._queued_events = before + weight
            if not before or before < self._batch_events <= self._queued_events:
                self._work.notify_all()

    def wait_applied(self, seq: int, timeout: float | None = None) -> bool:
        """Wait until DuckDB has applied `seq`; False when `timeout` seconds passed or the follower ended before."""
        if self._history.position.seq >= seq:
            return True
        with self._progress:
            self._wanted_seq = max(self._wanted_seq, seq)
            self._work.notify_all()
            self._progress.wait_for(lambda: self._history.position.seq >= seq or self._ended, timeout)
        return self._history.position.seq >= seq

    def stop(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """End the thread; with `drain`, after applying everything that is durable now.

        What is not applied (no drain, DuckDB failing, time over) stays in the journal for the next start.
        """
        with self._work:
            self._stop_at = self._journal.durable.seq if drain else 0
            self._work.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def status(self) -> FollowerStatus:
        with self._work:
            applied = self._history.position
            events = max(0, self._submitted_seq - applied.seq)
            since = max(self._behind_since_us, self._last_applied_at_us)
            return FollowerStatus(
                applied=applied,
                submitted_seq=self._submitted_seq,
                lag=Lag(
                    records=max(0, self._submitted_records - self._applied_records) if events else 0,
                    events=events,
                    seconds=max(0.0, (self._now_us() - since) / 1e6) if events else 0.0,
                ),
                full=events > self._max_backlog_events,
                running=self._thread.is_alive(),
                failure=self._failure,
                applied_events=self._applied_events,
                transactions=self._transactions,
                apply_seconds=self._apply_seconds,
            )

    def _run(self) -> None:
        # Linux has priorities per thread: requests come first when the cores are busy. With one DuckDB thread its work
        # is done on this one.
        with contextlib.suppress(OSError, AttributeError):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICE)
        try:
            while self._await_work():
                try:
                    records = self._take()
                    if records:
                        self._apply(records)
                except Exception as error:  # noqa: BLE001 - whatever fails, decisions go on: it is shown and tried again
                    if not self._failed(error):
                        return
        finally:
            with self._progress:
                self._ended = True
                self._progress.notify_all()

    def _await_work(self) -> bool:
        """Wait for records that can be applied and for company to apply them with; False: stop."""
        lingered = False
        with self._work:
            while True:
                applied = self._history.position.seq
                durable = self._journal.durable.seq
                if self._stop_at is not None:
                    return applied < min(self._stop_at, durable)
                if applied >= self._submitted_seq:
                    self._work.wait()
                    lingered = False
                elif applied >= durable:
                    self._work.wait(_HURRY_SECONDS if self._wanted_seq > applied else self._batch_seconds / 4)
                elif lingered or self._wanted_seq > applied or self._queued_events >= self._batch_events:
                    return True
                elif not self._queue or self._queue[0].seq > applied + 1:
                    return True  # catching up from the journal: there is company already
                else:
                    self._work.wait(self._batch_seconds)
                    lingered = True

    def _take(self) -> list[QueuedRecord]:
        """The next records, durable ones only: from the queue, or from the journal up to where the queue begins."""
        durable = self._journal.durable.seq
        taken: list[QueuedRecord] = []
        events = 0
        with self._work:
            expected = self._history.position.seq + 1
            while self._queue and self._queue[0].seq < expected:
                self._queued_events -= self._queue.popleft().weight
            while (
                self._queue
                and self._queue[0].seq == expected
                and self._queue[0].last_seq <= durable
                and events < self._batch_events
            ):
                record = self._queue.popleft()
                self._queued_events -= record.weight
                taken.append(record)
                events += max(record.count, record.weight)
                expected = record.last_seq + 1
            end = min(durable, self._queue[0].seq - 1 if self._queue else durable)
        return taken or self._read(end)

    def _read(self, end: int) -> list[QueuedRecord]:
        after = self._history.position.seq
        if after >= end:
            return []
        if self._reader is None or self._reader_at != after:
            self._reader, self._carried = self._journal.read(after=after), None
        taken: list[QueuedRecord] = []
        events = 0
        while events < self._batch_events:
            record, self._carried = self._carried, None
            if record is None:
                read = next(self._reader, None)
                if read is None:
                    self._reader = None
                    break
                record = QueuedRecord.of(read, read)
            if record.last_seq > end:
                self._carried = record
                break
            taken.append(record)
            events += max(record.count, record.weight)
            after = record.last_seq
            if len(taken) % _READ_PAUSE_EVERY == 0:
                time.sleep(50e-6)  # decoding holds the GIL: let requests in
        self._reader_at = after
        return taken

    def _apply(self, records: list[QueuedRecord]) -> None:
        started = time.perf_counter()
        count = self._history.apply(records)
        elapsed = time.perf_counter() - started
        with self._progress:
            self._failure = None
            self._last_applied_at_us = records[-1].at_us
            self._applied_records += sum(1 for r in records if r.seq >= self._first_submitted_seq)
            self._applied_events += count
            self._transactions += 1
            self._apply_seconds += elapsed
            self._progress.notify_all()

    def _failed(self, error: Exception) -> bool:
        """Note the failure and wait; False when the follower is to stop instead."""
        with self._work:
            previous = self._failure
            attempts = previous.attempts + 1 if previous else 1
            pause = min(_MAX_BACKOFF_SECONDS, self._first_backoff_seconds * 2 ** min(attempts - 1, 20))
            self._failure = FollowerFailure(
                code=error.error_code if isinstance(error, EnrichError) else type(error).__name__,
                message=str(error),
                since_us=previous.since_us if previous else self._now_us(),
                attempts=attempts,
                retry_seconds=pause,
            )
            self._queue.clear()
            self._queued_events = 0
            self._reader = self._carried = None
            if self._stop_at is not None:
                return False
            self._work.wait_for(lambda: self._stop_at is not None, pause)
        if isinstance(error, (duckdb.FatalException, duckdb.InternalException)):
            # DuckDB refuses everything on a database that it has invalidated, until it is opened again.
            with contextlib.suppress(EnrichError, duckdb.Error):
                self._history.reopen()
        return True

