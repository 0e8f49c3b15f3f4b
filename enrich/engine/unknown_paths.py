"""Paths below history that policies read and no catalog has: a rule that hangs on one never fires, without a word."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from enrich.decisions import Prepared
from enrich.decisions.policies import located
from enrich.decisions.reads import InputPath
from enrich.signals import Catalog

__all__ = ["check_history_paths"]


def check_history_paths(prepared: Prepared, catalog: Catalog, at: Sequence[str]) -> None:
    """Refuse policies that look for a signal, a window or an entity that is not there.

    Judged is what a policy names: constant keys, by whatever way they come to the look-up. One that looks for several
    (`some w in ["last_1h", "last_24h"]`) has to find one of them.

    Args:
        at: where history stands in the input.

    Raises:
        PolicyError: `unknown_history_path`, with file, line and column.
    """
    schema = catalog.json_schema()
    for rule in sorted(prepared.rules):
        reads = prepared.reads(rule)
        asked = sorted(reads.asked, key=lambda a: a.position or ("", 0, 0)) if reads is not None else ()
        for one in asked:
            missing = [_missing(path, schema, tuple(at)) for path in one.paths]
            found = min((m for m in missing if m is not None), default=None)
            if found is None or None in missing:
                continue
            path, near = found
            raise located(
                f"`{'.'.join(('input', *path))}` is nowhere in the catalog: what reads it is always undefined",
                prepared.policies,
                one.position,
                code="unknown_history_path",
                hint=f"did you mean `{near}`?" if near else "`/v1/signals` lists what there is",
                path=list(path),
            )


def _missing(path: InputPath, schema: Mapping[str, Any], at: tuple[str, ...]) -> tuple[tuple[str, ...], str] | None:
    """The path up to the first key that can't be there, and a key that is like it; None when it can be there."""
    if path[:1] == ("history",) and at[:1] != ("history",):
        return ("history",), ".".join(("input", *at))  # history is elsewhere, and a caller may not bring any
    if len(path) <= len(at) or any(key != place for key, place in zip(path, at, strict=False)):
        return None
    for n in range(len(at) + 1, len(path) + 1):
        ahead = _step([schema], path[len(at) : n])
        if not ahead:
            before = {key for node in _step([schema], path[len(at) : n - 1]) for key in node.get("properties", ())}
            near = difflib.get_close_matches(str(path[n - 1]), sorted(before), 1)
            return tuple("*" if key is None else key for key in path[:n]), near[0] if near else ""
    return None


def _step(nodes: list[Mapping[str, Any]], keys: InputPath) -> list[Mapping[str, Any]]:
    """The schemas that may stand under the keys; an open one stands for itself."""
    for key in keys:
        ahead: list[Mapping[str, Any]] = []
        for node in nodes:
            properties = node.get("properties", {})
            more = node.get("additionalProperties", not _is_leaf(node))
            if key is None:
                ahead += properties.values()
            elif key in properties:
                ahead.append(properties[key])
                continue
            if isinstance(more, Mapping):
                ahead.append(more)
            elif more:
                ahead.append({})
        nodes = ahead
    return nodes


def _is_leaf(node: Mapping[str, Any]) -> bool:
    """Whether nothing can stand below it."""
    types = node.get("type", ())
    types = [types] if isinstance(types, str) else types
    return "enum" in node or (bool(types) and not {"object", "array"} & set(types))
