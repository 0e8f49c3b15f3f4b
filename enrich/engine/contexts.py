"""Contexts: signals, suspensions, as_of and seq of one snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from enrich.context import Key
from enrich.decisions import DataPath
from enrich.engine.policies import LivePolicies
from enrich.engine.state import SecondText, State
from enrich.in_flight import InFlight
from enrich.journal import Journal
from enrich.suspensions import Covering

__all__ = ["Contexts", "PoliciesChangedError", "Taken"]


class PoliciesChangedError(Exception):
    """Other policies are live than those that a context was asked for."""


class Taken(NamedTuple):
    """The `history` object, and what its snapshot says besides: the suspensions in force that cover the entities."""

    history: dict[str, Any]
    as_of_us: int
    seq: int
    covering: Sequence[Covering]

    @property
    def reliable(self) -> bool:
        """Whether anybody can say what the last hour is."""
        return bool(self.history["status"] == "fresh")


class Contexts:
    """Takes contexts from what is live.

    Args:
        max_behind_us: how far the system clock may lie behind the journal's time.
    """

    def __init__(self, journal: Journal, state: State, max_behind_us: int) -> None:
        self._journal = journal
        self._state = state
        self._max_behind_us = max_behind_us
        self._text_of = SecondText()

    @property
    def clock_behind(self) -> bool:
        """Whether the system clock lies so far behind the journal's time that nobody can say what the last hour is."""
        return self._journal.clock_behind_us > self._max_behind_us

    def take(
        self,
        keys: Mapping[str, Key | None],
        approvers: Sequence[str] | None,
        as_of_us: int | None = None,
        select: Sequence[str] | None = None,
        decide: tuple[LivePolicies, DataPath] | None = None,
    ) -> Taken:
        """The context of the given entities.

        Args:
            keys: entity to id, None when it is missing.
            approvers: ids of people; None when there is no word of them.
            as_of_us: None takes the engine's clock within the snapshot.
            select: see `Engine.context`.
            decide: policies and the path they are to decide at, instead of `select`: what they can read there.

        Raises:
            PoliciesChangedError: those policies are not live any more, or their catalog is not.
            BadRequestError: `unknown_signal`, `invalid_select`.
            IndexNotReadyError: the engine is closed or broken.
        """
        state, journal = self._state, self._journal
        while True:
            live = state.live
            if decide is None:
                selection = live.selection(select)
            else:
                policies, path = decide
                if policies.catalog != live.catalog.version:
                    raise PoliciesChangedError
                selection = live.projection(policies.projection(path).select)
            wanted = keys
            for pair, a, b in selection.pairs:
                if pair not in keys and a in keys and b in keys:
                    left, right = keys[a], keys[b]
                    wanted = {**wanted, pair: None if left is None or right is None else (str(left), str(right))}
            with live.index.lock:
                if state.live is not live:
                    continue  # a reload took its place: nothing is linked to this one any more
                if decide is not None and state.policies is not decide[0]:
                    raise PoliciesChangedError
                if state.broken is not None or state.closed:
                    state.check_open()
                now_us = journal.now_us()
                if as_of_us is None:
                    as_of_us = now_us
                history = live.assembler.entities(selection.entities, wanted, approvers, as_of_us, state.held_since_us)
                if selection.in_flight:
                    _put_in_flight(history, selection.in_flight, wanted, state.in_flight, as_of_us, now_us)
                seq = state.seq
                observed_since = state.observed_since
                suspensions = state.suspensions
                covering = () if suspensions.empty else suspensions.covering(wanted, state.members, as_of_us)
                break
        history["suspended"] = bool(covering)
        history["suspensions"] = [one.body() for one in covering]
        history["as_of"] = self._text_of(as_of_us)
        history["seq"] = seq
        history["status"] = "unavailable" if journal.behind_us > self._max_behind_us else "fresh"
        history["lag_seconds"] = None
        history["observed_since"] = observed_since
        history["catalog"] = live.catalog.version
        return Taken(history, as_of_us, seq, covering)


def _put_in_flight(
    history: dict[str, Any],
    entities: Sequence[str],
    keys: Mapping[str, Key | None],
    in_flight: InFlight,
    as_of_us: int,
    now_us: int,
) -> None:
    """What is in flight, into the objects of the entities asked about; nothing where nobody can say it."""
    in_flight.advance(now_us)
    for entity in entities:
        if entity in keys:
            id_ = keys[entity]
            found = in_flight.read(entity, None if id_ is None else str(id_), as_of_us)
            if found is not None:
                history[entity]["in_flight"] = found
