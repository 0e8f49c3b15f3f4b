"""Pieces of generated Python: values with their guards, and how conditions are joined."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from enrich.signals.ir import Node

__all__ = [
    "Statement",
    "Val",
    "all_true",
    "any_true",
    "as_float",
    "literal",
    "negated",
    "or_none",
    "temporaries",
    "union",
    "worth",
]

_TEMP: Final = re.compile(r"\bt\d+\b")


@dataclass(frozen=True, slots=True)
class Val:
    """`as_int`: a DOUBLE that may be given as a Python int, one that a double holds exactly."""

    code: str
    guards: tuple[str, ...] = ()
    as_int: bool = False


@dataclass(frozen=True, slots=True)
class Statement:
    """One line of generated code, right only where its guards hold; `defines` is the temporary it sets."""

    guards: tuple[str, ...]
    code: str
    defines: str | None = None


def literal(node: Node) -> Val:
    """A constant."""
    value: Any = node.value
    if value is None:
        return Val("None", ("False",))
    if isinstance(value, float) and not math.isfinite(value):
        return Val("_nan" if value != value else "_inf" if value > 0 else "(-_inf)")
    code = repr(value)
    return Val(f"({code})" if code.startswith("-") else code)


def as_float(value: Val) -> str:
    """Code of a DOUBLE as a float."""
    return f"float({value.code})" if value.as_int else value.code


def worth(code: str) -> bool:
    """Whether code is more than a name or a literal."""
    return not code.isidentifier() and not re.fullmatch(r"\(?-?[\d.e+-]+\)?|'[^']*'", code)


def union(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Guards together, in order, each once."""
    return tuple(dict.fromkeys(g for group in groups for g in group))


def or_none(value: Val) -> str:
    """Code that gives the value, or None where a guard does not hold."""
    return f"({value.code} if {all_true(list(value.guards))} else None)" if value.guards else value.code


def all_true(tests: list[str]) -> str:
    """The conjunction of conditions."""
    tests = [t for t in dict.fromkeys(tests) if t != "True"]
    if "False" in tests:
        return "False"
    if not tests:
        return "True"
    return tests[0] if len(tests) == 1 else f"({' and '.join(tests)})"


def any_true(tests: list[str]) -> str:
    """The disjunction of conditions."""
    tests = [t for t in dict.fromkeys(tests) if t != "False"]
    if "True" in tests:
        return "True"
    if not tests:
        return "False"
    return tests[0] if len(tests) == 1 else f"({' or '.join(tests)})"


def negated(test: str) -> str:
    """A condition's opposite; of `not x` it is `x`, so that equal guards are one."""
    found = re.fullmatch(r"\(not (\w+)\)", test)
    return found[1] if found else f"not {test}"


def temporaries(code: str) -> set[str]:
    """The temporaries that a piece of code names."""
    return set(_TEMP.findall(code))
