"""Expressions at the edges of the grammar, texts at the edges of what is a number: refused, or what DuckDB has."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from enrich.signals import Catalog, DefinitionErrors, load_catalog
from tests.exactness.overflow import a_part_overflows
from tests.exactness.scenario import Splits, asked_of, build, contexts, duckdb_of, expected_of
from tests.exactness.test_functions import history
from tests.grammar import events

HEADER: Final = "-- entity: agent\n-- windows: 5m, 2h\n"
_LINES: Final = (Path(__file__).parent / "odd_expressions.txt").read_text().splitlines()
REFUSED: Final = [line[2:] for line in _LINES if line.startswith("! ")]
ACCEPTED: Final = {f"o{i}": line for i, line in enumerate(_LINES) if not line.startswith("! ")}
KEYS: Final = ("a.b", "a-b", "_x", "A", "num", "a..b", "z_")
TEXTS: Final = (
    "", " ", 'a"b', "back\\slash", "ünï", "😀", "\u2028", "null", "true", '{"a":1}', "[1]", "1.0", "0", "-0", "'", "%",
    "$.num", "/num", True, False, 0, -1, 2**63 - 1, -(2**63), 5, "5", "5.0", "\u0085", "\u00a0 5", "\t", "５", "1e2",
    "NaN", "Infinity", "-inf", "+5", "5 ", "1,000", "0x1F", "1_0", "__1", "1_", "0b1", "1e", "1e+2", " 1.5 ", "1.5.2",
    "99999999999999999999999", "1e18", "9.2233720368547758e18", "9223372036854775807.4", "9223372036854775807.5",
    "-9223372036854775808.5", "0.5", "1.5", "2.5", "-0.5", "-1.5", "4.4999999999999999999", "true ", "TRUE", "१",
)  # fmt: skip
_DOUBLE: Final = "TRY_CAST(attributes ->> '{k}' AS DOUBLE)"
READERS: Final = (
    "count(attributes ->> '{k}')",
    "arg_max(attributes ->> '{k}', (occurred_at, seq))",
    "count(DISTINCT attributes ->> '{k}')",
    "sum(TRY_CAST(attributes ->> '{k}' AS BIGINT))",
    "max(TRY_CAST(attributes ->> '{k}' AS BIGINT))",
    "count(TRY_CAST(attributes ->> '{k}' AS DOUBLE))",
    f"max(CASE WHEN isfinite({_DOUBLE}) THEN {_DOUBLE} END)",
    "count(*) FILTER (WHERE attributes ->> '{k}' IN ('5', 'true', '😀', ''))",
    "count(*) FILTER (WHERE attributes ->> '{k}' >= 'a')",
    "TRY_CAST(arg_max(attributes ->> '{k}', (occurred_at, seq)) AS BIGINT)",
    "TRY_CAST(arg_max(attributes ->> '{k}', (occurred_at, seq)) AS DOUBLE)",
)


def definition(columns: Mapping[str, str], where: str = "") -> str:
    return (
        f"{HEADER}SELECT\n"
        + ",\n".join(f"    {sql} AS {name}" for name, sql in columns.items())
        + f"\nFROM events{where}\n"
    )


def differences(catalog: Catalog, rows: Sequence[dict[str, Any]], rng: random.Random) -> list[str]:
    asked = asked_of(rng, rows, [w.us for w in catalog.windows("agent")], 10)
    connection = duckdb_of(rows)
    expected = expected_of(connection, catalog, asked)
    splits = Splits.draw(rng)
    with splits.limits():
        answers = list(contexts(catalog, build(catalog, rows, splits), asked))
    found = [d for k, answer in enumerate(answers) for d in expected.differences(k, answer)]
    return [str(d) for d in found if not a_part_overflows(connection, catalog, d)]


@pytest.mark.parametrize("where", ["", "\nWHERE duration_ms > 0"], ids=["all", "some"])
def test_what_loads_is_duckdbs(where: str) -> None:
    names = list(ACCEPTED)
    sets = {f"s{i}": {n: ACCEPTED[n] for n in names[i : i + 30]} for i in range(0, len(names), 30)}
    catalog = load_catalog({s: definition(c | {f"n_{s}": "count(*)"}, where) for s, c in sets.items()})
    for seed in range(2):
        rng = random.Random(f"{where}{seed}")
        assert differences(catalog, history(rng), rng)[:5] == []


def test_the_others_are_refused() -> None:
    for sql in REFUSED:
        with pytest.raises(DefinitionErrors):
            load_catalog({"one": definition({"one": sql, "n": "count(*)"})})


def test_texts_are_read_as_duckdb_reads_them() -> None:
    columns = [reader.format(k=k) for k in KEYS for reader in READERS]
    catalog = load_catalog({"one": definition({f"o{i}": sql for i, sql in enumerate(columns)})})
    for seed in range(8):
        rng = random.Random(seed)
        rows = events(rng, 60, 2)
        for row in rows:
            row["attributes"] = {k: rng.choice(TEXTS) for k in KEYS if rng.random() < 0.7}
        assert differences(catalog, rows, rng)[:5] == []
