"""The check at start: quick, and not to be passed by a compiler or an index that is wrong on the history at hand."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enrich import Engine
from enrich.engine.check import ask, compare, sample
from enrich.signals import DefinitionErrors
from enrich.sources.gantral import load_sample
from enrich.sources.timeline import stretch
from enrich.windows import kind

QUERIES = Path(__file__).parents[2] / "queries"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("check")
    events = stretch(load_sample().events, 2_000, end_us=time.time_ns() // 1_000 - 60_000_000)
    with Engine.open(found / "data", queries=QUERIES) as engine:
        engine.record(events)
    return found


@pytest.fixture
def engine(directory: Path) -> Iterator[Engine]:
    with Engine.open(directory / "data", queries=QUERIES) as opened:
        yield opened


def test_thousands_of_values_in_a_moment(engine: Engine) -> None:
    start = time.process_time()
    report = engine.check()
    assert time.process_time() - start < 4.0
    assert report.differences == ()
    assert report.compared > 10_000


def test_one_wrong_value_is_named(engine: Engine) -> None:
    asked = sample(engine.live, engine.history, engine.journal.now_us(), 1, 0)
    with engine.live.index.lock:
        answered = ask(engine.live, asked)
    wrong: list[Any] = []
    for one in answered:
        answer = {k: dict(v) if isinstance(v, dict) else v for k, v in one.answer.items()}
        if one.entity == "team" and not any(w.entity == "team" for w in wrong):
            answer["last_24h"]["executions"] += 1
        wrong.append(replace(one, answer=answer))
    (text,) = compare(engine.live, engine.history, engine.seq, wrong).differences
    assert text.startswith("team ")
    assert "24h executions as of" in text
    assert text.endswith("DuckDB 0, compiled 1")


def test_a_history_that_no_definition_can_be_checked_on_is_no_obstacle(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "data", queries=QUERIES) as engine:
        assert engine.check().compared == 0


def test_a_wrong_window_does_not_go_live(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = tmp_path / "queries"
    queries.mkdir()
    (queries / "one.sql").write_text("-- entity: agent\n-- windows: 2h\nSELECT count(*) AS n FROM events")
    monkeypatch.setattr(kind, "bisect_right", bisect_left)
    with pytest.raises(DefinitionErrors) as caught:
        Engine.open(directory / "data", queries=queries)
    assert {e.error_code for e in caught.value.errors} == {"differs_from_duckdb"}
