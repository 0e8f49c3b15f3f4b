"""Shipped and random sets through a whole engine, beside its own DuckDB; with a restart and late events."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any, Final

import pytest

from enrich import Engine
from enrich.events import format_us
from enrich.events.model import AUTHORITY_OUTCOMES
from enrich.signals.bulk import Question, bulk_answers
from tests.exactness.compare import Difference, Expected
from tests.exactness.random_sets import draw
from tests.grammar import events

QUERIES: Final = Path(__file__).parents[2] / "queries"
_TEAMS: Final = (None, "red", "blue")
_PEOPLE: Final = ("ada", "bo")


def history(rng: random.Random, end_us: int) -> list[dict[str, Any]]:
    """Runs, steps and decisions of a few agents over two days, a tenth of them older still."""
    span = 2 * 86_400_000_000
    rows = events(rng, 1_500, 4, span)
    first = min(row["occurred_at"] for row in rows)
    for i, row in enumerate(rows):
        at = end_us - span - 10 + (row["occurred_at"] - first) * 99 // 100
        if rng.random() < 0.1:
            at -= rng.randrange(20 * 86_400_000_000)
        row |= {"occurred_at": format_us(at), "event_id": f"event-{i}", "team_id": rng.choice(_TEAMS)}
        if rng.random() < 0.4:
            row |= {"kind": "authority", "outcome": rng.choice(AUTHORITY_OUTCOMES), "actor_id": rng.choice(_PEOPLE)}
        for name in [name for name, value in row.items() if value is None or value == ""]:
            del row[name]
        if "attributes" in row:
            row["attributes"] = {k: v for k, v in row["attributes"].items() if v != ""}
    return rows


def differences(engine: Engine, rng: random.Random, end_us: int) -> tuple[int, int, list[Difference]]:
    day = 86_400_000_000
    asked = []
    for _ in range(100):
        agent, flow = rng.choice([f"agent-{i}" for i in range(5)]), rng.choice(("w1", "w2"))
        at = end_us - rng.choice((0, rng.randrange(3 * day), rng.randrange(25 * day))) + rng.choice((0, 0, day // 2))
        keys: dict[str, str | tuple[str, ...]] = {"agent": agent, "workflow": flow, "agent_workflow": (agent, flow)}
        asked.append(Question(at, {**keys, "team": rng.choice(("red", "blue")), "approver": rng.choice(_PEOPLE)}))
    expected = Expected(asked)
    with engine.history.cursor() as cursor:
        for answers in bulk_answers(cursor, engine.catalog, asked, relation=f"events_at({engine.seq:d})"):
            expected.add(answers)
    found = []
    for k, question in enumerate(asked):
        keys_asked: dict[str, Any] = {e: v for e, v in question.keys.items() if e != "approver"}
        person = str(question.keys["approver"])
        answer = engine.context({**keys_asked, "approvers": [person]}, as_of=question.as_of_us)
        found += list(expected.differences(k, {**answer, "approver": answer["approvers"][person]}))
    return expected.count(), expected.values(), found


@pytest.mark.parametrize("seed", range(3))
def test_an_engine_answers_as_its_own_duckdb(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    drawn = draw(rng)
    queries = shutil.copytree(QUERIES, tmp_path / "queries")
    for name, text in drawn.sources.items():
        (queries / f"{name}.sql").write_text(text)
    end_us = time.time_ns() // 1_000 - 60_000_000
    rows = history(rng, end_us)
    inexact = {column for _, column in drawn.variances}
    for _ in range(2):  # the second time with the saved index, and a tail on it
        with Engine.open(tmp_path / "data", queries=queries) as engine:
            part = rows[: len(rows) // 2]
            rows = rows[len(rows) // 2 :]
            while part:
                size = rng.choice((1, 5, 300, 600))
                result = engine.record(part[:size])
                assert result.rejected == []
                part = part[size:]
            engine.caught_up(30.0)
            count, there, found = differences(engine, rng, end_us)
            assert [str(d) for d in found if d.signal not in inexact][:5] == []
            assert count > 20_000
            assert there > count // 2
