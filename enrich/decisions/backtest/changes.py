"""What differs between two sets of policies, or of signal sets, said for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from enrich.decisions.backtest.flips import json_text
from enrich.decisions.policies import PolicySet, leaves
from enrich.events.refusals import clip

__all__ = ["policy_changes", "text_changes"]


def policy_changes(before: PolicySet, after: PolicySet) -> Iterator[str]:
    """Modules that came, went or changed, and every value of the base documents that did."""
    yield from text_changes("policy", before.modules, after.modules)
    old, new = (dict(_leaves(p.data)) for p in (before, after))
    for path in sorted(old.keys() | new.keys()):
        if path not in old or path not in new or old[path] != new[path]:
            shown = [clip(json_text(v[path]) or "null") if path in v else "absent" for v in (old, new)]
            yield f"data.{'.'.join(path)}: {shown[0]} -> {shown[1]}"


def text_changes(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    """Texts by name that came, went or changed."""
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            yield f"{what} {name}: new"
        elif name not in after:
            yield f"{what} {name}: gone"
        elif before[name] != after[name]:
            yield f"{what} {name}: changed"


def _leaves(data: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for path in leaves(data):
        value: Any = data
        for key in path:
            value = value[key]
        yield path, value
