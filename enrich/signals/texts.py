"""Text as DuckDB reads it: what `->>` gives for an attribute, and TRY_CAST of text to BIGINT and DOUBLE."""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["TEXT_NAMES", "attribute_text", "text_double", "text_int"]

_SPACE: Final = " \t\n\v\f\r"
_DIGITS: Final = r"\d+(?:_\d+)*"
_NUMBER: Final = re.compile(rf"([+-]?)({_DIGITS})?(?:(\.)({_DIGITS})?)?(?:[eE]([+-]?{_DIGITS}))?", re.ASCII)
#: BIGINT lets a point stand behind the exponent
_POINT_LAST: Final = re.compile(rf"([+-]?)({_DIGITS})?(?:(\.)({_DIGITS})?)?[eE]([+-]?{_DIGITS})\.", re.ASCII)
#: digits that DuckDB's parser of doubles takes at once
_LONG: Final = 19
#: the largest exponent of a BIGINT text
_MAX_POWER: Final = 32767
_HEX: Final = re.compile(r"0[xX]([0-9a-fA-F]+(?:_[0-9a-fA-F]+)*)")
_BINARY: Final = re.compile(r"0[bB]([01]+(?:_[01]+)*)")
_NAN: Final = re.compile(r"nan\(\w*\)", re.ASCII | re.IGNORECASE)
_LEAST: Final = -(2**63)
_GREATEST: Final = 2**63 - 1


def attribute_text(value: Any) -> str | None:
    """An attribute as `attributes ->> 'k'` gives it: text, an integer's digits, true or false."""
    if value is None or value.__class__ is str:
        return value
    if value is True:
        return "true"
    if value is False:
        return "false"
    return str(value)


def text_int(text: str) -> int | None:
    """TRY_CAST(text AS BIGINT)."""
    text = text.lstrip(_SPACE)
    for pattern, base in ((_HEX, 16), (_BINARY, 2)):
        other = pattern.fullmatch(text)
        if other is not None:
            value = int(other[1], base)
            return value if value <= _GREATEST else None
    text = text.rstrip(_SPACE)
    found = _NUMBER.fullmatch(text) or _POINT_LAST.fullmatch(text)
    if found is None:
        return None
    sign, whole, _, part, exponent = found.groups()
    if whole is None and part is None:
        return None
    before = int((whole or "0").replace("_", ""))
    if not _LEAST <= (-before if sign == "-" else before) <= _GREATEST:
        return None  # what stands before the point must fit, whatever the exponent
    power = int((exponent or "0").replace("_", ""))
    if abs(power) > _MAX_POWER:
        return None
    after, places = _fraction((part or "").replace("_", ""))
    digits = before * 10**places + after
    shift = power - places
    if shift >= 0:
        value = digits * 10 ** min(shift, 40)
    else:
        divisor = 10 ** min(-shift, 60)
        value, rest = divmod(digits, divisor)
        value += 2 * rest >= divisor
    if sign == "-":
        value = -value
    return value if _LEAST <= value <= _GREATEST else None


def _fraction(digits: str) -> tuple[int, int]:
    """(digits behind the point as an integer, how many): those that would overflow 64 bits are passed over."""
    value = places = 0
    for digit in map(int, digits):
        if value <= (_GREATEST - digit) // 10:
            value = value * 10 + digit
            places += 1
    return value, places


def text_double(text: str) -> float | None:
    """TRY_CAST(text AS DOUBLE)."""
    text = text.strip(_SPACE)
    if text.startswith("+-"):  # a plus is dropped first
        text = text[1:]
    found = _NUMBER.fullmatch(text)
    if found is None:
        return _WORDS.get(_NAN.sub("nan", text).lower())
    if found[2] is None and found[4] is None:
        return None
    if "_" in text and len(text) > _LONG:
        text = _long_text(text)
    return float(text.replace("_", ""))


def _long_text(text: str) -> str:
    """What DuckDB reads of a number with underscores and more than 19 digits.

    Its fast path takes 19 digits and is sure of the result if one more in the last place gives the same double. If
    not, the slow path reads the text again, and there an underscore ends it.
    """
    mantissa, e, exponent = text.lower().partition("e")
    whole, _, part = mantissa.lstrip("+-").partition(".")
    part = part.replace("_", "")
    # underscores before the point count as digits
    if len(f"{whole}.{part}".lstrip("0.").replace(".", "")) <= _LONG:
        return text
    whole = whole.replace("_", "")
    digits = (whole + part).lstrip("0")
    place = int(exponent.replace("_", "") or 0) - len(part) + max(0, len(digits) - _LONG)
    first = int(digits[:_LONG] or 0)
    if float(f"{first}e{place}") == float(f"{first + 1}e{place}"):
        return text
    if "_" in mantissa:
        return mantissa.partition("_")[0]
    return mantissa + e + exponent.partition("_")[0]


_WORDS: Final = {
    sign + word: value * (-1 if sign == "-" else 1)
    for sign in ("", "+", "-")
    for word, value in (("inf", float("inf")), ("infinity", float("inf")), ("nan", float("nan")))
}

#: what generated row code may name
TEXT_NAMES: Final[dict[str, Any]] = {"_text": attribute_text, "_text_int": text_int, "_text_double": text_double}
