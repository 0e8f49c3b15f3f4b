"""Disks that fail, fill up or forget, and rooms that raise: told to whoever waits, shown, and mended by a restart."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest
from structlog.testing import capture_logs

from enrich import Engine
from enrich.engine import maintenance
from enrich.engine.results import RecordResult
from enrich.errors import EnrichError, IndexNotReadyError, JournalFailedError, JournalFullError
from enrich.history import store
from enrich.journal import journal as journal_module
from enrich.journal import verify
from enrich.settings import Settings
from tests.engine.support import FaultyDisk, event, events, fates, now_us, open_engine, runs, write_queries


def test_a_failed_fsync_is_told_to_all_who_wait_and_ends_writing_until_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyDisk.put_in(monkeypatch)
    at = now_us() - 1000
    engine = open_engine(tmp_path)
    good = engine.record(events(0, 5, at_us=at))
    disk.close_gate()
    answers: list[RecordResult | EnrichError] = []
    outcomes: list[object] = []

    def record(n: int) -> None:
        try:
            outcomes.append(engine.record([event(n, at_us=at)]))
        except EnrichError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=record, args=(100 + n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    engine.submit([event(200, at_us=at)], answers.append)
    assert disk.arrived.wait(5)
    disk.broken = True
    disk.gate.set()
    for thread in threads:
        thread.join(10)
    assert [type(o) for o in outcomes] == [JournalFailedError] * 8
    assert len({id(o) for o in outcomes}) == 8  # one exception must not be raised by two threads
    assert [type(a) for a in answers] == [JournalFailedError]
    health = engine.health()
    assert not health.ready
    assert "fsync" in health.reasons[0]
    for call in (lambda: engine.record([event(300, at_us=at)]), lambda: engine.durable(engine.seq)):
        with pytest.raises(JournalFailedError):
            call()
    engine.submit([event(0, at_us=at)], answers.append)  # what is durable already is still answered
    assert isinstance(answers[-1], RecordResult)
    assert engine.durable_seq == good.seq
    assert engine.follower.applied.seq <= good.seq
    with pytest.raises(JournalFailedError):
        engine.close()
    disk.broken = False
    with open_engine(tmp_path) as engine:  # whether the unanswered ones survive is the disk's affair; none is doubled
        assert engine.health().ready
        found = runs(engine)
        assert 5 <= found <= 14
        again = engine.record([event(n, at_us=at) for n in (*range(5), *range(100, 108), 200)])
        assert again.accepted == 14 - found
        assert runs(engine) == 14
    assert verify(tmp_path / "data").ok


def test_an_fsync_thread_that_dies_of_anything_else_leaves_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyDisk.put_in(monkeypatch)
    engine = open_engine(tmp_path)

    def dies(fd: int) -> None:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(disk, "datasync", dies)
    with pytest.raises(JournalFailedError, match="nobody thought of this"):
        engine.record([event(1)])
    assert not engine.health().ready
    with pytest.raises(JournalFailedError):
        engine.close()


def test_a_record_that_can_not_be_applied_stops_the_engine_and_is_there_after_a_restart(tmp_path: Path) -> None:
    at = now_us() - 1000
    engine = open_engine(tmp_path)
    engine.record([event(1, at_us=at)])
    engine.save_index()
    kind = engine.live.index.kinds["team"]

    def half(*_: object) -> None:
        raise MemoryError("no room for a row")

    kind.insert = half  # type: ignore[assignment,method-assign]
    with pytest.raises(MemoryError):
        engine.record([event(2, at_us=at)])  # the agent's row is linked by now, the team's is not
    with pytest.raises(IndexNotReadyError):
        engine.context({"agent": "a"})
    with pytest.raises(IndexNotReadyError):
        engine.record([event(3, at_us=at)])
    with pytest.raises(IndexNotReadyError):
        engine.save_index()  # half a record must not be found again
    assert not engine.health().ready
    engine.close()
    with open_engine(tmp_path) as engine:
        history = engine.context({"agent": "a", "team": "t"})
        assert (history["agent"]["last_1h"]["runs"], history["team"]["last_1h"]["team_runs"]) == (2, 2)
        assert fates(engine.record([event(2, at_us=at)])) == (0, 1, [])
        assert engine.check().differences == ()


@pytest.mark.parametrize("place", ["journal.write", "disk"])
def test_a_record_interrupted_as_it_is_appended_is_there_whole_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    at = now_us() - 1000
    engine = open_engine(tmp_path, sidecar_rows=20)
    engine.record([event(1, at_us=at)])

    def interrupts(name: str) -> None:
        if name == "journal.write":
            raise KeyboardInterrupt

    def writes_and_is_interrupted(fd: int, parts: Sequence[bytes]) -> int:
        os.writev(fd, parts)
        raise KeyboardInterrupt

    def interrupted_later(directory: Path, *rest: Any) -> Any:
        written = write_table(directory, *rest)
        if place == "disk":
            monkeypatch.setattr(engine.journal._disk, "write", writes_and_is_interrupted)
        return written

    write_table = journal_module.write_table  # type: ignore[attr-defined]
    monkeypatch.setattr(journal_module, "write_table", interrupted_later)
    if place == "journal.write":
        engine.journal._failpoint = interrupts
    with pytest.raises(KeyboardInterrupt):
        engine.record(events(100, 50, at_us=at))
    with pytest.raises(EnrichError):
        engine.record([event(2, at_us=at)])
    if place == "journal.write":  # the line is counted, and no answer may pass over it
        with pytest.raises(IndexNotReadyError):
            engine.context({"agent": "a"})
        engine.close()
    else:
        with pytest.raises(JournalFailedError):
            engine.record([event(2, at_us=at)])
        engine.close()
    monkeypatch.undo()
    assert verify(tmp_path / "data").ok
    with open_engine(tmp_path, sidecar_rows=20) as engine:
        assert runs(engine) == 51
        assert fates(engine.record(events(100, 50, at_us=at))) == (0, 50, [])


def test_merging_that_fails_shows_and_answers_stay_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "_RETRY_SECONDS", 0.05)
    with open_engine(tmp_path) as engine:
        failed = threading.Event()

        def fails(*_: object) -> bool:
            failed.set()
            raise ZeroDivisionError("a bug")

        good = engine.live.index.merge_step
        engine.live.index.merge_step = fails  # type: ignore[assignment,method-assign]
        engine.record(events(0, 300))
        assert failed.wait(5)
        engine.record(events(300, 300))
        assert runs(engine) == 600
        wait_for(lambda: any("a bug" in w for w in engine.health().warnings))
        assert engine.health().ready
        engine.live.index.merge_step = good  # type: ignore[method-assign]
        wait_for(lambda: engine.health().warnings == ())


def wait_for(condition: Any) -> None:
    done = threading.Event()
    for _ in range(200):
        if condition():
            return
        done.wait(0.05)
    raise AssertionError("it did not come")


def test_an_index_that_can_not_be_saved_does_not_keep_the_engine_from_closing(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    engine.record([event(1)])
    (tmp_path / "data/index").write_text("a file where the directory should be")
    with pytest.raises(OSError, match="exists"):
        engine.save_index()
    engine.close()
    (tmp_path / "data/index").unlink()
    with open_engine(tmp_path) as engine:
        assert runs(engine) == 1


def test_duckdb_that_fails_shows_and_decisions_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    insert = store.insert_records  # type: ignore[attr-defined]

    def fails(*_: object) -> int:
        raise duckdb.IOException("no such disk")

    with capture_logs() as logged, open_engine(tmp_path) as engine:
        monkeypatch.setattr(store, "insert_records", fails)
        engine.record(events(0, 20))
        assert runs(engine) == 20
        wait_for(lambda: engine.health().warnings)
        health = engine.health()
        assert health.ready
        assert "no such disk" in health.warnings[0]
        with pytest.raises(EnrichError) as caught:
            engine.events()
        assert caught.value.error_code == "history_behind"
        monkeypatch.setattr(store, "insert_records", insert)
        wait_for(lambda: engine.follower.applied.seq == engine.seq)
        assert engine.health().warnings == ()
        assert engine.history.count() == 20
        wait_for(lambda: any(line["event"] == "history_follows_again" for line in logged))
    reasons = [line["reason"] for line in logged if line["event"] == "history_not_following"]
    assert len(reasons) == 1
    assert "no such disk" in reasons[0]


def test_a_full_disk_refuses_events_whole_and_takes_them_again_when_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    at = now_us() - 1000
    queries = write_queries(tmp_path / "queries")
    filler = small_disk / "filler"

    def opened() -> Engine:
        settings = Settings(segment_bytes=256 << 10, sidecar_rows=100, disk_low_bytes=2 << 20)
        return Engine.open(small_disk / "data", queries=queries, settings=settings)

    with opened() as engine, ThreadPoolExecutor(8) as pool:
        accepted = [n for n in range(20) if engine.record([event(n, at_us=at)]).accepted]
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            except OSError:
                pass

        def record(n: int) -> list[int]:
            size = 300 if n % 4 == 0 else 1
            try:
                result = engine.record(events(1000 * n, size, at_us=at))
            except JournalFullError:
                return []
            assert result.accepted == size
            return list(range(1000 * n, 1000 * n + size))

        taken = [n for some in pool.map(record, range(1, 60)) for n in some]
        assert len(taken) < 59  # much was refused
        accepted += taken
        assert runs(engine) == len(accepted)
        assert engine.journal.failed is None
        filler.unlink()
        wait_for(lambda: _accepts(engine, at))
        accepted.append(999_999)
        accepted += record(100)
        assert runs(engine) == len(accepted)
    assert verify(small_disk / "data").ok
    with opened() as engine:
        assert runs(engine) == len(accepted)
        result = engine.record([event(n, at_us=at) for n in accepted])
        assert (result.accepted, result.duplicates) == (0, len(accepted))


def _accepts(engine: Engine, at: int) -> bool:
    try:
        return engine.record([event(999_999, at_us=at)]).accepted == 1
    except JournalFullError:
        return False


def test_a_journal_that_fails_at_the_start_lets_go_of_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_engine(tmp_path) as engine:
        engine.record([event(1)])
    with monkeypatch.context() as patched:
        disk = FaultyDisk.put_in(patched)
        disk.full = True
        with pytest.raises(JournalFailedError):
            open_engine(tmp_path)
    with open_engine(tmp_path) as engine:
        assert runs(engine) == 1
