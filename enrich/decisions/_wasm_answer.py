"""Reads what a policy compiled to WASM answers."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from enrich.decisions._terms import TermError, parse_term, plain
from enrich.decisions.protocol import Defined, Undefined

__all__ = ["read_answer"]

#: what may be a number that no double holds, and is always read with care
_LARGE: Final = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{19}")


def read_answer(answer: bytes) -> Defined | Undefined:
    """VALUE of `[{"result": VALUE}]`, written as a Rego value; `[]` is undefined.

    A value without sets, whose keys are texts, is JSON as it stands; any other is not, and is read as what it is.

    Raises:
        TermError: it is no value, or holds a number that no double can hold.
    """
    if _LARGE.search(answer) is None:
        try:
            results: Any = orjson.loads(answer)
            return Defined(results[0]["result"]) if results else Undefined(has_rules=True)
        except orjson.JSONDecodeError:
            pass
    try:
        values = parse_term(answer.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise TermError("the answer is not UTF-8") from error
    return Defined(plain(values[0]["result"])) if values else Undefined(has_rules=True)
