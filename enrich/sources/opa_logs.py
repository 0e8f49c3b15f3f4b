"""OPA's decision logs: entries as its `decision_logs` plugin uploads them, to events of kind `authority`.

One logged decision is one event, known by its `decision_id`, which OPA draws at random: an upload that is repeated is
made of duplicates. What an entry does not show, because it was masked, erased or never there, is never guessed: such an
entry is rejected, and its neighbours are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from enrich.events import Rejection
from enrich.events.model import MATERIALITIES
from enrich.events.refusals import clip, string_problem

__all__ = ["MappedLogs", "OpaLogMapping", "events_from_entries"]

#: of all OPAs: their decision ids are random, and the id that one gives itself changes with each start
SOURCE: Final = "opa"
_FINER: Final = re.compile(r"(\.[0-9]{6})[0-9]+")

Entry = Mapping[str, Any]
Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OpaLogMapping:
    """How an entry is read.

    Attributes:
        decides: whether a path of OPA's, `("gantral", "authority", "decision")`, is a decision.
        outcome: of an event, from an entry's `result` and `error`.
        ids: entity to where its id stands in the input.
        instance, materiality: where those stand.
        history: where the engine puts its history.
        asks_opa: this engine itself asks an OPA: entries whose input has the engine's history are of decisions that it
            counted when it made them.
    """

    decides: Callable[[Path], bool]
    outcome: Callable[[Entry], str]
    ids: Mapping[str, Path]
    instance: Path
    materiality: Path
    history: Path
    asks_opa: bool = False


@dataclass(frozen=True, slots=True)
class MappedLogs:
    """`events`: dicts for `EventParser`; `indices[i]` is the entry of event i.

    `ignored` entries are of other paths, `own` ones of decisions that this engine made; the others are `rejected`.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    fields: Mapping[str, str] = field(default_factory=dict)
    ignored: int = 0
    own: int = 0

    def with_refused(self, refused: Sequence[Rejection]) -> list[Rejection]:
        """All rejections in the order of the entries, those of the events among them as of the entries' own fields."""
        told = [
            replace(one, index=self.indices[one.index], field=self.fields.get(one.field or "", one.field))
            for one in refused
        ]
        return sorted([*self.rejected, *told], key=lambda one: one.index)


def events_from_entries(entries: Sequence[object], mapping: OpaLogMapping) -> MappedLogs:
    """Map the entries of an upload. Never raises for what an entry holds."""
    events: list[dict[str, Any]] = []
    indices: list[int] = []
    rejected: list[Rejection] = []
    ignored = own = 0
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            rejected.append(_reject(index, "not_an_object", None, entry, "the entry is no object"))
            continue
        path = entry.get("path")
        if not isinstance(path, str) or not mapping.decides(tuple(path.strip("/").split("/"))):
            ignored += 1  # an ad hoc query has no path at all
            continue
        hidden = _hidden(entry)
        if mapping.asks_opa and _is_own(entry, mapping.history, hidden):
            own += 1
            continue
        found = _event(index, entry, mapping, hidden)
        if isinstance(found, Rejection):
            rejected.append(found)
        else:
            events.append(found)
            indices.append(index)
    fields = {"event_id": "decision_id", "occurred_at": "timestamp"}
    fields |= {f"{entity}_id": _where(path) for entity, path in mapping.ids.items()}
    return MappedLogs(events, indices, rejected, fields, ignored, own)


def _event(index: int, entry: Entry, mapping: OpaLogMapping, hidden: Sequence[Path]) -> dict[str, Any] | Rejection:
    if any(one[:2] in (("result",), ("result", "decision")) for one in hidden):
        return _reject(index, "masked_result", "result", None, "the result was masked: nobody can say what it was")
    event: dict[str, Any] = {
        "source": SOURCE,
        "event_id": entry.get("decision_id"),
        "decision_id": entry.get("decision_id"),
        "occurred_at": _microseconds(entry.get("timestamp")),
        "kind": "authority",
        "outcome": mapping.outcome(entry),
    }
    given = entry.get("input")
    for entity, path in mapping.ids.items():
        if _is_hidden(path, hidden):
            why = f"the {entity} at {_where(path)} was masked: nobody can say whose decision it was"
            return _reject(index, "masked_id", _where(path), None, why)
        value = _at(given, path)
        if value is None and entity == "agent":
            return _reject(index, "missing_agent", _where(path), None, "the input has no agent")
        event[f"{entity}_id"] = value
    instance, level = (
        None if _is_hidden(path, hidden) else _at(given, path) for path in (mapping.instance, mapping.materiality)
    )
    # as of the engine's own decisions: what is none of the two is left out
    if isinstance(instance, str) and string_problem(instance) is None:
        event["instance_id"] = instance
    if isinstance(level, str) and level in MATERIALITIES:
        event["materiality"] = level
    return {name: value for name, value in event.items() if value is not None}


def _is_own(entry: Entry, history: Path, hidden: Sequence[Path]) -> bool:
    """Whether the input had the engine's history, or may have had it."""
    if _is_hidden(history, hidden):
        return True
    found = _at(entry.get("input"), history)
    return isinstance(found, Mapping) and isinstance(found.get("catalog"), str) and type(found.get("seq")) is int


def _hidden(entry: Entry) -> list[Path]:
    """What `erased` and `masked` name, JSON pointers, as paths of keys."""
    named = [*_texts(entry.get("erased")), *_texts(entry.get("masked"))]
    return [tuple(_unescaped(key) for key in text.removeprefix("/").split("/")) for text in named]


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _unescaped(key: str) -> str:
    return key.replace("~1", "/").replace("~0", "~")


def _is_hidden(path: Path, hidden: Sequence[Path]) -> bool:
    """Whether something at, above or below a path of the input was taken out or replaced."""
    full = ("input", *path)
    return any(full[: len(one)] == one[: len(full)] for one in hidden)


def _at(value: object, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def _microseconds(value: object) -> object:
    """OPA tells nanoseconds; an event's time is cut to microseconds."""
    return _FINER.sub(r"\1", value, count=1) if isinstance(value, str) else value


def _where(path: Path) -> str:
    return ".".join(("input", *path))


def _reject(index: int, code: str, field: str | None, value: object, message: str) -> Rejection:
    return Rejection(index, code, field, None if value is None else clip(value), message)
