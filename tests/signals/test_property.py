"""Random definitions over random histories: compiled == DuckDB, value for value, row expression for row expression."""

from __future__ import annotations

import math
import random
from typing import Any

import duckdb
import pytest

from enrich.events.model import COLUMNS
from enrich.signals import Catalog, load_catalog
from tests.grammar import Definition, Grammar, events
from tests.signals.duck import Duck, settled, variance_of
from tests.signals.naive import Naive

HOUR = 3_600_000_000


class Case:
    """One history and one definition over it."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.events = events(rng, rng.choice((0, 3, 30, 120)), 5)
        self.duck = Duck(self.events)
        self.definition: Definition = Grammar(rng).definition()
        self.catalog: Catalog = load_catalog({"random": self.definition.sql})
        self.plan = self.catalog.plans["agent"]
        ((_, self.us, self.function),) = self.catalog.functions()["agent"].windows
        agents = [*sorted({e["agent_id"] for e in self.events}), "nobody"]
        self.naive = {}
        for agent in agents:
            mine = [(seq, e) for seq, e in enumerate(self.events, 1) if e["agent_id"] == agent]
            self.naive[agent] = Naive(self.plan, [e for _, e in mine], [seq for seq, _ in mine])
        times = sorted({e["occurred_at"] for e in self.events}) or [1_700_000_000_000_000]
        shifts = (0, 0, 1, -1, HOUR // 2, HOUR - 1, HOUR)
        self.cases = [(a, rng.choice(times) + rng.choice(shifts)) for a in agents for _ in range(6)]

    def check_values(self) -> int:
        try:
            rows = list(zip(self.cases, self.duck.cases(self.definition.sql, self.cases, self.us), strict=True))
        except duckdb.Error:
            rows = self._one_by_one()
        for (agent, at), row in rows:
            got = self.naive[agent].answer(self.function, self.us, at)
            for (name, how), value in zip(self.definition.columns.items(), row, strict=True):
                if how == "exact":
                    theirs = settled(value)
                    assert (got.get(name), type(got.get(name))) == (theirs, type(theirs)), self._say(name, agent, at)
                else:
                    self._check_variance(name, got.get(name), agent, at)
        return len(rows)

    def _one_by_one(self) -> list[tuple[tuple[str, int], tuple[Any, ...]]]:
        """The cases in which DuckDB has an answer; in the others a signal that may fail has none here."""
        found = []
        for case in self.cases:
            try:
                found.append((case, self.duck.cases(self.definition.sql, [case], self.us)[0]))
            except duckdb.Error:
                got = self.naive[case[0]].answer(self.function, self.us, case[1])
                failing = [s.name for s in self.catalog.sets[0].signals if s.may_fail]
                assert any(name not in got for name in failing), self._say(str(failing), *case)
        return found

    def _check_variance(self, name: str, got: float | None, agent: str, at: int) -> None:
        d = self.definition
        source = f"SELECT {d.operands[name]} AS x\nFROM events{d.where}"
        values = self.duck.case(source, agent, at, self.us)[0]
        exact = variance_of(values or [])
        if exact is None:
            assert got is None, self._say(name, agent, at)
            return
        line = next(x for x in d.sql.split("\n") if x.rstrip(",").endswith(f" AS {name}"))
        theirs = math.sqrt(exact) if line.strip().startswith("stddev") else float(exact)
        assert got is not None, self._say(name, agent, at)
        assert math.isclose(got, theirs, rel_tol=1e-12), self._say(name, agent, at)

    def check_rows(self) -> None:
        """The row expressions' SQL in DuckDB against their compiled Python."""
        p = self.plan
        columns = [f"coalesce({c.sql}, false)::INT" for c in p.counts]
        columns += [f"coalesce({s.value.sql}, 0)" for s in p.sums]
        columns += [f"CASE WHEN {p.counts[v.count].sql} THEN {v.value.sql} END" for v in p.values]
        theirs = self.duck.connection.execute(f"SELECT {', '.join(columns)} FROM history ORDER BY seq").fetchall()
        mine = list(p.rows({c: [e.get(c) for e in self.events] for c in COLUMNS}, len(self.events)))
        first = len(p.counts)
        for a, b in zip(mine, theirs, strict=True):
            squares = [x * x if s.squared else x for s, x in zip(p.sums, b[first:], strict=False)]
            want = (*b[:first], *squares, *b[first + len(squares) :])
            assert a == tuple(int(x) if isinstance(x, bool) else x for x in want)

    def _say(self, name: str, agent: str, at: int) -> str:
        return f"{name} of {agent} at {at}:\n{self.definition.sql}"


@pytest.mark.parametrize("seed", range(30))
def test_a_random_definition_gives_duckdbs_values(seed: int) -> None:
    case = Case(seed)
    case.check_rows()
    case.check_values()
