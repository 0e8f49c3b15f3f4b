"""Contexts of the past: at random moments and seqs what the definitions' own SQL says of the events known then."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import duckdb
import pytest

from enrich.context import Rolling
from enrich.errors import BadRequestError
from enrich.signals import Catalog, load_catalog
from enrich.signals.bulk import Question, bulk_answers
from enrich.windows import rolling
from tests.exactness.compare import Expected
from tests.exactness.random_sets import draw
from tests.exactness.scenario import asked_of, duckdb_of
from tests.grammar import events

DAY_US = 86_400_000_000
SHIPPED = Path(__file__).resolve().parents[2] / "queries"
RELATION = "(SELECT *, NULL::BIGINT AS void_seq FROM history)"


def rolled(connection: duckdb.DuckDBPyConnection, catalog: Catalog, seq: int = 0, **options: Any) -> Rolling:
    return Rolling(connection, catalog, retention_us=400 * DAY_US, relation=RELATION, at_seq=seq, **options)


def expected_at(
    connection: duckdb.DuckDBPyConnection, catalog: Catalog, asked: list[Question], seq: int
) -> Expected:
    expected = Expected(asked)
    for answers in bulk_answers(connection, catalog, asked, relation=f"(FROM history WHERE seq <= {seq})"):
        expected.add(answers)
    return expected


@pytest.mark.parametrize("seed", range(5))
def test_contexts_of_the_past_are_what_the_sql_says_of_the_events_known_then(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    history = events(rng, 200, 3, rng.choice((40, 400_000_000, 4_000_000_000)))
    late = rng.choice((0, 2_000_000, 10**13))
    history.sort(key=lambda e: e["occurred_at"] + rng.randrange(late + 1))
    monkeypatch.setattr(rolling, "_STRETCH", rng.choice((50, 65_536)))
    monkeypatch.setattr(rolling, "_CHUNK", rng.choice((8, 64)))
    random_sets = draw(rng)
    compared = 0
    for catalog, windows in (
        (load_catalog(SHIPPED), [3_600_000_000, DAY_US]),
        (load_catalog(random_sets.sources), [60_000_000, 1_200_000_000]),
    ):
        connection = duckdb_of(history)
        start = rng.randrange(100)
        context = rolled(connection, catalog, start)
        for seq in sorted(rng.sample(range(start, 205), 3)):
            context.advance(seq)
            asked = [
                Question(q.as_of_us, {**q.keys, "team": "t"} if catalog.windows("team") else q.keys)
                for q in asked_of(rng, history[: max(1, seq)], windows, 4)
            ]
            expected = expected_at(connection, catalog, asked, seq)
            for k, question in enumerate(asked):
                keys: dict[str, Any] = {e: i for e, i in question.keys.items() if e != "agent_workflow"}
                answer = context.entities(keys, None, question.as_of_us, None)
                if "agent_workflow" in question.keys and "agent_workflow" in answer:
                    assert tuple(answer["agent_workflow"]["id"]) == question.keys["agent_workflow"]
                shown = {e: o for e, o in answer.items() if e in question.keys}
                compared += sum(len(values) for *_, values in expected.rows[k])
                for difference in expected.differences(k, shown):
                    if (difference.set, difference.signal) in random_sets.variances or difference.set == "derived":
                        continue  # a variance of DuckDB's is no judge, and a derived set may read one
                    made = next(s for s in catalog.sets if s.name == difference.set)
                    if difference.compiled is None and any(
                        c.name == difference.signal and c.may_fail for c in made.signals
                    ):
                        continue  # DuckDB has skipped a part that overflows
                    raise AssertionError(str(difference))
    assert compared > 1_000


def test_only_the_kinds_asked_about_are_kept() -> None:
    history = events(random.Random(1), 50, 2)
    catalog = load_catalog(SHIPPED)
    connection = duckdb_of(history)
    whole, part = rolled(connection, catalog, 20), rolled(connection, catalog, 20, entities=["agent"])
    at = max(e["occurred_at"] for e in history)
    for seq in (20, 50):
        whole.advance(seq)
        part.advance(seq)
        assert part.entities({"agent": "agent-0"}, None, at, 0).keys() == {"agent"}
        assert part.entities({"agent": "agent-0"}, None, at, 0)["agent"] == (
            whole.entities({"agent": "agent-0", "team": None}, None, at, 0)["agent"]
        )


def test_a_selection_computes_what_it_names() -> None:
    history = events(random.Random(1), 50, 2)
    context = rolled(duckdb_of(history), load_catalog(SHIPPED), 50)
    at = max(e["occurred_at"] for e in history)
    found = context.entities({"agent": "agent-0"}, None, at, None, ["agent.last_24h.failures"])
    assert found.keys() == {"agent"}
    assert found["agent"]["last_24h"].keys() == {"complete", "failures"}
    with pytest.raises(BadRequestError, match="names no signal"):
        context.entities({"agent": "agent-0"}, None, at, None, ["agent.nothing"])
