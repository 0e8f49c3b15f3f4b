"""From the index's running totals to the objects under `history`.

In: ids, one as_of, the compiled functions of one selection. Out: one object per entity. It never reads a clock, a file
or DuckDB; the caller holds the index's lock, so that all of it comes from one snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from enrich.events.model import ENTITY_KEYS
from enrich.signals import Catalog
from enrich.signals.plan import EntityFunctions, EntityPlan
from enrich.windows import Index

__all__ = ["PAIRS", "Assembler", "Key", "Prepared", "index_plans"]

#: an entity's key: its id, or the ids of a pair
Key = str | tuple[str, ...]

#: the entities that are pairs of others, and of which
PAIRS: Final[Mapping[str, tuple[str, str]]] = {
    "agent_workflow": ("agent", "workflow"),
    "agent_team": ("agent", "team"),
    "team_workflow": ("team", "workflow"),
}


def index_plans(catalog: Catalog) -> dict[str, EntityPlan]:
    """What the index keeps: the catalog's plans, and an empty one for an entity that has derived sets only."""
    plans = dict(catalog.plans)
    for s in catalog.sets:
        if s.entity not in plans:
            key = ENTITY_KEYS[s.entity]
            plans[s.entity] = EntityPlan(s.entity, key, (), (), (), frozenset(), lambda columns, n: [()] * n)
    return plans


class _NoRows:
    """The probe of an entity without a row."""

    def order(self, w: int, v: int, k: int) -> Any:
        raise IndexError(k)

    def order2(self, w: int, v: int, k: int) -> tuple[Any, Any]:
        raise IndexError(k)

    def minimum(self, w: int, v: int) -> Any:
        return None

    def maximum(self, w: int, v: int) -> Any:
        return None

    def distinct(self, w: int, v: int) -> int:
        return 0

    def last(self, w: int, v: int) -> tuple[Any, int] | None:
        return None

    def since_break(self, w: int, c: int, v: int) -> int:
        return 0

    def burst(self, w: int, v: int) -> int:
        return 0


class Prepared:
    """What one selection needs of one entity, with everything that does not depend on the request worked out."""

    __slots__ = ("empty", "empty_raw", "functions", "lengths", "windows")

    def __init__(self, functions: EntityFunctions, plan: EntityPlan) -> None:
        self.functions = functions
        self.lengths = tuple(us for _, us, _ in functions.windows)
        self.windows = tuple(
            (None if name in functions.hidden else name, us, i, function)
            for i, (name, us, function) in enumerate(functions.windows)
        )
        zeros = (0,) * (len(plan.counts) + len(plan.sums))
        raw: list[Any] = [None] * functions.raw_size
        self.empty = tuple(
            (name, us, function(zeros, zeros, 0, _NoRows(), i, raw)) for name, us, i, function in self.windows
        )
        self.empty_raw = raw


class Assembler:
    """Assembles the entities of a context for one catalog and its index.

    Args:
        index: the index that follows the journal; its `lock` is held by whoever calls `entities`.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self._plans = index.plans

    def prepare(self, functions: Mapping[str, EntityFunctions]) -> dict[str, Prepared]:
        """Work out a selection once; keep the result beside the selection."""
        return {entity: Prepared(f, self._plans[entity]) for entity, f in functions.items()}

    def entities(
        self,
        prepared: Mapping[str, Prepared],
        keys: Mapping[str, Key | None],
        approvers: Sequence[str] | None,
        as_of_us: int,
        observed_since_us: int | None,
    ) -> dict[str, Any]:
        """The objects under `history`, by entity name; `approvers` by id when a list is given.

        Args:
            keys: the entities to answer; None stands for an id that is missing from the input.
            observed_since_us: the start of observed history; None when nothing was observed yet.
        """
        # a window is complete when it starts at or after the start of what was observed
        longest = -1 if observed_since_us is None else as_of_us - observed_since_us
        result: dict[str, Any] = {}
        raws: dict[str, list[Any]] = {}
        waiting: list[tuple[dict[str, Any], EntityFunctions, dict[str, list[Any]]]] = []
        for entity, p in prepared.items():
            if entity == "approver":
                continue
            if entity not in keys:
                raws[entity] = p.empty_raw
                continue
            object_, raw = self._entity(entity, keys[entity], p, as_of_us, longest)
            raws[entity] = raw
            f = p.functions
            if f.selected:
                result[entity] = object_
                if f.derived is not None:
                    waiting.append((object_, f, raws))
        approver = prepared.get("approver")
        if approver is not None and approvers is not None and approver.functions.selected:
            people: dict[str, Any] = {}
            for who in approvers:
                people[who], raw = self._entity("approver", who, approver, as_of_us, longest)
                if approver.functions.derived is not None:
                    waiting.append((people[who], approver.functions, {**raws, "approver": raw}))
            result["approvers"] = people
        for object_, f, values in waiting:
            object_.update(f.derived(values))  # type: ignore[misc]
        return result

    def _entity(
        self, entity: str, key: Key | None, p: Prepared, as_of_us: int, longest: int
    ) -> tuple[dict[str, Any], list[Any]]:
        located = None if key is None else self.index.locate(entity, key, as_of_us, p.lengths)
        if located is None:
            object_: dict[str, Any] = {"id": key, "known": False}
            for name, us, signals in p.empty:
                if name is not None:
                    object_[name] = {"complete": us <= longest, **signals}
            return object_, p.empty_raw
        raw: list[Any] = [None] * p.functions.raw_size
        end = located.end_record
        starts = located.start_records
        probe = located.probe
        object_ = {"id": key, "known": located.known}
        for name, us, i, function in p.windows:
            signals = function(end, starts[i], as_of_us, probe, i, raw)
            if name is not None:
                signals["complete"] = us <= longest
                object_[name] = signals
        return object_, raw
