"""The DuckDB file follows records exactly, in one transaction with its position, and survives restarts."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from enrich.errors import (
    DataDirError,
    HistoryGapError,
    JournalBehindError,
    JournalCorruptError,
    LockedError,
    NewerFormatError,
)
from enrich.events.model import COLUMNS
from enrich.history import History
from enrich.history import schema as history_schema
from enrich.journal.format import Position, genesis_hash

from .data import AT_US, BASE_US, JOURNAL_ID, MemoryJournal, make_batch, records_of, single, to_sidecar

ALL_ROWS = (
    "SELECT * REPLACE (epoch_us(occurred_at) AS occurred_at, epoch_us(recorded_at) AS recorded_at) FROM {} ORDER BY seq"
)


def open_history(directory: Path, **more: Any) -> History:
    return History.open(directory, journal_id=JOURNAL_ID, **more)


def rows(history: History, relation: str = "events") -> list[tuple[Any, ...]]:
    with history.cursor() as con:
        return con.execute(ALL_ROWS.format(relation)).fetchall()


def keys(history: History) -> list[tuple[Any, ...]]:
    with history.cursor() as con:
        return con.execute("SELECT * EXCLUDE (occurred_at) FROM event_keys ORDER BY seq").fetchall()


def test_a_new_history_stands_before_the_first_record(tmp_path: Path) -> None:
    with open_history(tmp_path) as history:
        assert history.position == Position(0, genesis_hash(JOURNAL_ID))
        assert history.count() == 0
        assert history.observed_us() is None
        assert history.pruned_before_us() is None


def test_events_come_back_as_they_were_sent(tmp_path: Path) -> None:
    batch = make_batch(50)
    with open_history(tmp_path) as history:
        assert history.apply(records_of(["definitions", batch])) == 50
        stored = rows(history)
        expected = list(batch.rows())
        for i, (row, sent) in enumerate(zip(stored, expected, strict=True)):
            got = {c: v for c, v in zip(COLUMNS, row, strict=False) if v is not None}
            sent = dict(sent)
            if "attributes" in sent:
                sent["attributes"] = '{"n":9007199254740993,"ok":true,"tool":"sé\\"l"}'
            assert got == sent
            assert row[len(COLUMNS) :] == (i + 2, AT_US + 2, None)


def test_position_and_data_survive_a_restart(tmp_path: Path) -> None:
    records = records_of([make_batch(3, 1), "source", make_batch(2, 2)])
    with open_history(tmp_path) as history:
        history.apply(records)
        before = rows(history)
    with open_history(tmp_path) as history:
        assert history.position == Position(6, records[-1].hash)
        assert rows(history) == before


def test_a_sidecar_and_inline_records_give_identical_tables(tmp_path: Path) -> None:
    n = 100_000
    batch = make_batch(n)
    inline, sidecar = tmp_path / "inline", tmp_path / "sidecar"
    inline.mkdir()
    sidecar.mkdir()
    parts = [batch.take(list(range(i, i + 10_000))) for i in range(0, n, 10_000)]
    with open_history(inline) as a, open_history(sidecar) as b:
        # one table from batches of every size, the other from Parquet; recorded_at is the record's, so it is left out
        small = [single(parts[0], i) for i in range(10_000)]
        assert a.apply(records_of([*small, *parts[1:]])) == n
        assert b.apply(records_of([to_sidecar(tmp_path, p) for p in parts], [10_000] * 10)) == n
        drop = f"SELECT {', '.join(c for c in (*COLUMNS, 'seq', 'void_seq'))} FROM events ORDER BY seq"
        with a.cursor() as x, b.cursor() as y:
            left, right = x.sql(drop).to_arrow_table(), y.sql(drop).to_arrow_table()
        assert left.num_rows == n
        assert left.equals(right)
        assert keys(a) == keys(b)


def test_records_at_or_below_the_position_are_skipped(tmp_path: Path) -> None:
    records = records_of([make_batch(3, 1), make_batch(2, 2), make_batch(4, 3)])
    with open_history(tmp_path) as history:
        history.apply(records[:2])
        assert history.apply(records[:2]) == 0
        assert history.apply(records) == 4
        assert history.count() == 9


@pytest.mark.parametrize("wrong", [[0, 2], [1], [2], [0, 1, 1], [1, 0]])
def test_a_gap_or_an_overlap_is_refused_and_applies_nothing(tmp_path: Path, wrong: list[int]) -> None:
    records = records_of([make_batch(3, 1), make_batch(2, 2), make_batch(4, 3)])
    with open_history(tmp_path) as history:
        with pytest.raises(HistoryGapError) as caught:
            history.apply([records[i] for i in wrong])
        assert caught.value.code == "history_gap"
        assert history.position.seq == 0
        assert history.count() == 0


def test_a_record_that_straddles_the_position_is_an_overlap(tmp_path: Path) -> None:
    batch = make_batch(4, 1)
    with open_history(tmp_path) as history:
        history.apply(records_of([batch.take([0, 1])]))
        with pytest.raises(HistoryGapError, match="expects record `3` next, got `1` to `4`"):
            history.apply(records_of([batch]))


def test_another_hash_at_the_position_is_a_replaced_journal(tmp_path: Path) -> None:
    records = records_of([make_batch(3, 1)])
    with open_history(tmp_path) as history:
        history.apply(records)
        with pytest.raises(JournalBehindError):
            history.apply([type(records[0])(1, 3, "events", AT_US, "f" * 64, records[0].batch)])


@pytest.mark.parametrize("kind", ["count", "missing", "sidecar"])
def test_a_record_without_its_events_is_refused_whole(tmp_path: Path, kind: str) -> None:
    batch = make_batch(3, 1)
    good, bad = records_of([make_batch(2, 2), batch])
    if kind == "count":
        bad = type(bad)(bad.seq, 4, "events", bad.at_us, bad.hash, batch)
    elif kind == "missing":
        bad = replace(bad, batch=None, body={"events": []})
    else:
        bad = type(bad)(bad.seq, 4, "events", bad.at_us, bad.hash, None, to_sidecar(tmp_path, batch))
    with open_history(tmp_path) as history:
        with pytest.raises(JournalCorruptError):
            history.apply([good, bad])
        assert history.position.seq == 0
        assert rows(history) == []
        assert history.apply([good]) == 2


def test_a_failure_before_the_commit_leaves_neither_data_nor_position(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def fail(name: str) -> None:
        if name == "history.before_commit":
            raise Stop

    records = records_of([make_batch(3, 1)])
    with open_history(tmp_path, failpoint=fail) as history:
        with pytest.raises(Stop):
            history.apply(records)
        assert history.position.seq == 0
        assert rows(history) == []
    with open_history(tmp_path) as history:
        assert history.position.seq == 0
        assert history.apply(records) == 3


def test_a_missing_sidecar_fails_and_can_be_repeated(tmp_path: Path) -> None:
    path = to_sidecar(tmp_path, make_batch(3, 1))
    record = records_of([path], [3])[0]
    away = path.with_suffix(".away")
    path.rename(away)
    with open_history(tmp_path) as history:
        with pytest.raises(duckdb.IOException):
            history.apply([record])
        away.rename(path)
        assert history.apply([record]) == 3


def test_events_at_hides_what_came_later_or_was_void_before(tmp_path: Path) -> None:
    with open_history(tmp_path) as history:
        history.apply(records_of([make_batch(5, 1)]))
        with history.cursor() as con:
            con.execute("UPDATE events SET void_seq = 4 WHERE seq = 2")
        with history.cursor() as con:

            def at(s: int) -> list[int]:
                return [r[0] for r in con.execute("SELECT seq FROM events_at(?) ORDER BY seq", [s]).fetchall()]

            assert at(0) == []
            assert at(3) == [1, 2, 3]
            assert at(4) == [1, 3, 4]
            assert at(9) == [1, 3, 4, 5]


def test_time_zone_is_utc_on_every_cursor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    with open_history(tmp_path) as history, history.cursor() as con:
        assert con.execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]
        assert con.execute("SELECT CAST(TIMESTAMPTZ '2026-01-01 00:00:00+00' AS VARCHAR)").fetchall() == [
            ("2026-01-01 00:00:00+00",)
        ]


def test_threads_and_memory_are_settings(tmp_path: Path) -> None:
    with open_history(tmp_path, threads=2, memory_limit="300MiB") as history, history.cursor() as con:
        sql = "SELECT current_setting('threads'), current_setting('memory_limit')"
        assert con.execute(sql).fetchall() == [(2, "300.0 MiB")]


def test_a_reader_keeps_its_snapshot_while_records_are_applied(tmp_path: Path) -> None:
    records = records_of([make_batch(500, i) for i in range(40)])
    seen: list[tuple[int, int, int]] = []
    failures: list[Exception] = []
    done = threading.Event()
    with open_history(tmp_path) as history:
        history.apply(records[:1])

        def read() -> None:
            try:
                with history.cursor() as con:
                    while not done.is_set():
                        con.begin()
                        counts = con.execute(
                            "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM event_keys),"
                            " (SELECT seq FROM history_meta)"
                        ).fetchall()[0]
                        again = con.execute("SELECT count(*) FROM events").fetchall()[0][0]
                        con.rollback()
                        assert again == counts[0]
                        seen.append(counts)
            except Exception as error:  # noqa: BLE001 - handed to the test's own thread
                failures.append(error)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        for record in records[1:]:
            history.apply([record])
        done.set()
        for reader in readers:
            reader.join()
    assert not failures
    assert len({c for c, _, _ in seen}) > 1
    # INVARIANT: events, keys and position are one; a batch is seen whole
    assert all(events == stored == seq and events % 500 == 0 for events, stored, seq in seen)


def test_an_open_reader_does_not_hold_up_the_writer(tmp_path: Path) -> None:
    records = records_of([make_batch(1000, i) for i in range(4)])
    with open_history(tmp_path) as history:
        history.apply(records[:1])
        with history.cursor() as con:
            con.begin()
            assert con.execute("SELECT count(*) FROM events").fetchall() == [(1000,)]
            history.apply(records[1:])
            history.prune(BASE_US)
            assert con.execute("SELECT count(*) FROM events").fetchall() == [(1000,)]
            con.rollback()
            assert con.execute("SELECT count(*) FROM events").fetchall() == [(4000,)]


def test_prune_removes_old_events_with_their_keys_and_keeps_the_position(tmp_path: Path) -> None:
    batch = make_batch(1000, 1)
    cutoff = sorted(batch.columns["occurred_at"])[400]
    old = sum(t < cutoff for t in batch.columns["occurred_at"])
    with open_history(tmp_path) as history:
        history.apply(records_of([batch]))
        position = history.position
        report = history.prune(cutoff)
        assert (report.events, report.keys) == (old, old)
        assert history.count() == 1000 - old
        assert history.observed_us() == (cutoff, max(batch.columns["occurred_at"]))
        assert history.prune(cutoff - 1).events == 0
        assert history.pruned_before_us() == cutoff
        assert history.position == position
        assert history.apply(records_of([batch])) == 0
    with open_history(tmp_path) as history:
        assert history.count() == 1000 - old
        assert history.position == position
        assert history.pruned_before_us() == cutoff


def test_keys_come_back_in_bulk_as_they_were_given(tmp_path: Path) -> None:
    a, b = make_batch(700, 1), make_batch(900, 2)
    with open_history(tmp_path) as history:
        history.apply(records_of([a, to_sidecar(tmp_path, b)], [700, 900]))
        blocks = list(history.key_blocks(rows_per_block=512))
        seq = np.concatenate([k.seq for k in blocks])
        order = np.argsort(seq)
        assert seq[order].tolist() == list(range(1, 1601))
        assert len(blocks) > 1
        for name, given in (("keys", a.keys + b.keys), ("contents", a.contents + b.contents)):
            halves = np.concatenate([getattr(k, name) for k in blocks])[order]
            assert halves.dtype == np.uint64
            assert [x.tobytes() for x in halves.astype(">u8")] == given
        times = np.concatenate([k.occurred_at_us for k in blocks])[order]
        assert times.tolist() == a.columns["occurred_at"] + b.columns["occurred_at"]


def test_check_against_refuses_a_journal_that_lost_or_replaced_records(tmp_path: Path) -> None:
    records = records_of([make_batch(3, 1), make_batch(2, 2), "source"])
    journal = MemoryJournal(records=records)
    journal.sync()
    with open_history(tmp_path) as history:
        history.check_against(journal)
        history.apply(records[:2])
        history.check_against(journal)
        for wrong in (
            MemoryJournal(journal_id="f" * 32, records=records),
            MemoryJournal(records=records[:1]),
            MemoryJournal(records=[records[0], type(records[1])(4, 2, "events", AT_US, "f" * 64), records[2]]),
            MemoryJournal(records=[records[0], type(records[1])(4, 3, "events", AT_US, "e" * 64)]),
        ):
            with pytest.raises(JournalBehindError) as caught:
                history.check_against(wrong)
            assert caught.value.code == "journal_behind"


def test_a_history_of_another_journal_is_refused(tmp_path: Path) -> None:
    open_history(tmp_path).close()
    with pytest.raises(JournalBehindError, match="follows journal"):
        History.open(tmp_path, journal_id="f" * 32)


def set_format(directory: Path, version: int) -> None:
    with duckdb.connect(str(directory / "history.duckdb")) as con:
        con.execute("UPDATE history_meta SET format = ?", [version])


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    open_history(tmp_path).close()
    set_format(tmp_path, history_schema.FORMAT + 1)
    with pytest.raises(NewerFormatError) as caught:
        open_history(tmp_path)
    assert caught.value.detail["found"] == history_schema.FORMAT + 1


def test_an_older_format_comes_forward_step_by_step_or_not_at_all(tmp_path: Path) -> None:
    with open_history(tmp_path) as history:
        history.apply(records_of([make_batch(3, 1)]))
    with duckdb.connect(str(tmp_path / "history.duckdb")) as con:
        now = history_schema.FORMAT
        steps = {
            now: ["ALTER TABLE events ADD COLUMN fresh BIGINT", "UPDATE events SET fresh = seq"],
            now + 1: ["ALTER TABLE events RENAME COLUMN fresh TO newer"],
        }
        with pytest.raises(duckdb.Error):
            history_schema.upgrade(
                con, now, target=now + 2, migrations={**steps, now + 1: ["SELECT no_such_function()"]}
            )
        assert history_schema.read_format(con) == now
        assert "fresh" not in [r[0] for r in con.execute("DESCRIBE events").fetchall()]
        with pytest.raises(DataDirError, match="can't be brought forward"):
            history_schema.upgrade(con, now, target=now + 2, migrations={now + 1: steps[now + 1]})
        history_schema.upgrade(con, now, target=now + 2, migrations=steps)
        assert history_schema.read_format(con) == now + 2
        assert con.execute("SELECT newer FROM events ORDER BY seq").fetchall() == [(1,), (2,), (3,)]


def test_what_is_no_history_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.duckdb"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(DataDirError) as caught:
        open_history(tmp_path)
    assert "rebuilt from the journal" in caught.value.detail["hint"]
    assert path.read_bytes() == b"no database" * 1000
    path.unlink()
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE mine (i INTEGER)")
    with pytest.raises(DataDirError, match="holds other tables: `mine`"):
        open_history(tmp_path)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    code = (
        f"import duckdb; c = duckdb.connect({str(tmp_path / 'history.duckdb')!r}); print('open', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(LockedError):
            open_history(tmp_path)
        other.communicate("\n")
    open_history(tmp_path).close()


def test_a_closed_or_read_only_history_does_not_write(tmp_path: Path) -> None:
    records = records_of([make_batch(3, 1)])
    with open_history(tmp_path) as history:
        history.apply(records)
    with pytest.raises(DataDirError, match="closed"):
        history.apply(records)
    with pytest.raises(DataDirError, match="closed"):
        history.cursor()
    history.close()
    with open_history(tmp_path, read_only=True) as history:
        assert history.count() == 3
        with pytest.raises(DataDirError, match="read-only"):
            history.prune(0)


def test_reopen_goes_on_where_the_file_stands(tmp_path: Path) -> None:
    records = records_of([make_batch(3, 1), make_batch(2, 2)])
    with open_history(tmp_path) as history:
        history.apply(records[:1])
        history.reopen()
        assert history.position.seq == 3
        assert history.apply(records[1:]) == 2
