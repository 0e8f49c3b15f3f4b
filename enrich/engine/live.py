"""The definitions that are live, with everything built for them: one object, replaced as a whole.

A reload builds a second `Live` beside the first until it has caught up; the swap is one ordered step.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from enrich.context import PAIRS, Assembler, Prepared, index_plans
from enrich.decisions.projection import split_in_flight
from enrich.errors import BadRequestError, show
from enrich.signals import Catalog
from enrich.signals.plan import EntityFunctions
from enrich.windows import Index

__all__ = ["Live", "Selection", "index_plans"]

#: selections kept, the oldest first out; with the two others they bound what callers can fill
_SELECTIONS: Final = 256
_MAX_ENTRIES: Final = 256
_MAX_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Selection:
    """What one selection computes, worked out once: prepared functions by entity, the pairs among them, and the
    entities whose actions in flight are told."""

    entities: Mapping[str, Prepared]
    pairs: tuple[tuple[str, str, str], ...]
    in_flight: tuple[str, ...]



class Live:
    """A catalog, the index built for it, and the selections prepared so far."""

    def __init__(self, catalog: Catalog, index: Index) -> None:
        self.catalog = catalog
        self.index = index
        self.assembler = Assembler(index)
        self.entities = tuple(index.plans)
        self._selections: dict[tuple[str, ...] | None, Selection] = {}
        #: those of the policies' own, which no caller's push out
        self._projections: dict[tuple[str, ...] | None, Selection] = {}
        self._lock = threading.Lock()

    def selection(self, select: Sequence[str] | None) -> Selection:
        """The prepared functions of a selection; None selects everything.

        Raises:
            BadRequestError: `unknown_signal`, when an entry names nothing; `invalid_select`, more entries or longer
                ones than any selection needs.
        """
        if select is not None and len(select) > _MAX_ENTRIES:
            raise BadRequestError(
                f"`select` has {len(select)} entries, at most {_MAX_ENTRIES}", code="invalid_select", field="select"
            )
        key = None if select is None else tuple(select)
        found = self._selections.get(key)
        if found is not None:
            return found
        for entry in key or ():
            if len(entry) > _MAX_CHARACTERS:
                raise BadRequestError(
                    f"`select` entry {show(entry)} has {len(entry)} characters, at most {_MAX_CHARACTERS}",
                    code="invalid_select",
                    field="select",
                )
        made = self._made(key)
        with self._lock:
            self._selections[key] = made
            while len(self._selections) > _SELECTIONS:
                del self._selections[next(iter(self._selections))]
        return made

    def projection(self, select: tuple[str, ...] | None) -> Selection:
        """The prepared functions of what a policy of this catalog reads; None for everything."""
        found = self._projections.get(select)
        if found is None:
            found = self._projections.setdefault(select, self._made(select))
        return found

    def _made(self, key: tuple[str, ...] | None) -> Selection:
        flying, signals = split_in_flight(self.entities, key)
        functions = dict(self.catalog.functions(signals))
        for entity in flying:
            alone = EntityFunctions(entity, (), frozenset(), None, frozenset(), 0)
            functions[entity] = replace(functions.get(entity, alone), selected=True)
        prepared = self.assembler.prepare(functions)
        pairs = tuple((pair, a, b) for pair, (a, b) in PAIRS.items() if pair in prepared)
        return Selection(prepared, pairs, flying)
