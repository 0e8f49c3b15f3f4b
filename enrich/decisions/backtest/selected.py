"""Whether a record's input holds what a changed policy reads: it was given what the policy of that time could read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from enrich.decisions.protocol import DataPath
from enrich.decisions.reads import InputPath, Reads

__all__ = ["holds"]

#: what stands in a context whatever is selected
_AROUND: Final = frozenset(
    ("as_of", "seq", "status", "lag_seconds", "observed_since", "catalog", "suspended", "suspensions")
)
_OF_ENTITY: Final = frozenset(("id", "known"))
_APPROVERS: Final = "approvers"


def holds(selection: Collection[str] | None, reads: Reads | None, history: DataPath) -> bool:
    """Whether all that is read of the history is in a context with this selection.

    Args:
        selection: entries such as `agent.last_24h.failures`, `agent.last_1h.*`, `team.*`, `agent.known`; None is
            everything.
        reads: None when nobody knows what is read.
        history: where the history stands in the input.

    Returns:
        False also where it may be there and is not sure.
    """
    if selection is None:
        return True
    if reads is None:
        return False
    return all(
        _held(path[len(history) :], whole, selection)
        for paths, whole in ((reads.whole, True), (reads.touched, False))
        for path in paths
        if _meet(path, history) and (whole or len(path) > len(history))
    )


def _meet(path: InputPath, history: DataPath) -> bool:
    """Whether the path lies on, above or below the history."""
    return all(key is None or key == place for key, place in zip(path, history, strict=False))


def _held(path: InputPath, whole: bool, selection: Collection[str]) -> bool:
    if not path or path[0] is None:
        return False
    entity, *rest = path
    if entity in _AROUND:
        return True
    if entity == _APPROVERS:
        rest = rest[1:]  # their ids: all that are asked for are there
    if f"{entity}.*" in selection:
        return True
    if None in rest:
        return False
    member = [str(key) for key in rest]
    if not member or (len(member) == 1 and member[0] in _OF_ENTITY):
        return not (whole and not member) and _any_below(f"{entity}.", selection)
    at = f"{entity}.{member[0]}"
    if f"{at}.*" in selection or (len(member) == 1 and at in selection):
        return True
    if len(member) == 1:
        return not whole and _any_below(f"{at}.", selection)
    if member[1] == "complete":
        return _any_below(f"{at}.", selection)
    return f"{at}.{member[1]}" in selection


def _any_below(prefix: str, selection: Collection[str]) -> bool:
    return any(entry.startswith(prefix) for entry in selection)
