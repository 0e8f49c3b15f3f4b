from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.errors import EnrichError, JournalCorruptError, JournalFailedError, NewerFormatError
from enrich.journal import Position, verify
from enrich.journal.disk import Disk
from enrich.journal.identity import migrate, read_identity, sealed, unseal
from tests.journal.samples import NOW_US, FaultyDisk, batch, fill, fill_segments, open_journal


def first_segment(directory: Path) -> Path:
    return directory / "journal" / "00000001.ndjson"


def test_a_tail_cut_at_any_byte_loses_that_line_only(tmp_path: Path) -> None:
    with open_journal(tmp_path / "whole") as journal:
        kept = fill(journal, [2, 1])
        hashes = [r.hash for r in journal.read()]
        before = journal._open.size
        fill(journal, [1], seed=7)
    whole = first_segment(tmp_path / "whole").read_bytes()
    for end in range(before, len(whole)):
        directory = tmp_path / "cut"
        shutil.copytree(tmp_path / "whole", directory)
        first_segment(directory).write_bytes(whole[:end])
        with open_journal(directory) as journal:
            assert journal.head == journal.durable == Position(kept, hashes[-1])
            assert [r.hash for r in journal.read()] == hashes
            assert len(journal.torn) == (end > before)
            for name in journal.torn:
                assert (directory / "journal" / name).read_bytes() == whole[before:end]
            assert fill(journal, [1], seed=8) == kept + 1
        report = verify(directory)
        assert (report.ok, report.records) == (True, 3)
        shutil.rmtree(directory)


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 5000, b'{"v":1,"seq', b"{}", b"\xff\xfe"])
def test_trailing_nuls_and_half_a_line_are_torn(tmp_path: Path, tail: bytes) -> None:
    with open_journal(tmp_path) as journal:
        last = fill(journal, [1])
    with open(first_segment(tmp_path), "ab") as file:
        file.write(tail)
    assert verify(tmp_path).torn_bytes == len(tail)
    with open_journal(tmp_path) as journal:
        assert journal.head.seq == last
        assert len(journal.torn) == 1
    assert verify(tmp_path).torn_bytes == 0


def test_two_crashes_torn_at_the_same_place_keep_both_tails(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1])
    for tail in (b"one", b"two"):
        with open(first_segment(tmp_path), "ab") as file:
            file.write(tail)
        open_journal(tmp_path).close()
    assert sorted(p.read_bytes() for p in (tmp_path / "journal").glob("*.torn")) == [b"one", b"two"]


def test_a_complete_line_that_does_not_verify_stops_the_start_even_the_last(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1, 1, 1])
    path = first_segment(tmp_path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for broken in (0, 1, 2):
        changed = list(lines)
        changed[broken] = changed[broken].replace(b'"agent_id":"agent-', b'"agent_id":"agenT-')
        path.write_bytes(b"".join(changed))
        with pytest.raises(JournalCorruptError) as caught:
            open_journal(tmp_path)
        assert caught.value.code == "journal_corrupt"
        assert caught.value.detail["file"] == "00000001.ndjson"
        assert caught.value.detail["line"] == broken + 1
        assert caught.value.detail["seq"] == broken + 1
        assert "leaf hashes" in caught.value.detail["reason"]
        assert path.read_bytes() == b"".join(changed)
    path.write_bytes(whole)
    open_journal(tmp_path).close()


def test_a_newline_that_was_overwritten_is_no_torn_write(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1])
    path = first_segment(tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(JournalCorruptError, match="newline was overwritten"):
        open_journal(tmp_path)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda line: line.replace(b'"type":"events"', b'"type":"wonder"'), JournalCorruptError),
        (lambda line: line.replace(b'{"v":1,', b'{"v":2,'), NewerFormatError),
        (lambda line: b"\n", JournalCorruptError),
        (lambda line: b"hello\n", JournalCorruptError),
        (lambda line: line + line, JournalCorruptError),
        (lambda line: line.replace(b'":', b'": ', 1), JournalCorruptError),
    ],
)
def test_lines_that_stop_the_start(tmp_path: Path, change: Callable[[bytes], bytes], error: type[EnrichError]) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1, 1])
    path = first_segment(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(change(lines[0]) + lines[1])
    with pytest.raises(error):
        open_journal(tmp_path)


def test_an_unknown_type_with_a_right_hash_stops_the_start(tmp_path: Path) -> None:
    from enrich.journal.format import encode_head, genesis_hash

    with open_journal(tmp_path) as journal:
        journal_id = journal.journal_id
    at = "2026-11-23T10:00:00.000000Z"
    head, _ = encode_head(1, 1, "wonder", at, "0" * 64, genesis_hash(journal_id))
    first_segment(tmp_path).write_bytes(head + b"{}}\n")
    for through in (0, 5):  # also where lines are only skimmed
        with pytest.raises(JournalCorruptError, match="unknown record type `wonder`"):
            open_journal(tmp_path, verified_through=through)


def test_lines_verified_before_are_not_verified_again_at_the_start_but_when_read(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1, 1, 1])
    path = first_segment(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"event_id":"0-0"', b'"event_id":"0-X"'))
    with open_journal(tmp_path, verified_through=1) as journal:
        assert journal.head.seq == 3
        assert [r.seq for r in journal.read(1)] == [2, 3]
        with pytest.raises(JournalCorruptError):
            list(journal.read())
    asked: list[str] = []

    def oldest_and_newest(journal_id: str) -> tuple[int, int]:
        asked.append(journal_id)
        return 3, 3

    with open_journal(tmp_path, verified_through=oldest_and_newest) as journal:
        assert asked == [journal.journal_id]
    with open_journal(tmp_path, verified_through=99) as journal:  # a follower that is ahead: the head is still known
        assert len(journal.head.hash) == 64
        assert fill(journal, [1], seed=3) == 4
    with pytest.raises(JournalCorruptError):
        open_journal(tmp_path)


class NewFiles(Disk):
    """Notes which inode each segment's bytes were made durable in."""

    def __init__(self) -> None:
        super().__init__(fsync=False)
        self.calls: list[str] = []

    def datasync(self, fd: int) -> None:
        self.calls.append("datasync")

    def replace(self, source: Path, target: Path) -> None:
        self.calls.append(f"replace {target.name}")
        super().replace(source, target)

    def sync_dir(self, path: Path) -> None:
        self.calls.append(f"sync_dir {path.name}")


def test_the_surviving_part_moves_to_a_new_durable_file_before_anything_else(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1, 2])
    path = first_segment(tmp_path)
    inode, data = path.stat().st_ino, path.read_bytes()
    disk = NewFiles()
    with open_journal(tmp_path, disk=disk) as journal:
        at = disk.calls.index("replace 00000001.ndjson")
        assert disk.calls[at - 1 : at + 2] == ["datasync", "replace 00000001.ndjson", "sync_dir journal"]
        assert path.stat().st_ino != inode
        assert path.read_bytes() == data
        assert journal.durable.seq == 3


def test_a_start_whose_fsync_fails_does_not_start(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1])
    disk = FaultyDisk()
    disk.fail_sync = OSError(errno.EIO, "Input/output error")
    with pytest.raises(JournalFailedError):
        open_journal(tmp_path, disk=disk)
    with open_journal(tmp_path) as journal:
        assert journal.head.seq == 1


def test_sidecars_that_no_line_names_are_removed(tmp_path: Path) -> None:
    with open_journal(tmp_path, sidecar_rows=2, segment_bytes=1500) as journal:
        fill(journal, [3] * 6)
        fill_segments(journal, 1)
        orphan = journal.prepare_events(batch(3, journal.hash_key, seed=99)).sidecar
        assert orphan is not None
    half = orphan.with_suffix(".tmp")
    half.write_bytes(b"half a file")
    assert verify(tmp_path).unnamed_sidecars == 1
    with open_journal(tmp_path, verified_through=10) as journal:
        assert journal.removed_sidecars == sorted([orphan.name, half.name])
        assert len([r for r in journal.read() if r.batch is not None and r.batch.n == 3]) == 6
    assert verify(tmp_path).unnamed_sidecars == 0


def test_a_missing_or_changed_sidecar_stops_the_start(tmp_path: Path) -> None:
    with open_journal(tmp_path, sidecar_rows=2) as journal:
        fill(journal, [3])
        (sidecar,) = [r.sidecar for r in journal.read()]
    assert sidecar is not None
    data = bytearray(sidecar.read_bytes())
    data[len(data) // 2] ^= 1
    sidecar.write_bytes(data)
    with pytest.raises(JournalCorruptError, match="hash that names it"):
        open_journal(tmp_path)
    sidecar.unlink()
    with pytest.raises(JournalCorruptError, match="sidecar is missing"):
        open_journal(tmp_path)


def _rotated(directory: Path) -> int:
    """At least two closed segments and an open one that has lines; returns the last seq."""
    with open_journal(directory, segment_bytes=2500) as journal:
        last = fill_segments(journal, 2)
        number = journal._open.number
    for path in (directory / "journal").glob("*.ndjson"):
        if int(path.name[:8]) > number:
            path.unlink()  # made ahead, still empty
    return last


def test_a_crash_between_change_over_and_manifest_keeps_both_segments(tmp_path: Path) -> None:
    last = _rotated(tmp_path)
    manifests = sorted((tmp_path / "journal").glob("*.manifest.json"))
    manifests[-1].unlink()
    with open_journal(tmp_path) as journal:
        assert [r.seq for r in journal.read()] == list(range(1, last + 1))
        assert manifests[-1].exists()
        assert not journal.torn
        fill(journal, [1], seed=4)
    assert verify(tmp_path).ok


def test_a_power_cut_that_tore_the_full_segment_takes_the_next_one_along(tmp_path: Path) -> None:
    _rotated(tmp_path)
    files = tmp_path / "journal"
    last = sorted(files.glob("*.manifest.json"))[-1]
    last.unlink()
    number = int(last.name[:8])
    full = files / f"{number:08d}.ndjson"
    full.write_bytes(full.read_bytes()[:-20])  # its end never reached the disk, so nothing after it was answered
    with open_journal(tmp_path) as journal:
        seqs = [r.seq for r in journal.read()]
        assert seqs == list(range(1, journal.head.seq + 1))
        assert len(journal.torn) == 2
        fill(journal, [1], seed=4)
    assert verify(tmp_path).ok


@pytest.mark.parametrize("gone", [("00000001.ndjson",), ("00000001.ndjson", "journal.json")])
def test_sidecars_whose_journal_is_gone_are_not_cleared_away(tmp_path: Path, gone: tuple[str, ...]) -> None:
    with open_journal(tmp_path, sidecar_rows=2) as journal:
        fill(journal, [3, 3])
    files = tmp_path / "journal"
    for name in gone:
        (files / name).rename(tmp_path / name)
    for _ in range(2):
        with pytest.raises(JournalCorruptError, match="missing"):
            open_journal(tmp_path)
    assert not verify(tmp_path).ok
    assert len(list((files / "sidecars").iterdir())) == 2
    for name in gone:
        (tmp_path / name).rename(files / name)
    with open_journal(tmp_path) as journal:
        assert journal.head.seq == 6


@pytest.mark.parametrize("what", ["ndjson", "manifest.json"])
def test_a_missing_segment_or_manifest_stops_the_start(tmp_path: Path, what: str) -> None:
    _rotated(tmp_path)
    (tmp_path / "journal" / f"00000001.{what}").unlink()
    with pytest.raises(JournalCorruptError, match="missing"):
        open_journal(tmp_path)
    assert not verify(tmp_path).ok


def test_a_journal_without_its_identity_is_not_begun_anew(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1])
    (tmp_path / "journal" / "journal.json").unlink()
    with pytest.raises(JournalCorruptError, match=r"journal\.json"):
        open_journal(tmp_path)
    assert not verify(tmp_path).ok


def test_another_secret_is_refused(tmp_path: Path) -> None:
    open_journal(tmp_path).close()
    (tmp_path / "journal" / "hash.key").write_bytes(b"k" * 32)
    with pytest.raises(JournalCorruptError, match=r"hash\.key"):
        open_journal(tmp_path)


def test_a_newer_directory_is_refused_and_an_older_one_brought_forward(tmp_path: Path) -> None:
    open_journal(tmp_path).close()
    path = tmp_path / "journal" / "journal.json"
    fields = unseal(path.read_bytes(), path.name)
    path.write_bytes(sealed({**fields, "format": 2}))
    with pytest.raises(NewerFormatError) as caught:
        open_journal(tmp_path)
    assert caught.value.code == "newer_format"
    path.write_bytes(sealed({**fields, "format": 0}))
    with pytest.raises(JournalCorruptError, match="no migration from format `0`"):
        open_journal(tmp_path)
    seen: list[Path] = []
    migrate(path.parent, Disk(fsync=False), migrations={0: lambda directory, disk: seen.append(directory)})
    assert seen == [path.parent]
    assert read_identity(path.parent).format == 1
    open_journal(tmp_path).close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(
            st.integers(1, 6).map(lambda n: ("events", n)),
            st.just(("anchor", 1)),
            st.just(("reopen", 0)),
            st.integers(1, 400).map(lambda n: ("garbage", n)),
        ),
        max_size=25,
    ),
    segment_bytes=st.sampled_from([600, 3000, 1 << 20]),
    sidecar_rows=st.sampled_from([2, 4, 256]),
)
def test_any_run_of_appends_crashes_and_restarts_keeps_every_record(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, int]],
    segment_bytes: int,
    sidecar_rows: int,
) -> None:
    directory = tmp_path_factory.mktemp("run")
    options = {"segment_bytes": segment_bytes, "sidecar_rows": sidecar_rows, "clock": lambda: NOW_US}
    journal = open_journal(directory, **options)
    model: list[tuple[int, int, str, str]] = []
    for i, (what, n) in enumerate(steps):
        if what in ("reopen", "garbage"):
            journal.close()
            if what == "garbage":
                closed = len(list((directory / "journal").glob("*.manifest.json")))
                with open(directory / "journal" / f"{closed + 1:08d}.ndjson", "ab") as file:
                    file.write(b"\xde" * n)
            journal = open_journal(directory, **options)
        else:
            if what == "events":
                prepared = journal.prepare_events(batch(n, journal.hash_key, seed=i))
            else:
                prepared = journal.prepare("anchor", {"i": i})
            done = journal.append(prepared)
            journal.wait_durable(done.last_seq, timeout=10)
            model.append((done.seq, done.count, prepared.type, done.hash))
        assert journal.durable == journal.head
    assert [(r.seq, r.count, r.type, r.hash) for r in journal.read()] == model
    journal.close()
    report = verify(directory)
    assert (report.problems, report.records) == ([], len(model))
    shutil.rmtree(directory)


def test_body_of_another_record_is_found(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        for i in range(2):
            journal.wait_durable(journal.append(journal.prepare("anchor", {"i": i})).last_seq)
    path = first_segment(tmp_path)
    one, two = path.read_bytes().splitlines(keepends=True)
    body = one[one.index(b'"body":') :]
    path.write_bytes(one + two[: two.index(b'"body":')] + body)
    with pytest.raises(JournalCorruptError, match="does not have its hash"):
        open_journal(tmp_path)
    assert orjson.loads(body[len(b'"body":') : -2])["i"] == 0
