"""Texts that are numbers, and texts that are almost: TRY_CAST as DuckDB does it, quirks included."""

from __future__ import annotations

import math
import random

import duckdb
import pytest

from enrich.signals.texts import attribute_text, text_double, text_int

QUIRKS = [
    "0x10",
    "0x10 ",
    " 0X1F",
    "-0x10",
    "0b11",
    "0o17",
    "1_000",
    "1__0",
    "_1",
    "1_",
    "1e3",
    "1e3.",
    "8.5e1.",
    ".4e+5.",
    " 12 ",
    "\t12\n",
    "\v12\f",
    "\u00a012",
    "12\x00",
    "+5",
    "--5",
    "+-5",
    "-+5",
    "- 5",
    "-0",
    "",
    " ",
    ".",
    "-",
    "1.",
    ".5",
    "1.e2",
    "1.5",
    "2.5",
    "-1.5",
    "-2.5",
    "0.5",
    "15e-1",
    "1.25e1",
    "4.5",
    "1e18",
    "1e19",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "9223372036854775807.4",
    "9223372036854775807.5",
    "92233720368547758070e-1",
    "9.2233720368547758e18",
    "922337203685477580.7e1",
    "1.4999999999999999999999",
    "0.49999999999999999999999999",
    ".252223836501248966265e19",
    "0e60232",
    "inf",
    "-Inf",
    "+infinity",
    "nan",
    "NaN(1)",
    "infx",
    "1e400",
    "-1e-400",
    "1e-320",
    "1d",
    "0x1.8p3",
    "１２",
    "true",
    "1 2",
    "1,000",
    "492_890354685424664556.50",
    "521_5629235031015.499",
    "582_3901978966506.5_0",
    "1627838501876018196.5e-1_0",
]


def draw(rng: random.Random) -> str:
    digits = "".join(rng.choice("0123456789") for _ in range(rng.randrange(22)))
    if rng.random() < 0.3:
        digits = f"{digits[:3]}_{digits[3:]}"
    if rng.random() < 0.5:
        digits += "." + "".join(rng.choice("0123456789_") for _ in range(rng.randrange(8)))
    if rng.random() < 0.4:
        digits += rng.choice("eE") + rng.choice(("", "+", "-")) + str(rng.randrange(25))
    text = rng.choice(("", "", "-", "+", "+-", " ")) + digits + rng.choice(("", "", "", " ", ".", "x"))
    if rng.random() < 0.1:
        text = rng.choice(("0x", "0b", " 0X", "-0x")) + "".join(
            rng.choice("01fA_") for _ in range(rng.randrange(1, 18))
        )
    return text


def answers(texts: list[str]) -> list[tuple[str, int | None, float | None]]:
    return duckdb.execute(
        "SELECT t, TRY_CAST(t AS BIGINT), TRY_CAST(t AS DOUBLE) FROM (SELECT unnest(?::VARCHAR[]) AS t)", [texts]
    ).fetchall()


def same(mine: float | None, theirs: float | None) -> bool:
    if mine is None or theirs is None or math.isnan(theirs):
        return (mine is None) == (theirs is None) and (mine is None or math.isnan(mine))
    return mine == theirs and math.copysign(1, mine) == math.copysign(1, theirs)


@pytest.mark.parametrize("seed", range(4))
def test_texts_are_read_as_duckdb_reads_them(seed: int) -> None:
    rng = random.Random(seed)
    for text, integer, double in answers(QUIRKS + [draw(rng) for _ in range(10_000)]):
        assert text_int(text) == integer, repr(text)
        assert same(text_double(text), double), repr(text)


def test_an_attribute_is_the_text_that_json_holds() -> None:
    values = ["text", "", 'é"\\', 12, -(2**63), 2**63 - 1, True, False, None]
    rows = duckdb.execute(
        "SELECT j ->> 'k' FROM (SELECT unnest(?::JSON[]) AS j)",
        [['{"k":"text"}', '{"k":""}', '{"k":"é\\"\\\\"}', '{"k":12}', f'{{"k":{-(2**63)}}}', f'{{"k":{2**63 - 1}}}',
          '{"k":true}', '{"k":false}', "{}"]],
    ).fetchall()  # fmt: skip
    assert [attribute_text(v) for v in values] == [row[0] for row in rows]
