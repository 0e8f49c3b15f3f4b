"""Random sets over random histories, one scenario per seed: compared, counted, and shrunk where they differ.

To look for more differences than the suite does: `python -m tests.exactness.random_sets FIRST_SEED END_SEED`.
"""

from __future__ import annotations

import hashlib
import random
import re
import sys
from dataclasses import dataclass, field
from typing import Final

import orjson

from enrich.signals import DefinitionErrors, load_catalog
from tests.exactness.compare import Difference
from tests.exactness.overflow import a_part_overflows
from tests.exactness.scenario import ENTITIES, Splits, asked_of, build, contexts, duckdb_of, expected_of, inlined
from tests.exactness.shrink import reproduction
from tests.exactness.variance import variance_differences
from tests.grammar import Grammar, events

__all__ = ["Tally", "run"]

_MOMENTS: Final = 8
_COLUMNS: Final = 14
#: how many differences are made small: that takes a while
_SHRUNK: Final = 3
_WINDOWS: Final = {"30s": 30, "5m": 300, "20m": 1_200, "1h": 3_600, "2h": 7_200}


@dataclass
class Drawn:
    """One scenario: a catalog of random sets, and the name-free SQL of every column."""

    sources: dict[str, str]
    columns: dict[tuple[str, str], str]
    #: (set, column) to the operand of a variance, as `list(operand) FILTER (...)`
    variances: dict[tuple[str, str], str]
    windows: tuple[str, ...]


@dataclass
class Tally:
    cases: set[bytes] = field(default_factory=set)
    values: int = 0
    there: int = 0
    differences: list[str] = field(default_factory=list)
    #: values that DuckDB has only because it has skipped a part that overflows
    overflows: int = 0


def draw(rng: random.Random) -> Drawn:
    grammar = Grammar(rng)
    windows = tuple(sorted(rng.sample(list(_WINDOWS), 2), key=lambda w: _WINDOWS[w]))
    found = Drawn({}, {}, {}, windows)
    inputs: dict[str, dict[str, list[str]]] = {}
    for i, entity in enumerate(ENTITIES):
        definition = grammar.definition(_COLUMNS, ", ".join(windows))
        sql = definition.sql.replace("-- entity: agent\n", f"-- entity: {entity}\n")
        sql = sql.replace("\nFROM events", f"{_ordered(rng, grammar)}\nFROM events", 1)
        name, prefix = f"set{i}", f"{'xyz'[i]}"
        for column, text in inlined(sql).items():
            found.columns[name, column.replace("s", prefix, 1)] = f"{entity} {text}"
        for column, operand in definition.operands.items():
            found.variances[name, column.replace("s", prefix, 1)] = operand
        found.sources[name] = re.sub(r"\bs(\d+)\b", rf"{prefix}\1", sql)
        for kind, names in grammar._scope.items():
            path = "" if entity == "agent" else f"{entity}."
            inputs.setdefault(kind, {})[entity] = [
                f"{path}last_{w}.{n.replace('s', prefix, 1)}" for w in windows for n in names
            ]
    # a derived set over all of them; later columns read earlier ones
    grammar._scope = {kind: [n for names in by.values() for n in names] for kind, by in inputs.items()}
    lines = []
    for i in range(_COLUMNS):
        kind = rng.choice(("integer", "double", "double", "decimal", "boolean", "boolean"))
        sql = "max(as_of)"
        while "max(as_of)" in sql:  # a derived set has no aggregates
            sql = getattr(grammar, kind)(rng.randrange(1, 4))
        lines.append(f"    {sql} AS d{i}")
        scope = {"integer": "huge", "boolean": "bool"}.get(kind, kind)
        grammar._scope.setdefault(scope, []).append(f"d{i}")
    header = "-- entity: agent\n-- owner: test\n-- description: random\n"
    found.sources["derived"] = header + "SELECT\n" + ",\n".join(lines) + "\nFROM signals\n"
    plain = {c: t for (_, c), t in found.columns.items()}
    for column, text in inlined(found.sources["derived"], "d").items():
        found.columns["derived", column] = re.sub(r"\b[xyz]\d+\b", lambda m: plain[m.group()], text)
    return found


def _ordered(rng: random.Random, grammar: Grammar) -> str:
    """Two more columns, of what depends on the order of rows."""
    columns = (
        f"arg_max({rng.choice((grammar.row_int(0), grammar.row_int(1)))}, (occurred_at, seq)){grammar.filter()}",
        f"current_streak({grammar.row_bool(0)}, occurred_at, seq)",
    )
    return "".join(f",\n    {sql} AS s{_COLUMNS + i}" for i, sql in enumerate(columns))


def run(seed: int, tally: Tally, shrink: bool = True) -> None:
    """One scenario into the tally; differences shrunk to a reproduction, or as they are."""
    rng = random.Random(seed)
    # the largest are hot: what has structures in earnest, whatever `Splits` says
    rows = rng.choice((0, 1, 3, 12, 40, 120, 300) * 4 + (5_000,))
    history = events(rng, rows, rng.choice((1, 2, 4)), rng.choice((40, 400_000_000, 4_000_000_000, 40_000_000_000)))
    drawn = draw(rng)
    try:
        catalog = load_catalog(drawn.sources)
    except DefinitionErrors as error:
        tally.differences.append(f"seed {seed}: refused\n{error.pretty()}")
        return
    asked = asked_of(rng, history, [_WINDOWS[w] * 1_000_000 for w in drawn.windows], _MOMENTS)
    connection = duckdb_of(history)
    splits = Splits.draw(rng)
    try:
        expected = expected_of(connection, catalog, asked)
        with splits.limits():
            found: list[Difference] = []
            answers = list(contexts(catalog, build(catalog, history, splits), asked))
        for k, answer in enumerate(answers):
            found += (d for d in expected.differences(k, answer) if (d.set, d.signal) not in drawn.variances)
        found += variance_differences(connection, catalog, drawn.variances, asked, answers, expected)
        real = [d for d in found if not a_part_overflows(connection, catalog, d)]
        tally.overflows += len(found) - len(real)
    finally:
        connection.close()
    for difference in real[:2]:
        shrunk = shrink and len(tally.differences) < _SHRUNK
        text = reproduction(catalog, history, difference) if shrunk else str(difference)
        tally.differences.append(f"seed {seed}\n{text}")
    tally.values += expected.count()
    tally.there += expected.values()
    which = hashlib.sha256(orjson.dumps(history)).digest()
    for text in drawn.columns.values():
        for at in {q.as_of_us for q in asked}:
            case = hashlib.sha256(text.encode() + which + at.to_bytes(8, "big", signed=True))
            tally.cases.add(case.digest()[:12])


def main(first: int, last: int, stop: bool) -> int:
    """Hunt through seeds; with `stop` only up to the first difference. How many differences were found."""
    tally = Tally()
    for seed in range(first, last):
        shown = len(tally.differences)
        try:
            run(seed, tally, shrink=not stop)
        except Exception as error:  # noqa: BLE001 - a hunt goes on: whatever it is, it is shown with its seed
            tally.differences.append(f"seed {seed}: {type(error).__name__}: {error}")
        for text in tally.differences[shown:]:
            print(text, "\n", flush=True)
        if stop and tally.differences:
            break
        if seed % 100 == 99:
            print(f"up to seed {seed}: {len(tally.cases)} cases", flush=True)
    print(
        f"{len(tally.cases)} cases, {tally.values} values, "
        f"{tally.overflows} beside an overflow, {len(tally.differences)} different"
    )
    return len(tally.differences)


if __name__ == "__main__":
    sys.exit(1 if main(int(sys.argv[1]), int(sys.argv[2]), "--stop" in sys.argv) else 0)
