"""Cutting a journal that an engine follows: what has seen too much moves aside, everything else stays."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from enrich.engine.cut import JournalCut
from enrich.engine.followed import followed
from enrich.errors import (
    DataDirError,
    EnrichError,
    JournalBehindError,
    JournalCorruptError,
    JournalFailedError,
    LockedError,
)
from enrich.history import stored_position
from enrich.journal import Disk, give_up, plan_cut, verify
from tests.engine.support import event, events, fates, now_us, open_engine, runs

SETTINGS: dict[str, Any] = {"segment_bytes": 8 << 10, "sidecar_rows": 30}
AT = now_us() - 60_000_000
#: what is saved at every close
FOLLOWERS = {"history tables", "index files", "keys", "suspensions"}


def written(where: Path) -> tuple[Path, int, int]:
    """60 events recorded, one at a time, then 40 at once; (data directory, the seq before the 40, the last seq)."""
    with open_engine(where, **SETTINGS) as engine:
        for n in range(60):
            engine.record([event(n, at_us=AT)])
        kept = engine.seq
        engine.record(events(100, 40, at_us=AT))
        return where / "data", kept, engine.seq


def cut(data: Path, after: int, disk: Disk | None = None) -> set[str]:
    """The names of the followers that went."""
    with JournalCut(data, after, disk=disk or Disk(fsync=False)) as planned:
        planned.make()
        return {one.name for one in planned.ahead}


def break_line_of(data: Path, event_id: str) -> None:
    for path in (data / "journal").glob("*.ndjson"):
        content = path.read_bytes()
        path.write_bytes(content.replace(f'"event_id":"{event_id}"'.encode(), f'"event_id":"X{event_id[1:]}"'.encode()))


def break_sidecar(data: Path) -> None:
    (path,) = (data / "journal/sidecars").iterdir()
    path.write_bytes(path.read_bytes()[:-9] + b"X" + path.read_bytes()[-8:])


def forget(data: Path) -> None:
    for name in ("index", "keys"):
        shutil.rmtree(data / name)
    for path in (*data.glob("history.duckdb*"), data / "suspensions.json"):
        path.unlink()


def test_what_was_cut_is_gone_everywhere_and_may_be_sent_again(tmp_path: Path) -> None:
    data, kept, last = written(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "copy")
    give_up(plan_cut(tmp_path / "copy/data", kept), Disk(fsync=False))
    with pytest.raises(JournalBehindError):  # what the followers say while they are there
        open_engine(tmp_path / "copy", **SETTINGS)
    assert cut(data, kept) == FOLLOWERS
    assert {p.name for p in data.glob("*.cut")} == {
        "history.duckdb.cut", "index.cut", "keys.cut", "suspensions.json.cut"
    }  # fmt: skip
    with open_engine(tmp_path, **SETTINGS) as engine:
        assert (engine.seq, runs(engine)) == (kept, 60)
        assert fates(engine.record(events(100, 40, at_us=AT))) == (40, 0, [])
        assert fates(engine.record([event(7, at_us=AT)])) == (0, 1, [])
        assert engine.seq == last
        engine.caught_up(10)
        assert engine.check().differences == ()
    assert verify(data).ok
    with open_engine(tmp_path, **SETTINGS) as engine:
        assert runs(engine) == 100


def test_a_broken_end_that_stops_the_start_is_cut(tmp_path: Path) -> None:
    data, kept, _ = written(tmp_path)
    break_sidecar(data)
    forget(data)
    with pytest.raises(JournalCorruptError, match="sidecar"):
        open_engine(tmp_path, **SETTINGS)
    assert cut(data, kept) == set()
    with open_engine(tmp_path, **SETTINGS) as engine:
        assert (engine.seq, runs(engine)) == (kept, 60)


def test_a_broken_line_in_the_middle_takes_the_definitions_along_only_if_they_came_later(tmp_path: Path) -> None:
    data, _, _ = written(tmp_path)
    break_line_of(data, "e30")
    with pytest.raises(JournalCorruptError) as caught:
        cut(data, 61)
    good = caught.value.detail["verified_seq"]
    assert cut(data, good) == FOLLOWERS
    with open_engine(tmp_path, **SETTINGS) as engine:
        assert (engine.seq, runs(engine)) == (good, 30)
    assert cut(data, 0) == FOLLOWERS | {"definitions"}
    identity = (data / "journal/journal.json").read_bytes()
    with open_engine(tmp_path, **SETTINGS) as engine:
        assert (engine.seq, runs(engine)) == (1, 0)  # the definitions are journaled anew
        assert fates(engine.record(events(0, 60, at_us=AT))) == (60, 0, [])
    assert (data / "journal/journal.json").read_bytes() == identity
    assert {p.name for p in data.glob("history.duckdb*cut")} == {"history.duckdb.cut", "history.duckdb.1.cut"}


def test_followers_at_the_cut_or_before_stay(tmp_path: Path) -> None:
    with open_engine(tmp_path, **SETTINGS) as engine:
        engine.record(events(0, 20, at_us=AT))
        early = engine.seq
        engine.save_index()
        engine.caught_up(10)
    shutil.copytree(tmp_path / "data/index", tmp_path / "index")
    shutil.copytree(tmp_path / "data/keys", tmp_path / "keys")
    shutil.copy(tmp_path / "data/suspensions.json", tmp_path)
    with open_engine(tmp_path, **SETTINGS) as engine:
        engine.record([event(50, at_us=AT)])
    for name in ("index", "keys"):
        shutil.rmtree(tmp_path / "data" / name)
        shutil.copytree(tmp_path / name, tmp_path / "data" / name)
    shutil.copy(tmp_path / "suspensions.json", tmp_path / "data")
    assert cut(tmp_path / "data", early) == {"history tables"}
    assert cut(tmp_path / "data", early) == set()
    with open_engine(tmp_path, **SETTINGS) as engine:
        assert (engine.seq, runs(engine)) == (early, 20)
        assert fates(engine.record([event(50, at_us=AT)])) == (1, 0, [])


def test_duckdbs_log_goes_with_its_file(tmp_path: Path) -> None:
    """As a process that was killed leaves them: the position stands in the log alone."""
    data = tmp_path / "data"
    with open_engine(tmp_path, **SETTINGS) as engine:
        kept = engine.seq
        engine.record(events(0, 20, at_us=AT))
        engine.caught_up(10)
        killed = {p.name: p.read_bytes() for p in data.glob("history.duckdb*")}
    assert killed.keys() == {"history.duckdb", "history.duckdb.wal"}
    for path in data.glob("history.duckdb*"):
        path.unlink()
    for name, content in killed.items():
        (data / name).write_bytes(content)
    found = stored_position(data)
    assert found is not None
    assert found[1].seq == kept + 20
    assert {p.name: p.read_bytes() for p in data.glob("history.duckdb*")} == killed
    assert "history tables" in cut(data, kept)
    assert {p.name: p.read_bytes() for p in data.glob("history.duckdb*")} == {
        name.replace("duckdb", "duckdb.cut"): content for name, content in killed.items()
    }
    with open_engine(tmp_path, **SETTINGS) as engine:
        assert (engine.seq, runs(engine)) == (kept, 0)


class StoppingDisk(Disk):
    """Fails at the n-th rename and from then on."""

    def __init__(self, last: int) -> None:
        super().__init__(fsync=False)
        self.left = last

    def replace(self, source: Path, target: Path) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().replace(source, target)


def test_a_cut_that_stops_between_steps_is_no_journal_to_start_from_until_it_is_made(tmp_path: Path) -> None:
    """With followers ahead every stop refuses the start, up to the last rename."""
    data, _, _ = written(tmp_path)
    shutil.copytree(data, tmp_path / "made")
    outcomes: list[str] = []
    hints: set[str] = set()
    for n in range(100):
        shutil.rmtree(data)
        shutil.copytree(tmp_path / "made", data)
        try:
            cut(data, 21, StoppingDisk(n))
        except JournalFailedError as error:
            hints.add(error.detail["hint"])
        else:
            break
        shutil.rmtree(tmp_path / "trial", ignore_errors=True)
        shutil.copytree(data, tmp_path / "trial/data")
        try:
            with open_engine(tmp_path / "trial", **SETTINGS) as engine:
                outcomes.append(str(runs(engine)))
        except EnrichError as error:
            outcomes.append(error.error_code)
        cut(data, 21)
        with open_engine(tmp_path, **SETTINGS) as engine:
            assert (engine.seq, runs(engine)) == (21, 20)
    assert hints == {"make room or mend the disk, and run `enrich journal cut --after 21` again"}
    assert outcomes[0] == "100"  # a copy of the tail alone was to be renamed
    assert outcomes.index("journal_corrupt") < outcomes.index("journal_behind")
    assert set(outcomes) == {"100", "journal_corrupt", "journal_behind"}
    assert outcomes[-3:] == ["journal_behind"] * 3


def test_a_held_directory_is_left_alone(tmp_path: Path) -> None:
    with open_engine(tmp_path, **SETTINGS) as engine:
        engine.record(events(0, 20, at_us=AT))
        with pytest.raises(LockedError) as caught:
            cut(tmp_path / "data", 1)
        assert caught.value.detail["pid"] == os.getpid()
        assert runs(engine) == 20
    with JournalCut(tmp_path / "data", 1) as planned:
        assert planned.needed
        with pytest.raises(LockedError):
            open_engine(tmp_path, **SETTINGS)
    with open_engine(tmp_path, **SETTINGS) as engine:
        assert runs(engine) == 20


def test_where_a_follower_can_not_be_asked_nothing_is_cut(tmp_path: Path) -> None:
    data, kept, last = written(tmp_path)
    whole = (data / "history.duckdb").read_bytes()
    (data / "history.duckdb").write_bytes(b"no database" * 1000)
    with pytest.raises(DataDirError) as caught:
        cut(data, kept)
    assert "delete history.duckdb" in caught.value.detail["hint"]
    (data / "history.duckdb").write_bytes(whole)
    other, _, _ = written(tmp_path / "other")
    shutil.rmtree(data / "keys")
    shutil.copytree(other / "keys", data / "keys")
    with pytest.raises(JournalBehindError, match="the saved keys follow journal"):
        cut(data, kept)
    shutil.rmtree(data / "keys")
    assert verify(data).head.seq == last
    with pytest.raises(JournalCorruptError, match="has no journal"):
        cut(tmp_path / "nowhere", 0)
    assert not (tmp_path / "nowhere").exists()


def test_every_follower_says_what_file_it_is(tmp_path: Path) -> None:
    data, _, last = written(tmp_path)
    found = followed(data)
    assert {one.path for one in found} == {
        data / "index", data / "keys", data / "definitions.json", data / "suspensions.json"
    }  # fmt: skip
    assert all(one.path.exists() and one.position.seq <= last for one in found)
