"""An input made of an event: what a decision that is known only as an `authority` event was asked on, as far as that
can be said.

The mapping is stated, never guessed: a column of the event to a path of the input. A policy that reads other paths is
not testable on such events, and neither is an event that lacks a column whose path the policy reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from enrich.context.inputs import split_path
from enrich.decisions.protocol import DataPath
from enrich.decisions.reads import InputPath, Reads
from enrich.errors import BadRequestError, show
from enrich.events.model import COLUMNS, ENTITY_KEYS
from enrich.settings import Settings

__all__ = ["DECIDED", "InputMapping", "missing"]

#: outcomes of events that say what a policy decided; the others are people's answers
DECIDED: Final = {"allowed": "ALLOW", "required_human": "REQUIRE_HUMAN", "denied": "DENY"}
_ATTRIBUTES: Final = "attributes."
_IN_FLIGHT: Final = "in_flight"


@dataclass(frozen=True, slots=True)
class InputMapping:
    """Columns of events to paths of the input. `attributes.x` is attribute `x`."""

    paths: Mapping[str, DataPath]

    @classmethod
    def of(cls, settings: Settings, more: Mapping[str, str] | None = None) -> InputMapping:
        """The paths that the settings name, and those that are given besides, dotted.

        Raises:
            BadRequestError: `invalid_mapping`, a column that no event has, a path that the history has, or two columns
                on one path.
        """
        paths = {f"{entity}_id": split_path(path) for entity, path in settings.input_paths().items()}
        paths["instance_id"] = split_path(settings.input_instance)
        paths["materiality"] = split_path(settings.input_materiality)
        history = split_path(settings.input_history)
        for column, path in (more or {}).items():
            keys = split_path(path)
            if column not in COLUMNS and not column.startswith(_ATTRIBUTES):
                raise _invalid(f"no event has a column {show(column)}", column)
            if not all(keys) or _on_one_path(keys, history):
                raise _invalid(f"{show(path)} is no path that {show(column)} can stand at", column)
            paths[column] = keys
        taken = sorted(paths.items(), key=lambda item: item[1])
        for (one, above), (other, below) in pairwise(taken):
            if _on_one_path(above, below):
                raise _invalid(f"{show(one)} and {show(other)} lie on one path", one)
        return cls(paths)

    def document(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The input that an event tells of; columns without a value are left out."""
        made: dict[str, Any] = {}
        for column, path in self.paths.items():
            value = _value(event, column)
            if value is None:
                continue
            at = made
            for key in path[:-1]:
                at = at.setdefault(key, {})
            at[path[-1]] = value
        return made

    def beyond(self, reads: Reads, history: DataPath) -> list[str]:
        """What a policy reads where neither a column nor the history stands, dotted; empty when events tell enough."""
        every = reads.whole | reads.touched
        given = frozenset((*self.paths.values(), history))
        found = {p for p in every if not any(p[:n] in given for n in range(1, len(p) + 1))}
        # whether there is an object on the way to what is read is told by what is read
        found = {p for p in found if p in reads.whole or not any(_leads_on(p, other) for other in every)}
        # that of the past is recomputed from decisions' records alone
        found |= {p for p in every if p[: len(history)] == history and _IN_FLIGHT in p[len(history) :]}
        return sorted(map(_text, found))

    def columns_of(self, reads: Reads, history: DataPath) -> dict[str, str]:
        """The columns that a policy needs, each with what it reads: the input where the column stands, or the history
        of the entity that it names."""
        found: dict[str, str] = {}
        for path in sorted(reads.whole | reads.touched, key=_text):
            if len(path) > len(history) and _meets(history, path[: len(history)]):
                names = ENTITY_KEYS if path[len(history)] is None else {str(path[len(history)]): ()}
                for entity in names:
                    for column in ENTITY_KEYS.get(entity, ()):
                        if column in self.paths:
                            found.setdefault(column, _text((*path[: len(history)], entity)))
            for column, place in self.paths.items():
                if _meets(place, path[: len(place)]):
                    found[column] = _text(place)
        return found

    def lines(self) -> list[str]:
        """The mapping, for people."""
        return [f"{column} -> input.{'.'.join(path)}" for column, path in self.paths.items()]


def missing(event: Mapping[str, Any], columns: Iterable[str]) -> str | None:
    """The first of the columns that an event lacks."""
    return next((column for column in columns if _value(event, column) is None), None)


def _value(event: Mapping[str, Any], column: str) -> Any:
    if column.startswith(_ATTRIBUTES):
        return (event.get("attributes") or {}).get(column.removeprefix(_ATTRIBUTES))
    return event.get(column)


def _meets(place: DataPath, path: InputPath) -> bool:
    """Whether the path, wildcards and all, may be the place."""
    return len(place) == len(path) and all(key is None or key == own for own, key in zip(place, path, strict=True))


def _leads_on(path: InputPath, other: InputPath) -> bool:
    return len(other) > len(path) and other[: len(path)] == path


def _text(path: InputPath) -> str:
    return ".".join(("input", *("*" if key is None else key for key in path)))


def _on_one_path(a: DataPath, b: DataPath) -> bool:
    n = min(len(a), len(b))
    return a[:n] == b[:n]


def _invalid(message: str, column: str) -> BadRequestError:
    return BadRequestError(
        message,
        code="invalid_mapping",
        column=column,
        hint="map a column of events, or attributes.NAME, to a path of the input, such as action=context.action",
    )
