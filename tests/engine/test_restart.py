from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from enrich import Engine
from enrich.engine import startup
from enrich.errors import (
    ConfigError,
    DataDirError,
    EnrichError,
    JournalBehindError,
    JournalCorruptError,
    LockedError,
    NewerFormatError,
)
from enrich.journal.bodycheck import BodyCheck
from enrich.journal.identity import sealed, unseal
from enrich.journal.segment import Line
from tests.engine.support import DAY_US, event, events, fates, now_us, open_engine, runs


def forget_history(data: Path) -> None:
    for path in data.glob("history.duckdb*"):
        path.unlink()


def forget_index(data: Path) -> None:
    shutil.rmtree(data / "index", ignore_errors=True)


def forget_definitions(data: Path) -> None:
    (data / "definitions.json").unlink(missing_ok=True)


def forget_keys(data: Path) -> None:
    shutil.rmtree(data / "keys", ignore_errors=True)


def forget_suspensions(data: Path) -> None:
    (data / "suspensions.json").unlink(missing_ok=True)


FOLLOWERS = {
    "history": forget_history,
    "index": forget_index,
    "keys": forget_keys,
    "definitions": forget_definitions,
    "suspensions": forget_suspensions,
}


def forget_all(data: Path, but: str = "") -> None:
    """Of what follows the journal, only `but` is left; with `all`, all of it."""
    for name, forget in FOLLOWERS.items():
        if but not in (name, "all"):
            forget(data)


@pytest.mark.parametrize("forget", [None, forget_history, forget_index, forget_definitions, forget_all])
def test_what_was_acknowledged_is_there_after_a_restart_and_known_as_such(
    tmp_path: Path, forget: Callable[[Path], None] | None
) -> None:
    at = now_us() - 1000
    with open_engine(tmp_path) as engine:
        for n in range(30):
            engine.record([event(n, at_us=at - n * DAY_US // 2)])
        engine.record(events(1000, 600, at_us=at))
        moments = [at - i * DAY_US for i in range(12)]
        before = [engine.context({"agent": "a", "team": "t"}, as_of=t) for t in moments]
        seq = engine.seq
    if forget is not None:
        forget(tmp_path / "data")
    with open_engine(tmp_path) as engine:
        assert engine.seq == seq + (forget in (forget_definitions, forget_all))
        after = [engine.context({"agent": "a", "team": "t"}, as_of=t) for t in moments]
        assert [{**h, "seq": seq} for h in after] == before
        assert fates(engine.record([event(3, at_us=at - 3 * DAY_US // 2)])) == (0, 1, [])
        assert fates(engine.record([event(3, at_us=at)])) == (0, 0, ["event_conflict"])
        assert engine.record(events(900, 700, at_us=at)).accepted == 100
        assert engine.check().differences == ()


def test_a_restart_from_a_saved_index_reads_the_tail_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = now_us() - 1000
    engine = open_engine(tmp_path)
    engine.record(events(0, 300, at_us=at))
    engine.save_index()
    engine.record(events(300, 5, at_us=at))
    engine.record(events(305, 400, at_us=at))
    engine.close()
    monkeypatch.setattr(startup, "index_from_duckdb", lambda *_: pytest.fail("it was built anew"))
    with open_engine(tmp_path) as engine:
        assert runs(engine) == 705


def test_a_second_process_is_refused_and_told_who_holds_the_directory(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        with pytest.raises(LockedError) as here:
            open_engine(tmp_path)
        assert here.value.detail["pid"] == os.getpid()
        program = (
            "import sys\n"
            "from enrich import Engine\n"
            "from enrich.errors import LockedError\n"
            "try:\n"
            "    Engine.open(sys.argv[1], queries=sys.argv[2])\n"
            "except LockedError as error:\n"
            "    print(error.error_code, error.detail['pid'])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "data"), str(tmp_path / "queries")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.split() == ["data_dir_locked", str(os.getpid())]
        assert engine.record([event(1)]).accepted == 1  # whoever was refused has changed nothing
    with open_engine(tmp_path) as engine:
        assert runs(engine) == 1


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    with open_engine(tmp_path):
        pass
    program = (
        "import sys, time\n"
        "from enrich import Engine\n"
        "Engine.open(sys.argv[1], queries=sys.argv[2])\n"
        "print('open', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "data"), str(tmp_path / "queries")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(LockedError):
            open_engine(tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with open_engine(tmp_path) as engine:
        assert engine.health().ready


def newer_journal(data: Path) -> None:
    path = data / "journal/journal.json"
    path.write_bytes(sealed({**unseal(path.read_bytes(), path.name), "format": 99}))


def newer_history(data: Path) -> None:
    with duckdb.connect(str(data / "history.duckdb")) as con:
        con.execute("UPDATE history_meta SET format = 99")


@pytest.mark.parametrize("make", [newer_journal, newer_history])
def test_what_a_newer_version_wrote_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    with open_engine(tmp_path) as engine:
        engine.record([event(1)])
    make(tmp_path / "data")
    with pytest.raises(NewerFormatError):
        open_engine(tmp_path)


@pytest.mark.parametrize("type_", ["void", "erase"])
def test_a_record_that_takes_away_what_this_version_would_still_count_is_refused(tmp_path: Path, type_: str) -> None:
    with open_engine(tmp_path) as engine:
        seq = engine.record([event(1)]).seq
        engine.journal.wait_durable(engine.journal.append(engine.journal.prepare(type_, {"seqs": [[seq, seq]]})).seq)
    for _ in range(2):
        with pytest.raises(NewerFormatError, match=type_):
            open_engine(tmp_path)


def test_a_saved_index_of_a_newer_version_is_built_anew(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        engine.record([event(1)])
    path = tmp_path / "data/index/manifest.json"
    manifest = json.loads(path.read_bytes())
    path.write_text(json.dumps({**manifest, "format": 99}))
    with open_engine(tmp_path) as engine:
        assert runs(engine) == 1


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def restore(directory: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(directory)
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.mark.parametrize("kept", ["all", "history", "index", "keys", "suspensions"])
def test_a_journal_that_lost_what_followers_know_is_refused_and_left_as_it_is(tmp_path: Path, kept: str) -> None:
    data, at = tmp_path / "data", now_us() - 1000
    with open_engine(tmp_path, sidecar_rows=20) as engine:
        engine.record(events(0, 50, at_us=at))
        engine.record([event(100, at_us=at)])
    earlier = files_of(data / "journal")
    with open_engine(tmp_path, sidecar_rows=20) as engine:
        engine.record(events(200, 50, at_us=at))
        engine.record([event(300, at_us=at)])
    later = files_of(data / "journal")
    # the segments of a backup, with the sidecars of today: a start that would clear those away would lose them
    restore(data / "journal", {**later, **earlier})
    forget_all(data, but=kept)
    for _ in range(2):
        with pytest.raises(JournalBehindError):
            open_engine(tmp_path, sidecar_rows=20)
    sidecars = {n for n in later if n.endswith(".parquet")}
    assert len(sidecars) == 2
    assert sidecars <= files_of(data / "journal").keys()
    restore(data / "journal", later)
    with open_engine(tmp_path, sidecar_rows=20) as engine:
        assert runs(engine) == 102


@pytest.mark.parametrize("kept", ["all", "history", "index", "keys", "suspensions"])
def test_a_journal_with_other_records_than_followers_know_is_refused(tmp_path: Path, kept: str) -> None:
    data, at = tmp_path / "data", now_us() - 1000
    with open_engine(tmp_path) as engine:
        engine.record([event(1, at_us=at)])
    fork = files_of(data)
    with open_engine(tmp_path) as engine:
        engine.record([event(2, at_us=at)])
    mine = files_of(data)
    restore(data, fork)
    with open_engine(tmp_path) as engine:  # the same journal goes on in another way, and further
        engine.record([event(3, at_us=at)])
        engine.record([event(4, at_us=at)])
    other = files_of(data / "journal")
    restore(data, mine)
    restore(data / "journal", other)
    forget_all(data, but=kept)
    with pytest.raises(JournalBehindError):
        open_engine(tmp_path)
    forget_all(data)  # the operator's decision: this journal is the truth
    with open_engine(tmp_path) as engine:
        assert runs(engine) == 3


@pytest.mark.parametrize("kept", ["all", *FOLLOWERS])
@pytest.mark.parametrize("changed", [False, True])
def test_another_journal_is_refused_also_when_the_definitions_have_changed(
    tmp_path: Path, kept: str, changed: bool
) -> None:
    at = now_us() - 1000
    with open_engine(tmp_path) as engine:
        engine.record([event(1, at_us=at)])
    other = tmp_path / "other"
    other.mkdir()
    with open_engine(other) as engine:
        engine.record(events(10, 30, at_us=at))
    restore(tmp_path / "data/journal", files_of(other / "data/journal"))
    forget_all(tmp_path / "data", but=kept)
    if changed:
        (tmp_path / "queries/team_runs.sql").unlink()
    with pytest.raises(JournalBehindError):
        open_engine(tmp_path)


def test_a_line_that_does_not_verify_stops_the_start(tmp_path: Path) -> None:
    data, at = tmp_path / "data", now_us() - 1000
    engine = open_engine(tmp_path)
    engine.record([event(1, at_us=at)])
    engine.close()
    forget_history(data)
    path = data / "journal/00000001.ndjson"
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"duration_ms":1,', b'"duration_ms":2,'))
    with pytest.raises(JournalCorruptError) as caught:
        open_engine(tmp_path)
    assert caught.value.detail["line"] == 2
    path.write_bytes(text + b'{"v":1,"se')  # torn: what a crash leaves
    with open_engine(tmp_path) as engine:
        assert runs(engine) == 1
        assert engine.journal.torn == [f"00000001.ndjson.{len(text)}.torn"]


def test_a_start_verifies_what_duckdb_has_not_applied_and_all_of_it_without_duckdb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = now_us() - 1000
    with open_engine(tmp_path) as engine:
        for n in range(20):
            engine.record([event(n, at_us=at)])
    seen: list[int] = []
    see = BodyCheck.see

    def watched(self: BodyCheck, file: str, line: Line) -> None:
        seen.append(line.header.seq)
        see(self, file, line)

    monkeypatch.setattr(BodyCheck, "see", watched)
    with open_engine(tmp_path):
        assert set(seen) <= {1, 21}  # the lines where followers stand are read, and checked as they are read
        seen.clear()
    forget_history(tmp_path / "data")
    with open_engine(tmp_path):
        assert {1, 2} <= set(seen)


@pytest.mark.parametrize("content", [b"", b"no database at all", bytes(8192)])
def test_a_history_that_is_none_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    with open_engine(tmp_path) as engine:
        engine.record([event(1)])
    forget_history(tmp_path / "data")
    (tmp_path / "data/history.duckdb").write_bytes(content)
    with pytest.raises(DataDirError) as caught:
        open_engine(tmp_path)
    assert "history.duckdb" in caught.value.detail["hint"]
    forget_history(tmp_path / "data")
    with open_engine(tmp_path) as engine:
        assert runs(engine) == 1


def test_a_start_that_fails_lets_go_of_everything(tmp_path: Path) -> None:
    with pytest.raises(EnrichError):
        open_engine(tmp_path, {"bad.sql": "SELECT 1"})
    (tmp_path / "queries/bad.sql").unlink()
    with pytest.raises(ConfigError):
        open_engine(tmp_path, {"runs.sql": QUERIES_TOO_LONG})
    with open_engine(tmp_path, {"runs.sql": QUERIES_TOO_LONG.replace("400d", "30d")}) as engine:
        assert engine.health().ready


QUERIES_TOO_LONG = """
-- entity: agent
-- windows: 400d
-- owner: tests
-- description: Longer than retention.
SELECT count(*) AS runs -- runs that ended
FROM events
"""


def test_temporary_data_is_removed_on_close(tmp_path: Path) -> None:
    with open_engine(tmp_path):
        pass
    engine = Engine.open(queries=tmp_path / "queries")
    assert engine.directory.exists()
    engine.record([event(1)])
    engine.close()
    assert not engine.directory.exists()
