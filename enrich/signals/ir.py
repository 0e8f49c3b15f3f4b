"""The compiler's intermediate form: a typed expression over columns, aggregates or other signals.

A `Node` is immutable and compares by content, so that equal expressions are one key. Its types are DuckDB's, taken from
the bound plan; nothing here decides a type that DuckDB did not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from enrich.signals.types import BIGINT, BOOLEAN, HUGEINT, TIMESTAMPTZ, SqlType

__all__ = [
    "FALSE",
    "TRUE",
    "Node",
    "Span",
    "all_of",
    "as_of",
    "constant",
    "count_of",
    "input_of",
    "is_null",
    "negation",
    "sum_of",
    "when",
]

#: byte offset and length in the definition's SQL
Span = tuple[int, int]


class Node:
    """One operation of a definition.

    `op` names it, `args` are its operands, `value` is what it carries besides (a constant, a column's name, an index).
    Leaves: `const`, `column`, `attribute`, `aggregate`; after lowering `count`, `sum`, `probe`, `as_of`; in derived
    sets `input`. `at` is where it stands in the source and takes no part in comparison.
    """

    __slots__ = ("_hash", "_key", "args", "at", "op", "type", "value")

    def __init__(
        self, op: str, type: SqlType, args: tuple[Node, ...] = (), value: object = None, at: Span | None = None
    ) -> None:
        self.op = op
        self.type = type
        self.args = args
        self.value = value
        self.at = at
        # repr tells 0.0 from -0.0 and True from 1, which == does not
        self._key = (op, type, repr(value))
        self._hash: int = hash((self._key, tuple(hash(a) for a in args)))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Node)
            and self._hash == other._hash
            and self._key == other._key
            and self.args == other.args
        )

    def __repr__(self) -> str:
        inner = ", ".join([*([repr(self.value)] if self.value is not None else []), *map(repr, self.args)])
        return f"{self.op}({inner})"

    def walk(self) -> Iterator[Node]:
        """This node and all below it, parents first, equal ones once."""
        seen: set[Node] = set()
        stack = [self]
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                yield node
                stack.extend(reversed(node.args))

    def with_args(self, args: tuple[Node, ...]) -> Node:
        return self if args == self.args else Node(self.op, self.type, args, self.value, self.at)

    def replace(self, change: Callable[[Node], Node | None], memo: dict[Node, Node] | None = None) -> Node:
        """A copy in which each node that `change` answers is what it answered; leaves first, equal nodes once."""
        memo = {} if memo is None else memo
        known = memo.get(self)
        if known is None:
            rebuilt = self.with_args(tuple(a.replace(change, memo) for a in self.args))
            changed = change(rebuilt)
            known = memo[self] = rebuilt if changed is None else changed
        return known


TRUE: Final = Node("const", BOOLEAN, value=True)
FALSE: Final = Node("const", BOOLEAN, value=False)


def constant(type: SqlType, value: object, at: Span | None = None) -> Node:
    """A constant; DECIMAL as its scaled integer, TIMESTAMPTZ as microseconds, null as None."""
    return Node("const", type, value=value, at=at)


def count_of(index: int) -> Node:
    """The number of the window's rows with predicate `index` TRUE; never null."""
    return Node("count", BIGINT, value=index)


def sum_of(index: int, type: SqlType = HUGEINT) -> Node:
    """The window's total of sum column `index`, 0 without rows; never null."""
    return Node("sum", type, value=index)


def as_of() -> Node:
    return Node("as_of", TIMESTAMPTZ)


def input_of(type: SqlType, path: tuple[str, ...], at: Span | None = None) -> Node:
    """Another signal's value, by its path: (entity, window or "", signal)."""
    return Node("input", type, value=path, at=at)


def is_null(node: Node) -> Node:
    return Node("is_null", BOOLEAN, (node,), at=node.at)


def negation(node: Node) -> Node:
    return Node("not", BOOLEAN, (node,), at=node.at)


def when(condition: Node, then: Node) -> Node:
    """`CASE WHEN condition THEN then END`."""
    return Node("case", then.type, (condition, then, constant(then.type, None)), at=then.at)


def all_of(conditions: list[Node]) -> Node:
    """Their conjunction, flattened, without repetitions and TRUEs."""
    flat: dict[Node, None] = {}
    stack = list(reversed(conditions))
    while stack:
        node = stack.pop()
        if node.op == "and":
            stack.extend(reversed(node.args))
        elif node != TRUE:
            flat[node] = None
    parts = tuple(flat)
    if not parts:
        return TRUE
    return parts[0] if len(parts) == 1 else Node("and", BOOLEAN, parts, at=parts[0].at)
