"""What random definitions found once, each as small as it gets."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pytest

from enrich.signals import load_catalog
from enrich.signals.bulk import Question
from tests.exactness.scenario import Splits, build, contexts, duckdb_of, expected_of

START: Final = 1_700_000_000_000_000
_BIG: Final = 2**62


def event(at: int = 0, **fields: Any) -> dict[str, Any]:
    base = {"source": "t", "event_id": "e", "kind": "execution", "outcome": "failed", "agent_id": "a"}
    return {**base, "occurred_at": START + at, **fields}


def values(columns: Mapping[str, str], events: Sequence[Mapping[str, Any]], derived: str = "") -> dict[str, Any]:
    """The signals of agent `a` over `events`, after they were found to be DuckDB's."""
    selected = ",\n".join(f"    {sql} AS {name}" for name, sql in columns.items())
    sources = {"one": f"-- entity: agent\n-- windows: 1h\nSELECT\n{selected}\nFROM events\n"}
    if derived:
        sources["two"] = f"-- entity: agent\nSELECT {derived} AS made FROM signals\n"
    catalog = load_catalog(sources)
    asked = [Question(START + 1_000_000, {"agent": "a"})]
    connection = duckdb_of(events)
    expected = expected_of(connection, catalog, asked)
    connection.close()
    index = build(catalog, events, Splits(random.Random(0)))
    (answer,) = contexts(catalog, index, asked)
    assert [str(d) for d in expected.differences(0, answer)] == []
    found: dict[str, Any] = answer["agent"]
    return found


def test_two_variances_over_one_row() -> None:
    columns = {"v": "var_samp(duration_ms)", "s": "stddev_samp(duration_ms)", "n": "count(*)"}
    assert values(columns, [event(duration_ms=5)])["last_1h"] == {"complete": False, "n": 1}


def test_an_average_with_a_filter_is_the_machines_long_double() -> None:
    columns = {"some": "avg(duration_ms) FILTER (WHERE outcome = 'failed')", "every": "avg(duration_ms)"}
    values(columns, [event(duration_ms=x) for x in (2**53 + 1, 2**62, 2**63 - 1, 2**53 + 1, 3, 7, 2**61 + 12_345)])


@pytest.mark.parametrize("share", ["0.9", "0.9e0", "0.7e0", "0.1e0", "0.3", "1", "0"])
def test_a_discrete_quantiles_rank_is_as_exact_as_its_share(share: str) -> None:
    for n in (3, 10, 30, 70, 100):
        values({"q": f"quantile_disc(duration_ms, {share})"}, [event(duration_ms=x) for x in range(n)])


def test_a_derived_set_may_name_what_its_constants_make_useless() -> None:
    derived = "coalesce((last_1h.n * 7) / nullif(0, 0), -1)"
    assert values({"n": "count(*)"}, [event()], derived)["made"] == -1.0


def test_a_negated_double_whose_operand_may_overflow() -> None:
    columns = {"m": "max(duration_ms)", "s": "(- ((m * m) / 3))"}
    assert "s" not in values(columns, [event(duration_ms=_BIG)])["last_1h"]
    assert values(columns, [event(duration_ms=3)])["last_1h"]["s"] == -3.0


def test_an_overflow_beside_a_null_leaves_no_value() -> None:
    columns = {
        "b": "quantile_disc(wait_ms, 0.1)",
        "a": "arg_max(amount_minor, (occurred_at, seq))",
        "s": "coalesce((b * b) / nullif(a, 0), 0.5e0)",
    }
    assert "s" not in values(columns, [event(wait_ms=_BIG)])["last_1h"]


def test_an_overflow_beside_a_false_leaves_no_value() -> None:
    columns = {"m": "max(wait_ms)", "s": "(m < 5) AND (m * 4 > 7)"}
    assert "s" not in values(columns, [event(wait_ms=_BIG)])["last_1h"]


def test_a_text_that_a_window_gives_is_cast() -> None:
    last = "arg_max(attributes ->> 'k', (occurred_at, seq))"
    columns = {"i": f"TRY_CAST({last} AS BIGINT)", "d": f"TRY_CAST({last} AS DOUBLE)"}
    assert values(columns, [event(attributes={"k": "12.5"})])["last_1h"] == {"complete": False, "i": 13, "d": 12.5}
    assert values(columns, [event(attributes={"k": "x"})])["last_1h"] == {"complete": False}


def test_a_null_double_is_cast_to_an_integer() -> None:
    columns = {
        "n": "count(*)",
        "i": "TRY_CAST(nullif(0.5e0 / nullif(0, 0), 0) AS INTEGER)",
        "j": "CAST(NULL::DOUBLE AS BIGINT)",
    }
    assert values(columns, [event()])["last_1h"] == {"complete": False, "n": 1}


def test_what_overflows_has_no_value_even_where_the_answer_is_known() -> None:
    columns = {"m": "max(duration_ms)", "f": "isfinite(CAST(m * m AS DOUBLE))"}
    assert values(columns, [event(duration_ms=3)])["last_1h"]["f"] is True
    assert "f" not in values(columns, [event(duration_ms=_BIG)])["last_1h"]


def test_the_least_integer_by_minus_one_has_no_remainder() -> None:
    number = "TRY_CAST(attributes ->> 'k' AS BIGINT)"
    columns = {"n": "count(*)", "m": f"min({number})", "r": "m % -1", "t": f"sum(TRY({number} % -1))"}
    found = values(columns, [event(attributes={"k": -(2**63)})])["last_1h"]
    assert found == {"complete": False, "n": 1, "m": -(2**63)}
    assert values(columns, [event(attributes={"k": 7})])["last_1h"]["r"] == 0


def test_a_quotient_by_a_positive_integer_cannot_overflow() -> None:
    columns = {"q": "min(TRY_CAST(attributes ->> 'k' AS BIGINT) // 1)", "p": "q // 1000"}
    assert values(columns, [event(attributes={"k": -(2**63)})])["last_1h"]["p"] == -(2**63 // 1000)


@pytest.mark.parametrize("scale", range(0, 37))
def test_a_double_becomes_a_decimal_of_any_scale(scale: int) -> None:
    columns = {f"d{k}": f"TRY_CAST({k}e0 / max(duration_ms) AS DECIMAL(38, {scale}))" for k in range(1, 10)}
    values(columns, [event(duration_ms=7)])
