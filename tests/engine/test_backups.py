"""Backups of a directory in use, and the new journals that are made of them."""

from __future__ import annotations

import random
import shutil
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from enrich import Engine
from enrich.engine.backups import make_backup, restore_backup
from enrich.engine.cut import JournalCut
from enrich.errors import BackupError, BadRequestError, EnrichError, JournalBehindError, JournalCorruptError
from enrich.journal import Anchor, Disk, directory_anchor, head_anchor, verify
from enrich.journal.identity import read_identity
from tests.engine.gated import decide, event_counts, open_gated, request
from tests.engine.support import event, events, fates, now_us, open_engine
from tests.journal.samples import open_journal

SMALL: dict[str, Any] = {"segment_bytes": 16 << 10, "sidecar_rows": 40}
DISK = Disk(fsync=False)


def written(where: Path) -> Path:
    """Decisions with keys, a suspension, single events, sidecars; several closed segments."""
    with open_gated(where, **SMALL) as engine:
        for n in range(4):
            decide(engine, request(f"agent-{n}"), idempotency_key=f"key-{n}")
        engine.break_glass.suspend("team", "gone", reason="tests", until=None, by=None)
        engine.record(events(0, 60))
        for n in range(60, 100):
            engine.record([event(n)])
    return where / "data"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `data`, its definitions, and `backup`, a backup of it with DuckDB's file."""
    where = tmp_path_factory.mktemp("whole")
    data = written(where)
    make_backup(data, where / "backup", directory_anchor(data), now_us=now_us(), history=True, disk=DISK)
    return where


def restored(whole: Path, where: Path, backup: Path | None = None) -> Path:
    """The backup restored to `where/data`, with the definitions."""
    where.mkdir(exist_ok=True)
    for name in ("queries", "policies"):
        shutil.copytree(whole / name, where / name)
    restore_backup(backup or whole / "backup", where / "data", now_us=now_us(), disk=DISK)
    return where


def forget_history(backup: Path, to: Path) -> Path:
    """The same backup, as if it had been made without DuckDB's file."""
    data = backup.parent / "data"
    make_backup(data, to, directory_anchor(data), now_us=now_us(), disk=DISK)
    return to


def test_a_backup_taken_while_eight_threads_write_is_the_journal_up_to_its_seq(tmp_path: Path) -> None:
    stop, failed = threading.Event(), []
    with open_engine(tmp_path, **SMALL) as engine:

        def write(thread: int) -> None:
            n = 0
            try:
                while not stop.is_set():
                    n += 1
                    many = events(0, 50, agent_id=f"a{thread}", source=f"s{thread}-{n}") if n % 9 == 0 else None
                    engine.record(many or [event(n, agent_id=f"a{thread}", source=f"t{thread}")])
            except EnrichError as error:  # pragma: no cover - told below
                failed.append(error)

        threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        try:
            backups = []
            for i in range(2):
                while engine.durable_seq < 300 * (i + 1):
                    threading.Event().wait(0.01)
                backups.append(engine.backup(tmp_path / f"backup-{i}", history=i == 1))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failed
        engine.caught_up(60)
        as_of = engine.journal.now_us()
        with engine.history.cursor() as cursor:
            for i, backup in enumerate(backups):
                seq = backup.head.seq
                expected = dict(
                    cursor.execute(
                        "SELECT agent_id, count(*) FROM events WHERE seq <= ? GROUP BY ALL", [seq]
                    ).fetchall()
                )
                other = tmp_path / f"restored-{i}"
                restore_backup(tmp_path / f"backup-{i}", other / "data", now_us=as_of, disk=DISK)
                assert verify(other / "data").ok
                with open_engine(other, **SMALL) as again:
                    found = {
                        f"a{t}": again.context({"agent": f"a{t}"}, as_of=as_of)["agent"]["last_30d"]["runs"]
                        for t in range(8)
                    }
                    assert found == {f"a{t}": expected.get(f"a{t}", 0) for t in range(8)}
                    assert again.seq == seq + 2  # its anchor, and its definitions
                    report = again.check()
                    assert report.compared
                    assert not report.differences
    assert backups[0].head.seq < backups[1].head.seq


@pytest.mark.parametrize("history", [True, False])
def test_decisions_keys_and_suspensions_survive(whole: Path, tmp_path: Path, history: bool) -> None:
    backup = whole / "backup" if history else forget_history(whole / "backup", tmp_path / "backup")
    with open_gated(whole, **SMALL) as before:
        listed = {d["decision_id"]: before.decision(d["decision_id"]) for d in before.decisions().decisions}
        contexts = [before.context({"agent": a, "team": "t"}, as_of=now_us()) for a in ("a", "agent-1")]
    where = restored(whole, tmp_path / "new", backup)
    with open_gated(where, **SMALL) as engine:
        assert {d["decision_id"]: engine.decision(d["decision_id"]) for d in engine.decisions().decisions} == listed
        for context in contexts:
            now = engine.context({"agent": context["agent"]["id"], "team": "t"}, as_of=context["as_of"])
            assert {k: v for k, v in now.items() if k != "seq"} == {k: v for k, v in context.items() if k != "seq"}
        again = decide(engine, request("agent-1"), idempotency_key="key-1")
        assert (again.fate, again.decision_id in listed) == ("repeated", True)
        assert event_counts(engine, "agent-1")["allowed"] == 1
        assert [s.id for s in engine.break_glass.in_force()[0]] == ["gone"]
        assert decide(engine, request("agent-9", "gone")).cause == "suspended"
        with open_gated(whole, **SMALL) as before:
            sent = before.events(limit=1, agent="a").events[0]
        assert fates(engine.record([{k: v for k, v in sent.items() if k not in ("seq", "recorded_at")}])) == (0, 1, [])


def test_two_restores_are_neither_each_other_nor_the_original(whole: Path, tmp_path: Path) -> None:
    first, second = restored(whole, tmp_path / "1"), restored(whole, tmp_path / "2")
    anchors = []
    for where in (first, second):
        with open_gated(where, **SMALL) as engine:
            engine.record([event(1000)])
            anchors.append(engine.anchor())
    old = directory_anchor(whole / "data")
    assert len({old.journal_id, *(a.journal_id for a in anchors)}) == 3
    assert verify(first / "data", anchors=[old, anchors[0]]).ok
    problems = verify(first / "data", anchors=[anchors[1]]).anchor_problems
    assert [p.code for p in problems] == ["anchor_other_journal"]
    followers = ("history.duckdb", "index", "keys", "suspensions.json", "definitions.json")
    for other, follower in (*((whole, name) for name in followers), (second, "history.duckdb")):
        mixed = tmp_path / f"mixed-{other.name}-{follower}"
        shutil.copytree(first, mixed)
        target, source = mixed / "data" / follower, other / "data" / follower
        if target.is_dir():
            shutil.rmtree(target)
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
        with pytest.raises(JournalBehindError):
            open_gated(mixed, **SMALL)


def test_what_the_original_wrote_after_the_backup_is_told_as_lost(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "old")
    with open_gated(tmp_path / "old", **SMALL) as engine:
        engine.record([event(2000)])
        later = engine.anchor()
    where = restored(whole, tmp_path / "new")
    [problem] = verify(where / "data", anchors=[later]).anchor_problems
    assert (problem.code, problem.seq) == ("anchor_lost", later.seq)
    kept = tmp_path / "kept"
    kept.write_bytes(later.encode())
    with pytest.raises(JournalBehindError, match="was restored from that at"):
        open_gated(where, anchors=kept, **SMALL)


def test_everything_works_across_the_joint_and_across_a_second_one(whole: Path, tmp_path: Path) -> None:
    first = restored(whole, tmp_path / "1")
    with open_gated(first, **SMALL) as engine:
        engine.record(events(3000, 50))
        engine.record([event(4000)])
        made = engine.backup(tmp_path / "backup")
    second = restored(whole, tmp_path / "2", tmp_path / "backup")
    identity = read_identity(second / "data/journal")
    assert [a.seq for a in identity.ancestors] == [directory_anchor(whole / "data").seq, made.head.seq]
    with open_gated(second, **SMALL) as engine:
        engine.record([event(5000)])
        seqs = [(record.seq, record.last_seq) for record in engine.journal.read()]
        assert seqs[0][0] == 1
        assert all(b[0] == a[1] + 1 for a, b in pairwise(seqs))
        engine.caught_up(60)
        head, kept = engine.seq, engine.history.count()
    assert verify(second / "data").ok
    joint = identity.restored_seq
    with pytest.raises(BadRequestError) as refused:
        JournalCut(second / "data", joint)
    assert refused.value.error_code == "before_restore"
    with JournalCut(second / "data", head - 1) as cut:
        cut.make()
    with open_gated(second, **SMALL) as engine:
        assert engine.history.count() == kept - 1
    assert verify(second / "data").ok


def test_a_restored_journal_without_the_head_it_names_is_refused(whole: Path, tmp_path: Path) -> None:
    where = restored(whole, tmp_path / "new")
    newest = max(p for p in (where / "data/journal").glob("*.ndjson"))
    line = newest.read_bytes()
    newest.unlink()
    assert not verify(where / "data").ok
    with pytest.raises(JournalCorruptError, match="nothing is there of what was written since"):
        open_gated(where, **SMALL)
    newest.write_bytes(line.replace(b'"restored"', b'"Restored"'))
    assert not verify(where / "data").ok
    old = min((where / "data/journal").glob("*.ndjson"))
    newest.write_bytes(line)
    assert verify(where / "data").ok
    old.write_bytes(old.read_bytes().replace(b'"agent-1"', b'"agent-7"', 1))
    assert not verify(where / "data").ok


def test_a_byte_that_changed_anywhere_in_a_backup_is_refused(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "backup"
    shutil.copytree(whole / "backup", copy)
    rng = random.Random(7)
    files = [p for p in sorted(copy.rglob("*")) if p.is_file() and p.stat().st_size]
    assert {p.suffix for p in files} == {".ndjson", ".json", ".key", ".parquet", ".duckdb"}
    for number, path in enumerate(files * 2):
        before = path.read_bytes()
        at = rng.randrange(len(before))
        path.write_bytes(before[:at] + bytes([before[at] ^ 1 << rng.randrange(8)]) + before[at + 1 :])
        with pytest.raises(EnrichError) as refused:
            restore_backup(copy, tmp_path / f"data-{number}", now_us=now_us(), disk=DISK)
        assert refused.value.error_code == "backup_damaged", path.name
        path.write_bytes(before)
        _does_not_start(tmp_path / f"data-{number}")
    for path in (p for p in files if p.suffix in (".ndjson", ".parquet", ".key", ".duckdb")):
        before = path.read_bytes()
        path.unlink()
        with pytest.raises(BackupError):
            restore_backup(copy, tmp_path / f"without-{path.name}", now_us=now_us(), disk=DISK)
        path.write_bytes(before)
    restore_backup(copy, tmp_path / "good", now_us=now_us(), disk=DISK)


def _does_not_start(data: Path) -> None:
    """Either nothing was made, or it is refused."""
    if not data.exists():
        return
    for opening in (open_journal, verify):
        with pytest.raises(BackupError) as refused:
            opening(data)
        assert refused.value.error_code == "restore_incomplete"


class _KilledError(BaseException):
    """Stands for a SIGKILL: nothing cleans up behind it."""


def _killed_at(monkeypatch: pytest.MonkeyPatch, n: int) -> list[str]:
    passed: list[str] = []

    def passing(name: str) -> None:
        passed.append(name)
        if len(passed) == n:
            raise _KilledError

    for module in ("copy", "backup"):
        monkeypatch.setattr(f"enrich.journal.{module}.failpoint", passing)
    return passed


def test_a_backup_that_was_killed_anywhere_is_none(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upto = directory_anchor(whole / "data")
    passed = _killed_at(monkeypatch, 0)
    make_backup(whole / "data", tmp_path / "all", upto, now_us=now_us(), disk=DISK)
    assert passed[-1] == "backup.written"
    for n in range(1, len(passed) + 1):
        target = tmp_path / f"{n}"
        _killed_at(monkeypatch, n)
        with pytest.raises(_KilledError):
            make_backup(whole / "data", target, upto, now_us=now_us(), disk=DISK)
        _killed_at(monkeypatch, 0)
        with pytest.raises(BackupError) as refused:
            restore_backup(target, tmp_path / "data", now_us=now_us(), disk=DISK)
        assert refused.value.error_code == "backup_incomplete"
        for opening in (open_journal, head_anchor):
            with pytest.raises(BackupError) as refused:
                opening(target)
            assert refused.value.error_code == "backup_not_restored"
        assert not (tmp_path / "data").exists()


def test_a_restore_that_was_killed_anywhere_does_not_start(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = _killed_at(monkeypatch, 0)
    restore_backup(whole / "backup", tmp_path / "all", now_us=now_us(), disk=DISK)
    assert passed[-1] == "restore.identity"
    for n in range(1, len(passed) + 1):
        where = tmp_path / f"{n}"
        _killed_at(monkeypatch, n)
        with pytest.raises(_KilledError):
            restore_backup(whole / "backup", where / "data", now_us=now_us(), disk=DISK)
        _does_not_start(where / "data")
        _killed_at(monkeypatch, 0)
        with pytest.raises(BackupError) as refused:
            restore_backup(whole / "backup", where / "data", now_us=now_us(), disk=DISK)
        assert refused.value.error_code == "target_not_empty"


def test_what_can_not_be_backed_up_is_refused(whole: Path, tmp_path: Path) -> None:
    upto = directory_anchor(whole / "data")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep")

    def refused(data: Path, target: str, at: Anchor) -> str:
        with pytest.raises(EnrichError) as error:
            make_backup(data, tmp_path / target, at, now_us=now_us(), disk=DISK)
        return error.value.error_code

    assert refused(whole / "data", "full", upto) == "target_not_empty"
    assert refused(whole / "backup", "b1", upto) == "backup_not_restored"
    other = Anchor("0" * 32, upto.seq, upto.hash, upto.at)
    assert refused(whole / "data", "b2", other) == "journal_behind"
    further = Anchor(upto.journal_id, upto.seq + 1, upto.hash, upto.at)
    assert refused(whole / "data", "b3", further) == "journal_behind"
    elsewhere = Anchor(upto.journal_id, upto.seq, "0" * 64, upto.at)
    assert refused(whole / "data", "b4", elsewhere) == "journal_behind"
    within = Anchor(upto.journal_id, 10, "0" * 64, upto.at)  # the sixty events are one record
    assert refused(whole / "data", "b5", within) == "journal_behind"
    with pytest.raises(BackupError) as error:
        restore_backup(whole / "data", tmp_path / "new", now_us=now_us(), disk=DISK)
    assert error.value.error_code == "no_backup"
    damaged = tmp_path / "damaged"
    shutil.copytree(whole / "data", damaged)
    first = min((damaged / "journal").glob("*.ndjson"))
    first.write_bytes(first.read_bytes().replace(b'"agent-1"', b'"agent-7"', 1))
    assert refused(damaged, "b6", upto) == "journal_corrupt"
    with pytest.raises(BackupError, match="incomplete"):
        restore_backup(tmp_path / "b6", tmp_path / "new", now_us=now_us(), disk=DISK)


def test_an_engine_backs_itself_up(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        assert isinstance(engine, Engine)
        engine.record([event(1)])
        made = engine.backup(tmp_path / "backup")
        assert made.head == engine.anchor()
        assert made.events == 1
