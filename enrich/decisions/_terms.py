"""Rego values as text: JSON, and beside it sets (`{1,2}`, `set()`) and objects whose keys are no texts.

The form in which a module compiled to WASM hands values to built-ins outside it, and takes them back.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, Final

__all__ = ["RegoFloat", "RegoObject", "RegoSet", "TermError", "order", "parse_term", "plain", "rego_text", "term_text"]

#: a text in Rego may leave out the zero before or the digits behind the point
_NUMBER: Final = re.compile(r"-?(?:[0-9]+(\.[0-9]*)?|(\.[0-9]+))([eE][-+]?[0-9]+)?")
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_scan_string: Final[Callable[[str, int, bool], tuple[str, int]]] = json.decoder.scanstring  # type: ignore[attr-defined]


class TermError(ValueError):
    """A text is no Rego value, or a value can't be one."""


class RegoFloat(float):
    """A number that is not written as an integer, with the text that it was written as."""

    text: str


class RegoSet(list[Any]):
    """The members of a set, in the order in which they were written."""


class RegoObject(list[tuple[Any, Any]]):
    """The pairs of an object of which at least one key is no text; every other object is a `dict`."""


def parse_term(text: str) -> Any:
    """Read one value.

    Returns:
        None, bool, int, float, str, list, dict, `RegoSet` or `RegoObject`.

    Raises:
        TermError: it is none.
    """
    try:
        value, end = _value(text, _skip(text, 0))
    except (IndexError, ValueError, RecursionError) as error:
        raise TermError("this is no Rego value") from error
    if _skip(text, end) != len(text):
        raise TermError("something follows the value")
    return value


def term_text(value: Any) -> str:
    """Write one value, the inverse of `parse_term`.

    Raises:
        TermError: a number is not finite, a text is none in Unicode, or the type is none of Rego's.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise TermError("a number is not finite")
    if isinstance(value, RegoSet):
        return "{" + ",".join(map(term_text, value)) + "}" if value else "set()"
    if isinstance(value, RegoObject):
        return "{" + ",".join(f"{term_text(k)}:{term_text(v)}" for k, v in value) + "}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{term_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(term_text, value)) + "]"
    if isinstance(value, RegoFloat):
        return value.text
    if value is None or isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False)
    raise TermError("this type is none of Rego's")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _value(text: str, at: int) -> tuple[Any, int]:
    first = text[at]
    if first == '"':
        return _scan_string(text, at + 1, True)
    if first == "[":
        values, at = _sequence(text, at + 1, "]")
        return values, at
    if first == "{":
        return _braces(text, at + 1)
    for word, value in (("true", True), ("false", False), ("null", None)):
        if text.startswith(word, at):
            return value, at + len(word)
    if text.startswith("set()", at):
        return RegoSet(), at + 5
    found = _NUMBER.match(text, at)
    if found is None:
        raise TermError("no value begins here")
    if found[1] is None and found[2] is None and found[3] is None:
        return int(found[0]), found.end()
    number = RegoFloat(found[0])
    if not math.isfinite(number):
        raise TermError("a number that no double can hold")
    number.text = found[0]
    return number, found.end()


def _sequence(text: str, at: int, close: str) -> tuple[list[Any], int]:
    values: list[Any] = []
    at = _skip(text, at)
    if text[at] == close:
        return values, at + 1
    while True:
        value, at = _value(text, at)
        values.append(value)
        at = _skip(text, at)
        if text[at] == close:
            return values, at + 1
        at = _comma(text, at)


def _braces(text: str, at: int) -> tuple[Any, int]:
    """An object or a set: the colon after the first value tells."""
    at = _skip(text, at)
    if text[at] == "}":
        return {}, at + 1
    first, at = _value(text, at)
    at = _skip(text, at)
    if text[at] != ":":
        members = RegoSet([first])
        if text[at] == "}":
            return members, at + 1
        rest, at = _sequence(text, _comma(text, at), "}")
        members.extend(rest)
        return members, at
    value, at = _value(text, _skip(text, at + 1))
    pairs = [(first, value)]
    at = _skip(text, at)
    while text[at] != "}":
        key, at = _value(text, _comma(text, at))
        at = _skip(text, at)
        if text[at] != ":":
            raise TermError("a key has no value")
        value, at = _value(text, _skip(text, at + 1))
        pairs.append((key, value))
        at = _skip(text, at)
    if all(isinstance(key, str) for key, _ in pairs):
        return dict(pairs), at + 1
    return RegoObject(pairs), at + 1


def _comma(text: str, at: int) -> int:
    if text[at] != ",":
        raise TermError("a comma is missing")
    return _skip(text, at + 1)


def plain(value: Any, *, exact: bool = False) -> Any:
    """The value as JSON: a set is an array in Rego's order, and a key that is no text the JSON that it is.

    Args:
        value: as `parse_term` reads it.
        exact: keep numbers as they are; else they become what 64 bits hold, integers first.
    """
    if isinstance(value, dict):
        return {k: plain(v, exact=exact) for k, v in value.items()}
    if isinstance(value, RegoObject):
        pairs = sorted(value, key=_pair_order)
        return {k if isinstance(k, str) else term_text(plain(k, exact=True)): plain(v, exact=exact) for k, v in pairs}
    if isinstance(value, RegoSet):
        return [plain(v, exact=exact) for v in sorted(value, key=order)]
    if isinstance(value, list):
        return [plain(v, exact=exact) for v in value]
    if isinstance(value, RegoFloat) and not exact:
        return float(value)
    if isinstance(value, int) and not exact and not -(1 << 63) <= value < 1 << 64:
        return _double(value)
    return value


def _double(value: int) -> float:
    """The nearest double of an integer that 64 bits do not hold, as all who read JSON have it."""
    try:
        return float(value)
    except OverflowError as error:
        raise TermError("a number that no double can hold") from error


def rego_text(value: Any) -> str:
    """How Rego itself shows a value: `{"a": 1}`, keys and members in order."""
    if isinstance(value, dict | RegoObject):
        pairs = sorted(value.items() if isinstance(value, dict) else value, key=_pair_order)
        return "{" + ", ".join(f"{rego_text(k)}: {rego_text(v)}" for k, v in pairs) + "}"
    if isinstance(value, RegoSet):
        return "{" + ", ".join(map(rego_text, sorted(value, key=order))) + "}" if value else "set()"
    if isinstance(value, list):
        return "[" + ", ".join(map(rego_text, value)) + "]"
    return term_text(value)


def order(value: Any) -> Any:
    """What orders values as Rego does: null, booleans, numbers, texts, arrays, objects, sets."""
    if value is None:
        return (0,)
    if isinstance(value, bool):
        return (1, value)
    if isinstance(value, int | float):
        return (2, value)
    if isinstance(value, str):
        return (3, value)
    if isinstance(value, RegoSet):
        return (6, sorted(map(order, value)))
    if isinstance(value, dict):
        return (5, sorted((order(k), order(v)) for k, v in value.items()))
    if isinstance(value, RegoObject):
        return (5, sorted((order(k), order(v)) for k, v in value))
    return (4, [order(v) for v in value])


def _pair_order(pair: tuple[Any, Any]) -> Any:
    return order(pair[0])
