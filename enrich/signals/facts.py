"""What is known of an expression's value before any row is seen: can it be null, how large, can it be nan, can it
raise.

Bounds of integers and DECIMALs are of the (scaled) integer. Bounds of DOUBLEs are rigorous for the computed, rounded
value: rounding is monotone, so rounding the bounds bounds the rounded. From these facts the emitters leave out null
tests, overflow checks and finite tests that can't matter, and the compiler refuses row expressions that could raise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from enrich.signals.ir import Node
from enrich.signals.types import SqlType

__all__ = ["INF", "Facts", "Known", "exact_range"]

INF: Final = math.inf
_EXACT: Final = 2**53
_LARGEST: Final = 1.7976931348623157e308


@dataclass(frozen=True, slots=True)
class Facts:
    """`fails`: evaluating it can raise in DuckDB (overflow, a cast out of range). `nonzero` is stronger than the
    bounds. `minus_zero`: a DOUBLE that may be -0.0."""

    nullable: bool = False
    low: float | int = 0
    high: float | int = 0
    nan: bool = False
    nonzero: bool = False
    minus_zero: bool = False
    fails: bool = False

    @property
    def may_be_zero(self) -> bool:
        return not self.nonzero and self.low <= 0 <= self.high

    @property
    def finite(self) -> bool:
        return not self.nan and self.low > -INF and self.high < INF

    @property
    def exact_int(self) -> bool:
        """An integer that a double holds exactly."""
        return self.low >= -_EXACT and self.high <= _EXACT


def exact_range(type_: SqlType) -> Facts:
    """The facts of any value of a type."""
    if type_.is_exact:
        low, high = type_.range
        return Facts(low=low, high=high)
    if type_.is_double:
        return Facts(low=-INF, high=INF, nan=True, minus_zero=True)
    return Facts()


class Known:
    """Facts of nodes, each worked out once. `leaf` answers for leaves other than constants."""

    def __init__(self, leaf: Callable[[Node], Facts]) -> None:
        self._leaf = leaf
        self._memo: dict[Node, Facts] = {}

    def __call__(self, node: Node) -> Facts:
        found = self._memo.get(node)
        if found is None:
            found = self._memo[node] = self._work_out(node)
        return found

    def _work_out(self, node: Node) -> Facts:
        if node.op == "const":
            return _constant(node)
        if not node.args:
            return self._leaf(node)
        args = [self(a) for a in node.args]
        strict = Facts(nullable=any(a.nullable for a in args), fails=any(a.fails for a in args))
        rule = _RULES.get(node.op)
        if rule is not None:
            return rule(node, args, strict)
        if node.op in ("is_null", "distinct_from", "not_distinct_from"):
            return replace(strict, nullable=False)
        if node.type.is_exact or node.type.is_double:
            general = exact_range(node.type)
            return replace(general, nullable=strict.nullable, fails=strict.fails)
        return strict


def _constant(node: Node) -> Facts:
    value = node.value
    if value is None:
        # a null has no bounds; the empty ones below widen to whatever they are joined with
        return Facts(nullable=True, low=INF, high=-INF, nonzero=True)
    if isinstance(value, float):
        if math.isnan(value):
            return Facts(low=INF, high=-INF, nan=True)
        return Facts(low=value, high=value, nonzero=value != 0, minus_zero=value == 0 and math.copysign(1, value) < 0)
    if isinstance(value, int) and not isinstance(value, bool):
        return Facts(low=value, high=value, nonzero=value != 0)
    return Facts()


def _join(parts: list[Facts], nullable: bool, fails: bool) -> Facts:
    """Any one of the parts."""
    return Facts(
        nullable=nullable,
        low=min(p.low for p in parts),
        high=max(p.high for p in parts),
        nan=any(p.nan for p in parts),
        nonzero=all(not p.may_be_zero for p in parts),
        minus_zero=any(p.minus_zero for p in parts),
        fails=fails,
    )


def _case(node: Node, args: list[Facts], strict: Facts) -> Facts:
    values = [*args[1:-1:2], args[-1]]
    return _join(values, any(v.nullable for v in values), strict.fails)


def _coalesce(node: Node, args: list[Facts], strict: Facts) -> Facts:
    return _join(args, all(a.nullable for a in args), strict.fails)


def _extreme(node: Node, args: list[Facts], strict: Facts) -> Facts:
    joined = _join(args, all(a.nullable for a in args), strict.fails)
    firm = [a for a in args if not a.nullable]
    # what is never null bounds the result from one side
    if node.op == "greatest":
        return replace(joined, low=max([joined.low, *(a.low for a in firm)]))
    if any(a.nan for a in args):
        return joined
    return replace(joined, high=min([joined.high, *(a.high for a in firm)]))


def _int_result(node: Node, strict: Facts, low: float | int, high: float | int) -> Facts:
    """An integer or DECIMAL result that lies in low..high unless it overflows its type."""
    least, greatest = node.type.range
    fails = strict.fails or (low <= high and (low < least or high > greatest))
    low, high = max(low, least), min(high, greatest)
    return replace(strict, low=low, high=high, nonzero=low > 0 or high < 0, fails=fails)


def _add(node: Node, args: list[Facts], strict: Facts) -> Facts:
    a = args[0]
    b = args[1] if len(args) > 1 else a
    sign = -1 if node.op == "-" else 1
    b_low, b_high = (b.low, b.high) if sign > 0 else (-b.high, -b.low)
    if node.type.is_exact:
        return _int_result(node, strict, a.low + b_low, a.high + b_high)
    if not node.type.is_double:
        return strict
    nan = a.nan or b.nan or (a.high == INF and b_low == -INF) or (a.low == -INF and b_high == INF)
    low, high = a.low + b_low, a.high + b_high
    low, high = (-INF if math.isnan(low) else low), (INF if math.isnan(high) else high)
    minus = a.minus_zero and (b.minus_zero if sign > 0 else b.may_be_zero)
    return replace(strict, low=low, high=high, nan=nan, minus_zero=minus)


def _products(a: Facts, b: Facts) -> list[float | int]:
    found: list[float | int] = []
    for x in (a.low, a.high):
        for y in (b.low, b.high):
            product = 0 if x == 0 or y == 0 else x * y
            found.append(product)
    return found


def _multiply(node: Node, args: list[Facts], strict: Facts) -> Facts:
    a, b = args
    products = _products(a, b)
    low, high = min(products), max(products)
    if node.type.is_exact:
        return _int_result(node, strict, low, high)
    infinite = (not a.finite and b.may_be_zero) or (not b.finite and a.may_be_zero)
    minus = a.minus_zero or b.minus_zero or low < 0
    if node.args[0] == node.args[1]:  # a square is never negative
        low, minus = max(low, 0.0), False
    return replace(strict, low=low, high=high, nan=a.nan or b.nan or infinite, minus_zero=minus)


def _divide(node: Node, args: list[Facts], strict: Facts) -> Facts:
    a, b = args
    nan = a.nan or b.nan or (a.may_be_zero and b.may_be_zero) or (not a.finite and not b.finite)
    minus = a.minus_zero or b.minus_zero or a.low < 0 or b.low < 0
    if b.low > 0 or b.high < 0:
        quotients = [0.0 if math.isinf(y) else x / y for x in (a.low, a.high) for y in (b.low, b.high)]
        return replace(strict, low=min(quotients), high=max(quotients), nan=nan, minus_zero=minus)
    low = 0.0 if a.low >= 0 and b.low >= 0 and not b.minus_zero else -INF
    return replace(strict, low=low, high=INF, nan=nan, minus_zero=minus)


def _int_divide(node: Node, args: list[Facts], strict: Facts) -> Facts:
    a, b = args
    strict = replace(strict, fails=strict.fails or b.may_be_zero)
    if b.low > 0 and a.low <= a.high:  # by something positive the quotient is no further out, and keeps its sign
        return _int_result(node, strict, -(-min(a.low, 0) // b.low), max(a.high, 0) // b.low)
    largest = max(abs(a.low), abs(a.high))
    low = 0 if a.low >= 0 and b.low >= 0 else -largest
    return _int_result(node, strict, low, largest)


def _remainder(node: Node, args: list[Facts], strict: Facts) -> Facts:
    a, b = args
    largest = max(0, max(abs(b.low), abs(b.high)) - 1)
    # DuckDB computes the quotient too: the least integer by -1 has none
    overflows = a.low <= node.type.range[0] and b.low <= -1 <= b.high
    fails = strict.fails or b.may_be_zero or overflows
    return replace(strict, low=0 if a.low >= 0 else -largest, high=0 if a.high <= 0 else largest, fails=fails)


def _negate(node: Node, args: list[Facts], strict: Facts) -> Facts:
    (a,) = args
    if node.type.is_exact:
        return _int_result(node, strict, -a.high, -a.low)
    return replace(strict, low=-a.high, high=-a.low, nan=a.nan, nonzero=a.nonzero, minus_zero=a.may_be_zero)


def _absolute(node: Node, args: list[Facts], strict: Facts) -> Facts:
    (a,) = args
    low: float | int = 0 if a.low <= 0 <= a.high else min(abs(a.low), abs(a.high))
    high = max(abs(a.low), abs(a.high))
    if node.type.is_exact:
        return replace(_int_result(node, strict, low, high), nonzero=a.nonzero or low > 0)
    return replace(strict, low=low, high=high, nan=a.nan, nonzero=a.nonzero)


def _sqrt(node: Node, args: list[Facts], strict: Facts) -> Facts:
    (a,) = args
    low, high = (math.sqrt(max(0.0, x)) for x in (a.low, a.high))
    return replace(strict, low=_down(low), high=_up(high), nan=a.nan or a.low < 0, minus_zero=a.minus_zero)


def _ln(node: Node, args: list[Facts], strict: Facts) -> Facts:
    (a,) = args
    low, high = (math.log(x) if x > 0 else -INF for x in (a.low, a.high))
    return replace(strict, low=_down(low), high=_up(high), nan=a.nan or a.low < 0)


def _exp(node: Node, args: list[Facts], strict: Facts) -> Facts:
    (a,) = args
    low, high = (math.exp(x) if x < 709 else INF for x in (a.low, a.high))
    return replace(strict, low=_down(low), high=_up(high), nan=a.nan)


def _down(x: float) -> float:
    """One step outwards: that the library's last digit is monotone is not proven. Zero is exact."""
    return math.nextafter(x, -INF) if x else x


def _up(x: float) -> float:
    return math.nextafter(x, INF) if x else x


def _round(node: Node, args: list[Facts], strict: Facts) -> Facts:
    a = args[0]
    if node.type.is_int:
        return replace(strict, low=a.low, high=a.high, nonzero=a.nonzero)
    if node.type.is_decimal:
        shift = 10 ** (node.args[0].type.scale - node.type.scale)
        return _int_result(node, strict, _half_away(a.low, shift), _half_away(a.high, shift))
    if not a.finite:
        return replace(strict, low=-INF, high=INF, nan=a.nan, minus_zero=True)
    # at most half a unit further out, and a power of ten of slack for the scaling
    low = 0.0 if a.low >= 0 else 2 * a.low - 1
    return replace(strict, low=low, high=max(0.0, 2 * a.high + 1), minus_zero=a.low < 0 or a.minus_zero)


def _half_away(value: float | int, divisor: int) -> int:
    value = int(value)
    quotient, rest = divmod(abs(value), divisor)
    quotient += 2 * rest >= divisor
    return -quotient if value < 0 else quotient


def _cast(node: Node, args: list[Facts], strict: Facts) -> Facts:
    (a,) = args
    source, target = node.args[0].type, node.type
    attempt = node.op == "try_cast"
    if source.is_exact and target.is_exact:
        shift = target.scale - source.scale
        if shift >= 0:
            low, high = a.low * 10**shift, a.high * 10**shift
        else:
            low, high = (_half_away(x, 10**-shift) for x in (a.low, a.high)) if a.low <= a.high else (a.low, a.high)
        found = _int_result(node, replace(strict, fails=False), low, high)
        nonzero = a.nonzero if shift >= 0 else found.nonzero
        outside = found.fails
        return replace(
            found, nonzero=nonzero, nullable=strict.nullable or (attempt and outside),
            fails=strict.fails or (outside and not attempt),
        )  # fmt: skip
    if source.is_exact and target.is_double:
        scale = 10.0**source.scale
        if a.low > a.high:
            return replace(strict, low=INF, high=-INF, nonzero=True)
        slack = 0 if a.exact_int and source.scale == 0 else 1e-9
        low, high = float(a.low) / scale, float(a.high) / scale
        return replace(
            strict,
            low=low - abs(low) * slack,
            high=high + abs(high) * slack,
            nonzero=a.nonzero or a.low > 0 or a.high < 0,
        )
    if source.is_double and target.is_int:
        least, greatest = target.range
        inside = a.finite and a.low >= least and a.high <= (greatest if abs(greatest) < _EXACT else greatest / 2)
        if a.low > a.high:  # null
            return replace(strict, low=INF, high=-INF, nonzero=True)
        low = max(least, math.floor(a.low)) if math.isfinite(a.low) else least
        high = min(greatest, math.ceil(a.high)) if math.isfinite(a.high) else greatest
        return replace(
            strict, low=low, high=high, nullable=strict.nullable or (attempt and not inside),
            fails=strict.fails or (not inside and not attempt),
        )  # fmt: skip
    general = exact_range(target)
    return replace(general, nullable=strict.nullable or attempt, fails=strict.fails or not attempt)


def _try(node: Node, args: list[Facts], strict: Facts) -> Facts:
    (a,) = args
    return replace(a, nullable=a.nullable or a.fails, fails=False)


def _assume(node: Node, args: list[Facts], strict: Facts) -> Facts:
    a = args[0]
    if node.value == "finite":
        return replace(a, low=max(a.low, -_LARGEST), high=min(a.high, _LARGEST), nan=False)
    if node.value == "positive":
        low = max(a.low, 1) if node.type.is_exact else max(a.low, 0.0)
        return replace(a, low=low, nonzero=True, minus_zero=False)
    low, high = a.low, a.high
    if node.type.is_exact:
        low = 1 if low == 0 else low
        high = -1 if high == 0 else high
    return replace(a, low=low, high=high, nonzero=True, minus_zero=False)


def _epoch(node: Node, args: list[Facts], strict: Facts) -> Facts:
    return replace(strict, low=-1e13, high=1e13)  # more seconds than DuckDB's times span


def _variance(node: Node, args: list[Facts], strict: Facts) -> Facts:
    return replace(strict, low=0.0, high=max(args[2].high, 1) * 2.0)


def _average(node: Node, args: list[Facts], strict: Facts) -> Facts:
    return replace(strict, low=float(args[0].low), high=float(args[0].high))


def _settled(node: Node, args: list[Facts], strict: Facts) -> Facts:
    """A DOUBLE as it stands in a context: finite or null, never -0.0."""
    (a,) = args
    return Facts(
        nullable=a.nullable or a.fails or not a.finite,
        low=max(a.low, -_LARGEST),
        high=min(a.high, _LARGEST),
        nonzero=a.nonzero,
    )


_RULES: Final[dict[str, Callable[[Node, list[Facts], Facts], Facts]]] = {
    "case": _case,
    "coalesce": _coalesce,
    "greatest": _extreme,
    "least": _extreme,
    "+": _add,
    "-": _add,
    "*": _multiply,
    "/": _divide,
    "//": _int_divide,
    "%": _remainder,
    "neg": _negate,
    "abs": _absolute,
    "sqrt": _sqrt,
    "ln": _ln,
    "exp": _exp,
    "round": _round,
    "cast": _cast,
    "try_cast": _cast,
    "try": _try,
    "assume": _assume,
    "epoch": _epoch,
    "variance": _variance,
    "average": _average,
    "settled": _settled,
}
