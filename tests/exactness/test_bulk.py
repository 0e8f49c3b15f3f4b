"""The oracle itself: asked about many at once it says what the plain query says of each."""

from __future__ import annotations

import random
from typing import Any

import duckdb
import pytest

from enrich.engine.check import same_value
from enrich.events import format_us
from enrich.signals import Catalog, load_catalog, prelude_sql, query_for
from enrich.signals.bulk import BulkAnswers, Question, bulk_answers, grouped_sql
from tests.exactness.random_sets import draw
from tests.exactness.scenario import asked_of, duckdb_of
from tests.grammar import events

HEADER = "-- entity: agent\n-- windows: 1m, 1h\n"
START = 1_700_000_000_000_000


def event(at: int, **fields: Any) -> dict[str, Any]:
    base = {"source": "t", "event_id": "e", "kind": "execution", "outcome": "failed", "agent_id": "a"}
    return {**base, "occurred_at": START + at, **fields}


def answers_of(catalog: Catalog, rows: list[dict[str, Any]], asked: list[Question]) -> list[BulkAnswers]:
    return list(bulk_answers(duckdb_of(rows), catalog, asked, relation="history"))


def plain(
    connection: duckdb.DuckDBPyConnection, catalog: Catalog, answers: BulkAnswers, question: Question
) -> dict[str, Any] | None:
    """One set's row by the query that a person would paste; None where DuckDB refuses to answer."""
    keys = {e: (k,) if isinstance(k, str) else k for e, k in question.keys.items()}
    window = None if answers.window is None else answers.window.name
    s = answers.set
    sql = query_for(catalog, s.name, keys[s.entity], window, question.as_of_us, others=keys, relation="history")
    times = {c for c, t, *_ in connection.execute(f"DESCRIBE {sql}").fetchall() if t == "TIMESTAMP WITH TIME ZONE"}
    shown = ", ".join(f'epoch_us("{c.name}")' if c.name in times else f'"{c.name}"' for c in s.signals)
    try:
        (row,) = connection.execute(f"SELECT {shown} FROM ({sql})").fetchall()
    except (duckdb.OutOfRangeException, duckdb.ConversionException):
        return None
    named = dict(zip((c.name for c in s.signals), row, strict=True))
    return {n: format_us(v) if n in times and v is not None else settled(v) for n, v in named.items()}


def settled(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else None
    number = float(value)
    return number + 0.0 if number - number == 0 else None


@pytest.mark.parametrize("seed", range(500, 506))
def test_what_is_asked_at_once_is_what_is_asked_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    rows = events(rng, 120, 3)
    drawn = draw(rng)
    catalog = load_catalog(drawn.sources)
    asked = asked_of(rng, rows, [60_000_000, 1_200_000_000], 6)
    connection = duckdb_of(rows)
    connection.execute(prelude_sql())
    compared = 0
    for answers in answers_of(catalog, rows, asked):
        for i in rng.sample(range(len(answers.questions)), 4):
            expected = plain(connection, catalog, answers, asked[answers.questions[i]])
            for name, value in (expected or {}).items():
                if (answers.set.name, name) in drawn.variances:
                    continue
                compared += 1
                assert same_value(value, answers.values[name][i]), (answers.set.name, answers.window, name)
    assert compared > 150


def test_a_signal_that_raises_over_one_question_has_a_value_over_the_others() -> None:
    columns = "count(*) AS n, max(duration_ms) * 4 AS fourfold, coalesce(max(duration_ms), 1) * 2 AS twice"
    catalog = load_catalog({"one": f"{HEADER}SELECT {columns} FROM events"})
    rows = [event(0, duration_ms=2**62), event(120_000_000, duration_ms=5), event(0, duration_ms=2**61, agent_id="b")]
    asked = [Question(START + 150_000_000, {"agent": who}) for who in ("a", "b", "c")]
    minute, hour = answers_of(catalog, rows, asked)
    assert minute.values == {"n": [1, 0, 0], "fourfold": [20, None, None], "twice": [10, 2, 2]}
    assert hour.values == {"n": [2, 1, 0], "fourfold": [None, None, None], "twice": [None, 2**62, 2]}


def test_a_signal_that_raises_over_no_rows_has_no_value() -> None:
    columns = "count(*) AS n, coalesce(max(duration_ms), 9223372036854775807) * 2 AS twice"
    catalog = load_catalog({"one": f"{HEADER}SELECT {columns} FROM events"})
    (minute, _) = answers_of(catalog, [event(0, duration_ms=1)], [Question(START, {"agent": w}) for w in ("a", "b")])
    assert minute.values == {"n": [1, 0], "twice": [2, None]}


def test_questions_that_do_not_name_the_entity_are_left_out() -> None:
    derived = "-- entity: workflow\nSELECT agent.last_1m.n AS runs FROM signals"
    catalog = load_catalog({"one": f"{HEADER}SELECT count(*) AS n FROM events", "two": derived})
    asked = [Question(START, {"workflow": "w"}), Question(START, {"workflow": "w", "agent": "a"})]
    minute, _, made = answers_of(catalog, [event(0)], asked)
    assert (minute.questions, minute.values) == ([1], {"n": [1]})
    assert (made.questions, made.values) == ([0, 1], {"runs": [0, 1]})


_COMMENTED = "-- SELECT x\nselect all 1 AS one, FROM events -- x"
_FILTERED = "avg(x) FILTER (WHERE avg)"


@pytest.mark.parametrize(
    ("sql", "grouped"),
    [
        ("SELECT count(*) AS n FROM events", "SELECT _k, _w, count(*) AS n FROM events"),
        (_COMMENTED, _COMMENTED.replace(" 1", " _k, _w, 1")),
        ("FROM events SELECT avg(x)", "FROM events SELECT _k, _w, (sum(x) / count(x))"),
        (f"SELECT AVG (é), {_FILTERED} FROM events", f"SELECT _k, _w, (sum(é) / count(é)), {_FILTERED} FROM events"),
    ],
)  # fmt: skip
def test_a_text_is_changed_in_three_places(sql: str, grouped: str) -> None:
    with duckdb.connect() as connection:
        assert grouped_sql(connection, sql).replace("  ", " ") == f"{grouped}\nGROUP BY _k, _w"


@pytest.mark.parametrize("end", [";;", " -- the end", " -- the end\n;\n-- of it", "\n;-- )\n"])
def test_what_stands_behind_the_last_word_is_no_part_of_a_query(end: str) -> None:
    catalog = load_catalog({"one": f"{HEADER}SELECT avg -- (of all\n(duration_ms) AS n FROM events{end}"})
    asked = [Question(START, {"agent": "a"}), Question(START - 1, {"agent": "a"})]
    for answers in answers_of(catalog, [event(0, duration_ms=3)], asked):
        assert answers.values["n"] == [3.0, None]
