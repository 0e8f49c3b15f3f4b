"""History behind a real journal: what was written comes out of DuckDB, also when its file was lost."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from enrich.errors import JournalBehindError
from enrich.events.model import COLUMNS, EventBatch
from enrich.events.parse import EventParser
from enrich.history import Follower, History
from enrich.journal import Journal
from enrich.journal.keys import KeyStore

NOW_US = 1_795_000_000_000_000


def events(n: int, first: int) -> list[dict[str, Any]]:
    r = random.Random(first)
    return [
        {
            "source": "temporal",
            "event_id": f"run-{first + i}",
            "occurred_at": f"2026-11-{r.randrange(1, 10):02d}T10:00:{r.randrange(60):02d}.{r.randrange(10**6):06d}Z",
            "kind": "execution",
            "outcome": r.choice(["succeeded", "failed"]),
            "agent_id": f"agent-{r.randrange(5)}",
            "cost_microusd": r.choice([None, 2**63 - 1, r.randrange(1000)]),
            "attributes": r.choice([None, {"tool": "bash", "secret": "dropped"}, {"tool": 'q"é'}]),
        }
        for i in range(n)
    ]


def open_journal(directory: Path) -> Journal:
    return Journal.open(directory, clock=lambda: NOW_US, segment_bytes=200_000, sidecar_rows=256, fsync=False)


def parse(journal: Journal, rows: list[dict[str, Any]]) -> EventBatch:
    parser = EventParser(
        hash_key=journal.hash_key, retention_us=90 * 86_400_000_000, attribute_keys=frozenset({"tool"})
    )
    parsed = parser.parse(rows, NOW_US)
    assert parsed.rejected == []
    return parsed.batch


def tables(directory: Path, journal: Journal) -> tuple[list[Any], list[Any]]:
    with History.open(directory, journal_id=journal.journal_id) as history, history.cursor() as con:
        names = ", ".join(COLUMNS[1:])
        rows = con.execute(
            f"SELECT seq, epoch_us(occurred_at), epoch_us(recorded_at), {names} FROM events ORDER BY seq"
        ).fetchall()
        keys = con.execute("SELECT * EXCLUDE (occurred_at) FROM event_keys ORDER BY seq").fetchall()
    return rows, keys


def test_what_was_recorded_is_in_duckdb_and_comes_back_when_its_file_is_lost(tmp_path: Path) -> None:
    batches: list[EventBatch] = []
    with open_journal(tmp_path) as journal:
        with History.open(tmp_path, journal_id=journal.journal_id) as history:
            follower = Follower(history, journal, batch_seconds=0.02, max_queued_events=200)
            follower.start()
            first = 0
            for size in [1, 1, 2, 1000, 1, 255, 256, 10_000, 3, *[1] * 300]:
                batch = parse(journal, events(size, first))
                first += size
                prepared = journal.prepare_events(batch)
                appended = journal.append(prepared)
                follower.submit(prepared, appended)
                batches.append(batch)
                if size == 255:
                    other = journal.prepare("definitions", {"catalog": None})
                    follower.submit(other, journal.append(other))
            journal.wait_durable(journal.head.seq)
            assert follower.wait_applied(journal.head.seq, timeout=30)
            follower.stop()
            assert history.position == journal.head
            assert history.count() == first
            history.check_against(journal)

        rows, keys = tables(tmp_path, journal)
        sent = [v for b in batches for v in b.rows()]
        assert [r[1] for r in rows] == [e["occurred_at"] for e in sent]
        assert {r[2] for r in rows} == {NOW_US}
        got = [{c: v for c, v in zip(COLUMNS[1:], r[3:], strict=True) if v is not None} for r in rows]
        for e in sent:
            del e["occurred_at"]
            if "attributes" in e:
                e["attributes"] = '{"tool":"bash"}' if e["attributes"]["tool"] == "bash" else '{"tool":"q\\"é"}'
        assert got == sent

        # the file is lost: the journal has it all
        for path in tmp_path.glob("history.duckdb*"):
            path.unlink()
        with History.open(tmp_path, journal_id=journal.journal_id) as history:
            reached: list[int] = []
            history.catch_up(journal, batch_events=1000, progress=lambda seq, end: reached.append(seq))
            assert history.position == journal.head
            assert reached == sorted(reached)
            assert len(reached) >= 3
            assert history.count() == first

            store = KeyStore()
            for block in history.key_blocks():
                store.load(block.keys, block.contents, block.seq, block.occurred_at_us)
            store.settle()
            for batch in batches[3], batches[0]:
                again = store.check_and_reserve(batch.keys, batch.contents)
                assert (again.new, len(again.duplicates), again.conflicts) == ([], batch.n, [])
                store.release(again)
        assert tables(tmp_path, journal) == (rows, keys)


def test_a_journal_put_back_from_an_old_copy_is_refused(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal, History.open(tmp_path, journal_id=journal.journal_id) as history:
        for first in (0, 10):
            journal.append(journal.prepare_events(parse(journal, events(10, first))))
        journal.wait_durable(20)
        history.catch_up(journal)
    segments = sorted((tmp_path / "journal").glob("*.ndjson"))
    lines = [line for s in segments for line in s.read_bytes().splitlines(keepends=True)]
    segments[0].write_bytes(lines[0])
    for segment in segments[1:]:
        segment.write_bytes(b"")
    with open_journal(tmp_path) as journal, History.open(tmp_path, journal_id=journal.journal_id) as history:
        with pytest.raises(JournalBehindError, match="history has record `20`, the journal ends at `10`"):
            history.check_against(journal)
        journal.append(journal.prepare_events(parse(journal, events(10, 50))))
        journal.wait_durable(20)
        with pytest.raises(JournalBehindError, match="is not the one that history has"):
            history.check_against(journal)
