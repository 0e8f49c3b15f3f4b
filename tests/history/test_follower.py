"""The follower applies what is durable, in order, and outlives DuckDB's failures."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

from enrich.history import Follower, History
from enrich.history.records import QueuedRecord, RecordLike

from .data import AT_US, JOURNAL_ID, MemoryJournal, Rec, make_batch, records_of, to_sidecar


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


class FlakyHistory(History):
    """Fails to apply while `broken` holds an error; counts transactions."""

    broken: Exception | None = None
    sizes: list[int]

    def apply(self, records: Sequence[RecordLike | QueuedRecord]) -> int:
        self.sizes = [*getattr(self, "sizes", []), len(records)]
        if self.broken is not None:
            raise self.broken
        return super().apply(records)


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def history(tmp_path: Path) -> Iterator[FlakyHistory]:
    opened = FlakyHistory.open(tmp_path, journal_id=JOURNAL_ID)
    assert isinstance(opened, FlakyHistory)
    with opened:
        yield opened


@pytest.fixture
def follow(history: FlakyHistory, journal: MemoryJournal) -> Iterator[Callable[..., Follower]]:
    started: list[Follower] = []

    def start(**more: Any) -> Follower:
        follower = Follower(history, journal, **{"batch_seconds": 0.02, "first_backoff_seconds": 0.01, **more})
        started.append(follower)
        follower.start()
        return follower

    yield start
    for follower in started:
        follower.stop(drain=False, timeout=10)


def submit(follower: Follower, journal: MemoryJournal, record: Rec, *, durable: bool = True) -> None:
    journal.append(record, durable=durable)
    follower.submit(record, record)


def test_submitted_records_are_applied(
    follow: Callable[..., Follower], history: History, journal: MemoryJournal, tmp_path: Path
) -> None:
    follower = follow()
    records = records_of([make_batch(3, 1), "source", to_sidecar(tmp_path, make_batch(5, 2)), "prune"], [3, 1, 5, 1])
    for record in records:
        submit(follower, journal, record)
    assert follower.wait_applied(10, timeout=10)
    assert history.position == journal.head
    assert history.count() == 8
    status = follower.status()
    assert (status.applied_events, status.lag.events, status.lag.records, status.lag.seconds) == (8, 0, 0, 0.0)
    assert status.running
    assert not status.full
    assert follower.error is None


def test_nothing_above_the_durable_seq_is_applied(
    follow: Callable[..., Follower], history: History, journal: MemoryJournal
) -> None:
    follower = follow()
    first, second = records_of([make_batch(3, 1), make_batch(2, 2)])
    submit(follower, journal, first)
    submit(follower, journal, second, durable=False)
    assert follower.wait_applied(3, timeout=10)
    assert not follower.wait_applied(5, timeout=0.3)
    assert history.position.seq == 3
    lag = follower.status().lag
    assert (lag.records, lag.events) == (1, 2)
    # the clock stands 10 s after the base; the record that is missing was written `second.at_us - AT_US` after it
    assert lag.seconds == pytest.approx(10.0, abs=0.001)
    journal.sync()
    assert follower.wait_applied(5, timeout=10)


def test_a_start_reads_what_the_journal_has_more(
    follow: Callable[..., Follower], history: History, journal: MemoryJournal
) -> None:
    records = records_of([make_batch(10, i) for i in range(30)])
    for record in records[:20]:
        journal.append(record)
    history.apply(records[:5])
    follower = follow(batch_events=40)
    for record in records[20:]:
        submit(follower, journal, record)
    assert follower.wait_applied(300, timeout=10)
    assert history.count() == 300


def test_company_shares_a_transaction(
    follow: Callable[..., Follower], history: FlakyHistory, journal: MemoryJournal
) -> None:
    follower = follow(batch_seconds=0.3)
    for record in records_of([make_batch(1, i) for i in range(200)]):
        submit(follower, journal, record)
    until(lambda: follower.applied.seq == 200)
    assert len(history.sizes) <= 2


def test_a_waiter_does_not_wait_for_company(
    follow: Callable[..., Follower], history: FlakyHistory, journal: MemoryJournal
) -> None:
    follower = follow(batch_seconds=30.0)
    for record in records_of([make_batch(1, i) for i in range(3)]):
        submit(follower, journal, record)
    started = time.monotonic()
    assert follower.wait_applied(3, timeout=10)
    assert time.monotonic() - started < 5


def test_a_transaction_holds_a_bounded_number_of_events(
    follow: Callable[..., Follower], history: FlakyHistory, journal: MemoryJournal
) -> None:
    records = records_of([make_batch(10, i) for i in range(20)])
    for record in records:
        journal.append(record)
    follower = follow(batch_events=50)
    assert follower.wait_applied(200, timeout=10)
    assert history.sizes == [5, 5, 5, 5]


def test_what_does_not_fit_in_memory_is_read_again_from_the_journal(
    follow: Callable[..., Follower], history: FlakyHistory, journal: MemoryJournal
) -> None:
    history.broken = duckdb.IOException("disk full")
    follower = follow(max_queued_events=25, max_backlog_events=150, batch_events=40)
    records = records_of([make_batch(10, i) for i in range(20)])
    for i, record in enumerate(records):
        submit(follower, journal, record)
        assert follower.full == (10 * (i + 1) > 150)
        assert follower._queued_events <= 25
    assert follower.status().full
    history.broken = None
    assert follower.wait_applied(200, timeout=10)
    assert not follower.full
    assert history.count() == 200
    assert journal.reads >= 1
    # in step again, nothing is read from the journal
    reads = journal.reads
    for record in records_of([make_batch(1, 99), make_batch(1, 98)], first_seq=201):
        submit(follower, journal, record)
    assert follower.wait_applied(202, timeout=10)
    assert journal.reads == reads


def test_a_hole_in_the_queue_is_filled_from_the_journal(
    follow: Callable[..., Follower], history: FlakyHistory, journal: MemoryJournal
) -> None:
    # 1..2 queued, 3 too large for the rest of the queue, 4..6 queued again
    sizes = [10, 10, 50, 5, 5, 5]
    records = records_of([make_batch(n, i) for i, n in enumerate(sizes)])
    for record in records:
        journal.append(record, durable=False)
    follower = follow(max_queued_events=40)
    for record in records:
        follower.submit(record, record)
    assert [q.count for q in follower._queue] == [10, 10, 5, 5, 5]
    journal.sync()
    assert follower.wait_applied(85, timeout=10)
    assert history.count() == 85
    assert journal.reads == 1


def test_failures_are_shown_and_tried_again(
    follow: Callable[..., Follower], history: FlakyHistory, journal: MemoryJournal
) -> None:
    history.broken = duckdb.IOException("disk full")
    follower = follow()
    submit(follower, journal, records_of([make_batch(3, 1)])[0])
    until(lambda: (follower.error is not None) and follower.error.attempts >= 3)
    failure = follower.error
    assert failure is not None
    assert (failure.code, failure.message) == ("IOException", "disk full")
    assert failure.retry_seconds >= 0.04
    assert "disk full" in str(failure)
    assert follower.status().running
    assert not follower.wait_applied(3, timeout=0.05)
    history.broken = None
    assert follower.wait_applied(3, timeout=10)
    assert follower.error is None


def test_a_database_that_duckdb_invalidated_is_opened_again(
    follow: Callable[..., Follower], history: FlakyHistory, journal: MemoryJournal
) -> None:
    follower = follow()
    first, second = records_of([make_batch(3, 1), make_batch(2, 2)])
    submit(follower, journal, first)
    assert follower.wait_applied(3, timeout=10)
    before = history._root
    history.broken = duckdb.FatalException("database has been invalidated")
    submit(follower, journal, second)
    until(lambda: history._root is not before and history._root is not None)
    history.broken = None
    assert follower.wait_applied(5, timeout=10)
    assert history.count() == 5


def test_stop_drains_what_is_durable(follow: Callable[..., Follower], history: History, journal: MemoryJournal) -> None:
    follower = follow(batch_seconds=30.0, batch_events=50)
    records = records_of([make_batch(10, i) for i in range(20)])
    for record in records[:18]:
        submit(follower, journal, record)
    for record in records[18:]:
        submit(follower, journal, record, durable=False)
    follower.stop(drain=True, timeout=10)
    assert not follower.status().running
    assert history.position.seq == 180


def test_stop_without_drain_leaves_the_rest_to_the_next_start(
    follow: Callable[..., Follower], history: FlakyHistory, journal: MemoryJournal
) -> None:
    follower = follow(batch_seconds=30.0)
    submit(follower, journal, records_of([make_batch(3, 1)])[0])
    follower.stop(drain=False, timeout=10)
    assert history.position.seq == 0
    assert not follower.wait_applied(3, timeout=1)
    again = follow()
    assert again.wait_applied(3, timeout=10)


def test_a_stop_ends_although_duckdb_fails(
    follow: Callable[..., Follower], history: FlakyHistory, journal: MemoryJournal
) -> None:
    history.broken = duckdb.IOException("disk full")
    follower = follow(first_backoff_seconds=60.0)
    submit(follower, journal, records_of([make_batch(3, 1)])[0])
    until(lambda: follower.error is not None)
    follower.stop(drain=True, timeout=10)
    assert not follower.status().running


def test_waiters_are_released_when_the_follower_ends(follow: Callable[..., Follower], journal: MemoryJournal) -> None:
    follower = follow()
    answers: list[bool] = []
    waiter = threading.Thread(target=lambda: answers.append(follower.wait_applied(99)))
    waiter.start()
    time.sleep(0.05)
    follower.stop()
    waiter.join(10)
    assert answers == [False]


def test_the_thread_is_nicer_than_those_that_answer(follow: Callable[..., Follower], journal: MemoryJournal) -> None:
    follower = follow()
    submit(follower, journal, records_of([make_batch(1, 1)])[0])
    assert follower.wait_applied(1, timeout=10)
    native = next(t.native_id for t in threading.enumerate() if t.name == "enrich-history")
    assert native is not None
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert os.getpriority(os.PRIO_PROCESS, native) == min(19, own + 10)


def test_many_writers_readers_and_one_order(
    follow: Callable[..., Follower], history: History, journal: MemoryJournal
) -> None:
    follower = follow(max_queued_events=100, batch_seconds=0.005)
    order = threading.Lock()
    batch = make_batch(40, 5)

    def write(worker: int) -> None:
        for i in range(60):
            piece = batch.take([i % 40])
            with order:
                seq = journal.head.seq + 1
                record = Rec(seq, 1, "events", AT_US + seq, f"{seq:064x}", piece)
                submit(follower, journal, record, durable=i % 3 == 0)
            if i % 20 == 0:
                follower.wait_applied(seq, timeout=0.01)

    writers = [threading.Thread(target=write, args=(w,)) for w in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    journal.sync()
    assert follower.wait_applied(360, timeout=20)
    with history.cursor() as con:
        rows = con.execute("SELECT seq, epoch_us(recorded_at) FROM events ORDER BY seq").fetchall()
    assert rows == [(s, AT_US + s) for s in range(1, 361)]
