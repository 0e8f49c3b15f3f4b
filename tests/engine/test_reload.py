"""New definitions go live in one step, whatever is being recorded and asked meanwhile."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from enrich import Engine
from enrich.engine import definitions as definitions_module
from enrich.engine import reload as reload_module
from enrich.errors import IndexNotReadyError, JournalBehindError
from tests.engine.support import QUERIES, event, events, now_us, open_engine, runs, write_queries

TOOLS = """
-- entity: agent
-- windows: 1h, 30d
-- owner: tests
-- description: Runs by tool.
SELECT
    count(*) FILTER (WHERE attributes ->> 'tool' = 'hammer') AS hammered, -- with a hammer
    count(*) AS tool_runs -- all of them
FROM events
"""
NEW = {**QUERIES, "tools.sql": TOOLS}


def change(engine: Engine, queries: dict[str, str] = NEW) -> None:
    write_queries(engine._parts.queries, queries)
    report = engine.reload()
    assert report.ok, report.problems
    assert report.changed


def definitions(engine: Engine) -> list[Any]:
    return [r.body for r in engine.journal.read() if r.type == "definitions"]


def once(call: Callable[[], object], then: Callable[..., Any]) -> Callable[..., Any]:
    """`then`, the first time after `call`."""
    pending = [call]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if pending:
            pending.pop()()
        return then(*args, **kwargs)

    return wrapped


def test_a_new_set_is_there_at_once_for_all_of_history(tmp_path: Path) -> None:
    with open_engine(tmp_path, attributes_allow=("tool",)) as engine:
        engine.record(events(0, 50, attributes={"tool": "hammer"}))
        before = engine.catalog.version
        change(engine)
        history = engine.context({"agent": "a"})
        assert (history["agent"]["last_1h"]["hammered"], history["agent"]["last_1h"]["runs"]) == (50, 50)
        assert history["catalog"] == engine.catalog.version != before
        assert history["seq"] == engine.journal.head.seq  # the definitions' own record was seen too
        bodies = definitions(engine)
        assert [b["catalog"]["version"] for b in bodies] == [before, engine.catalog.version]
        assert bodies[-1]["catalog"]["sources"]["tools"] == TOOLS.lstrip()
    with open_engine(tmp_path, attributes_allow=("tool",)) as engine:  # the same directory again: nothing to journal
        assert len(definitions(engine)) == 2


def test_a_reload_of_what_is_live_changes_nothing(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        seq = engine.seq
        report = engine.reload()
        assert (report.ok, report.changed, engine.seq) == (True, False, seq)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("SELECT count(* AS broken FROM events", "tools.sql"),
        (TOOLS.replace("1h, 30d", "1h, 400d"), "retention_days"),
        (TOOLS.replace("tool_runs", "runs"), "runs"),
    ],
)
def test_what_does_not_load_leaves_the_old_definitions_live_and_shows(tmp_path: Path, text: str, problem: str) -> None:
    with open_engine(tmp_path) as engine:
        engine.record(events(0, 5))
        before = engine.catalog.version
        write_queries(tmp_path / "queries", {"tools.sql": text})
        report = engine.reload()
        assert not report.ok
        assert not report.changed
        assert problem in report.problems[0]
        health = engine.health()
        assert health.ready
        assert problem in health.warnings[0]
        assert engine.record([event(9)]).accepted == 1
        assert runs(engine) == 6
        assert engine.catalog.version == report.catalog == before
        assert len(definitions(engine)) == 1
        (tmp_path / "queries/tools.sql").write_text(TOOLS.lstrip())
        assert engine.reload().changed
        assert engine.health().warnings == ()


def test_a_file_that_is_no_text_leaves_the_old_definitions_live_and_shows(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        before = engine.catalog.version
        (engine._parts.queries / "bad.sql").write_bytes(b"\xff")
        report = engine.reload()
        assert (report.ok, report.changed, report.catalog) == (False, False, before)
        assert "bad.sql:1:1: invalid_utf8" in report.problems[0]


def test_whatever_goes_wrong_is_a_failed_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> object:
        raise RuntimeError("out of luck")

    with open_engine(tmp_path) as engine:
        monkeypatch.setattr("enrich.engine.reload.load_catalog", fails)
        report = engine.reload()
        assert (report.ok, report.problems) == (False, ("internal_error: RuntimeError: out of luck",))
        assert any("out of luck" in warning for warning in engine.health().warnings)


def test_nothing_is_lost_while_sets_go_live_under_writers(tmp_path: Path) -> None:
    at = now_us() - 1000
    with open_engine(tmp_path) as engine, ThreadPoolExecutor(9) as pool:
        stop = threading.Event()
        wrong: list[object] = []

        def write(worker: int) -> int:
            n = 0
            while not stop.is_set():
                first = 10_000_000 * worker + n
                size = (1, 1, 1, 20, 400)[n % 5]
                batch = events(first, size, at_us=at, agent_id=f"a{worker}", attributes={"tool": "hammer"})
                result = engine.record(batch)
                n += size
                history = engine.context({"agent": f"a{worker}"})
                if history["agent"]["last_1h"]["runs"] != n or history["seq"] < result.seq:
                    wrong.append((worker, n, result, history))
            return n

        writers = [pool.submit(write, i) for i in range(8)]
        try:
            for i in range(4):
                change(engine, {"tools.sql": TOOLS.replace("30d", f"{2 + i}d")})
        finally:
            stop.set()
        counts = [w.result() for w in writers]
        assert wrong == []
        assert engine.health().warnings == ()
        for i, n in enumerate(counts):
            assert engine.context({"agent": f"a{i}"})["agent"]["last_1h"]["tool_runs"] == n
        assert engine.check().differences == ()
        assert len(definitions(engine)) == 5


def test_events_on_their_way_during_a_reload_keep_what_the_new_catalog_reads(tmp_path: Path) -> None:
    """Parsed under the old catalog, which drops the attribute, ordered under the new one, which reads it."""
    with open_engine(tmp_path) as engine:
        index = engine.live.index
        index.prepare = once(lambda: change(engine), index.prepare)  # type: ignore[method-assign]
        result = engine.record([event(1, attributes={"tool": "hammer"})])
        assert (result.accepted, result.dropped_attributes) == (1, 0)
        assert engine.context({"agent": "a"})["agent"]["last_1h"]["hammered"] == 1
        assert engine.record([event(1, attributes={"tool": "hammer"}, at_us=0)]).rejected_count == 1  # too old
        engine.caught_up(10)
        assert engine.check().differences == ()


@pytest.mark.parametrize("size", [1, 300])
def test_what_is_recorded_at_any_moment_of_a_reload_is_seen_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    at = now_us() - 1000
    with open_engine(tmp_path) as engine:
        engine.record(events(0, 20, at_us=at))
        moments: list[str] = []

        def hook(name: str, owner: Any) -> None:
            def record() -> None:
                moments.append(name)
                engine.record(events(10_000 * len(moments), size, at_us=at))

            monkeypatch.setattr(owner, name, once(record, getattr(owner, name)))

        hook("index_from_duckdb", reload_module)
        hook("differences", reload_module)
        hook("link_tail", reload_module)
        hook("_link", reload_module)
        hook("Definitions", definitions_module)
        hook("_go_live", reload_module)
        change(engine)
        assert len(moments) == 6
        history = engine.context({"agent": "a"})
        assert history["seq"] == engine.seq == engine.journal.head.seq
        assert history["agent"]["last_1h"]["tool_runs"] == history["agent"]["last_1h"]["runs"] == 20 + 6 * size
        assert engine._state.ordered is None
        assert engine.check().differences == ()


def test_a_context_begun_before_a_reload_has_seen_what_its_seq_says(tmp_path: Path) -> None:
    """Between taking the live definitions and the index's lock: others go live, and an event is recorded."""
    with open_engine(tmp_path) as engine:
        engine.record([event(1)])
        live = engine.live

        def meanwhile() -> None:
            change(engine)
            engine.record([event(2)])

        live.selection = once(meanwhile, live.selection)  # type: ignore[method-assign]
        history = engine.context({"agent": "a"})
        assert history["seq"] == engine.seq
        assert history["agent"]["last_1h"]["runs"] == 2
        assert history["catalog"] == engine.catalog.version


def test_an_index_that_was_replaced_meanwhile_is_not_saved_at_a_place_it_has_not_seen(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        engine.record([event(1)])
        index = engine.live.index

        def meanwhile() -> None:
            change(engine)
            engine.record([event(2)])

        index.save = once(meanwhile, index.save)  # type: ignore[method-assign]
        with pytest.raises(IndexNotReadyError):
            engine.save_index()
        # as after a crash, and a return to the old definitions
        (tmp_path / "queries/tools.sql").unlink()
        engine.save_index = lambda: None  # type: ignore[method-assign]
        engine.live.index.save = lambda *_: None  # type: ignore[assignment,method-assign]
    with open_engine(tmp_path) as engine:
        assert runs(engine) == 2
        assert engine.check().differences == ()


def test_an_index_replaced_as_its_saving_begins_is_not_saved_at_a_place_it_has_not_seen(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        state, saved = engine._state, (tmp_path / "data/index/manifest.json")

        class Replaced:
            """The engine's state; other definitions go live right after the live ones were first asked for."""

            def __getattr__(self, name: str) -> Any:
                found = getattr(state, name)
                if name == "live" and engine._state is not state:
                    engine._state = state
                    change(engine)
                    engine.record([event(2)])
                return found

        engine.record([event(1)])
        engine._state = Replaced()  # type: ignore[assignment]
        with pytest.raises(IndexNotReadyError):
            engine.save_index()
        assert not saved.exists()


def test_changed_settings_that_shape_contexts_are_journaled(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        assert len(definitions(engine)) == 1
    with open_engine(tmp_path, input_agent="who.agent") as engine:
        assert definitions(engine)[-1]["settings"]["input_paths"]["agent"] == "who.agent"
        assert len(definitions(engine)) == 2


def test_a_return_to_old_definitions_after_a_crash_is_journaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crashes(self: object) -> None:
        raise MemoryError("the process ends here: journaled, but nothing says so yet")

    with open_engine(tmp_path) as engine:
        write_queries(tmp_path / "queries", NEW)
        with monkeypatch.context() as patched:
            patched.setattr(definitions_module.Definitions, "settle", crashes)
            assert not engine.reload().ok
    (tmp_path / "queries/tools.sql").unlink()
    with open_engine(tmp_path) as engine:
        found = definitions(engine)
        assert ["hammered" in str(d["catalog"]["sources"]) for d in found] == [False, True, False]
        assert found[-1]["catalog"]["version"] == engine.catalog.version


def test_a_journal_without_the_definitions_that_went_live_is_refused(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        engine.record([event(1)])
        change(engine)
    data = tmp_path / "data"
    for path in (data / "index", data / "keys"):
        shutil.rmtree(path)
    (data / "history.duckdb").unlink()
    (data / "suspensions.json").unlink()
    segment = data / "journal/00000001.ndjson"
    segment.write_bytes(b"".join(segment.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(JournalBehindError):
        open_engine(tmp_path)
    (data / "definitions.json").unlink()
    with open_engine(tmp_path) as engine:
        assert engine.context({"agent": "a"})["agent"]["last_1h"]["tool_runs"] == 1
        assert len(definitions(engine)) == 2
