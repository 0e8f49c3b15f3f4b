"""The signals of a frozen context computed again from the events known then, and compared with what stands there.

In bulk by `Rolling`, which is the compiled code that made them; one by one by the definitions' own SQL through DuckDB,
which is an independent judge. `complete` is attested: it depends on what was observed then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import duckdb

from enrich.context import PAIRS, Key, Rolling, index_plans
from enrich.decisions.projection import split_in_flight
from enrich.decisions.replay.flight import NAME, RollingFlights, SqlFlights, recorded_flights
from enrich.decisions.replay.reasons import Reason, canonical
from enrich.decisions.replay.texts import Definitions, Shaping
from enrich.errors import BadRequestError
from enrich.events import ENTITY_KEYS, parse_rfc3339_us
from enrich.signals import Catalog
from enrich.signals.bulk import BulkAnswers, Question, bulk_answers
from enrich.windows import CursorSource

__all__ = ["Events", "RollingSignals", "SqlSignals"]

_SHOWN: Final = 5
#: what a selection names: (entity, window's key or "", name)
Selected = frozenset[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Events:
    """Where the events of the past are.

    Attributes:
        source: gives DuckDB cursors.
        relation: a table there with the columns of `events`; what is in flight is told from the one of that name.
        applied_seq: up to which seq it holds all events.
        pruned_before_us: events that occurred before were let go of; None: none were.
    """

    source: CursorSource
    relation: str
    applied_seq: int
    pruned_before_us: int | None

    def at(self, seq: int) -> str:
        """The events that were known at `seq`."""
        return f"(FROM {self.relation} AS events WHERE seq <= {seq:d} AND (void_seq IS NULL OR void_seq > {seq:d}))"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a record says was asked of the history, and the answer that was frozen."""

    keys: dict[str, Key | None]
    approvers: list[str]
    as_of_us: int
    seq: int
    select: tuple[str, ...] | None
    frozen: Mapping[str, Any]

    @classmethod
    def of(cls, body: Mapping[str, Any], history: Mapping[str, Any]) -> _Asked:
        entities = body["entities"]
        select = body.get("selection")
        return cls(
            {e: id_ for e, id_ in entities.items() if e != "approvers"},
            list(entities.get("approvers") or ()),
            parse_rfc3339_us(body["as_of"]),
            body["context_seq"],
            None if select is None else tuple(select),
            {e: o for e, o in history.items() if (e in ENTITY_KEYS or e == "approvers") and isinstance(o, dict)},
        )


class _Signals:
    """What both ways share: what can be asked at all, and the comparison."""

    def __init__(self, events: Events, definitions: Definitions, flights: SqlFlights | RollingFlights) -> None:
        self._events = events
        self._definitions = definitions
        self._flights = flights

    def check(self, body: Mapping[str, Any], history: Mapping[str, Any], shaping: Shaping) -> list[Reason]:
        """What the events known then say of the frozen context.

        Args:
            body: a record that agrees with itself.
        """
        found = self._definitions.catalog(body["catalog"])
        if found.value is None:
            return [found.reason or Reason.of("catalog_gone")]
        asked = _Asked.of(body, history)
        if asked.seq > self._events.applied_seq:
            return [Reason.of("history_behind", applied=self._events.applied_seq, needed=asked.seq)]
        flying, signals = split_in_flight(index_plans(found.value), asked.select)
        if signals is not None:  # an entity of which only that is selected stands there with its id
            signals = (*signals, *(f"{entity}.known" for entity in flying))
        try:
            selected = found.value.selected(signals)
        except BadRequestError as error:
            return [Reason.of("record_inconsistent", error.message, field="selection")]
        reasons = self._compare(found.value, replace(asked, select=signals), selected, shaping)
        flights = recorded_flights(asked.frozen)
        if flights or flying:
            lease_us = body["lease"] * 1_000_000
            reasons += self._flights.check(flights, flying, asked.keys, asked.as_of_us, asked.seq, lease_us)
        return reasons

    def _compare(self, catalog: Catalog, asked: _Asked, selected: Selected, shaping: Shaping) -> list[Reason]:
        raise NotImplementedError

    def _judged(self, catalog: Catalog, asked: _Asked, computed: Mapping[str, Any]) -> list[Reason]:
        """The comparison, leaving out what was let go of."""
        cut = _Cut(catalog, asked.as_of_us, self._events.pruned_before_us)
        frozen, fresh = (cut.of(_without_flight(objects)) for objects in (asked.frozen, computed))
        reasons = [Reason.of("history_pruned", windows=sorted(cut.dropped))] if cut.dropped else []
        if canonical(frozen) == canonical(fresh):
            return reasons
        differences = list(_differences(frozen, fresh, "", cut))
        if differences:
            shown = [f"{path}: {_text(was)} recorded, {_text(now)} computed" for path, was, now in differences]
            reasons.append(Reason.of("signals_differ", "; ".join(shown[:_SHOWN]), differences=len(shown)))
        return reasons


class RollingSignals(_Signals):
    """By the compiled code, for many decisions in ascending order of their context's seq."""

    def __init__(self, events: Events, definitions: Definitions) -> None:
        super().__init__(events, definitions, RollingFlights(events.source, events.pruned_before_us))
        self._rolling: dict[tuple[str, int], Rolling] = {}

    def _compare(self, catalog: Catalog, asked: _Asked, selected: Selected, shaping: Shaping) -> list[Reason]:
        key = (catalog.version, shaping.retention_us)
        rolling = self._rolling.get(key)
        if rolling is None or rolling.seq > asked.seq:
            rolling = self._rolling[key] = Rolling(
                self._events.source,
                catalog,
                retention_us=shaping.retention_us,
                relation=self._events.relation,
                at_seq=asked.seq,
            )
        rolling.advance(asked.seq)
        computed = rolling.entities(asked.keys, asked.approvers, asked.as_of_us, None, asked.select)
        return self._judged(catalog, asked, computed)


class SqlSignals(_Signals):
    """By the definitions' own SQL, no compiled code at all, for one decision at a time."""

    def __init__(self, events: Events, definitions: Definitions) -> None:
        super().__init__(events, definitions, SqlFlights(events.source, events.pruned_before_us))

    def _compare(self, catalog: Catalog, asked: _Asked, selected: Selected, shaping: Shaping) -> list[Reason]:
        with self._events.source.cursor() as cursor:
            relation = self._events.at(asked.seq)
            answers = _SqlAnswers(cursor, catalog, relation, asked, selected, shaping.retention_us)
            computed = _selected_of(answers.objects(), selected)
        return self._judged(catalog, asked, computed) + answers.notes()


class _SqlAnswers:
    """A context's objects from SQL; where DuckDB is no judge of a value, the one recorded stands."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        catalog: Catalog,
        relation: str,
        asked: _Asked,
        selected: Selected,
        retention_us: int,
    ) -> None:
        self._cursor, self._catalog, self._relation, self._asked = cursor, catalog, relation, asked
        self._selected = selected
        self._retention_us = retention_us
        self._entities = {s.entity for s in catalog.sets}
        self._unjudged: set[str] = set()

    def objects(self) -> dict[str, Any]:
        """What stands under `history` for the entities, `complete` left out."""
        keys = self._keys()
        people = self._asked.approvers if "approver" in self._entities else []
        # an empty id is nobody's
        named = {e: ("",) * len(ENTITY_KEYS[e]) if k is None else k for e, k in keys.items()}
        at = self._asked.as_of_us
        questions = [Question(at, named), *(Question(at, {**named, "approver": who}) for who in people)]
        found = [self._object(e, k) for e, k in keys.items()]
        result: dict[str, Any] = dict(zip(keys, found, strict=True))
        approvers = {who: self._object("approver", who) for who in people}
        for answers in bulk_answers(self._cursor, self._catalog, questions, relation=self._relation):
            entity = answers.set.entity
            for row, k in enumerate(answers.questions):
                if entity == "approver" and k:
                    self._put(approvers[people[k - 1]], self._frozen("approvers", people[k - 1]), answers, row)
                elif entity in result and not k:
                    self._put(result[entity], self._frozen(entity), answers, row)
        if "approver" in self._entities:
            result["approvers"] = approvers
        return result

    def notes(self) -> list[Reason]:
        """What was not compared."""
        return [Reason.of("signals_not_judged", signals=sorted(self._unjudged))] if self._unjudged else []

    def _keys(self) -> dict[str, Key | None]:
        """The ids of every entity that has signals, as the context has them."""
        keys = dict(self._asked.keys)
        for pair, (a, b) in PAIRS.items():
            if a in keys and b in keys:
                left, right = keys[a], keys[b]
                keys[pair] = None if left is None or right is None else (str(left), str(right))
        return {e: k for e, k in keys.items() if e in self._entities}

    def _frozen(self, *path: str) -> Mapping[str, Any]:
        at: Any = self._asked.frozen
        for key in path:
            at = at.get(key) if isinstance(at, dict) else None
        return at if isinstance(at, dict) else {}

    def _object(self, entity: str, key: Key | None) -> dict[str, Any]:
        known = False
        if key is not None:
            ids = [key] if isinstance(key, str) else list(key)
            mine = " AND ".join(f"{column} = ?" for column in ENTITY_KEYS[entity])
            at = self._asked.as_of_us
            (row,) = self._cursor.execute(
                f"SELECT count(*) FROM {self._relation} WHERE {mine}"
                " AND occurred_at > make_timestamptz(?) AND occurred_at <= make_timestamptz(?)",
                [*ids, at - self._retention_us, at],
            ).fetchall()
            known = row[0] > 0
        return {"id": list(key) if isinstance(key, tuple) else key, "known": known}

    def _put(self, into: dict[str, Any], frozen: Mapping[str, Any], answers: BulkAnswers, row: int) -> None:
        window = answers.window
        part = into if window is None else into.setdefault(window.key, {})
        was = frozen if window is None else frozen.get(window.key)
        for signal in answers.set.signals:
            name, value = signal.name, answers.values[signal.name][row]
            if (answers.set.entity, "" if window is None else window.key, name) not in self._selected:
                continue
            recorded = was.get(name) if isinstance(was, dict) else None
            parts = list(self._catalog.made_of(signal))
            varies = any(n.op == "variance" for s in parts for n in s.node.walk())
            if varies or (recorded is None and value is not None and any(s.may_fail for s in parts)):
                self._unjudged.add(f"{answers.set.entity}.{name}")
                value = recorded
            if value is not None:
                part[name] = value


def _selected_of(objects: Mapping[str, Any], selected: Selected) -> dict[str, Any]:
    """Of the entities' objects what is selected; `id` and `known` stand in all that are there."""
    kept: dict[str, Any] = {}
    shown = {entity for entity, _, _ in selected}
    for name, one in objects.items():
        if name == "approvers":
            if "approver" in shown:
                kept[name] = {who: _part_of(o, "approver", selected) for who, o in one.items()}
        elif name in shown:
            kept[name] = _part_of(one, name, selected)
    return kept


def _part_of(one: Mapping[str, Any], entity: str, selected: Selected) -> dict[str, Any]:
    windows = {window for e, window, _ in selected if e == entity}
    part: dict[str, Any] = {}
    for name, value in one.items():
        if isinstance(value, Mapping):
            if name in windows:
                part[name] = {n: v for n, v in value.items() if (entity, name, n) in selected}
        elif name in ("id", "known") or (entity, "", name) in selected:
            part[name] = value
    return part


class _Absent:
    """Stands for what is not there."""


_ABSENT: Final = _Absent()


class _Cut:
    """Leaves `complete` out, and what reaches back before the time from which events are held."""

    def __init__(self, catalog: Catalog, as_of_us: int, held_since_us: int | None) -> None:
        self.dropped: set[str] = set()
        self.pruned = held_since_us is not None
        self._gone: dict[str, set[str]] = {}
        if held_since_us is not None:
            for entity in catalog.plans:
                gone = {w.key for w in catalog.windows(entity) if as_of_us - w.us < held_since_us}
                if gone:
                    self._gone[entity] = gone

    def of(self, objects: Mapping[str, Any]) -> dict[str, Any]:
        """The entities' objects, cut."""
        cut: dict[str, Any] = {}
        for entity, one in objects.items():
            if entity == "approvers":
                cut[entity] = {who: self._object("approver", o) for who, o in one.items()}
            else:
                cut[entity] = self._object(entity, one)
        return cut

    def _object(self, entity: str, one: Any) -> Any:
        if not isinstance(one, Mapping):
            return one
        gone = self._gone.get(entity, set())
        cut: dict[str, Any] = {}
        for name, value in one.items():
            if isinstance(value, Mapping):
                if name in gone:
                    self.dropped.add(f"{entity}.{name}")
                else:
                    cut[name] = {n: v for n, v in value.items() if n != "complete"}
            elif name in ("id", "known") or not self._gone:
                cut[name] = list(value) if isinstance(value, tuple) else value
            else:  # a derived signal, which may look at any window
                self.dropped.add(f"{entity}.{name}")
        return cut


def _without_flight(objects: Mapping[str, Any]) -> dict[str, Any]:
    """What is in flight is no signal, and is told apart."""
    return {
        entity: {name: value for name, value in one.items() if name != NAME} if isinstance(one, Mapping) else one
        for entity, one in objects.items()
    }


def _differences(was: Any, now: Any, path: str, cut: _Cut) -> Iterator[tuple[str, Any, Any]]:
    """(path, recorded, computed) of every leaf that differs in value or type."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for name in sorted(was.keys() | now.keys()):
            below = f"{path}.{name}" if path else name
            yield from _differences(was.get(name, _ABSENT), now.get(name, _ABSENT), below, cut)
        return
    same = was is not _ABSENT and now is not _ABSENT and canonical([was]) == canonical([now])
    # what was known then may have been let go of since
    let_go = path.endswith(".known") and cut.pruned and was is True and now is False
    if not same and not let_go:
        yield path, was, now


def _text(value: Any) -> str:
    return "nothing" if value is _ABSENT else canonical(value).decode()
