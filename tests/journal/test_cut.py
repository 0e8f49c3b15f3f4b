"""Cutting a journal: what stays, what goes where, what is refused, and what a crash in between leaves."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from enrich.errors import BadRequestError, EnrichError, JournalCorruptError, NewerFormatError
from enrich.journal import CutPlan, Disk, aside_name, give_up, plan_cut, verify
from tests.journal.samples import batch, fill, fill_segments, open_journal

SMALL = {"segment_bytes": 2500, "sidecar_rows": 3}


def files(data: Path) -> Path:
    return data / "journal"


def first_segment(data: Path) -> Path:
    return files(data) / "00000001.ndjson"


def cut(data: Path, after: int, disk: Disk | None = None) -> CutPlan:
    plan = plan_cut(data, after)
    give_up(plan, disk or Disk(fsync=False))
    return plan


def hashes(data: Path) -> list[str]:
    with open_journal(data, **SMALL) as journal:
        return [r.hash for r in journal.read()]


def aside(data: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in files(data).glob("*.cut")}


def flip(path: Path, line: int, old: bytes = b'"agent_id":"agent-', new: bytes = b'"agent_id":"agenT-') -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new)
    path.write_bytes(b"".join(lines))


def check_cut(data: Path, kept: Sequence[str], after: int) -> None:
    """It verifies, starts, holds exactly these records, and takes new ones from the next seq on."""
    assert verify(data).problems == []
    assert hashes(data) == list(kept)
    with open_journal(data, **SMALL) as journal:
        assert journal.head.seq == after
        assert journal.append(journal.prepare_events(batch(1, journal.hash_key, seed=77))).seq == after + 1
    assert verify(data).ok


@pytest.mark.parametrize("broken", [0, 2, 4])
def test_a_line_that_does_not_verify_goes_with_all_behind_it(tmp_path: Path, broken: int) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [2] * 5)
        kept = [r.hash for r in journal.read()][:broken]
    path = first_segment(tmp_path)
    flip(path, broken)
    data = path.read_bytes()
    with pytest.raises(JournalCorruptError) as caught:
        open_journal(tmp_path)
    assert "`enrich journal cut --after SEQ`" in caught.value.detail["hint"]
    plan = cut(tmp_path, 2 * broken)
    up = plan.given_up
    assert (up.records, up.events, up.unreadable, up.last_seq) == (5 - broken, 2 * (5 - broken), 0, 10)
    assert up.first_at is not None
    assert up.last_at is not None
    (tail,) = aside(tmp_path).items()
    assert tail == (f"00000001.ndjson.{plan.size}.cut", data[plan.size :])
    check_cut(tmp_path, kept, 2 * broken)


def test_a_header_that_can_not_be_read_is_counted_as_such(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1, 1, 1])
    flip(first_segment(tmp_path), 1, b'"seq":2,', b'"seq":7,')
    flip(first_segment(tmp_path), 2, b'"v":1,', b'"v":9,')
    with open(first_segment(tmp_path), "ab") as file:
        file.write(b"half a line")
    up = cut(tmp_path, 1).given_up
    assert (up.records, up.events, up.unreadable, up.last_seq, up.loose_bytes) == (2, 0, 2, None, 11)
    assert (up.first_at, up.last_at) == (None, None)


def segments_and_sidecars(data: Path) -> list[tuple[int, str]]:
    """At least three closed segments and an open one, sidecars in each; (last seq, hash) of the records."""
    with open_journal(data, **SMALL) as journal:
        fill(journal, [3], seed=9)
        for n in range(1, 5):
            fill_segments(journal, n)
            fill(journal, [3, 1, 4], seed=n)
        return [(r.last_seq, r.hash) for r in journal.read()]


def ends(data: Path, number: int) -> list[int]:
    """The last seqs of a segment's records."""
    with open_journal(data, **SMALL) as journal:
        name = f"{number:08d}.ndjson"
        in_segment = (files(data) / name).read_bytes()
        return [r.last_seq for r in journal.read() if r.hash.encode() + b'","body"' in in_segment]


@pytest.mark.parametrize("which", ["middle", "first", "end"])
def test_a_closed_segment_is_cut_and_the_later_ones_go_whole(tmp_path: Path, which: str) -> None:
    records = segments_and_sidecars(tmp_path)
    inside = ends(tmp_path, 2)
    after = {"middle": inside[1], "first": inside[0], "end": inside[-1]}[which]
    before = {p.name: p.read_bytes() for p in files(tmp_path).glob("*.*") if p.is_file()}
    sidecars = {p.name: p.read_bytes() for p in (files(tmp_path) / "sidecars").iterdir()}
    plan = cut(tmp_path, after)
    kept = [h for seq, h in records if seq <= after]
    assert plan.given_up.records == len(records) - len(kept)
    assert plan.given_up.last_seq == records[-1][0]
    gone = aside(tmp_path)
    for name, data in before.items():
        if name[:8].isdigit() and (int(name[:8]) > 2 or (int(name[:8]) == 2 and "man" in name and which != "end")):
            assert gone.pop(f"{name}.cut") == data, name
    left = {p.name for p in (files(tmp_path) / "sidecars").iterdir()}
    assert sidecars.keys() - left
    for name in sidecars.keys() - left:
        assert gone.pop(f"{name}.cut") == sidecars[name]
    assert [d for d in gone.values() if d] == ([] if which == "end" else [before["00000002.ndjson"][plan.size :]])
    assert left
    check_cut(tmp_path, kept, after)


def test_a_damaged_or_lost_manifest_is_given_up_with_what_it_vouched_for(tmp_path: Path) -> None:
    records = segments_and_sidecars(tmp_path)
    shutil.copytree(tmp_path, tmp_path.with_name("lost"))
    manifest = files(tmp_path) / "00000002.manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"number":2', b'"number":3'))
    (files(tmp_path.with_name("lost")) / manifest.name).unlink()
    for data in (tmp_path, tmp_path.with_name("lost")):
        with pytest.raises(EnrichError):
            open_journal(data)
        with pytest.raises(JournalCorruptError) as caught:
            plan_cut(data, records[-1][0])
        good = caught.value.detail["verified_seq"]
        assert f"`enrich journal cut --after {good}`" in caught.value.detail["hint"]
        cut(data, good)
        check_cut(data, [h for seq, h in records if seq <= good], good)


@pytest.mark.parametrize("lost", ["nothing", "00000001.ndjson", "00000002.ndjson"])
def test_after_0_an_empty_journal_keeps_its_identity(tmp_path: Path, lost: str) -> None:
    segments_and_sidecars(tmp_path)
    identity = (files(tmp_path) / "journal.json").read_bytes()
    (files(tmp_path) / lost).unlink(missing_ok=True)
    cut(tmp_path, 0)
    assert (files(tmp_path) / "journal.json").read_bytes() == identity
    assert list((files(tmp_path) / "sidecars").iterdir()) == []
    check_cut(tmp_path, [], 0)


def test_cuts_at_one_place_never_overwrite_each_other(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1])
    tails = []
    for seed in (1, 2, 3):
        with open_journal(tmp_path) as journal:
            size = journal._open.size
            fill(journal, [1], seed=seed)
        tails.append(first_segment(tmp_path).read_bytes()[size:])
        cut(tmp_path, 1)
    assert sorted(aside(tmp_path).values()) == sorted(tails)
    (tmp_path / "a.cut").touch()
    (tmp_path / "a.1.cut.wal").touch()
    assert aside_name(tmp_path / "a", ".wal") == tmp_path / "a.2.cut"


def test_where_there_are_no_hard_links_sidecars_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    segments_and_sidecars(tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(os, "link", no_link)
    cut(tmp_path, 0)
    assert contents(tmp_path) == before
    assert {p.suffix for p in files(tmp_path).iterdir() if ".parquet" in p.name} == {".cut"}


def test_behind_the_last_record_there_is_nothing(tmp_path: Path) -> None:
    last = segments_and_sidecars(tmp_path)[-1][0]
    before = sorted(files(tmp_path).rglob("*"))
    assert cut(tmp_path, last).paths == ()
    assert sorted(files(tmp_path).rglob("*")) == before


@pytest.mark.parametrize(("seq", "around"), [(3, [2, 5]), (4, [2, 5]), (1, [0, 2]), (7, [6]), (99, [6])])
def test_a_seq_that_ends_no_record_is_refused_with_its_neighbours(
    tmp_path: Path, seq: int, around: list[int]
) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [2, 3, 1])
    with pytest.raises(BadRequestError) as caught:
        plan_cut(tmp_path, seq)
    assert caught.value.error_code == "not_a_record_end"
    assert caught.value.detail["ends"] == around
    assert f"`{seq}`" in caught.value.message
    for end in around:
        assert f"`--after {end}`" in caught.value.detail["hint"]


class Order(Disk):
    """Notes what becomes durable when."""

    def __init__(self) -> None:
        super().__init__(fsync=False)
        self.calls: list[str] = []

    def datasync(self, fd: int) -> None:
        self.calls.append("datasync")

    def sync_dir(self, path: Path) -> None:
        self.calls.append(f"sync {path.name}")

    def replace(self, source: Path, target: Path) -> None:
        self.calls.append(f"{source.name} to {target.name}")
        super().replace(source, target)


def test_each_step_is_durable_before_the_next_one(tmp_path: Path) -> None:
    with open_journal(tmp_path, segment_bytes=2500) as journal:
        fill_segments(journal, 1)
    with open_journal(tmp_path) as journal:
        fill(journal, [1, 1], seed=3)
    disk = Order()
    plan = cut(tmp_path, 0, disk)
    assert disk.calls == [
        "datasync", f"00000001.ndjson.new to 00000001.ndjson.{plan.size}.cut", "sync journal",
        "datasync", "00000001.ndjson.new to 00000001.ndjson", "sync journal",
        "00000002.ndjson to 00000002.ndjson.cut", "sync journal",
        "00000003.ndjson to 00000003.ndjson.cut", "sync journal",
        "00000001.manifest.json to 00000001.manifest.json.cut", "sync journal",
    ]  # fmt: skip


def broken_line(data: Path) -> None:
    flip(first_segment(data), 1)


def broken_chain(data: Path) -> None:
    lines = first_segment(data).read_bytes().splitlines(keepends=True)
    first_segment(data).write_bytes(lines[0] + b"".join(lines[2:]))


def lost_sidecar(data: Path) -> None:
    with open_journal(data) as journal:
        sidecar = next(r.sidecar for r in journal.read() if r.seq == 2)
    assert sidecar is not None
    sidecar.unlink()


@pytest.mark.parametrize("damage", [broken_line, broken_chain])
def test_what_stays_must_verify(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1, 1, 1, 1])
    damage(tmp_path)
    before = {p: p.read_bytes() for p in files(tmp_path).rglob("*") if p.is_file()}
    with pytest.raises(JournalCorruptError) as caught:
        plan_cut(tmp_path, 4)
    assert caught.value.detail["verified_seq"] == 1
    assert "`enrich journal cut --after 1`" in caught.value.detail["hint"]
    assert {p: p.read_bytes() for p in files(tmp_path).rglob("*") if p.is_file()} == before
    assert plan_cut(tmp_path, 1).kept.seq == 1


def test_a_sidecar_that_stays_must_verify(tmp_path: Path) -> None:
    with open_journal(tmp_path, **SMALL) as journal:
        fill(journal, [1, 3, 1])
    lost_sidecar(tmp_path)
    with pytest.raises(JournalCorruptError, match="sidecar is missing") as caught:
        plan_cut(tmp_path, 5)
    assert caught.value.detail["verified_seq"] == 1
    cut(tmp_path, 1)
    assert verify(tmp_path).ok


def test_a_body_that_only_a_later_record_accounts_for_is_not_left_alone(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1, 1])
        journal.wait_durable(journal.append(journal.prepare("prune", {"seqs": [[1, 1]]})).last_seq)
    lines = first_segment(tmp_path).read_bytes().splitlines(keepends=True)
    lines[0] = lines[0][: lines[0].index(b'"body":')] + b'"body":null}\n'
    first_segment(tmp_path).write_bytes(b"".join(lines))
    assert verify(tmp_path).ok
    assert plan_cut(tmp_path, 3).paths == ()
    with pytest.raises(JournalCorruptError, match="the body is missing") as caught:
        plan_cut(tmp_path, 2)
    assert caught.value.detail["verified_seq"] == 0


def test_wherever_a_byte_has_changed_the_named_cut_makes_a_journal_that_verifies(tmp_path: Path) -> None:
    made, work = tmp_path / "made", tmp_path / "work"
    records = segments_and_sidecars(made)
    rng = random.Random(3)
    paths = [p for p in files(made).rglob("*") if p.suffix in (".ndjson", ".parquet", ".json") and p.stat().st_size]
    seen = set()
    for path in paths * 3:
        if path.name == "journal.json":
            continue
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(made, work)
        target = work / path.relative_to(made)
        data = bytearray(target.read_bytes())
        data[rng.choice([rng.randrange(len(data)), len(data) - 1, 5])] ^= rng.choice((0x01, 0x08, 0x80))
        target.write_bytes(data)
        assert not verify(work).ok
        with pytest.raises(EnrichError) as caught:
            plan_cut(work, records[-1][0])
        seen.add(caught.value.error_code)
        good = caught.value.detail["ends"][0] if "ends" in caught.value.detail else caught.value.detail["verified_seq"]
        cut(work, good)
        assert verify(work).problems == [], (path.name, good)
        assert hashes(work) == [h for seq, h in records if seq <= good]
    assert seen >= {"journal_corrupt", "newer_format"}


def test_a_newer_record_that_stays_and_a_missing_identity_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalCorruptError, match="has no journal"):
        plan_cut(tmp_path, 0)
    with open_journal(tmp_path) as journal:
        fill(journal, [1, 1])
    flip(first_segment(tmp_path), 0, b'"v":1,', b'"v":2,')
    with pytest.raises(NewerFormatError):
        plan_cut(tmp_path, 2)
    (files(tmp_path) / "journal.json").unlink()
    with pytest.raises(JournalCorruptError, match=r"journal\.json") as caught:
        plan_cut(tmp_path, 0)
    assert "enrich" not in caught.value.detail["hint"]


class StoppingDisk(Disk):
    """Stops for good at the n-th call that changes something, before or after it has."""

    def __init__(self, last: int, *, done: bool) -> None:
        super().__init__(fsync=False)
        self.left = last
        self.done = done

    def _pass(self, change: Callable[[], None]) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        if self.left == 0 and not self.done:
            raise KeyboardInterrupt
        change()
        if self.left == 0:
            raise KeyboardInterrupt

    def write(self, fd: int, parts: Sequence[bytes | memoryview]) -> int:
        self._pass(lambda: None)
        return super().write(fd, parts)

    def replace(self, source: Path, target: Path) -> None:
        self._pass(lambda: Disk.replace(self, source, target))

    def link(self, source: Path, target: Path) -> None:
        self._pass(lambda: Disk.link(self, source, target))

    def remove(self, path: Path) -> None:
        self._pass(lambda: Disk.remove(self, path))


def stops(made: Path, work: Path, after: int) -> Iterator[None]:
    """Directories `work` in which the cut stopped, one after the other, until it does not any more."""
    for done in (False, True):
        for n in range(1, 200):
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(made, work)
            try:
                cut(work, after, StoppingDisk(n, done=done))
            except KeyboardInterrupt:
                yield
                continue
            assert n > 1
            break
        else:
            raise AssertionError("it does not end")


def contents(data: Path) -> Counter[bytes]:
    """What sidecars hold, by whichever names."""
    return Counter({p.read_bytes(): 1 for p in files(data).rglob("*") if ".parquet" in p.name})


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("where", ["0", "closed", "closed-end", "open", "unsealed", "unsealed-end"])
def test_a_cut_that_stops_anywhere_starts_as_before_or_refuses_and_can_be_made_again(
    tmp_path: Path, where: str, broken: bool
) -> None:
    made, work, again = tmp_path / "made", tmp_path / "work", tmp_path / "again"
    records = segments_and_sidecars(made)
    numbers = [int(p.name[:8]) for p in files(made).glob("*.manifest.json")]
    last = max(numbers)
    inside = {"0": [0], "open": ends(made, last + 1)}.get(where, ends(made, last if "un" in where else 2))
    after = inside[-1] if "end" in where else inside[0]
    if "unsealed" in where:
        (files(made) / f"{last:08d}.manifest.json").unlink()
        (files(made) / f"{last + 2:08d}.ndjson").unlink(missing_ok=True)
    if broken:
        flip(next(p for p in sorted(files(made).glob("*.ndjson"), reverse=True) if p.stat().st_size), 0)
    kept = [h for seq, h in records if seq <= after]
    all_sidecars = contents(made)
    if broken and where == "open":
        pytest.skip("the cut is behind what is broken")
    for _ in stops(made, work, after):
        shutil.rmtree(again, ignore_errors=True)
        shutil.copytree(work, again)
        try:
            started = hashes(again)
        except EnrichError:
            pass
        else:
            assert started in ([kept] if broken else [kept, [h for _, h in records]])
            assert contents(again) == all_sidecars
            assert verify(again).ok
        cut(work, after)
        assert contents(work) == all_sidecars
        assert cut(work, after).paths == ()
        segment = plan_cut(made, after).segment.name
        pieces = [p for p in aside(work) if p.startswith(f"{segment}.") and p != f"{segment}.cut"]
        assert len(pieces) == bool(plan_cut(made, after).cut_bytes)
        check_cut(work, kept, after)
    check_cut(work, kept, after)
