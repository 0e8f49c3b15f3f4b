"""Each arithmetic helper against DuckDB, over random and extreme values."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pytest

from enrich.signals import runtime
from enrich.signals.runtime import SqlError

EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, math.inf, -math.inf, math.nan, 1e308, -1e308, 5e-324, 2.0**53]
INTS = [0, 1, -1, 2, 2**31, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**64, 2**64 + 1]


def doubles(rng: random.Random, n: int) -> list[float]:
    def one() -> float:
        found: float = struct.unpack("<d", struct.pack("<Q", rng.getrandbits(64)))[0]
        return rng.choice((found, rng.uniform(-10, 10), rng.uniform(-1e6, 1e6), rng.randrange(-(10**6), 10**6) / 1000))

    return EDGES + [one() for _ in range(n)]


def huge(rng: random.Random, n: int) -> list[int]:
    return INTS + [rng.choice((1, -1)) * rng.getrandbits(rng.randrange(1, 126)) for _ in range(n)]


def duck(expression: str, types: Sequence[str], columns: Sequence[Sequence[Any]]) -> list[Any]:
    names = "abc"[: len(columns)]
    unnested = ", ".join(f"unnest(?::{t}[])" for t in types)
    values = [[str(v) for v in c] if t == "HUGEINT" else list(c) for t, c in zip(types, columns, strict=True)]
    rows = duckdb.execute(f"SELECT {expression} FROM (SELECT {unnested}) AS t({', '.join(names)})", values).fetchall()
    return [row[0] for row in rows]


def same(mine: Any, theirs: Any) -> bool:
    if isinstance(theirs, float) and isinstance(mine, float):
        if math.isnan(theirs):
            return math.isnan(mine)
        return mine == theirs and math.copysign(1, mine) == math.copysign(1, theirs)
    return type(mine) is type(theirs) and bool(mine == theirs)


def none_if_raised(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except SqlError:
        return None


@pytest.mark.parametrize(
    ("expression", "function"),
    [
        ("a / b", runtime.divide),
        ("pow(a, b)", runtime.power),
        ("a = b", runtime.same),
        ("a < b", runtime.less),
        ("a <= b", runtime.less_same),
        ("greatest(a, b)", runtime.greatest),
        ("least(a, b)", runtime.least),
        ("ln(a)", lambda a, b: runtime.log(a)),
        ("sqrt(a)", lambda a, b: runtime.root(a)),
        ("exp(a)", lambda a, b: runtime.exponential(a)),
        ("round(a, 2)", lambda a, b: runtime.round_double(a, 100.0)),
        ("round(a)", lambda a, b: runtime.round_double(a, 1.0)),
        ("round(a, 15)", lambda a, b: runtime.round_double(a, 1e15)),
        ("TRY_CAST(a AS BIGINT)", lambda a, b: runtime.try_double_int(a, -(2**63), 2**63 - 1)),
        ("TRY_CAST(a AS SMALLINT)", lambda a, b: runtime.try_double_int(a, -(2**15), 2**15 - 1)),
        (
            "(TRY_CAST(a AS DECIMAL(18,3))::DECIMAL(30,3) * 1000)::HUGEINT",
            lambda a, b: runtime.try_double_decimal(a, 3, 10**18 - 1),
        ),
    ],
)
def test_doubles(expression: str, function: Callable[..., Any]) -> None:
    rng = random.Random(7)
    a, b = doubles(rng, 6000), doubles(rng, 6000)
    rng.shuffle(b)
    for x, y, theirs in zip(a, b, duck(expression, ("DOUBLE", "DOUBLE"), (a, b)), strict=True):
        assert same(function(x, y), theirs), (expression, x, y)


@pytest.mark.parametrize(
    ("expression", "function"),
    [
        ("a::DOUBLE", lambda a, b: runtime.huge_double(a)),
        ("TRY(a // b)", lambda a, b: none_if_raised(runtime.int_divide, a, b)),
        ("TRY(a % b)", lambda a, b: none_if_raised(runtime.remainder, a, b, -(2**127))),
    ],
)
def test_huge_integers(expression: str, function: Callable[..., Any]) -> None:
    rng = random.Random(8)
    a, b = huge(rng, 6000), huge(rng, 6000)
    rng.shuffle(b)
    for x, y, theirs in zip(a, b, duck(expression, ("HUGEINT", "HUGEINT"), (a, b)), strict=True):
        assert same(function(x, y), theirs), (expression, x, y)


@pytest.mark.parametrize(("name", "bits"), [("TINYINT", 8), ("INTEGER", 32), ("BIGINT", 64), ("HUGEINT", 128)])
def test_the_least_integer_by_minus_one(name: str, bits: int) -> None:
    least = -(2 ** (bits - 1))
    a, b = [least, least, least + 1, 5], [-1, 1, -1, -1]
    for x, y, theirs in zip(a, b, duck("TRY(a % b)", (name, name), (a, b)), strict=True):
        assert none_if_raised(runtime.remainder, x, y, least) == theirs


def test_decimals_round_half_away_and_divide_to_the_nearest_double() -> None:
    rng = random.Random(9)
    a = [rng.randrange(-(10**17), 10**17) for _ in range(5000)] + [5 * 10**k for k in range(1, 17)]
    decimal = "(a::DECIMAL(38,0) * 0.0001)"
    for x, theirs in zip(a, duck(f"{decimal}::DECIMAL(38,0)::HUGEINT", ("BIGINT",), (a,)), strict=True):
        assert runtime.half_away(x, 10_000) == theirs
    for x, theirs in zip(a, duck(f"{decimal}::DOUBLE", ("BIGINT",), (a,)), strict=True):
        assert x / 10_000 == theirs


def test_seconds_between_two_times() -> None:
    rng = random.Random(10)
    a = [rng.randrange(2 * 10**15) for _ in range(4000)]
    b = [x + rng.randrange(-(10**12), 10**12) for x in a]
    found = duck("epoch(make_timestamptz(a) - make_timestamptz(b))", ("BIGINT", "BIGINT"), (a, b))
    for x, y, theirs in zip(a, b, found, strict=True):
        assert same(runtime.seconds(x - y), theirs)


def test_the_fused_multiply_add_is_rounded_once() -> None:
    from fractions import Fraction

    rng = random.Random(11)
    for x in doubles(rng, 4000):
        y, z = rng.uniform(0, 1), rng.choice((rng.uniform(-1e6, 1e6), -x * rng.uniform(0.99, 1.01), 0.0))
        if not (math.isfinite(x) and math.isfinite(z)) or abs(x) > 1e300:
            continue
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        mine = runtime._fused(x, y, z)
        assert mine == exact.numerator / exact.denominator, (x, y, z)


def test_a_filtered_average_is_divided_in_80_bit_floats() -> None:
    """Sums built to fall on the second rounding, where doubles and 80-bit floats part."""
    rng = random.Random(12)
    found = 0
    while found < 40:
        n, e = rng.randrange(4097, 20000) | 1, rng.randrange(-5, 38)
        rest = rng.choice((1, -1)) * pow(pow(2, 53 - e, n), -1, n) % n
        low = int(n * 2.0**e)
        total = low + rng.randrange(low + 1)
        total += (rest - total) % n
        if not 0 < total < 2**63 or runtime.filtered_average(total, n) == total / n:
            continue
        found += 1
        values = f"(SELECT CASE WHEN i = 0 THEN {total} ELSE 0 END::BIGINT AS x FROM range({n}) AS t(i))"
        filtered, plain = duckdb.execute(f"SELECT avg(x) FILTER (WHERE x >= 0), avg(x) FROM {values}").fetchall()[0]
        assert runtime.filtered_average(total, n) == filtered
        assert total / n == plain


def test_a_variance_is_exact_where_duckdb_is_not() -> None:
    values = [1_700_000_000_000_000 + d for d in (0, 500, 1000)]
    mine = runtime.variance(3, sum(values), sum(v * v for v in values))
    assert mine == 250_000.0
