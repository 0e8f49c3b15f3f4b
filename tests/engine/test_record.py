from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from enrich import Engine
from enrich.engine.results import RecordResult
from enrich.errors import BusyError, EnrichError, JournalFullError
from tests.engine.support import DAY_US, FaultyDisk, event, events, fates, now_us, open_engine, runs


def test_acknowledged_means_visible_from_then_on(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        for n in range(20):
            result = engine.record([event(n, ago_us=0)])
            history = engine.context({"agent": "a"})
            assert history["seq"] >= result.seq
            assert history["agent"]["last_1h"]["runs"] == n + 1


def test_late_events_land_where_they_belong(tmp_path: Path) -> None:
    now = now_us()
    with open_engine(tmp_path) as engine:
        engine.record([event(1, at_us=now - 1000), event(2, at_us=now - 20 * DAY_US)])
        engine.record([event(3, at_us=now - 10 * DAY_US)])
        for ago, expected in ((0, 3), (5, 2), (15, 1), (25, 0)):
            history = engine.context({"agent": "a"}, as_of=now - ago * DAY_US)
            assert history["agent"]["last_30d"]["runs"] == expected
        # what is ahead of as_of does not count yet, what lies at it does
        assert engine.context({"agent": "a"}, as_of=now - 1001)["agent"]["last_1h"]["runs"] == 0
        assert engine.context({"agent": "a"}, as_of=now - 1000)["agent"]["last_1h"]["runs"] == 1
        assert engine.check().differences == ()


def test_duplicates_and_conflicts_are_told_apart_within_a_batch_and_across(tmp_path: Path) -> None:
    at = now_us() - 1000
    with open_engine(tmp_path) as engine:
        first = engine.record([event(1, at_us=at), event(1, at_us=at), event(1, at_us=at, duration_ms=9)])
        assert fates(first) == (1, 1, ["event_conflict"])
        assert first.rejected[0].index == 2
        again = engine.record([event(1, at_us=at), event(2, at_us=at), event(1, at_us=at, outcome="failed")])
        assert fates(again) == (1, 1, ["event_conflict"])
        assert again.seq == engine.seq
        assert runs(engine) == 2


def test_the_seq_of_an_answer_covers_duplicates_originals(tmp_path: Path) -> None:
    at = now_us() - 1000
    with open_engine(tmp_path) as engine:
        seqs = [engine.record([event(n, at_us=at)]).seq for n in range(5)]
        assert engine.record([event(1, at_us=at)]).seq == seqs[1]
        assert engine.record([event(1, at_us=at), event(3, at_us=at)]).seq == seqs[3]


def test_an_answer_waits_for_the_disk_also_when_it_only_says_duplicate_or_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyDisk.put_in(monkeypatch)
    with open_engine(tmp_path) as engine:
        at = now_us() - 1000
        disk.close_gate()
        answers: list[Any] = []
        engine.submit([event(1, at_us=at)], answers.append)
        assert disk.arrived.wait(5)
        engine.submit([event(1, at_us=at)], answers.append)  # a duplicate of what is not durable yet
        engine.submit([event(1, at_us=at, duration_ms=77)], answers.append)  # a conflict with it
        assert runs(engine) == 1
        assert answers == []
        disk.gate.set()
        engine.durable(engine.seq, timeout=5)
        assert sorted(fates(a) for a in answers) == [(0, 0, ["event_conflict"]), (0, 1, []), (1, 0, [])]


@pytest.mark.parametrize("size", [1, 40, 400])
def test_concurrent_writers_of_the_same_events_store_each_once(tmp_path: Path, size: int) -> None:
    at = now_us() - 1000
    with open_engine(tmp_path, sidecar_rows=100) as engine, ThreadPoolExecutor(16) as pool:
        barrier = threading.Barrier(16)

        def write(worker: int) -> RecordResult:
            barrier.wait()
            return engine.record([event(n, at_us=at, duration_ms=worker % 2) for n in range(size)])

        results = list(pool.map(write, range(16)))
        assert sum(r.accepted for r in results) == size
        winner = next(i for i, r in enumerate(results) if r.accepted)
        for i, result in enumerate(results):
            same = i % 2 == winner % 2
            assert fates(result) == (
                size if i == winner else 0,
                size if same and i != winner else 0,
                [] if same else ["event_conflict"] * size,
            )
        assert runs(engine) == size
        engine.caught_up(10)
        assert engine.history.count() == size


def test_a_batch_of_ten_thousand_is_visible_whole_or_not_at_all(tmp_path: Path) -> None:
    at = now_us() - 1000
    with open_engine(tmp_path) as engine:
        batch = events(0, 10_000, at_us=at)
        batch[77] = event(77, at_us=at, outcome="exploded")  # refused alone
        seen: list[int] = []
        stop = threading.Event()

        def watch() -> None:
            while not stop.is_set():
                seen.append(runs(engine))

        watcher = threading.Thread(target=watch)
        watcher.start()
        result = engine.record(batch)
        stop.set()
        watcher.join()
        assert (result.accepted, [r.index for r in result.rejected]) == (9_999, [77])
        assert set(seen) <= {0, 9_999}
        assert runs(engine) == 9_999
        assert engine.seq - result.accepted + 1 == next(r.seq for r in engine.journal.read() if r.type == "events")


def test_a_batch_that_the_disk_does_not_take_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyDisk.put_in(monkeypatch)
    with open_engine(tmp_path) as engine:
        at = now_us() - 1000
        before = engine.seq
        for batch in (events(0, 10_000, at_us=at), events(0, 3, at_us=at)):
            disk.full = True
            with pytest.raises(JournalFullError):
                engine.record(batch)
            assert engine.seq == before
            assert runs(engine) == 0
            assert list((tmp_path / "data/journal/sidecars").iterdir()) == []
            assert engine.health().ready
        disk.full = False
        assert engine.record(events(0, 10_000, at_us=at)).accepted == 10_000  # nobody holds their keys
        assert runs(engine) == 10_000


def test_more_than_one_request_holds_become_several_records_and_a_retry_finds_them(tmp_path: Path) -> None:
    at = now_us() - 1000
    with open_engine(tmp_path, max_request_events=100) as engine:
        batch: list[Any] = events(0, 250, at_us=at)
        batch[120] = {"no": "event"}
        result = engine.record(batch)
        assert (result.accepted, result.rejected_count) == (249, 1)
        assert result.rejected[0].index == 120
        assert [r.count for r in engine.journal.read() if r.type == "events"] == [100, 99, 50]
        assert engine.record(batch).duplicates == 249


def test_frames_are_recorded_like_objects(tmp_path: Path) -> None:
    at = now_us() - 1000
    with open_engine(tmp_path) as engine:
        rows = events(0, 300, at_us=at)
        assert engine.record(pl.DataFrame(rows)).accepted == 300
        assert engine.record(rows).duplicates == 300
        assert engine.record(pl.DataFrame(rows).to_arrow()).duplicates == 300
        assert runs(engine) == 300


def test_nothing_new_is_answered_without_a_record(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        seq = engine.seq
        assert engine.record([]) == RecordResult(0, 0, [], 0, 0, seq)
        result = engine.record([{"source": "x"}])
        assert (result.accepted, result.rejected_count, result.seq) == (0, 1, seq)
        assert engine.journal.head.seq == seq


def test_too_many_waiting_answers_are_busy_and_nothing_is_stored_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyDisk.put_in(monkeypatch)
    with open_engine(tmp_path, max_waiting=3) as engine:
        at = now_us() - 1000
        answers: list[RecordResult | EnrichError] = []
        disk.close_gate()
        for n in range(3):
            engine.submit([event(n, at_us=at)], answers.append)
        with pytest.raises(BusyError) as caught:
            engine.submit([event(3, at_us=at)], answers.append)
        assert caught.value.status == 503
        assert runs(engine) == 3
        disk.gate.set()
        engine.durable(engine.seq, timeout=5)
        assert [type(a) for a in answers] == [RecordResult] * 3
        engine.submit([event(3, at_us=at)], answers.append)
        engine.durable(engine.seq, timeout=5)
        assert len(answers) == 4


def test_bulk_is_busy_while_duckdb_is_too_far_behind_and_single_events_go_on(tmp_path: Path) -> None:
    at = now_us() - 1000
    with open_engine(tmp_path, history_backlog_events=10, bulk_events=5) as engine:
        with engine.history._write_lock:  # DuckDB stands still
            engine.record(events(0, 5, at_us=at))
            engine.record(events(5, 5, at_us=at))
            engine.record(events(10, 5, at_us=at))
            with pytest.raises(BusyError):
                engine.record(events(20, 6, at_us=at))
            engine.record([event(30, at_us=at)])
            assert runs(engine) == 16
        engine.caught_up(10)
        assert engine.record(events(20, 6, at_us=at)).accepted == 6


def test_threads_recording_at_once_leave_journal_duckdb_and_context_equal(tmp_path: Path) -> None:
    at = now_us() - 1000
    with open_engine(tmp_path) as engine:

        def write(worker: int) -> None:
            for i in range(25):
                n = 1000 * worker + i
                engine.record([event(n, at_us=at - n, agent_id=f"a{n % 7}", team_id=f"t{n % 3}")])

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(write, range(32)))
        engine.caught_up(10)
        assert sum(r.count for r in engine.journal.read() if r.type == "events") == engine.history.count() == 800
        assert sum(runs(engine, f"a{i}") for i in range(7)) == 800
        assert engine.check().differences == ()
        assert engine.journal.fsyncs < 800  # writers that wait together share one


def test_one_context_is_one_snapshot_under_writers(tmp_path: Path) -> None:
    """Each batch has one event for the agent, team and workflow alike: their counts agree in every context, and equal
    what the seq says."""
    at = now_us() - 1000
    with open_engine(tmp_path) as engine:
        base = engine.seq
        stop = threading.Event()

        def write(worker: int) -> None:
            n = 0
            while not stop.is_set():
                size = (1, 3, 1, 300)[n % 4]
                engine.record([event(10_000_000 * worker + 1000 * n + i, at_us=at) for i in range(size)])
                n += 1

        with ThreadPoolExecutor(4) as pool:
            done = [pool.submit(write, i) for i in range(4)]
            seen: set[int] = set()
            deadline = time.monotonic() + 10
            while len(seen) < 60 and time.monotonic() < deadline:
                history = engine.context({"agent": "a", "team": "t", "workflow": "w"})
                counts = {
                    history["agent"]["last_1h"]["runs"],
                    history["team"]["last_30d"]["team_runs"],
                    history["workflow"]["last_1h"]["workflow_runs"],
                    history["seq"] - base,
                }
                if len(counts) != 1:
                    break
                seen |= counts
            stop.set()
            assert len(counts) == 1
            assert len(seen) > 10
            for future in done:
                future.result()


def test_a_closed_engine_refuses(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    engine.close()
    engine.close()
    for call in (lambda e: e.record([event(1)]), lambda e: e.context({"agent": "a"}), Engine.reload):
        with pytest.raises(EnrichError) as caught:
            call(engine)
        assert caught.value.error_code == "not_ready"
    assert not engine.health().ready
