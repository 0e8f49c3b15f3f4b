"""Inputs cut down to what a rule can read of them: shorter to evaluate, and the same for many decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from enrich.decisions.reads import InputPath, Reads

__all__ = ["Pruner"]


class _Node:
    """One place of an input: what is read below it, by key; `any` below any key."""

    __slots__ = ("any", "below", "whole")

    def __init__(self) -> None:
        self.whole = False
        self.below: dict[str, _Node] = {}
        self.any: _Node | None = None

    def add(self, path: InputPath, whole: bool) -> None:
        at = self
        for key in path:
            if key is None:
                at.any = at.any or _Node()
                at = at.any
            else:
                at = at.below.setdefault(key, _Node())
        at.whole |= whole


class Pruner:
    """Cuts inputs.

    INVARIANT: an input and what is left of it agree on everything that `reads` says, so that the rules of these reads
    have the same values on both.

    Args:
        reads: of the rules that are going to be asked.
    """

    def __init__(self, reads: Iterable[Reads]) -> None:
        self._root = _Node()
        for one in reads:
            for path in one.whole:
                self._root.add(path, True)
            for path in one.touched:
                self._root.add(path, False)

    def prune(self, document: Any) -> Any:
        """What can be read of an input."""
        return _cut(document, [self._root])


def _cut(value: Any, nodes: list[_Node]) -> Any:
    if any(node.whole for node in nodes):
        return value
    if isinstance(value, Mapping):
        keys = value if any(node.any is not None for node in nodes) else {k for n in nodes for k in n.below}
        return {key: _cut(value[key], _ahead(nodes, key)) for key in keys if key in value}
    if isinstance(value, list):
        if not any(node.any is not None or node.below for node in nodes):
            return []
        # an index stands in a path as any key does: all of them are kept, each as far as any is read
        return [_cut(item, [below for node in nodes for below in _all(node)]) for item in value]
    return value


def _ahead(nodes: list[_Node], key: str) -> list[_Node]:
    found = [node.below[key] for node in nodes if key in node.below]
    return found + [node.any for node in nodes if node.any is not None]


def _all(node: _Node) -> Iterable[_Node]:
    yield from node.below.values()
    if node.any is not None:
        yield node.any
