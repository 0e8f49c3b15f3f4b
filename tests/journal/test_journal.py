from __future__ import annotations

import errno
import hashlib
import json
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from enrich.errors import EnrichError, JournalFailedError, JournalFullError, LockedError
from enrich.events.model import COLUMNS
from enrich.journal import Journal, Position, verify
from tests.journal.samples import NOW_US, FaultyDisk, batch, fill, fill_segments, open_journal


def lines(directory: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted((directory / "journal").glob("*.ndjson"))
        for line in path.read_text().splitlines()
    ]


def test_a_line_has_the_contracts_fields_in_order_and_hashes_its_canonical_header(tmp_path: Path) -> None:
    with open_journal(tmp_path, clock=lambda: NOW_US) as journal:
        fill(journal, [2, 1])
        journal_id = journal.journal_id
    first, second = lines(tmp_path)
    assert list(first) == ["v", "seq", "count", "type", "at", "body_sha256", "prev", "hash", "body"]
    assert (first["v"], first["seq"], first["count"], first["type"]) == (1, 1, 2, "events")
    assert first["at"] == "2026-11-18T11:06:40.000000Z"
    assert first["prev"] == hashlib.sha256(journal_id.encode()).hexdigest()
    assert (second["seq"], second["prev"]) == (3, first["hash"])
    header = {k: v for k, v in first.items() if k not in ("hash", "body")}
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    assert hashlib.sha256(canonical).hexdigest() == first["hash"]


def test_the_body_hash_of_events_is_that_of_their_salted_leaves(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [3])
    (line,) = lines(tmp_path)
    raw = (tmp_path / "journal" / "00000001.ndjson").read_bytes()
    events = [json.dumps(e, sort_keys=True, separators=(",", ":"), ensure_ascii=False) for e in line["body"]["events"]]
    assert all(e.encode() in raw for e in events)
    salts = hashlib.shake_128(bytes.fromhex(line["body"]["salt"])).digest(48)
    contents = bytes.fromhex(line["body"]["contents"])
    leaves = [
        hashlib.sha256(salts[i * 16 : i * 16 + 16] + contents[i * 16 : i * 16 + 16] + e.encode()).digest()
        for i, e in enumerate(events)
    ]
    assert hashlib.sha256(b"".join(leaves)).hexdigest() == line["body_sha256"]


def test_other_bodies_are_salted_and_hashed_as_they_stand(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        for _ in range(2):
            journal.append(journal.prepare("suspension", {"agent": "a", "until": 1.5}))
        bodies = [r.body for r in journal.read()]
    first, second = lines(tmp_path)
    assert bodies == [first["body"], second["body"]]
    assert first["body"]["salt"] != second["body"]["salt"]
    assert first["body_sha256"] != second["body_sha256"]
    canonical = json.dumps(first["body"], sort_keys=True, separators=(",", ":")).encode()
    assert hashlib.sha256(canonical).hexdigest() == first["body_sha256"]


@pytest.mark.parametrize("again", [False, True])
def test_what_was_appended_is_read_back_exactly(tmp_path: Path, again: bool) -> None:
    journal = open_journal(tmp_path, sidecar_rows=10)
    batches = [batch(n, journal.hash_key, seed=n) for n in (1, 3, 10, 2500)]
    for b in batches:
        journal.append(journal.prepare_events(b))
    if again:
        journal.close()
        journal = open_journal(tmp_path)
    seq = 1
    records = list(journal.read())
    assert [r.count for r in records] == [1, 3, 10, 2500]
    for b, record in zip(batches, records, strict=True):
        read = record.batch
        assert read is not None
        assert record.seq == seq
        assert (read.columns, read.keys, read.contents) == (b.columns, b.keys, b.contents)
        assert (record.sidecar is not None) == (b.n >= 10)
        seq += b.n
    assert records[-1].position == journal.head == Position(2514, records[-1].hash)
    journal.close()


def test_reading_starts_behind_any_position_with_whole_records(tmp_path: Path) -> None:
    with open_journal(tmp_path, segment_bytes=3000) as journal:
        fill(journal, [1, 2, 3] * 8)
        fill_segments(journal, 2)
        everything = [(r.seq, r.last_seq, r.hash) for r in journal.read()]
        for after in range(journal.head.seq + 2):
            assert [(r.seq, r.last_seq, r.hash) for r in journal.read(after)] == [e for e in everything if e[1] > after]


def test_contents_of_events_whose_attributes_were_dropped_survive(tmp_path: Path) -> None:
    with open_journal(tmp_path, sidecar_rows=4) as journal:
        for n in (2, 5):
            b = batch(n, journal.hash_key, seed=n)
            b.contents[1] = bytes(range(16))
            journal.append(journal.prepare_events(b))
        read = [r.batch for r in journal.read()]
        assert [r.contents[1] for r in read if r is not None] == [bytes(range(16))] * 2
    assert verify(tmp_path).ok


def test_a_decision_carries_its_event(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        event = {
            "event_id": "d1", "kind": "authority", "occurred_at": "2026-11-23T10:00:00.123456Z", "outcome": "allowed",
            "source": "enrich", "agent_id": "a",
        }  # fmt: skip
        prepared = journal.prepare("decision", {"decision_id": "d1", "event": event})
        assert prepared.batch is not None
        assert prepared.batch.columns["occurred_at"] == [1_795_428_000_123_456]
        journal.append(prepared)
        (record,) = journal.read()
        assert record.batch is not None
        assert (record.count, record.batch.keys) == (1, prepared.batch.keys)


def test_a_sidecar_is_named_by_its_hash_and_holds_the_events_in_order(tmp_path: Path) -> None:
    with open_journal(tmp_path, sidecar_rows=5) as journal:
        b = batch(7, journal.hash_key)
        prepared = journal.prepare_events(b)
        twin = journal.prepare_events(b)
        assert prepared.sidecar is not None
        assert twin.sidecar != prepared.sidecar
        journal.discard(twin)
        assert prepared.sidecar.stem == hashlib.sha256(prepared.sidecar.read_bytes()).hexdigest()
        table = pq.read_table(prepared.sidecar)
        assert table.column_names == [*COLUMNS, "key", "content"]
        assert table.column("event_id").to_pylist() == b.columns["event_id"]
        journal.append(prepared)
    assert verify(tmp_path).unnamed_sidecars == 0


@pytest.mark.parametrize(("type_", "body"), [("events", {}), ("nonsense", {}), ("void", {"salt": "mine"})])
def test_what_no_record_can_have_is_refused(tmp_path: Path, type_: str, body: dict[str, Any]) -> None:
    with open_journal(tmp_path) as journal, pytest.raises(ValueError, match=r"record type|salt"):
        journal.prepare(type_, body)


def test_time_never_goes_back_while_running_or_across_restarts(tmp_path: Path) -> None:
    times = iter([NOW_US, NOW_US + 5, NOW_US - 100, NOW_US - 100, *[NOW_US - 100] * 20])
    journal = open_journal(tmp_path, clock=lambda: next(times))
    assert journal.now_us() == NOW_US + 5  # the first was for journal.json
    fill(journal, [1])
    assert journal.clock_behind_us == 105
    journal.close()
    journal = open_journal(tmp_path, clock=lambda: NOW_US - 50)
    assert journal.now_us() == NOW_US + 5
    assert journal.clock_behind_us == 55
    journal.close()


def test_segments_rotate_and_their_manifests_chain(tmp_path: Path) -> None:
    with open_journal(tmp_path, segment_bytes=4000) as journal:
        last = fill_segments(journal, 3)
        ids = [r.seq for r in journal.read()]
    assert ids == list(range(1, last + 1))
    manifests = [json.loads(p.read_text()) for p in sorted((tmp_path / "journal").glob("*.manifest.json"))]
    assert len(manifests) >= 3
    for before, after in pairwise(manifests):
        assert (after["first_seq"], after["prev"]) == (before["last_seq"] + 1, before["hash"])
    for m in manifests:
        data = (tmp_path / "journal" / f"{m['number']:08d}.ndjson").read_bytes()
        assert (m["file_bytes"], m["file_sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert m["lines"] == data.count(b"\n")
    assert verify(tmp_path).ok


def test_one_process_per_directory(tmp_path: Path) -> None:
    with open_journal(tmp_path):
        with pytest.raises(LockedError) as caught:
            open_journal(tmp_path)
        assert caught.value.code == "data_dir_locked"
        assert "pid" in caught.value.detail
    open_journal(tmp_path).close()


def test_a_journal_keeps_its_id_and_secret(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        known = (journal.journal_id, journal.hash_key)
    with open_journal(tmp_path) as journal:
        assert (journal.journal_id, journal.hash_key) == known
    assert (tmp_path / "journal" / "hash.key").stat().st_mode & 0o777 == 0o600


# -- waiting ------------------------------------------------------------------------------------------------------


class SlowDisk(FaultyDisk):
    """Every fsync takes a while, as on a real disk, and is counted."""

    syncs = 0

    def datasync(self, fd: int) -> None:
        super().datasync(fd)
        self.syncs += 1
        time.sleep(0.005)


def test_concurrent_writers_share_an_fsync(tmp_path: Path) -> None:
    disk = SlowDisk()
    with open_journal(tmp_path, disk=disk) as journal:
        order = threading.Lock()
        prepared = [journal.prepare_events(batch(1, journal.hash_key, seed=i)) for i in range(320)]

        def write(mine: Sequence[Any]) -> None:
            for record in mine:
                with order:
                    appended = journal.append(record)
                journal.wait_durable(appended.last_seq, timeout=30)
                assert journal.durable.seq >= appended.last_seq

        threads = [threading.Thread(target=write, args=(prepared[i::32],)) for i in range(32)]
        before = disk.syncs
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert journal.durable == journal.head
        assert journal.head.seq == 320
        assert 10 <= disk.syncs - before <= 40  # 320 answers; each round of 32 needs one fsync, or two
    assert verify(tmp_path).ok


def test_callbacks_come_once_durable_and_at_once_when_already_so(tmp_path: Path) -> None:
    disk = SlowDisk()
    with open_journal(tmp_path, disk=disk) as journal:
        told: list[tuple[int, EnrichError | None, int]] = []
        done = threading.Event()
        for i in range(50):
            seq = journal.append(journal.prepare("anchor", {"i": i})).last_seq
            journal.on_durable(seq, lambda e, seq=seq: told.append((seq, e, journal.durable.seq)))  # type: ignore[misc]
        journal.on_durable(50, lambda error: done.set())
        assert done.wait(10)
        assert [t[0] for t in told] == list(range(1, 51))
        assert all(error is None and durable >= seq for seq, error, durable in told)
        at_once: list[EnrichError | None] = []
        journal.on_durable(50, at_once.append)
        assert at_once == [None]


def test_a_callback_that_raises_keeps_nobody_else_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def bad(error: EnrichError | None) -> None:
        raise RuntimeError("mine")

    with open_journal(tmp_path, disk=SlowDisk()) as journal:
        seq = journal.append(journal.prepare("anchor", {})).last_seq
        journal.on_durable(seq, bad)
        journal.wait_durable(seq, timeout=10)
        seq = journal.append(journal.prepare("anchor", {})).last_seq
        journal.wait_durable(seq, timeout=10)
    assert "callback" in caplog.text


def test_waiting_for_what_nobody_writes_times_out(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal, pytest.raises(TimeoutError):
        journal.wait_durable(7, timeout=0.02)


def test_closing_makes_durable_and_tells_who_waits_for_more(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, disk=SlowDisk())
    seq = journal.append(journal.prepare("anchor", {})).last_seq
    told: list[EnrichError | None] = []
    journal.on_durable(seq, told.append)
    journal.on_durable(seq + 1, told.append)
    journal.close()
    assert told[0] is None
    assert isinstance(told[1], JournalFailedError)
    with pytest.raises(JournalFailedError, match="closed"):
        journal.append(journal.prepare("anchor", {}))


# -- failing ------------------------------------------------------------------------------------------------------


def test_a_failed_fsync_fails_every_answer_above_and_stops_writing(tmp_path: Path) -> None:
    disk = FaultyDisk()
    journal = open_journal(tmp_path, disk=disk)
    durable = fill(journal, [1, 1])
    disk.fail_sync = OSError(errno.EIO, "Input/output error")
    told: list[EnrichError | None] = []
    seq = journal.append(journal.prepare_events(batch(1, journal.hash_key, seed=9))).last_seq
    journal.on_durable(seq + 5, told.append)
    with pytest.raises(JournalFailedError) as caught:
        journal.wait_durable(seq, timeout=10)
    assert caught.value.code == "journal_failed"
    disk.fail_sync = None
    with pytest.raises(JournalFailedError):
        journal.wait_durable(seq, timeout=10)
    with pytest.raises(JournalFailedError):
        journal.prepare_events(batch(1, journal.hash_key))
    journal.wait_durable(durable)
    assert journal.durable.seq == durable
    assert isinstance(told[0], JournalFailedError)
    journal.close()
    with open_journal(tmp_path) as journal:  # what reached the disk is there; what was not answered may be
        assert journal.head.seq in (durable, seq)
        assert journal.durable == journal.head


def test_a_short_write_is_cut_back_and_the_next_record_fits(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with open_journal(tmp_path, disk=disk) as journal:
        fill(journal, [1])
        head, size = journal.head, (tmp_path / "journal" / "00000001.ndjson").stat().st_size
        prepared = journal.prepare_events(batch(3, journal.hash_key, seed=5))
        disk.room = 100
        with pytest.raises(JournalFullError) as caught:
            journal.append(prepared)
        assert caught.value.code == "journal_full"
        assert journal.head == head
        assert (tmp_path / "journal" / "00000001.ndjson").stat().st_size == size
        disk.room = None
        assert journal.append(prepared).seq == 2
        journal.wait_durable(4)
    assert verify(tmp_path).ok


def test_a_cut_that_fails_is_a_failed_fsync(tmp_path: Path) -> None:
    disk = FaultyDisk()
    journal = open_journal(tmp_path, disk=disk)
    last = fill(journal, [1])
    disk.room, disk.fail_truncate = 100, OSError(errno.EIO, "Input/output error")
    with pytest.raises(JournalFailedError, match="cut off"):
        journal.append(journal.prepare_events(batch(1, journal.hash_key, seed=5)))
    assert journal.failed is not None
    journal.close()
    with open_journal(tmp_path) as journal:
        assert journal.head.seq == last
        assert len(journal.torn) == 1


def test_nothing_is_written_behind_a_record_whose_write_was_interrupted(tmp_path: Path) -> None:
    class Interrupted(FaultyDisk):
        def write(self, fd: int, parts: Sequence[bytes | memoryview]) -> int:
            super().write(fd, parts)
            raise KeyboardInterrupt

    journal = open_journal(tmp_path)
    last = fill(journal, [1])
    journal._disk = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        journal.append(journal.prepare_events(batch(1, journal.hash_key, seed=5)))
    journal._disk = FaultyDisk()
    with pytest.raises(JournalFailedError, match="interrupted"):
        fill(journal, [1], seed=6)
    journal.close()
    assert verify(tmp_path).ok
    with open_journal(tmp_path) as journal:
        assert journal.head.seq == last + 1
        assert journal.torn == []


def test_a_full_disk_refuses_a_batch_and_leaves_no_sidecar(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with open_journal(tmp_path, disk=disk, sidecar_rows=4) as journal:
        for n in (5, 3000):  # both ways to write one
            disk.room = 1000
            with pytest.raises(JournalFullError):
                journal.prepare_events(batch(n, journal.hash_key))
        assert list((tmp_path / "journal" / "sidecars").iterdir()) == []
        disk.room, disk.fail_sync = None, OSError(errno.EMFILE, "Too many open files")
        with pytest.raises(JournalFailedError):
            journal.prepare_events(batch(5, journal.hash_key))
        assert journal.failed is None
        disk.fail_sync = OSError(errno.EIO, "Input/output error")
        with pytest.raises(JournalFailedError):
            journal.prepare_events(batch(5, journal.hash_key))
        assert list((tmp_path / "journal" / "sidecars").iterdir()) == []
        disk.fail_sync = None
        with pytest.raises(JournalFailedError):  # a second fsync proves nothing, of a directory neither
            journal.prepare_events(batch(5, journal.hash_key))
        assert journal.failed is not None


def test_a_directory_that_can_not_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(JournalFailedError, match="can't be locked: Is a directory"):
        open_journal(tmp_path)
    (tmp_path / "lock").rmdir()

    class Full(FaultyDisk):
        def write_file(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(JournalFailedError, match="No space left"):
        open_journal(tmp_path, disk=Full())
    with open_journal(tmp_path) as journal:  # and lets go of the directory
        assert fill(journal, [1]) == 1


def test_a_low_disk_refuses_events_and_decisions_but_no_suspension(tmp_path: Path) -> None:
    disk = FaultyDisk()
    disk.free = 50_000
    with open_journal(tmp_path, disk=disk, disk_low_bytes=100_000) as journal:
        assert journal.disk_low
        with pytest.raises(JournalFullError) as caught:
            journal.prepare_events(batch(1, journal.hash_key))
        assert caught.value.detail["free_bytes"] == 50_000
        for type_ in ("decision", "outcome", "source"):
            with pytest.raises(JournalFullError):
                journal.prepare(type_, {})
        for type_ in ("suspension", "prune", "void", "anchor"):
            journal.wait_durable(journal.append(journal.prepare(type_, {})).last_seq)


def test_events_are_taken_again_once_there_is_room_though_nothing_else_was_written(tmp_path: Path) -> None:
    disk = FaultyDisk()
    disk.free = 50_000
    with open_journal(tmp_path, disk=disk, disk_low_bytes=100_000) as journal:
        with pytest.raises(JournalFullError):
            journal.prepare_events(batch(1, journal.hash_key))
        disk.free = 200_000
        time.sleep(0.25)
        assert not journal.disk_low
        assert fill(journal, [1]) == 1
        disk.free = 50_000
        time.sleep(0.25)
        with pytest.raises(JournalFullError):
            journal.prepare_events(batch(1, journal.hash_key))


def test_free_space_that_can_not_be_told_ends_no_writing(tmp_path: Path) -> None:
    class Blind(FaultyDisk):
        def free_bytes(self, path: Path) -> int:
            if self.free:
                return self.free
            raise OSError(errno.EIO, "Input/output error")

    disk = Blind()
    with open_journal(tmp_path, disk=disk, disk_low_bytes=4096) as journal:
        disk.free = 0
        time.sleep(0.25)
        assert fill(journal, [1, 1]) == 2
        assert journal.failed is None


def test_a_suspension_takes_the_room_that_was_kept_back(tmp_path: Path) -> None:
    disk = FaultyDisk()
    reserve = tmp_path / "journal" / "reserve"

    class Freed(FaultyDisk):
        def write(self, fd: int, parts: Sequence[bytes | memoryview]) -> int:
            if self.room is not None and not reserve.exists():
                self.room = None
            return super().write(fd, parts)

    disk = Freed()
    with open_journal(tmp_path, disk=disk, disk_low_bytes=4096) as journal:
        assert reserve.stat().st_size == 4096
        disk.room = 10
        with pytest.raises(JournalFullError):
            journal.append(journal.prepare_events(batch(1, journal.hash_key)))
        disk.room = 10
        assert journal.append(journal.prepare("suspension", {"agent": "a"})).seq == 1
        assert not reserve.exists()
    assert verify(tmp_path).records == 1


def test_the_default_clock_and_a_real_fsync(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        last = fill(journal, [1, 300])
        assert abs(journal.now_us() - time.time_ns() // 1000) < 10_000_000
        assert journal.fsyncs >= 1
        assert journal.durable.seq == last
