"""Forms of expressions that have shorter code than the general rule gives them."""

from __future__ import annotations

from collections.abc import Iterator

from enrich.signals.ir import Node
from enrich.signals.pieces import Val

__all__ = ["folded_cast", "is_null", "logic_leaves", "plain_text_test"]


def folded_cast(node: Node) -> Val | None:
    """A cast of a constant to a finer DECIMAL, as a constant."""
    (inner,) = node.args
    if inner.op != "const" or not (inner.type.is_exact and node.type.is_decimal) or not isinstance(inner.value, int):
        return None
    shift = node.type.scale - inner.type.scale
    scaled = inner.value * 10 ** max(shift, 0)
    if shift < 0 or abs(scaled) > node.type.range[1]:
        return None
    return Val(f"({scaled})" if scaled < 0 else str(scaled))


def is_null(node: Node) -> bool:
    return node.op == "const" and node.value is None


def plain_text_test(node: Node) -> bool:
    """A column or attribute against texts: right without a null test."""
    return (
        node.args[0].type.id == "VARCHAR"
        and node.args[0].op in ("column", "attribute")
        and all(a.op == "const" and a.value is not None for a in node.args[1:])
    )


def logic_leaves(node: Node) -> Iterator[Node]:
    """What AND, OR and NOT join, each as often as it stands there."""
    if node.op in ("and", "or", "not"):
        for arg in node.args:
            yield from logic_leaves(arg)
    else:
        yield node
