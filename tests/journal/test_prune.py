"""Bodies that a closed segment lets go of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enrich.errors import BackupError, JournalCorruptError, JournalFailedError
from enrich.events import format_us
from enrich.failpoints import Failpoint
from enrich.journal import Anchor, Disk, Journal, plan_cut, verify
from enrich.journal import copy as copying
from enrich.journal.backup import begin_backup
from tests.journal.samples import batch

BOTH = ("decision", "events")
DISK = Disk(fsync=False)


class CrashError(Exception):
    pass


def crash_at(wanted: str) -> Failpoint:
    def failpoint(name: str) -> None:
        if name == wanted:
            raise CrashError(name)

    return failpoint


def fill(journal: Journal, records: int = 40) -> list[tuple[int, str]]:
    """Records of every kind over several segments; (seq, type) of each."""
    made = []
    for i in range(records):
        if i % 4 == 3:
            record = journal.prepare("decision", {"decision_id": f"d-{i}"})
        elif i % 7 == 5:
            record = journal.prepare("suspension", {"on": i})
        else:
            record = journal.prepare_events(batch((1, 3, 12)[i % 3], journal.hash_key, seed=i))
        done = journal.append(record)
        journal.wait_durable(done.last_seq)
        made.append((done.seq, record.type))
    return made


def opened(where: Path, **options: object) -> Journal:
    return Journal.open(where, segment_bytes=4096, sidecar_rows=10, **options)  # type: ignore[arg-type]


def prune(journal: Journal, number: int, types: tuple[str, ...] = BOTH) -> list[tuple[int, int]]:
    segment = journal.closed_segments[number]
    ranges = journal.prepare_prune(segment, types)
    if ranges:
        journal.wait_durable(journal.append(journal.prepare("prune", {"seqs": ranges})).last_seq)
        journal.prune_segment(segment)
    return ranges


def journal_anchor(journal: Journal) -> Anchor:
    head = journal.durable
    return Anchor(journal.journal_id, head.seq, head.hash, format_us(journal.now_us()))


def bodies(journal: Journal) -> dict[int, bool]:
    return {r.seq: r.body is not None for r in journal.read()}


def test_bodies_go_headers_stay_and_all_verifies(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        made = fill(journal)
        assert len(journal.closed_segments) >= 3
        before = [(r.seq, r.hash) for r in journal.read()]
        sidecars = {s for m in journal.closed_segments[:2] for s in m.sidecars}
        assert sidecars
        gone = [seq for n in (0, 1) for first, last in prune(journal, n) for seq in range(first, last + 1)]
        end = journal.closed_segments[1].last_seq
        assert {seq: kept for seq, kept in bodies(journal).items() if seq <= end} == {
            seq: type_ not in BOTH for seq, type_ in made if seq <= end
        }
        assert {seq for seq, type_ in made if type_ in BOTH and seq <= end} <= set(gone)
        assert [(r.seq, r.hash) for r in journal.read()][: len(before)] == before
        assert not any((tmp_path / "journal" / "sidecars" / f"{s}.parquet").exists() for s in sidecars)
        assert prune(journal, 0) == []
        assert journal.closed_segments[0].pruned == list(BOTH)
        assert verify(tmp_path).ok
        head = journal.head
    with opened(tmp_path) as journal:
        assert journal.head == head
        assert [(r.seq, r.hash) for r in journal.read()][: len(before)] == before
        assert verify(tmp_path).ok


def test_types_go_apart_and_a_segment_without_them_is_not_looked_at_again(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        made = fill(journal)
        assert prune(journal, 0, ("outcome",)) == []
        assert journal.closed_segments[0].pruned == ["outcome"]
        prune(journal, 0, ("events",))
        end = journal.closed_segments[0].last_seq
        kept = {seq: type_ != "events" for seq, type_ in made if seq <= end}
        assert {s: k for s, k in bodies(journal).items() if s <= end} == kept
        prune(journal, 0, ("decision",))
        assert {s: k for s, k in bodies(journal).items() if s <= end} == {
            seq: type_ == "suspension" for seq, type_ in made if seq <= end
        }
        assert journal.closed_segments[0].pruned == ["decision", "events", "outcome"]
        assert verify(tmp_path).ok


@pytest.mark.parametrize("where", ["recorded", "renamed", "replaced"])
def test_a_crash_between_the_steps_leaves_a_journal_that_verifies(tmp_path: Path, where: str) -> None:
    journal = opened(tmp_path, failpoint=crash_at(f"journal.prune.{where}"))
    fill(journal)
    before = [(r.seq, r.hash) for r in journal.read()]
    with pytest.raises(CrashError):
        prune(journal, 0)
    journal.close()
    assert verify(tmp_path).ok
    assert plan_cut(tmp_path, before[-1][0] + 1).cut_bytes == 0
    with opened(tmp_path) as journal:
        assert [(r.seq, r.hash) for r in journal.read()][: len(before)] == before
        assert bodies(journal)[before[0][0]] is (where == "recorded")
        assert verify(tmp_path).ok
        assert not list((tmp_path / "journal").glob("*.pruned"))
        prune(journal, 0)
        assert bodies(journal)[before[0][0]] is False
        assert verify(tmp_path).ok


def test_what_does_not_verify_is_not_let_go_of(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        fill(journal)
        path = tmp_path / "journal" / "00000001.ndjson"
        data = path.read_bytes()
        at = data.index(b'"body":{') + 20
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(JournalFailedError, match="segment 1"):
            prune(journal, 0)
        assert path.read_bytes()[at] == data[at] ^ 1
        assert not verify(tmp_path).ok


def test_a_body_that_no_record_lets_go_of_is_missed(tmp_path: Path) -> None:
    """The names of files prove nothing: only the record in the chain does."""
    with opened(tmp_path) as journal:
        fill(journal)
        segment = journal.closed_segments[0]
        ranges = journal.prepare_prune(segment, BOTH)
        journal.prune_segment(segment)
        assert {p.seq for p in verify(tmp_path).problems} <= {s for a, b in ranges for s in range(a, b + 1)}
        assert not verify(tmp_path).ok
    with pytest.raises(JournalCorruptError, match="missing"):
        opened(tmp_path)


def test_a_backup_that_pruning_overtakes_says_so_and_the_next_one_is_whole(tmp_path: Path) -> None:
    with opened(tmp_path / "data") as journal:
        fill(journal)
        before = journal_anchor(journal)
        prune(journal, 0)
        with pytest.raises(BackupError) as error:
            begin_backup(tmp_path / "data", tmp_path / "b1", before, disk=DISK, progress=lambda done, total: None)
        assert error.value.error_code == "backup_overtaken"
        now = journal_anchor(journal)
        copy = begin_backup(tmp_path / "data", tmp_path / "b2", now, disk=DISK, progress=lambda done, total: None)
        assert copy.manifests[0].pruned


def test_a_segment_that_is_pruned_while_it_is_copied_is_copied_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "data") as journal:
        made = fill(journal)
        before = journal_anchor(journal)
        copy_lines = copying._Copy._lines
        done: list[object] = []

        def meanwhile(self: Any, path: Path, walk: Any) -> str:
            digest = copy_lines(self, path, walk)
            if not done:
                done.append(prune(journal, 0))
            return digest

        monkeypatch.setattr(copying._Copy, "_lines", meanwhile)
        copy = begin_backup(tmp_path / "data", tmp_path / "b", before, disk=DISK, progress=lambda done, total: None)
        assert (copy.records, copy.manifests[0].pruned) == (len(made), [])
