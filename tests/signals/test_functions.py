"""Every function over every hard case: empty window, one row, ties, nulls, int64 extremes; fifty fillings of each."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from enrich.signals import load_catalog
from tests.signals.duck import Duck, settled
from tests.signals.naive import Naive

START = 1_700_000_000_000_000
HOUR = 3_600_000_000
HEADER = "-- entity: agent\n-- windows: 1h\n"
FILLINGS = 50

AGGREGATES = {
    "rows": "count(*)",
    "present": "count(cost_microusd)",
    "matching": "count(*) FILTER (WHERE outcome = 'failed')",
    "total": "sum(cost_microusd)",
    "total_some": "sum(cost_microusd) FILTER (WHERE outcome = 'failed')",
    "difference": "sum(cost_microusd - amount_minor)",
    "conditions": "sum(action = 'a')",
    "least_one": "min(cost_microusd)",
    "most_one": "max(cost_microusd) FILTER (WHERE action IS NOT NULL)",
    "first_time": "min(occurred_at)",
    "final_time": "max(occurred_at)",
    "every": "bool_and(action = 'a')",
    "any_one": "bool_or(action = 'a')",
    "p50": "quantile_cont(cost_microusd, 0.5)",
    "p95": "quantile_cont(cost_microusd, 0.95) FILTER (WHERE outcome = 'failed')",
    "p333": "quantile_cont(cost_microusd / 7, 0.333e0)",
    "disc": "quantile_disc(cost_microusd, 0.9)",
    "disc_half": "quantile_disc(cost_microusd, 0.5e0)",
    "middle": "median(cost_microusd)",
    "different": "count(DISTINCT action)",
    "different_numbers": "count(DISTINCT cost_microusd)",
    "latest": "arg_max(cost_microusd, (occurred_at, seq))",
    "latest_text": "arg_max(action, (occurred_at, seq)) FILTER (WHERE outcome = 'failed')",
    "latest_flag": "arg_max(action = 'a', (occurred_at, seq))",
    "streak": "current_streak(outcome = 'failed', occurred_at, seq)",
    "streak_null": "current_streak(action = 'a', occurred_at, seq)",
    "since": "seconds_since_last(action = 'a', occurred_at, as_of)",
    "burst_minute": "burst(outcome = 'failed', occurred_at, INTERVAL 1 MINUTE)",
    "burst_all": "burst(true, occurred_at, INTERVAL 10 MINUTE)",
    "low": "wilson_lower(count(*) FILTER (WHERE outcome = 'failed'), count(*))",
    "high": "wilson_upper(matching, rows, z := 3.0)",
    "z": "two_proportion_z(matching, rows, present, rows)",
    "clock": "max(as_of)",
}
SCALARS = {
    "rate": "matching / nullif(rows, 0)",
    "ratio": "total / total_some",
    "per_row": "total / rows",
    "negative": "- total",
    "distance": "abs(difference)",
    "whole": "total // nullif(rows, 0)",
    "rest": "difference % nullif(matching, 0)",
    "rounded": "round(p50 / 3, 2)",
    "rounded_decimal": "round(rows * 0.125, 1)",
    "scaled": "100.0 * rows",
    "log": "ln(total)",
    "grown": "exp(rows)",
    "rooted": "sqrt(total)",
    "raised": "pow(rows, 0.5)",
    "filled": "coalesce(total, 0)",
    "larger": "greatest(least_one, 5)",
    "smaller": "least(p50, rows, 3.5)",
    "between_them": "rows BETWEEN 1 AND 3",
    "listed": "rows IN (0, 1, 5)",
    "chosen": "CASE WHEN rows > 1 THEN 1 WHEN every THEN 2.5 ELSE 0 END",
    "logic": "every AND (any_one OR total > 5)",
    "unlike": "total IS DISTINCT FROM total_some",
    "as_int": "TRY_CAST(p50 AS BIGINT)",
    "as_double": "CAST(total AS DOUBLE)",
    "text": "latest_text = 'a'",
    "infinite": "rows / (rows - rows)",
    "late": "final_time = first_time",
}
AVERAGES = {"mean": "avg(cost_microusd)", "mean_some": "avg(cost_microusd) FILTER (WHERE outcome = 'failed')"}


def fill(rng: random.Random, case: str) -> list[dict[str, Any]]:
    """The events of one agent inside one hour; `case` says what is hard about them."""
    n = {"empty": 0, "one": 1}.get(case, rng.randrange(2, 14))
    times = [START + rng.randrange(HOUR) for _ in range(n)]
    if case == "ties":
        times = [START + rng.choice((0, 60_000_000, HOUR - 1)) for _ in range(n)]
    rows = []
    for at in times:
        row: dict[str, Any] = {
            "occurred_at": at,
            "source": "t",
            "event_id": "e",
            "kind": "execution",
            "outcome": rng.choice(("failed", "succeeded")),
        }
        value = rng.choice((2**63 - 1, 2**63 - 2, 0, 1, 2**53 + 1, 2**62)) if case == "extremes" else rng.randrange(9)
        if case == "ties":
            value = rng.choice((3, 3, 3, 4))
        if not (case == "nulls" and rng.random() < 0.7):
            row["cost_microusd"] = value
        if rng.random() < (0.2 if case == "nulls" else 0.8):
            row["amount_minor"] = rng.choice((0, 2**63 - 1)) if case == "extremes" else rng.randrange(9)
        if rng.random() < (0.3 if case == "nulls" else 0.8):
            row["action"] = rng.choice(("a", "b"))
        rows.append(row)
    return rows


def definition(columns: Mapping[str, str]) -> str:
    return HEADER + "SELECT\n" + ",\n".join(f"    {sql} AS {name}" for name, sql in columns.items()) + "\nFROM events\n"


@pytest.mark.parametrize("case", ["empty", "one", "ties", "nulls", "extremes"])
@pytest.mark.parametrize("columns", [{**AGGREGATES, **SCALARS}, AVERAGES], ids=["functions", "averages"])
def test_every_function_gives_duckdbs_bits(case: str, columns: Mapping[str, str]) -> None:
    rng = random.Random(case)
    events = [{**row, "agent_id": f"a{i}"} for i in range(FILLINGS) for row in fill(rng, case)]
    rng.shuffle(events)
    sql = definition(columns)
    catalog = load_catalog({"all": sql})
    ((_, us, function),) = catalog.functions()["agent"].windows
    as_of = START + HOUR - 1
    cases = [(f"a{i}", as_of) for i in range(FILLINGS)]
    found = Duck(events).cases(sql, cases, us)
    for (agent, at), row in zip(cases, found, strict=True):
        mine = [(seq, e) for seq, e in enumerate(events, 1) if e["agent_id"] == agent]
        naive = Naive(catalog.plans["agent"], [e for _, e in mine], [seq for seq, _ in mine])
        got = naive.answer(function, us, at)
        for name, value in zip(columns, row, strict=True):
            theirs = settled(value)
            assert (got.get(name), type(got.get(name))) == (theirs, type(theirs)), (name, agent)


def test_signals_that_are_always_there_are_there_without_events() -> None:
    catalog = load_catalog({"all": definition({**AGGREGATES, **SCALARS})})
    ((_, us, function),) = catalog.functions()["agent"].windows
    got = Naive(catalog.plans["agent"], [], []).answer(function, us, START)
    assert {s.name for s in catalog.sets[0].signals if s.always} <= set(got)


def test_an_overflow_takes_out_its_signal_and_no_other() -> None:
    sql = definition({"n": "count(*)", "square": "max(cost_microusd) * max(cost_microusd)", "more": "n + 1"})
    catalog = load_catalog({"all": sql})
    ((_, us, function),) = catalog.functions()["agent"].windows
    event = {"occurred_at": START, "kind": "execution", "outcome": "failed", "agent_id": "a", "cost_microusd": 2**62}
    naive = Naive(catalog.plans["agent"], [event], [1])
    assert naive.answer(function, us, START) == {"n": 1, "more": 2}
    assert {s.name: s.may_fail for s in catalog.sets[0].signals} == {"n": False, "square": True, "more": False}


def test_a_sum_beyond_64_bits_has_no_value_of_its_own_but_can_be_used() -> None:
    sql = definition({"total": "sum(cost_microusd)", "millions": "total / 1e6"})
    catalog = load_catalog({"all": sql})
    ((_, us, function),) = catalog.functions()["agent"].windows
    event = {
        "occurred_at": START,
        "kind": "execution",
        "outcome": "failed",
        "agent_id": "a",
        "cost_microusd": 2**63 - 1,
    }
    got = Naive(catalog.plans["agent"], [event, event], [1, 2]).answer(function, us, START)
    assert got == {"millions": 18446744073709.55}
