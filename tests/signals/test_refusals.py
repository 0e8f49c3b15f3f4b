"""What is refused, where the caret stands, and which rewrite is shown."""

from __future__ import annotations

import pytest

from enrich.errors import DefinitionError
from enrich.signals import DefinitionErrors, load_catalog

HEADER = "-- entity: agent\n-- windows: 1h\n"


def refusal(text: str) -> DefinitionError:
    with pytest.raises(DefinitionErrors) as caught:
        load_catalog({"set": text})
    (error,) = caught.value.errors
    return error


#: select item (or whole statement) -> (text under the caret, part of the message, part of the hint)
ITEMS = {
    "count(*)": ("count(*)", "without a name", "AS name"),
    "count(*) AS Runs": ("count(*)", "`Runs`", "lower case"),
    "count(*) AS known": ("count(*)", "reserved", ""),
    "count(*) AS last_24h": ("count(*)", "reserved", ""),
    "count(*) AS kind": ("count(*)", "column of events", "another name"),
    "count(*) AS n, max(duration_ms) AS n": ("max(duration_ms)", "twice", ""),
    "*": ("*", "`*`", "name each signal"),
    "outcome AS x": ("outcome", "without an aggregate", "one value"),
    "now() AS x, count(*) AS n": ("now()", "`now`", "as_of"),
    "random() AS x, count(*) AS n": ("random()", "`random`", "same answer twice"),
    "sum(foo) AS x": ("foo", "foo", ""),
    "y + 1 AS x, count(*) AS y": ("y", "before it is defined", ""),
    "count_if(outcome = 'failed') AS x": ("count_if(outcome = 'failed')", "count_if", "FILTER"),
    "first(outcome) AS x": ("first(outcome)", "`first`", "arg_max"),
    "last(outcome) AS x": ("last(outcome)", "`last`", "arg_max"),
    "any_value(outcome) AS x": ("any_value(outcome)", "any_value", "arg_max"),
    "mode(outcome) AS x": ("mode(outcome)", "`mode`", ""),
    "list(outcome) AS x": ("list(outcome)", "`list`", ""),
    "approx_count_distinct(outcome) AS x": ("approx_count_distinct(outcome)", "approx", "count(DISTINCT x)"),
    "arg_max(outcome, occurred_at) AS x": ("arg_max(outcome, occurred_at)", "arg_max", "leaves ties to chance"),
    "arg_min(outcome, (occurred_at, seq)) AS x": ("arg_min(outcome, (occurred_at, seq))", "arg_min", "arg_max"),
    "sum(DISTINCT wait_ms) AS x": ("sum(DISTINCT wait_ms)", "DISTINCT", "count(DISTINCT x)"),
    "sum(duration_ms * 2) AS x": ("duration_ms * 2", "can raise", "TRY("),
    "sum(duration_ms / 1000) AS x": ("sum(duration_ms / 1000)", "DOUBLE", "integers"),
    "avg(duration_ms * 0.5) AS x": ("avg(duration_ms * 0.5)", "DECIMAL(21,1)", "integers"),
    "max(outcome) AS x": ("max(outcome)", "VARCHAR", "arg_max"),
    "max(duration_ms / wait_ms) AS x": ("max(duration_ms / wait_ms)", "inf or nan", "nullif"),
    "max(duration_ms * 0.5) AS x": ("max(duration_ms * 0.5)", "DECIMAL", "::DOUBLE"),
    "max(TRY_CAST(attributes ->> 'k' AS DOUBLE)) AS x": (
        "max(TRY_CAST(attributes ->> 'k' AS DOUBLE))",
        "inf or nan",
        "isfinite",
    ),
    "quantile_cont(duration_ms, [0.5, 0.9]) AS x": ("quantile_cont(duration_ms, [0.5, 0.9])", "list", "one quantile"),
    "quantile_cont(duration_ms, -0.5) AS x": ("quantile_cont(duration_ms, -0.5)", "descending", "between 0 and 1"),
    "quantile_cont(occurred_at, 0.5) AS x": ("quantile_cont(occurred_at, 0.5)", "TIMESTAMP", ""),
    "var_samp(duration_ms / 3) AS x": ("var_samp(duration_ms / 3)", "DOUBLE", "integers"),
    "var_pop(duration_ms) AS x": ("var_pop(duration_ms)", "var_pop", "var_samp"),
    "sum(CAST(attributes ->> 'k' AS BIGINT)) AS x": ("CAST(attributes ->> 'k' AS BIGINT)", "cast of", "TRY_CAST"),
    "count(attributes ->> '$.k') AS x": ("'$.k'", "`$.k`", "plain literal"),
    "count(attributes -> 'k') AS x": ("attributes -> 'k'", "json_extract", "->> 'key'"),
    "count(attributes) AS x": ("count(attributes)", "as a whole", "->> 'key'"),
    "count(*) FILTER (WHERE occurred_at > as_of - INTERVAL 5 MINUTE) AS x": (
        "count(*) FILTER (WHERE occurred_at > as_of - INTERVAL 5 MINUTE)",
        "`as_of`",
        "another window",
    ),
    "count(*) FILTER (WHERE seq > 3) AS x": ("count(*) FILTER (WHERE seq > 3)", "seq", "arg_max"),
    "count(*) FILTER (WHERE hour(occurred_at) = 3) AS x": ("hour(occurred_at)", "`hour`", "time zone"),
    "count(*) FILTER (WHERE occurred_at > '2026-01-01') AS x": ("'2026-01-01'", "cast of", "zone"),
    "count(*) FILTER (WHERE lower(outcome) = 'a') AS x": ("lower(outcome)", "`lower`", "not taken apart"),
    "count(*) FILTER (WHERE outcome LIKE 'a%') AS x": ("LIKE 'a%'", "~~", "not taken apart"),
    "count(*) FILTER (WHERE outcome ILIKE 'a%') AS x": ("ILIKE 'a%'", "~~*", "not taken apart"),
    "count(*) FILTER (WHERE outcome SIMILAR TO 'a') AS x": ("SIMILAR TO 'a'", "regexp_full_match", "not taken apart"),
    "count(*) FILTER (WHERE attributes ->> 'flag' = true) AS x": (
        "attributes ->> 'flag'",
        "cast of `VARCHAR` to `BOOLEAN`",
        "attributes ->> 'flag' = 'true'",
    ),
    "count(*) AS n, max(as_of) - max(occurred_at) > INTERVAL 5 MINUTE AS x": (
        "max(as_of) - max(occurred_at) > INTERVAL 5 MINUTE",
        "normalized_interval",
        "epoch(later - earlier) > 300",
    ),
    "count(*) + duration_ms AS x": ("duration_ms", "`duration_ms` outside of an aggregate", "max(x)"),
    "count(*) AS n, as_of AS x": ("as_of", "`as_of` outside of an aggregate", "max(as_of)"),
    "quantile_cont(duration_ms, 1.1) AS x": ("S", "QUANTILE", ""),
    "count(*) AS n, 1 < n < 3 AS x": ("S", "Chained comparisons", ""),
    "count(*) FILTER (WHERE duration_ms) AS x": ("duration_ms", "BOOLEAN", "x <> 0"),
    "count(*) FILTER (WHERE duration_ms = '5') AS x": ("'5'", "VARCHAR", "TRY_CAST"),
    "count(*) FILTER (WHERE (outcome = 'a') = 1) AS x": ("outcome = 'a'", "BOOLEAN", "no number"),
    "count(*) FILTER (WHERE duration_ms % wait_ms = 0) AS x": ("duration_ms % wait_ms", "may be zero", "nullif"),
    "count(*) AS n, n // 0 AS x": ("0", "may be zero", "nullif"),
    "count(*) AS n, n % n AS x": ("n % n", "may be zero", "nullif"),
    "count(*) AS n, 7.5 // 2 AS x": ("7.5 // 2", "DOUBLE", "plain division"),
    "count(*) AS n, -2^2 AS x": ("-2^2", "`^`", "pow"),
    "count(*) AS n, n::VARCHAR AS x": ("::VARCHAR", "VARCHAR", ""),
    "count(*) AS n, n::FLOAT AS x": ("::FLOAT", "FLOAT", "DOUBLE"),
    "count(*) AS n, n::UBIGINT AS x": ("::UBIGINT", "UBIGINT", "BIGINT"),
    "count(*) AS n, floor(n / 2) AS x": ("floor(n / 2)", "floor", "round"),
    "count(*) AS n, log10(n) AS x": ("log10(n)", "log10", "ln(x)"),
    "count(*) AS n, round(n / 3, -1) AS x": ("-1", "0 to 15 digits", "round(x, 2)"),
    "count(*) AS n, NULL AS x": ("NULL", "NULL", "type"),
    "count(*) AS n, [1, 2] AS x": ("[1, 2]", "LIST", ""),
    "count(*) AS n, max(occurred_at) - min(occurred_at) AS x": ("-", "INTERVAL", "epoch"),
    "count(*) AS n, (SELECT 1) AS x": ("(SELECT 1)", "subquery", "derived"),
    "count(*) > 170141183460469231731687303715884105728 AS x": (
        "170141183460469231731687303715884105728",
        "128 bits",
        "DOUBLE",
    ),
    "'10'::BIT = '1'::BIT AS x, count(*) AS n": ("SELECT", "a type that no signal has", ""),
    "duration_ms.avg() AS x": ("duration_ms.avg()", "with a dot", "avg(x)"),
    "(duration_ms - 1).avg() AS x": ("avg()", "with a dot", "avg(x)"),
    "main.avg(duration_ms) AS x": ("main.avg(duration_ms)", "with a dot", "avg(x)"),
    "count(*) OVER () AS x": ("count(*) OVER ()", "OVER", "arg_max"),
    "current_streak(duration_ms, occurred_at, seq) AS x": (
        "current_streak(duration_ms, occurred_at, seq)",
        "BIGINT",
        "condition",
    ),
    "current_streak(outcome = 'a', occurred_at, occurred_at) AS x": (
        "current_streak(outcome = 'a', occurred_at, occurred_at)",
        "without seq",
        "seq)",
    ),
    "burst(outcome = 'a', occurred_at, INTERVAL 1 MONTH) AS x": ("INTERVAL 1 MONTH", "to_months", "INTERVAL 30 DAY"),
    "seconds_since_last(outcome = 'a', occurred_at, now()) AS x": ("now()", "`now`", "as_of"),
    "count(*) AS n, try(n // 2) AS x": ("SELECT", "TRY", ""),
    "count(*) AS n, 'abc AS x": ("'", "not closed", ""),
    "count(*) AS n, $1 AS x": ("$", "means nothing", ""),
    "count(*) /* all */ AS n": ("/", "block comment", ""),
    "count(*) AS n, e'x' = 'x' AS x": ("e", "prefix", ""),
}
STATEMENTS = {
    "SELECT count(*) AS n FROM events GROUP BY outcome": ("outcome", "GROUP BY", "FILTER"),
    "SELECT count(*) AS n FROM events GROUP BY ALL": ("", "GROUP BY", ""),
    "SELECT count(*) AS n FROM events HAVING count(*) > 1": ("count(*) > 1", "HAVING", "CASE"),
    "SELECT DISTINCT count(*) AS n FROM events": ("SELECT", "DISTINCT", "count(DISTINCT x)"),
    "SELECT count(*) AS n FROM events ORDER BY 1": ("1", "ORDER BY", "one row"),
    "SELECT count(*) AS n FROM events WINDOW w AS ()": ("WINDOW", "WINDOW", "leave it out"),
    "(SELECT count(*) AS n FROM events)": ("(", "parentheses", "leave them out"),
    "SELECT count(*) AS n FROM events LIMIT 1": ("1", "LIMIT", "one row"),
    "SELECT count(*) AS n FROM events TABLESAMPLE 10%": ("SELECT", "TABLESAMPLE", "exact"),
    "SELECT count(*) AS n FROM events e": ("events e", "`events`", "aliases"),
    "SELECT count(*) AS n FROM events JOIN events b ON true": ("", "JOIN", "no joins"),
    "SELECT count(*) AS n FROM read_csv('/etc/passwd')": ("read_csv('/etc/passwd')", "TABLE_FUNCTION", "no joins"),
    "SELECT count(*) AS n FROM '/etc/passwd'": ("'/etc/passwd'", "/etc/passwd", "files"),
    "SELECT count(*) AS n FROM (SELECT * FROM events)": ("(SELECT * FROM events)", "SUBQUERY", ""),
    "WITH a AS (SELECT 1) SELECT count(*) AS n FROM events": ("1", "WITH", "later column"),
    "SELECT count(*) AS n FROM events UNION SELECT 1": ("", "plain SELECT", "UNION"),
    "SELECT count(*) AS n FROM events; SELECT 1": ("", "2 statements", ""),
    "DROP TABLE events": ("", "plain SELECT", ""),
    "SELECT count( AS n FROM events": ("A", "syntax error", ""),
    "": ("", "0 statements", ""),
}


def under_the_caret(error: DefinitionError) -> str:
    d = error.detail
    start = int(d["column"]) - 1
    return str(d["source"])[start : start + int(d["length"])]


@pytest.mark.parametrize("item", ITEMS)
def test_a_select_item_is_refused(item: str) -> None:
    marked, message, hint = ITEMS[item]
    error = refusal(f"{HEADER}SELECT {item}\nFROM events")
    assert message in error.message
    assert hint in error.detail.get("hint", "")
    if marked != "SELECT":
        assert error.detail["line"] == 3
        assert under_the_caret(error) == marked
    assert error.detail["file"] == "set.sql"


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_is_refused(statement: str) -> None:
    marked, message, hint = STATEMENTS[statement]
    error = refusal(HEADER + statement)
    assert message in error.message
    assert hint in error.detail.get("hint", "")
    if marked:
        assert under_the_caret(error) == marked


def test_all_problems_of_all_files_are_reported_with_their_places() -> None:
    with pytest.raises(DefinitionErrors) as caught:
        load_catalog({
            "a": f"{HEADER}SELECT now() AS x, count(*) AS n\nFROM events",
            "b": f"{HEADER}SELECT count(*) AS m,\n    mode(outcome) AS y\nFROM events",
            "c": "SELECT count(*) AS o\nFROM events",
        })  # fmt: skip
    assert sorted((e.detail["file"], e.detail["line"]) for e in caught.value.errors) == [
        ("a.sql", 3),
        ("b.sql", 4),
        ("c.sql", 1),
    ]
    assert "    ^^^^^^^^^^^^^" in caught.value.pretty()


def test_a_place_in_a_macros_own_text_falls_back_to_the_column() -> None:
    """A text argument is refused at the call, not somewhere in the file where the macro has its comparison."""
    error = refusal(
        f"{HEADER}SELECT count(*) AS n,\n  wilson_lower(n, arg_max(outcome, (occurred_at, seq))) AS x\nFROM events"
    )
    assert error.detail["line"] == 4


def test_bytes_and_characters_are_told_apart() -> None:
    error = refusal(f"{HEADER}SELECT count(*) FILTER (WHERE action = 'äöü€') AS n, mode(outcome) AS x\nFROM events")
    assert under_the_caret(error) == "mode(outcome)"


def nested(before: str, inner: str, after: str, times: int) -> str:
    return before * times + inner + after * times


FLAT = {
    "(x + 1)": ("(", "count(*)", " + 1)"),
    "overflow in AND": ("((", "max(wait_ms) * 4 > 1", " AND max(wait_ms) * 4 > 2) = true)"),
    "overflow in CASE": ("CASE WHEN ", "max(wait_ms) * 4", " > 4 THEN max(wait_ms) * 4 ELSE 3 END"),
    "overflow in coalesce": ("coalesce(", "max(wait_ms)", " * 2, min(wait_ms))"),
    "IS NULL of an overflow": ("(((", "max(wait_ms) * 4 > 1", ") IS NULL) = (max(wait_ms) * 4 > 2))"),
    "greatest": ("greatest(", "max(wait_ms)", ", min(wait_ms) + 1)"),
    "TRY_CAST": ("TRY_CAST(", "max(wait_ms)", " / 3 AS BIGINT)"),
    "nullif": ("nullif(", "max(wait_ms)", ", 1)"),
    "wilson_lower": ("wilson_lower(", "count(*)", ", count(*))"),
}


@pytest.mark.parametrize("form", FLAT)
def test_what_is_nested_too_deeply_is_refused_and_anything_less_loads(form: str) -> None:
    before, inner, after = FLAT[form]
    for times in (1, 4, 7, 10, 14, 15, 20, 30, 31, 32, 33, 100, 400, 2_000):
        sql = f"{HEADER}SELECT count(*) AS n,\n    {nested(before, inner, after, times)} AS x\nFROM events"
        try:
            load_catalog({"set": sql})
        except DefinitionErrors as caught:
            (error,) = caught.errors
            assert times > 4
            assert error.detail["line"] == 4 or times > 100
            continue
        assert times < 32


def test_names_that_double_an_expression_are_written_out_only_so_often() -> None:
    lines = ["count(*) AS x0", *(f"x{i} + x{i} AS x{i + 1}" for i in range(40))]
    error = refusal(f"{HEADER}SELECT\n" + ",\n".join(lines) + "\nFROM events")
    assert "with the names in it written out" in error.message
    assert error.detail["line"] == 4 + 14


def test_derived_sets_that_read_each_other_nest_only_so_deeply() -> None:
    sources = {"base": f"{HEADER}SELECT max(wait_ms) AS d0 FROM events"}
    for i in range(12):
        before = "last_1h.d0" if i == 0 else f"e{i}"
        sql = nested("coalesce(", before, " * 2, last_1h.d0)", 5)
        sources[f"set{i:02}"] = f"-- entity: agent\nSELECT\n    {sql} AS e{i + 1}\nFROM signals"
    with pytest.raises(DefinitionErrors) as caught:
        load_catalog(sources)
    first = caught.value.errors[0]
    assert "what it reads in derived sets" in first.message
    assert first.detail["line"] == 3
