"""What a request selects: `agent.last_24h.failure_rate`, `agent.last_24h.*`, `team.*`, `agent.enough_runs`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from enrich.errors import BadRequestError, show
from enrich.signals.derived import Path

__all__ = ["select_paths"]


def select_paths(select: Sequence[str] | None, known: Sequence[Path], members: Sequence[Path] = ()) -> frozenset[Path]:
    """The signals named by `select`; all of them for None.

    Args:
        known: every signal of the catalog: (entity, window's key or "", name).
        members: what else can be named, in the same form: `known` of an entity, `complete` of a window.

    Raises:
        BadRequestError: `unknown_signal`; an entry that names nothing.
    """
    if select is None:
        return frozenset(known)
    by_prefix: dict[str, list[Path]] = {}
    for path in known:
        entity, window, _ = path
        keys = [entity, f"{entity}.{window}"] if window else [entity]
        for key in (*keys, ".".join(p for p in path if p)):
            by_prefix.setdefault(key, []).append(path)
    for path in members:
        by_prefix.setdefault(".".join(p for p in path if p), []).append(path)
    found: set[Path] = set()
    for entry in select:
        found.update(_one(entry, by_prefix))
    return frozenset(found)


def _one(entry: object, by_prefix: Mapping[str, list[Path]]) -> Iterable[Path]:
    if not isinstance(entry, str):
        raise BadRequestError(
            f"a selected signal is {show(entry)}, not a string", code="unknown_signal", value=show(entry)
        )
    key = entry.removesuffix(".*")
    if key == "approvers" or key.startswith("approvers."):
        key = "approver" + key[len("approvers") :]
    found = by_prefix.get(key)
    if found is None:
        near = difflib.get_close_matches(key, list(by_prefix), 1)
        raise BadRequestError(
            f"select names no signal: {show(entry)}",
            code="unknown_signal",
            value=entry,
            hint=f"did you mean `{near[0]}`?" if near else "signals are listed under /v1/signals",
        )
    return found
