"""What an expression may be: the pairs of types that have exact rules, and what is refused with its rewrite.

`normalise` also brings an expression into the form that the emitters read: attributes as leaves, null constants
carried up, and what a condition says about a number written into the branch where it holds (`assume`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from enrich.errors import DefinitionError, show
from enrich.signals.facts import Known
from enrich.signals.ir import Node, Span, constant
from enrich.signals.types import VARCHAR

__all__ = ["Refuse", "check_rows", "check_scalars", "normalise", "refine"]

#: (message, place, hint) to the error that is raised
Refuse = Callable[[str, Span | None, str | None], DefinitionError]

_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,199}")
_STRICT: Final = frozenset({
    "+", "-", "*", "/", "//", "%", "neg", "abs", "ln", "exp", "sqrt", "pow", "round", "cast", "try_cast", "epoch",
    "eq", "ne", "lt", "le", "gt", "ge", "not", "isfinite",
})  # fmt: skip
_COMPARED: Final = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "distinct_from", "not_distinct_from", "in"})
_UNIFIED: Final = frozenset({"coalesce", "greatest", "least"})


def normalise(node: Node, refuse: Refuse) -> Node:
    """The expression with attributes as leaves and null constants carried up."""

    def change(n: Node) -> Node | None:
        if n.op == "text_of":
            return _attribute(n, refuse)
        if n.op in _STRICT and any(a.op == "const" and a.value is None for a in n.args):
            return constant(n.type, None, n.at)
        if n.op == "is_null" and n.args[0].op == "const":
            return constant(n.type, n.args[0].value is None, n.at)
        if n.op == "coalesce" and _total_or_zero(n):
            return n.args[0].args[1]
        return None

    return node.replace(change)


def _total_or_zero(node: Node) -> bool:
    """coalesce(sum(x), 0): a total without rows is 0 already."""
    first, second = node.args[0], node.args[1]
    return (
        len(node.args) == 2 and first.op == "case" and len(first.args) == 3
        and first.args[1].op == "sum" and first.args[2].value is None and first.args[2].op == "const"
        and second.op == "const" and second.value == 0
    )  # fmt: skip


def _attribute(node: Node, refuse: Refuse) -> Node:
    column, key = node.args
    if column.op != "column" or column.value != "attributes":
        raise refuse("->> on something else than attributes", node.at, "write attributes ->> 'key'")
    if key.op != "const" or not isinstance(key.value, str) or _KEY.fullmatch(key.value) is None:
        raise refuse(
            f"the attribute key {show(key.value if key.op == 'const' else key.op)}",
            key.at or node.at,
            "a key is a plain literal: attributes ->> 'tool'; for a cast of the value write "
            "TRY_CAST(attributes ->> 'k' AS BIGINT): ->> 'k'::BIGINT casts the key",
        )
    return Node("attribute", VARCHAR, value=key.value, at=node.at)


def refine(node: Node, known: Known) -> Node:
    """Write into the branches of CASE what their conditions say of integers: that they are positive, or not zero."""

    def change(n: Node) -> Node | None:
        if n.op != "case":
            return None
        args = list(n.args)
        otherwise: dict[Node, str] = {}
        for i in range(0, len(args) - 1, 2):
            here = {**otherwise, **_said(args[i], True, known)}
            args[i + 1] = _assuming(args[i + 1], here)
            otherwise.update(_said(args[i], False, known))
        args[-1] = _assuming(args[-1], otherwise)
        return n.with_args(tuple(args))

    return node.replace(change)


def _said(condition: Node, holds: bool, known: Known) -> dict[Node, str]:
    if (condition.op == "and" and holds) or (condition.op == "or" and not holds):
        found: dict[Node, str] = {}
        for part in condition.args:
            found.update(_said(part, holds, known))
        return found
    if condition.op == "isfinite" and holds and not known(condition.args[0]).fails:
        return {condition.args[0]: "finite"}
    if condition.op not in _COMPARED or len(condition.args) != 2 or condition.args[1].op != "const":
        return {}
    subject, bound = condition.args
    limit = bound.value
    if subject.op == "const" or not isinstance(limit, (int, float)) or isinstance(limit, bool) or known(subject).fails:
        return {}
    if (condition.op, holds, limit) in (("eq", False, 0), ("ne", True, 0)):
        return {subject: "nonzero"}
    if subject.type.is_exact and (
        (holds and ((condition.op == "gt" and limit >= 0) or (condition.op == "ge" and limit >= 1)))
        or (not holds and ((condition.op == "le" and limit >= 0) or (condition.op == "lt" and limit >= 1)))
    ):
        return {subject: "positive"}
    return {}


def _assuming(node: Node, said: dict[Node, str]) -> Node:
    if not said or node.op == "const":
        return node
    memo: dict[Node, Node] = {}
    for subject, kind in said.items():
        memo[subject] = Node("assume", subject.type, (subject,), kind)
    # an operand already assumed stays as it is
    memo.update({inner: inner for inner in node.walk() if inner.op == "assume"})
    return node.replace(lambda n: None, memo)


def _kind(node: Node) -> str:
    t = node.type
    return "number" if t.is_exact or t.is_double else t.id


def check_scalars(node: Node, known: Known, refuse: Refuse) -> None:
    """Refuse what has no exact rule.

    Raises:
        DefinitionError: through `refuse`, at the first such operation.
    """
    for n in node.walk():
        if n.op in _COMPARED or n.op in _UNIFIED:
            _check_mixed(n, n.args, refuse)
        elif n.op == "case":
            _check_mixed(n, (*n.args[1:-1:2], n.args[-1]), refuse)
        elif n.op in ("cast", "try_cast"):
            _check_cast(n, refuse)
        elif n.op in ("//", "%"):
            _check_division(n, known, refuse)
        elif n.op == "round":
            _check_round(n, refuse)
        elif n.op in ("+", "-", "*", "neg", "abs"):
            if n.type.id == "INTERVAL":
                continue  # judged where it is used
            if not (n.type.is_exact or n.type.is_double):
                raise refuse(
                    f"{show(n.op)} on {show(str(n.type))}", n.at, "durations are numbers: epoch(later - earlier)"
                )
        elif n.op == "epoch":
            inner = n.args[0]
            if inner.op != "-" or any(a.type.id != "TIMESTAMP WITH TIME ZONE" for a in inner.args):
                raise refuse("epoch of something else than a difference of two times", n.at, "epoch(later - earlier)")
        elif n.op == "not" and not n.args[0].type.is_bool:
            raise refuse(f"NOT on {show(str(n.args[0].type))}", n.at, "write a comparison: x <> 0")
        elif n.op in ("struct", "row", "struct_extract"):
            raise refuse("a struct", n.at, "a signal is one value; (occurred_at, seq) stands in arg_max only")
        elif n.op == "const" and n.type.id == "INTERVAL":
            continue
        if n.type.id == "INTERVAL" and n.op not in ("-", "const"):
            raise refuse("arithmetic with an interval", n.at, "use a set with the window you want")


def _check_mixed(node: Node, parts: tuple[Node, ...], refuse: Refuse) -> None:
    kinds = {_kind(a) for a in parts if not (a.op == "const" and a.value is None)}
    if len(kinds) > 1:
        raise refuse(
            f"{' and '.join(sorted(kinds))} together", node.at, "compare like with like: write the cast or CASE"
        )
    if kinds & {"STRUCT", "TUPLE", "INTERVAL", "JSON"}:
        raise refuse(f"a comparison of {show(kinds.pop())}", node.at, None)


def _check_cast(node: Node, refuse: Refuse) -> None:
    source, target = node.args[0].type, node.type
    numeric = (source.is_exact or source.is_double) and (target.is_exact or target.is_double)
    text = source.id == "VARCHAR" and node.op == "try_cast" and target.id in ("BIGINT", "DOUBLE")
    if numeric or text:
        return
    if target.id == "TIMESTAMP WITH TIME ZONE":
        hint = "a time written down may depend on a zone: use the window, seconds_since_last(...), or an attribute"
    elif target.id == "VARCHAR":
        hint = "a signal's number stays a number"
    elif source.id == "VARCHAR" and target.is_bool:
        hint = "a text is no condition: attributes ->> 'flag' = 'true'"
    elif source.id == "VARCHAR" and node.op == "cast":
        hint = "text is read as a number by TRY_CAST(x AS BIGINT) or TRY_CAST(x AS DOUBLE)"
    elif source.id == "VARCHAR":
        hint = "text is read as BIGINT or DOUBLE; a flag is compared: attributes ->> 'k' = 'true'"
    elif source.is_bool:
        hint = "a condition is no number: CASE WHEN condition THEN 1 ELSE 0 END, or count(*) FILTER (WHERE condition)"
    elif target.is_bool:
        hint = "a number is no condition: x <> 0"
    else:
        hint = None
    raise refuse(f"a cast of {show(str(source))} to {show(str(target))}", node.at, hint)


def _check_division(node: Node, known: Known, refuse: Refuse) -> None:
    if not node.type.is_int:
        raise refuse(
            f"{show(node.op)} on {show(str(node.type))}",
            node.at,
            "on integers only: on other numbers // is plain division; write round(x / y) or x / y",
        )
    if known(node.args[1]).may_be_zero:
        raise refuse(
            f"{show(node.op)} by something that may be zero",
            node.args[1].at or node.at,
            "a zero would stop the whole query in DuckDB: write nullif(divisor, 0)",
        )


def _check_round(node: Node, refuse: Refuse) -> None:
    if len(node.args) == 1:
        return
    digits = node.args[1]
    if digits.op != "const" or not isinstance(digits.value, int) or not 0 <= digits.value <= 15:
        raise refuse("round to something else than 0 to 15 digits", digits.at or node.at, "write round(x, 2)")


def check_rows(node: Node, known: Known, refuse: Refuse) -> None:
    """Refuse what a row expression can't be: dependent on the moment asked for or the journal, or able to raise."""
    for n in node.walk():
        if n.op == "column" and n.value in ("as_of", "window_start"):
            raise refuse(
                f"{show(n.value)} in a condition or value of rows",
                n.at,
                "rows are counted once, for every moment: use another window, or seconds_since_last(...)",
            )
        if n.op == "column" and n.value == "seq":
            raise refuse(
                "seq as a value",
                n.at,
                "it is the journal's order: only in arg_max(x, (occurred_at, seq)) and current_streak",
            )
        if n.op == "column" and n.value == "attributes":
            raise refuse("attributes as a whole", n.at, "read one: attributes ->> 'key'")
        if n.op == "epoch":
            raise refuse(
                "epoch in a row expression", n.at, "subtract numbers that the events carry, such as duration_ms"
            )
    check_scalars(node, known, refuse)
    if known(node).fails:
        raise refuse(
            "a row expression that can raise (overflow or a cast out of range)",
            node.at,
            "one bad row would stop the whole query: write TRY(expression) or TRY_CAST(x AS type)",
        )
