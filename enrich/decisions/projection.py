"""What a decision path is given of history: what its policy can read, and no more.

From that follows on whom it is decided alone: the entities whose history is in it, or goes into it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from enrich.context import PAIRS
from enrich.decisions.reads import InputPath, Reads
from enrich.in_flight import IN_FLIGHT_ENTITIES
from enrich.signals import Catalog

__all__ = ["EVERYTHING", "Projection", "covers", "projection", "split_in_flight"]


@dataclass(frozen=True, slots=True)
class Projection:
    """What stands in the context of one decision path.

    Attributes:
        select: what is selected, in order; None for everything.
        read: the entities whose history the policy can read. A pair is the first of its two: whoever adds to the
            history of both adds to that of each.
    """

    select: tuple[str, ...] | None
    read: frozenset[str]

    def with_more(self, other: Projection) -> Projection:
        """What is selected for the other too; who reads history is told as before."""
        if self.select is None or other.select is None:
            return Projection(None, self.read)
        entries = {*self.select, *other.select}
        return Projection(_least(entries), self.read)


#: the whole context, and with it every entity of a request
EVERYTHING: Final = Projection(None, frozenset(("agent", "team", "workflow", "org", "approver")))


def projection(reads: Reads | None, catalog: Catalog, at: Sequence[str], *, project: bool = True) -> Projection:
    """The least context on which a policy decides as on the whole.

    Args:
        reads: of the policy at the path; None when nobody knows.
        at: where history stands in the input.
        project: False selects everything; what can be read is told all the same.
    """
    found = None if reads is None else _selected(reads, catalog, tuple(at))
    if found is None:
        return EVERYTHING
    select = _least(found)
    # a derived signal reads the history of other entities than its own
    flying, signals = split_in_flight(list(dict.fromkeys(s.entity for s in catalog.sets)), select)
    read = frozenset(PAIRS[e][0] if e in PAIRS else e for e in (*flying, *catalog.functions(signals)))
    return Projection(select if project else None, read)


def _selected(reads: Reads, catalog: Catalog, at: InputPath) -> set[str] | None:
    """What is to be selected; None for everything."""
    found: set[str] = set()
    for paths, whole in ((reads.whole, True), (reads.touched, False)):
        for path in paths:
            if not _meet(path, at):
                continue
            if len(path) > len(at):
                found.update(_entries(path[len(at) :], catalog, whole))
            elif whole:
                return None
    return found


def _meet(path: InputPath, at: InputPath) -> bool:
    """Whether the path lies on, above or below the place."""
    return all(mine is None or mine == theirs for mine, theirs in zip(path, at, strict=False))


def _entries(path: InputPath, catalog: Catalog, whole: bool) -> Iterator[str]:
    """The selection for one path below history.

    INVARIANT: the path is there in the selected context if it is in the whole one, and is the same: a scalar always,
    an object when it is read whole. What stands around entities (`status`, `as_of`, ...) is in every context.
    """
    for entity in dict.fromkeys(s.entity for s in catalog.sets):
        name = "approvers" if entity == "approver" else entity
        if path[0] not in (None, name):
            continue
        # approvers stand one deeper, by their ids, and all that are asked for are there
        member = path[2:] if entity == "approver" else path[1:]
        if not member:
            yield f"{name}.*" if whole else f"{name}.known"
        else:
            yield f"{name}.known"
            yield from _members(name, member, catalog, entity, whole)


def _members(name: str, member: InputPath, catalog: Catalog, entity: str, whole: bool) -> Iterator[str]:
    if entity in IN_FLIGHT_ENTITIES and member[0] in (None, "in_flight"):
        yield f"{name}.in_flight"
    windowed = [s for s in catalog.sets if s.entity == entity and not s.derived]
    for window in catalog.windows(entity):
        if member[0] not in (None, window.key):
            continue
        if len(member) == 1 and whole:
            yield f"{name}.{window.key}.*"
            continue
        yield f"{name}.{window.key}.complete"
        for s in windowed:
            if len(member) > 1 and window in s.header.windows:
                yield from (f"{name}.{window.key}.{c.name}" for c in s.signals if member[1] in (None, c.name))
    for s in catalog.sets:
        if s.entity == entity and s.derived:
            yield from (f"{name}.{c.name}" for c in s.signals if member[0] in (None, c.name))


def _least(entries: set[str]) -> tuple[str, ...]:
    return tuple(sorted(e for e in entries if not _within(e, entries)))


def _within(entry: str, entries: Collection[str]) -> bool:
    """Whether another entry selects the same and more."""
    *above, last = entry.split(".")
    # `known` and `complete` come with whatever is selected beside or below them
    if last in ("known", "complete"):
        beside = ".".join(above) + "."
        return any(other.startswith(beside) for other in entries if other != entry)
    wider = (".".join((*above[:n], "*")) for n in range(1, len(above) + 1))
    return any(other in entries for other in wider if other != entry)


def covers(selection: Collection[str] | None, wanted: Collection[str] | None) -> bool:
    """Whether a context with this selection holds all that another one selects; None is everything."""
    if selection is None or wanted is None:
        return selection is None
    return all(entry in selection or _within(entry, selection) for entry in wanted)


def split_in_flight(
    entities: Collection[str], key: tuple[str, ...] | None
) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """The entities of which a selection names what is in flight, and what it names of signals.

    Args:
        entities: those that contexts show.
    """
    mine = [entity for entity in IN_FLIGHT_ENTITIES if entity in entities]
    if key is None:
        return tuple(mine), None
    flying = tuple(e for e in mine if not {e, f"{e}.*", f"{e}.in_flight", f"{e}.in_flight.*"}.isdisjoint(key))
    named = {f"{entity}.in_flight{rest}" for entity in flying for rest in ("", ".*")}
    return flying, tuple(entry for entry in key if entry not in named)
