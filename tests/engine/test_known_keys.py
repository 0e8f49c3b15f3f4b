"""Idempotency keys over a restart: the saved ones, completed, say what a store loaded anew says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from enrich import Engine
from enrich.engine.known import load_keys
from enrich.journal import KeyStore
from tests.engine.support import DAY_US, events, fates, now_us, open_engine


def entries(store: KeyStore) -> set[tuple[int, ...]]:
    store.settle()
    found: set[tuple[int, ...]] = set()
    for run in (r for part in store.snapshot()() for r in part):
        found |= set(zip(run.hi.tolist(), run.lo.tolist(), run.content.tolist(), run.packed.tolist(), strict=True))
    return found


def anew(engine: Engine, directory: Path) -> KeyStore:
    """The store that DuckDB alone gives."""
    return load_keys(directory / "nothing", engine.journal, engine.history, lambda what, done, total: None)


def test_keys_saved_before_the_last_events_are_completed(tmp_path: Path) -> None:
    at = now_us() - 1000
    engine = open_engine(tmp_path)
    engine.record(events(0, 700, at_us=at))
    engine.save_index()
    shutil.copytree(tmp_path / "data" / "keys", tmp_path / "early")
    engine.record(events(700, 5, at_us=at))
    engine.record(events(705, 600, at_us=at))
    engine.close()
    shutil.rmtree(tmp_path / "data" / "keys")
    shutil.copytree(tmp_path / "early", tmp_path / "data" / "keys")
    with open_engine(tmp_path) as engine:
        assert entries(engine.keys) == entries(anew(engine, tmp_path))
        assert fates(engine.record(events(0, 1400, at_us=at))) == (95, 1305, [])
        assert fates(engine.record(events(1, 1, at_us=at, duration_ms=7))) == (0, 0, ["event_conflict"])


def missing(data: Path) -> None:
    shutil.rmtree(data / "keys")


def damaged(data: Path) -> None:
    for path in (data / "keys").glob("*.runs"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("harm", [missing, damaged])
def test_without_whole_saved_keys_all_come_from_duckdb(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    at = now_us() - 1000
    with open_engine(tmp_path) as engine:
        engine.record(events(0, 600, at_us=at))
    harm(tmp_path / "data")
    with open_engine(tmp_path) as engine:
        assert entries(engine.keys) == entries(anew(engine, tmp_path))
        assert fates(engine.record(events(0, 700, at_us=at))) == (100, 600, [])
    with open_engine(tmp_path) as engine:
        assert engine.record(events(0, 700, at_us=at)).accepted == 0


def test_pruned_keys_stay_forgotten_after_a_restart(tmp_path: Path) -> None:
    old, new = now_us() - 3 * DAY_US, now_us() - 1000
    with open_engine(tmp_path, retention_days=30) as engine:
        engine.record(events(0, 50, at_us=old))
        engine.record(events(50, 50, at_us=new))
        engine.save_index()
        engine.caught_up(10)
        engine.history.prune(old + DAY_US)
        engine.keys.expire(old + DAY_US)
    with open_engine(tmp_path, retention_days=30) as engine:
        assert len(engine.keys) == 100
        while engine.keys.merge_step():
            pass
        assert entries(engine.keys) == entries(anew(engine, tmp_path))
        assert len(engine.keys) == 50
