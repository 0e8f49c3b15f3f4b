"""Building from DuckDB, and saving and loading: what comes back, and what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from enrich.events.model import COLUMNS, INT_COLUMNS
from enrich.windows import Index, SavedPosition
from tests.windows.check import check_all
from tests.windows.model import PLANS, Model, batch, random_event

POSITION = SavedPosition("j", 7, "h")


def _table(cursor: duckdb.DuckDBPyConnection, model: Model, void: set[int]) -> None:
    """The model's events as a table of DuckDB, in any order, some of them voided."""
    rows = list(model.events)
    random.Random(2).shuffle(rows)
    arrays: dict[str, pa.Array] = {}
    for name in COLUMNS:
        values = [e.get(name) for _, _, e in rows]
        if name == "occurred_at":
            arrays[name] = pa.array(values, pa.timestamp("us", tz="UTC"))
        else:
            arrays[name] = pa.array(values, pa.int64() if name in INT_COLUMNS else pa.string())
    arrays["seq"] = pa.array([s for _, s, _ in rows], pa.int64())
    arrays["void_seq"] = pa.array([1_000 if s in void else None for _, s, _ in rows], pa.int64())
    cursor.register("rows", pa.table(arrays))
    cursor.execute("CREATE TABLE events AS SELECT * FROM rows").fetchall()


@pytest.mark.parametrize("extremes", [False, True])
def test_an_index_built_from_duckdb_answers_like_a_list(extremes: bool) -> None:
    rng, model = random.Random(4), Model()
    model.add([random_event(rng, 300, 2, extremes) for _ in range(120)], 1)
    void = {3, 50, 51, 119}
    seen: list[int] = []
    with duckdb.connect(":memory:") as connection:
        _table(connection, model, void)
        index = Index(PLANS, retention_us=500)
        index.load_from_duckdb(connection, progress=seen.append)
    assert seen[-1] == 116
    model.events = [r for r in model.events if r[1] not in void]
    check_all(index, model, [0, 100, 299, 700])
    late = [random_event(rng, 300, 2, extremes) for _ in range(20)]
    index.link(index.prepare(batch(late)), 121)
    model.add(late, 121)
    check_all(index, model, [0, 100, 299, 700])


def test_rows_older_than_asked_for_are_not_built() -> None:
    model = Model()
    model.add([random_event(random.Random(i), 300, 2) for i in range(60)], 1)
    with duckdb.connect(":memory:") as connection:
        _table(connection, model, set())
        index = Index(PLANS, retention_us=500)
        index.load_from_duckdb(connection, oldest_us=100)
    model.events = [r for r in model.events if r[0] >= 100]
    check_all(index, model, [99, 200, 500])


def test_an_empty_table_gives_an_empty_index(tmp_path: Path) -> None:
    with duckdb.connect(":memory:") as connection:
        _table(connection, Model(), set())
        index = Index(PLANS, retention_us=500)
        index.load_from_duckdb(connection)
    assert index.locate("agent", "a0", 100, [10]) is None
    index.save(tmp_path, POSITION, "c")
    assert Index(PLANS, retention_us=500).load(tmp_path, "c") == POSITION


def _saved(directory: Path) -> Index:
    index = Index(PLANS, retention_us=500, block_rows=1)
    index.link(index.prepare(batch([random_event(random.Random(i), 300, 2) for i in range(50)])), 1)
    index.save(directory, POSITION, "c")
    return index


def test_another_catalog_format_or_a_cut_file_is_no_index(tmp_path: Path) -> None:
    assert Index(PLANS, retention_us=500).load(tmp_path, "c") is None
    _saved(tmp_path)
    assert Index(PLANS, retention_us=500).load(tmp_path, "c") == POSITION
    assert Index(PLANS, retention_us=500).load(tmp_path, "other") is None
    manifest = tmp_path / "manifest.json"
    good = manifest.read_bytes()
    manifest.write_text(json.dumps({**json.loads(good), "format": 99}))
    assert Index(PLANS, retention_us=500).load(tmp_path, "c") is None
    manifest.write_bytes(good[:-20])
    assert Index(PLANS, retention_us=500).load(tmp_path, "c") is None
    manifest.write_bytes(good)
    block = next(tmp_path.glob("*.block"))
    block.write_bytes(block.read_bytes()[:-1])
    assert Index(PLANS, retention_us=500).load(tmp_path, "c") is None


def test_blocks_on_disk_are_not_written_again_and_files_without_use_go(tmp_path: Path) -> None:
    index = _saved(tmp_path)
    first = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.block")}
    index.link(index.prepare(batch([random_event(random.Random(9), 300, 2) for _ in range(5)])), 51)
    index.save(tmp_path, POSITION, "c")
    second = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.block")}
    assert first.items() < second.items()
    assert len(list(tmp_path.glob("*.names"))) == len(PLANS)


def test_the_position_is_taken_under_the_lock_and_settled_before_the_manifest(tmp_path: Path) -> None:
    index = _saved(tmp_path)
    calls = []

    def position() -> SavedPosition:
        calls.append(f"locked {index.lock.locked()}")
        return SavedPosition("j", 8, "i")

    def settle(at: SavedPosition) -> None:
        calls.append(f"{at.seq} over {json.loads((tmp_path / 'manifest.json').read_bytes())['seq']}")

    assert index.save(tmp_path, position, "c", settle) == SavedPosition("j", 8, "i")
    assert calls == ["locked True", "8 over 7"]
