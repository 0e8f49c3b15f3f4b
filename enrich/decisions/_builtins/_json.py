"""JSON as Go's own reader takes it, made into values as `parse_term` reads them."""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

from enrich.decisions._builtins._values import BuiltinError, NoAnswerError
from enrich.decisions._terms import RegoFloat

__all__ = ["read_json"]

#: an integer of more digits than this is not read
_DIGITS: Final = 400


def read_json(text: str, *, unique: bool = False) -> Any:
    """The value of a JSON text; of a key that is there twice the last counts.

    Args:
        text: JSON.
        unique: a key that is there twice has no known answer.

    Raises:
        BuiltinError: it is no JSON.
        NoAnswerError: OPA reads a value that can't be carried over: a number beyond all doubles, half a character.
    """
    try:
        value = json.loads(
            text,
            parse_int=_integer,
            parse_float=_fraction,
            parse_constant=_constant,
            object_pairs_hook=_unique if unique else None,
        )
    except RecursionError as error:
        raise NoAnswerError("JSON nested so deep is not supported") from error
    except ValueError as error:
        raise BuiltinError(f"invalid JSON: {error}") from error
    return value


def _integer(text: str) -> Any:
    if len(text) > _DIGITS:
        raise NoAnswerError("a number of so many digits is not supported")
    # a zero with a sign keeps it
    return _fraction(text) if text == "-0" else int(text)


def _fraction(text: str) -> RegoFloat:
    number = RegoFloat(text)
    if not math.isfinite(number):
        raise NoAnswerError("a number beyond all doubles is not supported")
    number.text = text
    return number


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NoAnswerError("JSON with a key that is there twice is not supported here")
    return found
