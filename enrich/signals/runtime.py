"""Arithmetic as DuckDB 2.0 does it, where Python's own operators differ: what generated code calls.

Each function was held against DuckDB over random and extreme values (tests/signals/test_runtime.py). What DuckDB
refuses with an error raises `SqlError`, which a generated function turns into "no value" of the signal at hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from enrich.signals.plan import Probe

__all__ = ["NAMES", "SqlError"]

_EXACT: Final = 2**53
_SPLIT: Final = 134217729.0  # 2**27 + 1
#: as literals have them: 10.0**23 is one step away from 1e23
_POWERS_OF_TEN: Final = tuple(float(f"1e{k}") for k in range(39))


class SqlError(ArithmeticError):
    """DuckDB would stop with an error here."""


def huge_double(x: int) -> float:
    """HUGEINT to DOUBLE: in two halves, which is not always the nearest double."""
    high = x >> 64
    if high == -1:
        return -float(-x - 1) - 1.0
    return float(x & 0xFFFFFFFFFFFFFFFF) + float(high) * 18446744073709551616.0


def divide(x: float, y: float) -> float:
    """DOUBLE division: by zero it is inf with the signs' product, 0/0 and nan are nan."""
    if y:
        return x / y
    if x != x or x == 0:
        return math.nan
    return math.copysign(math.inf, x) * math.copysign(1.0, y)


def int_divide(x: int, y: int) -> int:
    """Integer division toward zero."""
    if not y:
        raise SqlError
    quotient = abs(x) // abs(y)
    return quotient if (x < 0) == (y < 0) else -quotient


def remainder(x: int, y: int, least: int) -> int:
    """The remainder of `int_divide`: it has the sign of x. The least integer of its type by -1 raises, as its quotient
    does."""
    if not y or (y == -1 and x == least):
        raise SqlError
    rest = abs(x) % abs(y)
    return -rest if x < 0 else rest


def within(x: int, low: int, high: int) -> int:
    """x if its type holds it."""
    if low <= x <= high:
        return x
    raise SqlError


def attempt(compute: Callable[[], Any]) -> Any:
    """TRY(...): null where the expression raises."""
    try:
        return compute()
    except SqlError:
        return None


def try_within(x: int, low: int, high: int) -> int | None:
    return x if low <= x <= high else None


def half_away(x: int, divisor: int) -> int:
    """x / divisor rounded half away from zero: DECIMAL to a smaller scale or an integer."""
    quotient, rest = divmod(abs(x), divisor)
    if 2 * rest >= divisor:
        quotient += 1
    return -quotient if x < 0 else quotient


def round_double(x: float, power: float) -> float:
    """round(DOUBLE, digits), power = 10**digits: half away from zero of the scaled value."""
    scaled = x * power
    if scaled - scaled != 0.0:  # inf or nan: too large to have digits to round
        return x
    if -_EXACT < scaled < _EXACT:
        whole = float(int(scaled))
        if scaled - whole >= 0.5:
            whole += 1.0
        elif scaled - whole <= -0.5:
            whole -= 1.0
        scaled = math.copysign(whole, scaled)
    return scaled / power


def double_int(x: float, low: int, high: int) -> int:
    """DOUBLE to an integer type, half to even."""
    found = try_double_int(x, low, high)
    if found is None:
        raise SqlError
    return found


def try_double_int(x: float, low: int, high: int) -> int | None:
    if x - x != 0.0:
        return None
    whole = round(x)
    return whole if low <= whole <= high else None


def double_decimal(x: float, scale: int, high: int) -> int:
    """DOUBLE to DECIMAL: half away from zero of the scaled double."""
    found = try_double_decimal(x, scale, high)
    if found is None:
        raise SqlError
    return found


def try_double_decimal(x: float, scale: int, high: int) -> int | None:
    scaled = x * _POWERS_OF_TEN[scale]
    if scaled - scaled != 0.0:
        return None
    whole = int(scaled)
    if scaled - whole >= 0.5:
        whole += 1
    elif scaled - whole <= -0.5:
        whole -= 1
    return whole if -high <= whole <= high else None


def log(x: float) -> float:
    if x > 0:
        return math.log(x)
    return -math.inf if x == 0 else math.nan


def root(x: float) -> float:
    return math.sqrt(x) if x >= 0 else math.nan


def exponential(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def power(x: float, y: float) -> float:
    """pow as C has it: 0 to a negative power is inf, a negative to a fraction nan, too large is inf."""
    try:
        return math.pow(x, y)
    except OverflowError:
        return -math.inf if x < 0 and y % 2 == 1 else math.inf
    except ValueError:
        if x == 0:
            return math.copysign(math.inf, x) if y % 2 == 1 else math.inf
        return math.nan


def same(x: float, y: float) -> bool:
    """DOUBLE equality: nan equals itself."""
    return x == y or (x != x and y != y)


def less(x: float, y: float) -> bool:
    """DOUBLE order: nan is the largest."""
    return x < y or (y != y and x == x)


def less_same(x: float, y: float) -> bool:
    return x <= y or y != y


def conjunction(*values: bool | None) -> bool | None:
    """AND of values that are all computed, three-valued."""
    if False in values:
        return False
    return None if None in values else True


def disjunction(*values: bool | None) -> bool | None:
    """OR of values that are all computed, three-valued."""
    if True in values:
        return True
    return None if None in values else False


def distinct(x: Any, y: Any) -> bool:
    """IS DISTINCT FROM."""
    if x is None or y is None:
        return x is not y
    return not same(x, y)


def greatest(*values: Any) -> Any:
    """The largest non-null value, the first of equal ones; None when there is none. nan is the largest."""
    best: Any = None
    for value in values:
        if value is not None and (best is None or value > best or (value != value and best == best)):
            best = value
    return best


def least(*values: Any) -> Any:
    """The smallest non-null value, the first of equal ones; None when there is none."""
    best: Any = None
    for value in values:
        if value is not None and (best is None or value < best or (best != best and value == value)):
            best = value
    return best


def seconds(us: int) -> float:
    """epoch() of the difference of two times: whole days and the rest are converted apart."""
    days, rest = divmod(abs(us), 86_400_000_000)
    if us < 0:
        days, rest = -days, -rest
    return days * 86400 + rest / 1e6


def _fused(x: float, y: float, z: float) -> float:
    """x * y + z rounded once (finite, far from overflow and underflow): Dekker's product, then exact summing."""
    product = x * y
    if abs(product) > 1e290 or abs(x) > 1e290 or abs(z) > 1e290 or 0 < abs(product) < 1e-250:
        return _fused_exactly(x, y, z)
    c = _SPLIT * x
    x_high = c - (c - x)
    x_low = x - x_high
    c = _SPLIT * y
    y_high = c - (c - y)
    y_low = y - y_high
    error = ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low
    return math.fsum((product, error, z))


def _fused_exactly(x: float, y: float, z: float) -> float:
    """The same by integers, for magnitudes at which the two-product loses bits."""
    a, b = x.as_integer_ratio()
    c, d = y.as_integer_ratio()
    e, f = z.as_integer_ratio()
    numerator, denominator = a * c * f + e * b * d, b * d * f
    try:
        return numerator / denominator
    except OverflowError:
        return math.copysign(math.inf, numerator)


fused: Final[Callable[[float, float, float], float]] = getattr(math, "fma", _fused)


def quantile_cont(probe: Probe, w: int, v: int, n: int, q: float) -> float:
    """Linear interpolation between the two nearest of n > 0 values, as DuckDB: one fused multiply-add."""
    place = (n - 1) * q
    k = int(place)
    part = place - k
    if not part or k + 1 >= n:
        return float(probe.order(w, v, k))
    low, high = probe.order2(w, v, k)
    return fused(float(low), 1.0 - part, float(high) * part)


def quantile_disc(probe: Probe, w: int, v: int, n: int, numerator: int, denominator: int) -> Any:
    """The smallest value with at least the share numerator/denominator of n > 0 values at or below it."""
    rank = n - (n * denominator - n * numerator) // denominator
    return probe.order(w, v, max(1, rank) - 1)


def quantile_disc_double(probe: Probe, w: int, v: int, n: int, q: float) -> Any:
    """The same for a share given as a DOUBLE: reckoned in doubles."""
    return probe.order(w, v, max(1, n - math.floor(n - n * q)) - 1)


def filtered_average(total: int, n: int) -> float:
    """avg(integer) FILTER (...): DuckDB divides in 80-bit floats there, and rounds the quotient twice.

    Without FILTER it rewrites avg into sum / count, in doubles. The two differ from 2 049 rows on, or above 2**53.
    """
    if n <= 2048 and -_EXACT <= total <= _EXACT:
        return total / n
    magnitude, up = _round_bits(abs(total), 64)
    shift = 70 + n.bit_length()
    quotient, rest = divmod(magnitude << shift, n)
    # one sticky bit below stands for all that the division leaves
    whole, down = _round_bits(quotient << 1 | (rest != 0), 64)
    return math.copysign(math.ldexp(float(whole), up + down - shift - 1), total)


def _round_bits(x: int, bits: int) -> tuple[int, int]:
    """x rounded half to even to so many bits: (mantissa, exponent)."""
    drop = x.bit_length() - bits
    if drop <= 0:
        return x, 0
    mantissa, rest = divmod(x, 1 << drop)
    half = 1 << (drop - 1)
    return mantissa + (rest > half or (rest == half and mantissa & 1)), drop


def variance(n: int, total: int, squares: int) -> float:
    """Sample variance of integers from their exact sum and sum of squares: rounded once.

    Shared by two signals it is computed before n is tested, so that fewer than two rows must not raise.
    """
    return (n * squares - total * total) / (n * (n - 1)) if n > 1 else math.nan


#: what generated code may name
NAMES: Final[dict[str, Any]] = {
    "_huge": huge_double,
    "_div": divide,
    "_idiv": int_divide,
    "_rem": remainder,
    "_within": within,
    "_try": attempt,
    "_try_within": try_within,
    "_half_away": half_away,
    "_round": round_double,
    "_int": double_int,
    "_try_int": try_double_int,
    "_dec": double_decimal,
    "_try_dec": try_double_decimal,
    "_ln": log,
    "_sqrt": root,
    "_sqrt_plain": math.sqrt,
    "_ln_plain": math.log,
    "_exp": exponential,
    "_pow": power,
    "_same": same,
    "_less": less,
    "_less_same": less_same,
    "_and": conjunction,
    "_or": disjunction,
    "_distinct": distinct,
    "_greatest": greatest,
    "_least": least,
    "_seconds": seconds,
    "_quantile_cont": quantile_cont,
    "_quantile_disc": quantile_disc,
    "_quantile_disc_double": quantile_disc_double,
    "_variance": variance,
    "_average": filtered_average,
    "_SqlError": SqlError,
    "_isfinite": math.isfinite,
    "_nan": math.nan,
    "_inf": math.inf,
}
