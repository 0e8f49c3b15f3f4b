"""The library's SQL functions: macros whose text runs in any DuckDB, and how the compiler recognises two of them.

All but `current_streak` and `burst` are compiled from their expansion, so the compiled form is the macro's own formula.
Those two go through lists offline; for the compiler they expand to a marker, an aggregate over a struct whose first
field carries the function's name (`MARKERS`), because the index answers them directly.

Formulas:
    wilson_lower, wilson_upper: bounds of the score interval of a proportion k/n (Wilson 1927; Brown, Cai, DasGupta
    2001):
        (k + z²/2 ∓ z·sqrt(k(n-k)/n + z²/4)) / (n + z²), kept within 0..1. The default z is the 97.5 % quantile of the
        normal distribution: 95 % two-sided.
    two_proportion_z: pooled z of two proportions, p = (k1+k2)/(n1+n2):
        (k1/n1 - k2/n2) / sqrt(p(1-p)(1/n1 + 1/n2)). No value when either n is 0 or p is 0 or 1.
    current_streak: how many rows in a row, from the last one back, satisfy the condition; null counts as "does not".
    seconds_since_last: seconds from the last row that satisfies the condition to as_of.
    burst: the most rows that satisfy the condition within any [t, t + interval) inside the window.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LIBRARY", "MARKERS", "MARKER_PREFIX", "prelude_sql"]

MARKER_PREFIX: Final = "lib_"

_Z: Final = "1.959963984540054e0"


def _wilson(sign: str, clamp: str) -> str:
    k, n, z = "k::DOUBLE", "n::DOUBLE", "z::DOUBLE"
    centre = f"({k} + {z} * {z} / 2e0)"
    half = f"{z} * sqrt({k} * ({n} - {k}) / {n} + {z} * {z} / 4e0)"
    return f"CASE WHEN n > 0 THEN {clamp}, ({centre} {sign} {half}) / ({n} + {z} * {z})) END"


_POOLED: Final = "((k1::DOUBLE + k2::DOUBLE) / (n1::DOUBLE + n2::DOUBLE))"

#: name to (parameters, expression)
LIBRARY: Final[dict[str, tuple[str, str]]] = {
    "wilson_lower": (f"k, n, z := {_Z}", _wilson("-", "greatest(0e0")),
    "wilson_upper": (f"k, n, z := {_Z}", _wilson("+", "least(1e0")),
    "two_proportion_z": (
        "k1, n1, k2, n2",
        "CASE WHEN n1 > 0 AND n2 > 0 AND k1 + k2 > 0 AND k1 + k2 < n1 + n2 THEN"
        " (k1::DOUBLE / n1::DOUBLE - k2::DOUBLE / n2::DOUBLE)"
        f" / sqrt({_POOLED} * (1e0 - {_POOLED}) * (1e0 / n1::DOUBLE + 1e0 / n2::DOUBLE)) END",
    ),
    "current_streak": (
        "c, t, s",
        "coalesce(list_position(list(coalesce(c, false) ORDER BY t DESC, s DESC), false) - 1, count(*))",
    ),
    "seconds_since_last": ("c, t, a", "epoch(max(a) - max(t) FILTER (WHERE c))"),
    "burst": (
        "c, t, iv",
        # +1 when a match enters, -1 when it has left; at equal times it leaves first
        "list_reduce(list_sort(list_concat("
        "list_transform(list(t) FILTER (WHERE c),"
        " lambda x: {'at': x, 'step': 1::BIGINT, 'now': 0::BIGINT, 'most': 0::BIGINT}),"
        " list_transform(list(t) FILTER (WHERE c),"
        " lambda x: {'at': x + iv, 'step': -1::BIGINT, 'now': 0::BIGINT, 'most': 0::BIGINT}))),"
        " lambda x, y: {'at': y.at, 'step': y.step, 'now': x.now + y.step, 'most': greatest(x.most, x.now + y.step)},"
        " {'at': NULL::TIMESTAMPTZ, 'step': 0::BIGINT, 'now': 0::BIGINT, 'most': 0::BIGINT}).most",
    ),
}

#: what two of them expand to in the compiler's connection: count(struct_pack(lib_NAME := ...))
MARKERS: Final[dict[str, tuple[str, str]]] = {
    "current_streak": ("c, t, s", f"count(struct_pack({MARKER_PREFIX}current_streak := c, t := t, s := s))"),
    "burst": ("c, t, iv", f"count(struct_pack({MARKER_PREFIX}burst := c, t := t, iv := iv))"),
}


def prelude_sql(functions: dict[str, tuple[str, str]] = LIBRARY) -> str:
    """`CREATE MACRO` for every function of the library, to run before a set outside the engine."""
    return "".join(
        f"CREATE OR REPLACE TEMP MACRO {name}({parameters}) AS {body};\n"
        for name, (parameters, body) in functions.items()
    )
