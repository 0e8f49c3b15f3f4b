"""Every function of the supported grammar as SQL over a chosen operand, for counting what it meets.

In a template `{x}` is an integer of a row, `{f}` a FILTER or nothing, `{m}`, `{l}` and `{s}` are the largest, smallest
and sum of the filtered x, `{c}` a small constant, `{w}` a word.
"""

from __future__ import annotations

from typing import Final

__all__ = ["AGGREGATES", "LIBRARY", "ROWS", "SCALARS", "VARIANCES"]

#: over the rows that pass the filter
AGGREGATES: Final[dict[str, tuple[str, ...]]] = {
    "count(*)": ("count(*){f}",),
    "count(x)": ("count({x}){f}", "count({x} > {c}){f}"),
    "sum": ("sum({x}){f}", "sum({x} > {c}){f}"),
    "avg": ("avg({x}){f}",),
    "min": ("min({x}){f}", "min({x} / 8){f}"),
    "max": ("max({x}){f}", "max({x} / 8){f}"),
    "bool_and": ("bool_and({x} > {c}){f}",),
    "bool_or": ("bool_or({x} = {c}){f}",),
    "quantile_cont": ("quantile_cont({x}, 0.9){f}", "quantile_cont({x} / 7, 0.25e0){f}"),
    "quantile_disc": ("quantile_disc({x}, 0.5){f}", "quantile_disc({x}, 0.9e0){f}"),
    "median": ("median({x}){f}",),
    "count(DISTINCT x)": ("count(DISTINCT {x}){f}",),
    "arg_max": ("arg_max({x}, (occurred_at, seq)){f}", "arg_max({x} / 3, (occurred_at, seq)){f}"),
}
VARIANCES: Final = {"var_samp": "var_samp({x}){f}", "stddev_samp": "stddev_samp({x}){f}"}
#: over all rows of the window
LIBRARY: Final[dict[str, tuple[str, ...]]] = {
    "wilson_lower": ("wilson_lower(count(*) FILTER (WHERE {x} > {c}), count(*))",),
    "wilson_upper": ("wilson_upper(count({x}), count(*), z := 2.5)",),
    "two_proportion_z": ("two_proportion_z(count(*) FILTER (WHERE {x} > {c}), count(*), count({x}), count(*))",),
    "current_streak": ("current_streak({x} > {c}, occurred_at, seq)",),
    "seconds_since_last": ("seconds_since_last({x} > {c}, occurred_at, as_of)",),
    "burst": (
        "burst({x} > {c}, occurred_at, INTERVAL 5 MINUTE)",
        "burst({x} IS NOT NULL, occurred_at, INTERVAL 30 SECOND)",
    ),
}
#: over aggregates
SCALARS: Final[dict[str, tuple[str, ...]]] = {
    "coalesce": ("coalesce({m}, {c})", "coalesce({l}, {s}, 0)"),
    "nullif": ("nullif({m}, {c})", "nullif({m}, {l})"),
    "greatest": ("greatest({m}, {c})", "greatest({l}, {s}, 2.5)"),
    "least": ("least({m}, {c})", "least({m}, 1e3)"),
    "round": ("round({m} / 3, 2)", "round({l} * 0.125, 1)"),
    "abs": ("abs({l})", "abs({s} - {c})"),
    "ln": ("ln({m})",),
    "exp": ("exp({m} / 1e18)", "exp({l})"),
    "sqrt": ("sqrt({m})",),
    "pow": ("pow({m}, 0.5)", "pow({l}, {c})"),
    "+": ("({m} + {c})", "({s} + {m})"),
    "-": ("({l} - {c})", "(- {l})"),
    "*": ("({m} * {c})", "({s} * {c})", "(100.0 * {c} * count({x}))"),
    "/": ("({m} / {c})", "({s} / {l})"),
    "//": ("({m} // {c})", "({s} // nullif({l}, 0))"),
    "%": ("({m} % {c})", "({s} % nullif({l}, 0))"),
    "=": ("({m} = {l})", "({m} = {c}e0)"),
    "<>": ("({m} <> {l})",),
    "<": ("({m} < {c})",),
    "<=": ("({m} <= {l})",),
    ">": ("({m} > 9223372036854775806)",),
    ">=": ("({s} >= {c}.5)",),
    "BETWEEN": ("({m} BETWEEN {l} AND 9223372036854775807)",),
    "IN": ("({m} IN ({c}, {l}, NULL))",),
    "AND": ("({m} > {c} AND {l} > {c})",),
    "OR": ("({m} > {c} OR {l} IS NULL)",),
    "NOT": ("(NOT {m} > {c})",),
    "IS NULL": ("({m} IS NULL)", "({l} IS NOT NULL)"),
    "IS DISTINCT FROM": ("({m} IS DISTINCT FROM {l})", "({m} IS NOT DISTINCT FROM {c})"),
    "CASE": ("CASE WHEN {m} > {c} THEN {l} WHEN {m} IS NULL THEN {c} END",),
    "CAST": ("CAST({m} AS DOUBLE)", "CAST({s} AS BIGINT)", "CAST({m} AS DECIMAL(20, 1))"),
    "TRY_CAST": ("TRY_CAST({s} AS BIGINT)", "TRY_CAST({m} AS INTEGER)"),
    "isfinite": ("isfinite({m} / {l})",),
}
#: of a row, inside an aggregate
ROWS: Final[dict[str, tuple[str, ...]]] = {
    "coalesce (row)": ("sum(coalesce({x}, {c})){f}",),
    "nullif (row)": ("count(nullif({x}, {c})){f}",),
    "greatest (row)": ("min(greatest({x}, {c})){f}",),
    "least (row)": ("sum(least({x}, {c}, cost_microusd)){f}",),
    "round (row)": ("max(round({x} / 1000, 2)){f}",),
    "abs (row)": ("max(TRY(abs({x}))){f}",),
    "ln (row)": ("max(CASE WHEN {x} > 0 THEN ln({x}) END){f}",),
    "exp (row)": ("max(CASE WHEN {x} < 700 THEN exp(least({x}, 700)) END){f}",),
    "sqrt (row)": ("max(CASE WHEN {x} >= 0 THEN sqrt(greatest({x}, 0)) END){f}",),
    "arithmetic (row)": ("sum(TRY({x} * {c})){f}", "max(TRY({x} + cost_microusd)){f}", "min(TRY({x} - {c})){f}"),
    "// and % (row)": ("sum(TRY({x} // {c})){f}", "max({x} % {c}){f}"),
    "comparison (row)": ("count(*) FILTER (WHERE {x} >= {c})", "sum({x} <> 9223372036854775807){f}"),
    "BETWEEN (row)": ("count(*) FILTER (WHERE {x} BETWEEN {c} AND 9223372036854775807)",),
    "IN (row)": ("count(*) FILTER (WHERE {x} IN ({c}, 9223372036854775807))",),
    "three-valued logic (row)": (
        "bool_and(NOT ({x} > {c} OR action = '{w}')){f}",
        "bool_or({x} > {c} AND action <> '{w}'){f}",
    ),
    "IS NULL (row)": ("count(*) FILTER (WHERE {x} IS NULL)", "bool_and({x} IS NOT NULL){f}"),
    "IS DISTINCT FROM (row)": ("sum({x} IS DISTINCT FROM cost_microusd){f}",),
    "CASE (row)": ("sum(CASE WHEN {x} > {c} THEN {x} WHEN {x} IS NULL THEN 1 ELSE -1 END){f}",),
    "casts (row)": ("sum(TRY_CAST({x} AS INTEGER)){f}", "max(CAST({x} AS DOUBLE)){f}"),
    "string equality (row)": (
        "sum(CASE WHEN action = '{w}' THEN {x} END){f}",
        "count(*) FILTER (WHERE action = '{w}' OR {x} > {c})",
    ),
    "attributes (row)": ("max(CASE WHEN {x} IS NOT NULL THEN TRY_CAST(attributes ->> 'num' AS BIGINT) END){f}",),
}  # fmt: skip
