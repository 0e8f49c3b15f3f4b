"""Expressions as DuckDB SQL, with every type written out, for evaluating rows in bulk.

Whoever prints checks: binding the text again must give the same expression (`check_text` in compile.py), so that a row
counts the same in DuckDB and in Python.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from enrich.signals.ir import Node

__all__ = ["column_sql", "text"]

_INFIX: Final = {
    "eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "+": "+", "-": "-", "*": "*", "/": "/",
    "//": "//", "%": "%", "and": "AND", "or": "OR", "distinct_from": "IS DISTINCT FROM",
    "not_distinct_from": "IS NOT DISTINCT FROM",
}  # fmt: skip


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _constant(node: Node) -> str:
    value = node.value
    if value is None:
        return f"CAST(NULL AS {node.type})"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, float):
        text_ = repr(value)
        return f"CAST({text_} AS DOUBLE)" if "e" in text_ else f"{text_}e0"
    if node.type.is_decimal:
        assert isinstance(value, int)  # INVARIANT: a DECIMAL constant is its scaled integer
        return f"({Decimal(value).scaleb(-node.type.scale):f})"
    return f"CAST({value} AS {node.type})"


#: how many decimal digits DuckDB gives an integer type that meets a DECIMAL
_DIGITS: Final = {"TINYINT": 3, "SMALLINT": 5, "INTEGER": 10, "BIGINT": 19, "HUGEINT": 38}


def _decimal_operands(node: Node) -> list[Node]:
    """The operands of DECIMAL +, - or * as they were written.

    DuckDB widens both to the result's width; written out, that would widen the result again. What was widened is found
    by working out the result's type from what is inside.
    """
    choices = [[a.args[0], a] if a.op == "cast" and a.args[0].type.is_exact else [a] for a in node.args]
    for left in choices[0]:
        for right in choices[-1]:
            if _decimal_type(node.op, left, right) == (node.type.width, node.type.scale):
                return [left, right]
    return list(node.args)


def _decimal_type(op: str, left: Node, right: Node) -> tuple[int, int]:
    (w1, s1), (w2, s2) = ((_DIGITS.get(n.type.id, n.type.width), n.type.scale) for n in (left, right))
    if op == "*":
        return min(38, w1 + w2), s1 + s2
    scale = max(s1, s2)
    return min(38, max(w1 - s1, w2 - s2) + scale + 1), scale


def text(node: Node) -> str:
    """The expression as SQL over the columns of `events`."""
    op, args = node.op, node.args
    if op == "const":
        return _constant(node)
    if op == "column":
        return f'"{node.value}"'
    if op == "attribute":
        return f'("attributes" ->> {_quoted(str(node.value))})'
    if op == "assume":
        return text(args[0])
    if op in ("+", "-", "*") and node.type.is_decimal:
        args = tuple(_decimal_operands(node))
    inner = [text(a) for a in args]
    if op in _INFIX:
        return f"({f' {_INFIX[op]} '.join(inner)})"
    if op in ("cast", "try_cast"):
        return f"{op.upper()}({inner[0]} AS {node.type})"
    if op == "case":
        whens = " ".join(f"WHEN {a} THEN {b}" for a, b in zip(inner[:-1:2], inner[1:-1:2], strict=True))
        return f"CASE {whens} ELSE {inner[-1]} END"
    if op == "in":
        return f"({inner[0]} IN ({', '.join(inner[1:])}))"
    if op == "is_null":
        return f"({inner[0]} IS NULL)"
    if op == "not":
        return f"(NOT {inner[0]})"
    if op == "neg":
        return f"(- {inner[0]})"
    return f"{op}({', '.join(inner)})"


def column_sql(node: Node) -> str:
    """The expression as a column of the index: BOOLEAN, BIGINT, DOUBLE without -0.0, VARCHAR, or microseconds."""
    written = text(node)
    if node.type.is_int:
        return written if node.type.id == "BIGINT" else f"CAST({written} AS BIGINT)"
    if node.type.is_double:
        return f"({written} + 0e0)"
    if node.type.id == "TIMESTAMP WITH TIME ZONE":
        return f"epoch_us({written})"
    return written
