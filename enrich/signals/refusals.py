"""Why something of SQL is refused in a definition, and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["FUNCTION_HINTS", "TYPE_HINTS"]

_CLOCK = "a signal is a function of events and as_of: use max(as_of), seconds_since_last(cond, occurred_at, as_of)"
_RANDOM = "a signal must give the same answer twice: leave it out"
_ZONE = "it depends on a time zone: attach what you need to the event as an attribute"
_ORDER = "its answer depends on the order of scanning: write arg_max(x, (occurred_at, seq))"
_TEXT = "texts can be compared and looked up (=, <>, IN), not taken apart: attach what you need as an attribute"
_DOUBLE = "write var_samp or stddev_samp over an integer column"

#: function to what to write instead; "*" for any other scalar, "*aggregate" for any other aggregate
FUNCTION_HINTS: Final[Mapping[str, str]] = {
    "*": "scalar functions: abs, ln, exp, sqrt, pow, round, coalesce, nullif, greatest, least, isfinite",
    "*aggregate": "aggregates: count, sum, avg, min, max, bool_and, bool_or, var_samp, stddev_samp, quantile_cont, "
    "quantile_disc, median, arg_max, current_streak, seconds_since_last, burst",
    **dict.fromkeys(
        ("now", "get_current_timestamp", "current_timestamp", "transaction_timestamp", "today", "current_date",
         "get_current_time", "current_localtimestamp", "age"), _CLOCK
    ),
    **dict.fromkeys(("random", "uuid", "gen_random_uuid", "setseed", "nextval"), _RANDOM),
    **dict.fromkeys(
        ("date_part", "date_trunc", "datepart", "strftime", "hour", "day", "month", "year", "dayofweek", "extract",
         "isodow", "weekday", "timezone", "time_bucket"), _ZONE
    ),
    **dict.fromkeys(("first", "last", "any_value", "arbitrary", "list", "array_agg", "string_agg", "mode"), _ORDER),
    **dict.fromkeys(("lower", "upper", "length", "substring", "substr", "concat", "||", "like", "~~", "contains",
                     "starts_with", "~~*", "!~~", "!~~*", "~~~", "regexp_full_match", "prefix",
                     "suffix", "regexp_matches", "trim", "replace"), _TEXT),
    **dict.fromkeys(("var_pop", "stddev_pop", "variance", "stddev"), _DOUBLE),
    **dict.fromkeys(("to_months", "to_years", "to_quarters"), "an interval is so many days or less: INTERVAL 30 DAY"),
    "count_if": "it is a sum in disguise, null without rows: write count(*) FILTER (WHERE condition)",
    "countif": "it is a sum in disguise, null without rows: write count(*) FILTER (WHERE condition)",
    "arg_min": "only the last value is kept: write arg_max(x, (occurred_at, seq))",
    "min_by": "only the last value is kept: write arg_max(x, (occurred_at, seq))",
    "arg_max_null": "write arg_max(x, (occurred_at, seq))",
    "approx_count_distinct": "write count(DISTINCT x), which is exact",
    "approx_quantile": "write quantile_cont(x, 0.95), which is exact",
    "reservoir_quantile": "write quantile_cont(x, 0.95), which is exact",
    "normalized_interval": "durations are compared as numbers of seconds: epoch(later - earlier) > 300",
    "->": "write attributes ->> 'key', which is text",
    "json_extract": "write attributes ->> 'key', which is text",
    "json_extract_string": "write attributes ->> 'key', which is text",
    "floor": "write round(x), or x // n on integers",
    "ceil": "write round(x), or x // n on integers",
    "log": "write ln(x) / ln(10e0)",
    "log10": "write ln(x) / ln(10e0)",
    "log2": "write ln(x) / ln(2e0)",
    "fsum": "sum integers: their total is exact",
    "kahan_sum": "sum integers: their total is exact",
    "sumkahan": "sum integers: their total is exact",
    "sum_no_overflow": "write sum(x)",
}  # fmt: skip

#: type to what to write instead
TYPE_HINTS: Final[Mapping[str, str]] = {
    "*": "types: BOOLEAN, integers, DECIMAL, DOUBLE, VARCHAR, TIMESTAMPTZ",
    "FLOAT": "write DOUBLE, or a constant as 1.5e0",
    "INTERVAL": "a duration is a number: write epoch(later - earlier) or seconds_since_last(...)",
    "NULL": "give the NULL a type: CAST(NULL AS DOUBLE)",
    "TIMESTAMP": "times are TIMESTAMPTZ: a time without a zone depends on the session",
    "DATE": "times are TIMESTAMPTZ: a date depends on the session's zone",
    **dict.fromkeys(("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"), "write the signed type, BIGINT"),
}
