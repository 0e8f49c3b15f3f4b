"""What was in flight, told again from the events known then: by its definition in SQL, or by feeding it in order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import pyarrow as pa

from enrich.decisions.replay.reasons import Reason
from enrich.in_flight import (
    IN_FLIGHT_COLUMNS,
    IN_FLIGHT_ENTITIES,
    REACH_US,
    InFlight,
    InFlightQuestion,
    in_flight_at,
    in_flight_object,
)
from enrich.windows import CursorSource

__all__ = ["NAME", "RollingFlights", "SqlFlights", "recorded_flights"]

NAME: Final = "in_flight"
#: how many seqs one query covers
_STRETCH: Final = 65_536
_COLUMNS: Final = ", ".join(f"epoch_us({c}) AS {c}" if c == "occurred_at" else c for c in IN_FLIGHT_COLUMNS)


def recorded_flights(frozen: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What a frozen context says of each entity."""
    found: dict[str, Mapping[str, Any]] = {}
    for entity in IN_FLIGHT_ENTITIES:
        one = frozen.get(entity)
        flight = one.get(NAME) if isinstance(one, Mapping) else None
        if isinstance(flight, Mapping):
            found[entity] = flight
    return found


class _Flights:
    def __init__(self, source: CursorSource, pruned_before_us: int | None) -> None:
        self._source = source
        self._pruned_us = pruned_before_us

    def check(
        self,
        recorded: Mapping[str, Mapping[str, Any]],
        flying: Collection[str],
        keys: Mapping[str, Any],
        as_of_us: int,
        seq: int,
        lease_us: int,
    ) -> list[Reason]:
        """What the events known then say of a frozen context.

        Args:
            recorded: see `recorded_flights`.
            flying: the entities of which it is to stand there.
            keys: the ids by entity.
            lease_us: of the record.
        """
        entities = sorted({*recorded, *flying} & keys.keys())
        if self._pruned_us is not None and as_of_us - lease_us - REACH_US < self._pruned_us:
            return [Reason.of("history_pruned", "what was in flight", windows=[f"{e}.{NAME}" for e in entities])]
        differing = []
        for entity in entities:
            id_, was = keys.get(entity), recorded.get(entity)
            now: Mapping[str, Any] | None = None
            if entity in flying:
                now = in_flight_object(0, 0, {})
                if id_ is not None:
                    now = self._read(InFlightQuestion(entity, str(id_), as_of_us, seq, lease_us))
                if now is None:
                    continue  # nobody can say
            if now != was:
                differing.append(f"{entity}: {_shown(was)} recorded, {_shown(now)} computed")
        return [Reason.of("in_flight_differs", "; ".join(differing))] if differing else []

    def _read(self, question: InFlightQuestion) -> Mapping[str, Any] | None:
        raise NotImplementedError


def _shown(flight: Mapping[str, Any] | None) -> str:
    return "nothing" if flight is None else str(dict(flight))


class SqlFlights(_Flights):
    """By the definition, which reads the table `events`."""

    def _read(self, question: InFlightQuestion) -> Mapping[str, Any] | None:
        with self._source.cursor() as cursor:
            return in_flight_at(cursor, question)


class RollingFlights(_Flights):
    """By feeding events in the order of their seqs, for questions in that order."""

    def __init__(self, source: CursorSource, pruned_before_us: int | None) -> None:
        super().__init__(source, pruned_before_us)
        self._fed: dict[int, _Fed] = {}

    def _read(self, question: InFlightQuestion) -> Mapping[str, Any] | None:
        fed = self._fed.get(question.lease_us)
        if fed is None or fed.seq > question.seq:
            fed = self._fed[question.lease_us] = _Fed(self._source.cursor(), question.lease_us)
        fed.advance(question.seq)
        fed.held.advance(question.as_of_us)
        return fed.held.read(question.entity, question.id, question.as_of_us)


class _Fed:
    """Actions as known at `seq`, which only rises."""

    def __init__(self, cursor: Any, lease_us: int) -> None:
        self.held = InFlight(lease_us)
        self.seq = 0
        self._cursor = cursor
        self._rows: pa.Table | None = None
        self._seqs: list[int] = []
        self._at = 0
        self._fetched = 0

    def advance(self, seq: int) -> None:
        while True:
            end = self._at
            while end < len(self._seqs) and self._seqs[end] <= seq:
                end += 1
            if end > self._at and self._rows is not None:
                part = self._rows.slice(self._at, end - self._at)
                self.held.feed({name: part.column(name).to_pylist() for name in IN_FLIGHT_COLUMNS})
                self._at = end
            if end < len(self._seqs) or self._fetched >= seq:
                self.seq = seq
                return
            self._fetch(seq)

    def _fetch(self, seq: int) -> None:
        """Read ahead, as far as events are there."""
        (row,) = self._cursor.execute("SELECT coalesce(max(seq), 0) FROM events").fetchall()
        after = self._fetched
        self._fetched = min(max(seq, int(row[0])), after + _STRETCH)
        self._rows = self._cursor.sql(
            f"SELECT seq, {_COLUMNS} FROM events WHERE seq > {after:d} AND seq <= {self._fetched:d}"
            f" AND (void_seq IS NULL OR void_seq > {self._fetched:d}) AND kind IN ('authority', 'execution')"
            " ORDER BY seq"
        ).to_arrow_table()
        self._seqs, self._at = self._rows.column("seq").to_pylist(), 0
