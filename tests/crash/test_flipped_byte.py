"""A byte that has changed anywhere: found in the journal, and never a wrong answer where the journal is followed."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from enrich import Engine
from enrich.cli.main import app
from enrich.errors import DataDirError, EnrichError
from enrich.journal import verify
from enrich.windows.store import _MANIFEST, read_index
from tests.engine.support import DAY_US, event, events, fates, now_us, open_engine

SETTINGS: dict[str, Any] = {"segment_bytes": 8 << 10, "sidecar_rows": 30}
AT = now_us() - 60_000_000
#: bits whose flipping turns a hex digit into another, its case, and anything into something else
BITS = (0x01, 0x20, 0x80)


def written() -> list[dict[str, Any]]:
    return [event(n, at_us=AT - n * DAY_US // 4, agent_id=f"a{n % 3}", attributes={"tool": "é"}) for n in range(60)]


def answers(engine: Engine) -> list[Any]:
    asked = [{"agent": f"a{i}", "team": "t"} for i in range(3)]
    found = [engine.context(ids, as_of=AT - k * DAY_US) for ids in asked for k in (0, 5)]
    return [{**h, "seq": 0} for h in found]


Files = dict[Path, bytes]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Files, Files, list[Any]]:
    """A directory that the engine wrote: as it was closed, and as it was while open (DuckDB's log not yet merged)."""
    where = tmp_path_factory.mktemp("flips")
    with open_engine(where, **SETTINGS) as engine:
        for one in written():
            engine.record([one])
        engine.record(events(100, 5, at_us=AT))
        for first in (1000, 2000):
            engine.record(events(first, 40, at_us=AT))
        engine.caught_up(10)
        expected = answers(engine)
        live = read(where / "data")
    return where, read(where / "data"), live, expected


def read(directory: Path) -> Files:
    return {p: p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def restore(where: Path, files: Files) -> None:
    shutil.rmtree(where / "data")
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def flip(path: Path, data: bytes, at: int, bit: int) -> None:
    path.write_bytes(data[:at] + bytes((data[at] ^ bit,)) + data[at + 1 :])


def journal_files(files: Files) -> dict[str, Path]:
    return {str(p).partition("/data/journal/")[2]: p for p in files if "/data/journal/" in str(p) and files[p]}


def sound(directory: Path) -> bool:
    try:
        return verify(directory).ok
    except EnrichError:
        return False


def test_a_journal_of_every_kind_of_file_is_there_and_verifies(made: tuple[Path, Files, Files, list[Any]]) -> None:
    where, files, _, _ = made
    restore(where, files)
    names = sorted(journal_files(files))
    assert sum(n.endswith(".manifest.json") for n in names) >= 3
    assert sum(n.endswith(".ndjson") for n in names) >= 4
    assert sum(n.startswith("sidecars/") for n in names) == 2
    assert {"hash.key", "journal.json"} <= set(names)
    assert verify(where / "data").ok
    assert CliRunner().invoke(app(), ["journal", "verify", "--data", str(where / "data")]).exit_code == 0


def test_a_flipped_byte_anywhere_in_the_journal_is_found(made: tuple[Path, Files, Files, list[Any]]) -> None:
    where, files, _, _ = made
    restore(where, files)
    rng = random.Random(7)
    missed, tried = [], 0
    for name, path in journal_files(files).items():
        data = files[path]
        places = {0, len(data) - 1, len(data) // 2, *(rng.randrange(len(data)) for _ in range(12))}
        places |= {i for i in range(len(data)) if data[i : i + 1] == b"\n"}  # where lines end
        for at in sorted(places):
            flip(path, data, at, rng.choice(BITS))
            tried += 1
            if sound(where / "data"):
                missed.append((name, at))
        path.write_bytes(data)
    assert missed == []
    assert tried > 200
    assert sound(where / "data")


def test_the_command_ends_with_an_error_for_it(made: tuple[Path, Files, Files, list[Any]]) -> None:
    where, files, _, _ = made
    restore(where, files)
    rng = random.Random(8)
    runner, command = CliRunner(), ["journal", "verify", "--data", str(where / "data")]
    for name, path in journal_files(files).items():
        data = files[path]
        flip(path, data, rng.randrange(len(data)), rng.choice(BITS))
        result = runner.invoke(app(), command)
        assert result.exit_code == 1, (name, result.output)
        path.write_bytes(data)
    flip(path, files[path], 10, 1)
    program = [sys.executable, "-c", "from enrich.cli import main; main()"]
    done = subprocess.run([*program, *command], capture_output=True, check=False)
    assert done.returncode == 1
    path.write_bytes(files[path])
    assert runner.invoke(app(), command).exit_code == 0


def saved(files: Files, directory: str) -> dict[Path, bytes]:
    return {p: data for p, data in files.items() if f"/data/{directory}/" in str(p) and data}


def test_a_flipped_byte_anywhere_in_the_saved_index_is_found_at_load(
    made: tuple[Path, Files, Files, list[Any]],
) -> None:
    where, files, _, _ = made
    restore(where, files)
    with open_engine(where, **SETTINGS) as engine:
        version, plans = engine.catalog.version, engine.live.index.plans
    restore(where, files)
    index = where / "data/index"
    assert read_index(index, version, plans) is not None
    kinds = set()
    for path, data in saved(files, "index").items():
        kinds.add(path.suffix)
        for at in range(0, len(data), 1 + len(data) // 60):
            flip(path, data, at, BITS[at % 3])
            assert read_index(index, version, plans) is None, (path.name, at)
        path.write_bytes(data[:-1])
        assert read_index(index, version, plans) is None
        path.write_bytes(data)
    assert kinds == {".block", ".names", ".texts", ".json"}
    assert (index / _MANIFEST).exists()


def outcomes(
    made: tuple[Path, Files, Files, list[Any]], files: Files, paths: list[Path], forget: tuple[str, ...], tries: int
) -> Iterator[str]:
    """Start on a directory with one byte changed in one of the files: `right`, or what the refusal advises."""
    where, _, _, expected = made
    rng = random.Random(9)
    for _ in range(tries):
        restore(where, files)
        for name in forget:
            shutil.rmtree(where / "data" / name, ignore_errors=True)
        path = rng.choice(paths)
        data = files[path]
        places = rng.choices(range(len(data)), k=100)
        at = next((i for i in places if data[i]), places[0])  # most of DuckDB's file is empty
        flip(path, data, at, rng.choice(BITS))
        try:
            engine = open_engine(where, **SETTINGS)
        except DataDirError as error:
            yield str(error.detail["hint"])
            continue
        with engine:
            assert answers(engine) == expected, (path.name, at)
            assert fates(engine.record(written())) == (0, 60, [])
            engine.caught_up(10)
            with engine.history.cursor() as cursor:
                counts = cursor.execute("SELECT count(*), count(DISTINCT event_id) FROM events").fetchall()
            assert counts == [(145, 145)]
        yield "right"


@pytest.mark.parametrize("directory", ["index", "keys"])
def test_a_flipped_byte_in_what_is_saved_for_a_quick_start_changes_no_answer(
    made: tuple[Path, Files, Files, list[Any]], directory: str
) -> None:
    _, files, _, _ = made
    assert set(outcomes(made, files, list(saved(files, directory)), (), 12)) == {"right"}


def database(files: Files) -> list[Path]:
    return [p for p in files if p.name == "history.duckdb"]


def log(files: Files) -> list[Path]:
    return [p for p in files if p.name == "history.duckdb.wal"]


@pytest.mark.parametrize("which", [database, log])
def test_a_flipped_byte_in_duckdbs_files_changes_no_answer(
    made: tuple[Path, Files, Files, list[Any]], which: Callable[[Files], list[Path]]
) -> None:
    files = made[1] if which is database else made[2]
    refused = set(outcomes(made, files, which(files), ("index", "keys"), 12)) - {"right"}
    assert refused == {"delete history.duckdb while the engine is stopped: it is rebuilt from the journal"}
