"""How large an expression becomes when the names and macros in it are written out, as DuckDB does when it binds.

A column that names an earlier one twice doubles it, and so does nullif: a dozen of these in a row make thousands of
parts, some dozens would never be bound. What is nested too deeply can't be written as Python either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from enrich.signals.ir import Node

__all__ = ["MAX_DERIVED_LEVELS", "MAX_LEVELS", "MAX_PARTS", "depth_of", "measure"]

#: operations one inside the other, and all of them, in one column with the names in it written out
MAX_LEVELS: Final = 32
MAX_PARTS: Final = 20_000
#: the same for a column of a derived set with all that it reads in other derived sets, and with casts
MAX_DERIVED_LEVELS: Final = 48
#: how often a function writes out an argument
_REPEATS: Final[Mapping[str, int]] = {"nullif": 2, "wilson_lower": 4, "wilson_upper": 4, "two_proportion_z": 8}


def measure(node: Mapping[str, Any], named: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """(levels, parts) of a parsed expression; `named` are those of earlier columns. Levels end after MAX_LEVELS."""
    return _measure(node, named, 0)


def _measure(node: Mapping[str, Any], named: Mapping[str, tuple[int, int]], above: int) -> tuple[int, int]:
    if node["class"] == "COLUMN_REF" and len(node["column_names"]) == 1:
        return named.get(node["column_names"][0].lower(), (1, 1))
    levels, parts = 0, 0
    if above <= MAX_LEVELS:
        for child in _children(list(node.values())):
            inner = _measure(child, named, above + 1)
            levels, parts = max(levels, inner[0]), parts + inner[1]
    return levels + 1, 1 + parts * _REPEATS.get(str(node.get("function_name", "")).lower(), 1)


def _children(values: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    """The nearest expressions below."""
    stack = list(values)
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if "class" in value and "type" in value:
                yield value
            else:
                stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def depth_of(node: Node) -> int:
    """How many operations stand one inside the other; each equal one is looked at once."""
    depth: dict[Node, int] = {}
    stack = [node]
    while stack:
        at = stack[-1]
        missing = [a for a in at.args if a not in depth]
        if missing:
            stack += missing
            continue
        depth[at] = 1 + max((depth[a] for a in at.args), default=0)
        stack.pop()
    return depth[node]
