"""Variances against the exact one of the same rows, and against DuckDB as far as its running sum can be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

import duckdb

from enrich.events.model import ENTITY_KEYS
from enrich.signals import Catalog
from enrich.signals.bulk import Question
from tests.exactness.compare import Difference, Expected

__all__ = ["variance_differences"]

#: of the exact value, rounded once
_EXACT: Final = 1e-12
#: of DuckDB's, per unit of 1 + mean²/variance
_DUCKDB: Final = 1e-12


def variance_differences(
    connection: duckdb.DuckDBPyConnection,
    catalog: Catalog,
    variances: Mapping[tuple[str, str], str],
    asked: Sequence[Question],
    answers: Sequence[Mapping[str, Any]],
    expected: Expected,
) -> Iterator[Difference]:
    """Differences of the columns in `variances`, (set, column) to `list(operand) FILTER (...)` over `history`.

    A name that ends in a standard deviation is told by the definition's text.
    """
    for (name, column), operand in variances.items():
        s = catalog.set_named(name)
        if s is None:
            raise AssertionError(name)
        deviation = f"stddev_samp({operand[5:]} AS {column}" in s.sql
        rows = _rows(connection, operand, s.sql.partition("\nWHERE ")[2])
        for k, (question, answer) in enumerate(zip(asked, answers, strict=True)):
            key = question.keys.get(s.entity)
            if key is None:
                continue
            own = (key,) if isinstance(key, str) else key
            for window in s.header.windows:
                inside = [
                    x
                    for at, ids, x in rows
                    if question.as_of_us - window.us < at <= question.as_of_us
                    and all(ids[c] == v for c, v in zip(ENTITY_KEYS[s.entity], own, strict=True))
                ]
                got = answer[s.entity][window.key].get(column)
                duck = next(v[column] for e, n, w, v in expected.rows[k] if (e, n, w) == (s.entity, name, window.key))
                if not _agree(inside, got, duck, deviation):
                    yield Difference(question, s.entity, name, window.key, column, duck, got)


def _rows(
    connection: duckdb.DuckDBPyConnection, operand: str, where: str
) -> list[tuple[int, dict[str, str | None], int]]:
    """(occurred_at, ids, operand) of the rows that count."""
    value, _, filter_ = operand[5:].partition(" FILTER (WHERE ")
    conditions = [f"({value[:-1]}) IS NOT NULL"] + [f"({c})" for c in (filter_[:-1], where) if c]
    columns = f"epoch_us(occurred_at), agent_id, workflow_id, {value[:-1]}"
    found = connection.execute(f"SELECT {columns} FROM history WHERE {' AND '.join(conditions)}").fetchall()
    return [(at, {"agent_id": a, "workflow_id": w}, x) for at, a, w, x in found]


def _agree(values: Sequence[int], got: Any, duck: Any, deviation: bool) -> bool:
    n = len(values)
    if n < 2:
        return got is None and duck is None
    mean = Fraction(sum(values), n)
    variance = sum(((x - mean) ** 2 for x in values), Fraction(0)) / (n - 1)
    exact = math.sqrt(variance) if deviation else float(variance)
    if not isinstance(got, float) or not math.isclose(got, exact, rel_tol=_EXACT):
        return False
    if not variance:
        return True
    trust = _DUCKDB * n * float(1 + mean * mean / variance)
    return trust > 1 or (isinstance(duck, float) and math.isclose(got, duck, rel_tol=trust))
