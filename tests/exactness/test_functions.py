"""Every function meets what is hard about a window, fifty times and more, through the real index.

A case is one distinct (SQL, history, as_of); what it meets is counted by DuckDB, over the very rows and operand of the
SQL.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson
import pytest

from enrich.signals import load_catalog
from enrich.signals.bulk import bulk_answers
from tests.exactness.functions import AGGREGATES, LIBRARY, ROWS, SCALARS, VARIANCES
from tests.exactness.overflow import a_part_overflows
from tests.exactness.scenario import Splits, asked_of, build, contexts, duckdb_of, expected_of
from tests.exactness.shrink import reproduction
from tests.exactness.variance import variance_differences
from tests.grammar import Grammar, events

LEAST: Final = 50
SCENARIOS: Final = 30
SITUATIONS: Final = ("empty", "one row", "ties", "nulls", "extremes")
_MOMENTS: Final = 10
_WINDOWS: Final = {"1m": 60, "10m": 600, "1h": 3_600, "2h": 7_200}
_OPERANDS: Final = (
    "duration_ms",
    "cost_microusd",
    "(amount_minor - declared_amount_minor)",
    "TRY_CAST(attributes ->> 'num' AS BIGINT)",
)
_INT64: Final = (2**63 - 1, 2**63 - 2, 1 - 2**63, -(2**63))
_FUNCTIONS: Final = (*AGGREGATES, *VARIANCES, *LIBRARY, *SCALARS, *ROWS)


@dataclass
class Met:
    """How often each function met each situation, by distinct case."""

    cases: set[tuple[str, str, bytes]] = field(default_factory=set)
    differences: list[str] = field(default_factory=list)
    compared: int = 0

    def counts(self) -> Counter[tuple[str, str]]:
        return Counter((function, situation) for function, situation, _ in self.cases)


@dataclass
class Drawn:
    sources: dict[str, str]
    #: (set, column) to (function, kind of function, SQL)
    columns: dict[tuple[str, str], tuple[str, str, str]]
    variances: dict[tuple[str, str], str]
    statistics: str


def draw(rng: random.Random) -> Drawn:
    x = rng.choice(_OPERANDS)
    condition = Grammar(rng).row_bool(1) if rng.random() < 0.6 else ""
    where = f"\nWHERE {condition}" if condition and rng.random() < 0.4 else ""
    f = f" FILTER (WHERE {condition})" if condition and not where else ""
    found = Drawn({}, {}, {}, "")
    windows = ", ".join(rng.sample(list(_WINDOWS), 2))
    groups = {"aggregate": AGGREGATES | {n: (t,) for n, t in VARIANCES.items()}, "library": LIBRARY}
    for kind, templates in {**groups, "scalar": SCALARS, "row": ROWS}.items():
        lines = []
        for i, (function, texts) in enumerate(templates.items()):
            parts = {"x": x, "f": f, "c": rng.choice((1, 2, 3, 5, 7, 1_000)), "w": rng.choice(("a", "b", "ä"))}
            sql = rng.choice(texts).format(**parts, m=f"max({x}){f}", l=f"min({x}){f}", s=f"sum({x}){f}")
            column = f"{kind}_{i}"
            lines.append(f"    {sql} AS {column}")
            found.columns[kind, column] = (function, kind, sql + where)
            if function in VARIANCES:
                found.variances[kind, column] = f"list({x}){f}"
        header = f"-- entity: agent\n-- windows: {windows}\n"
        found.sources[kind] = f"{header}SELECT\n" + ",\n".join(lines) + f"\nFROM events{where}\n"
    extremes = ", ".join(map(str, _INT64))
    both = condition if f else "true"
    found.statistics = (
        f"SELECT count(*) AS all_rows, count(*){f} AS n, count({x}){f} AS present, count({x}) AS all_present,"
        f" count(DISTINCT occurred_at){f} AS moments,"
        f" count(*) FILTER (WHERE ({x}) IN ({extremes}) AND ({both})) AS extremes FROM events{where}"
    )
    return found


def history(rng: random.Random) -> list[dict[str, Any]]:
    """Random events; some agents never have a column, or only extremes in it."""
    rows = events(rng, rng.choice((1, 4, 15, 60, 150)), rng.choice((2, 4)), rng.choice((40, 4_000_000_000)))
    for agent in {row["agent_id"] for row in rows}:
        mine = [row for row in rows if row["agent_id"] == agent]
        for column in ("duration_ms", "cost_microusd", "amount_minor", "declared_amount_minor", "attributes"):
            style = rng.choice(("as is", "as is", "never", "extreme"))
            for row in mine:
                if style == "never":
                    row.pop(column, None)
                elif style == "extreme" and rng.random() < 0.5:
                    row[column] = (
                        {"num": rng.choice(_INT64)} if column == "attributes" else rng.choice((0, *_INT64[:2]))
                    )
    return rows


def situations(kind: str, s: dict[str, Any]) -> Iterator[str]:
    """What the rows of one window are, for a function of this kind."""
    n, present = (s["all_rows"], s["all_present"]) if kind == "library" else (s["n"], s["present"])
    if n == 0:
        yield "empty"
    if n == 1:
        yield "one row"
    if s["n"] > s["moments"]:
        yield "ties"
    if (0 == present < n) if kind == "scalar" else present < n:
        yield "nulls"
    if s["extremes"]:
        yield "extremes"


def run(seed: int, met: Met) -> None:
    rng = random.Random(seed)
    rows, drawn = history(rng), draw(rng)
    catalog = load_catalog(drawn.sources)
    widths = [w.us for w in catalog.windows("agent")]
    asked = asked_of(rng, rows, widths, _MOMENTS)
    splits = Splits.draw(rng)
    connection = duckdb_of(rows)
    expected = expected_of(connection, catalog, asked)
    met.compared += expected.count()
    with splits.limits():
        answers = list(contexts(catalog, build(catalog, rows, splits), asked))
    found = [
        d
        for k, answer in enumerate(answers)
        for d in expected.differences(k, answer)
        if (d.set, d.signal) not in drawn.variances
    ]
    found += variance_differences(connection, catalog, drawn.variances, asked, answers, expected)
    for difference in found:
        if not a_part_overflows(connection, catalog, difference):
            small = len(met.differences) < 3
            text = reproduction(catalog, rows, difference) if small else str(difference)
            met.differences.append(f"seed {seed}\n{text}")
            break
    which = hashlib.sha256(orjson.dumps(rows)).digest()
    one = catalog.sets[0]
    for answered in bulk_answers(
        connection, catalog, asked, relation="history", sets=[replace(one, name="statistics", sql=drawn.statistics)]
    ):
        for k, *values in zip(answered.questions, *answered.values.values(), strict=True):
            statistics = dict(zip(answered.values, values, strict=True))
            for kind in ("aggregate", "library", "scalar", "row"):
                held = list(situations(kind, statistics))
                for function, of, sql in drawn.columns.values():
                    if of == kind:
                        case = hashlib.sha256(sql.encode() + which + str(asked[k].as_of_us).encode()).digest()
                        met.cases.update((function, situation, case) for situation in held)
    connection.close()


@pytest.fixture(scope="module")
def met() -> Met:
    found = Met()
    for seed in range(SCENARIOS):
        run(seed, found)
    return found


def test_every_function_answers_as_duckdb_does(met: Met) -> None:
    print(f"\n{len(met.cases)} (function, situation, case), {met.compared} values compared")
    assert not met.differences, "\n\n".join(met.differences[:5])


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_function_meets_every_situation(met: Met, situation: str) -> None:
    counts = met.counts()
    least = min((counts[f, situation], f) for f in _FUNCTIONS)
    print(f"\n{situation}: least often {least}")
    assert {f: counts[f, situation] for f in _FUNCTIONS if counts[f, situation] < LEAST} == {}
