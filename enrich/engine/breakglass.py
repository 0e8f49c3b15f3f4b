"""Suspending and lifting: journaled like everything else, and in force from that record on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from enrich.context import check_id
from enrich.engine.startup import Parts
from enrich.engine.state import State
from enrich.errors import BadRequestError, JournalFailedError, JournalFullError, NotDurableError, NotFoundError, show
from enrich.journal import Position
from enrich.suspensions import Scope, Suspension, from_record, lift_body, read_scope, suspend_body

__all__ = ["BreakGlass"]


class BreakGlass:
    """Withdraws authority from everyone, an org, a team, a workflow or an agent, and gives it back."""

    def __init__(self, parts: Parts, state: State) -> None:
        self._parts = parts
        self._journal = parts.journal
        self._follower = parts.follower
        self._state = state

    def suspend(
        self, scope: str, id_: str | None = None, *, reason: object, until: object = None, by: object = None
    ) -> Suspension:
        """Withdraw authority now; durable on return. Suspending again renews reason and end.

        Args:
            scope: all, org, team, workflow or agent.
            id_: whose; None for `all`.
            reason: why, for those who meet it.
            until: RFC 3339; None until it is lifted.
            by: who says so.

        Raises:
            NotFoundError: `unknown_scope`.
            BadRequestError, InvalidEntityIdError: nothing was suspended.
            NotDurableError: it is in force, but only until a restart.
        """
        known, name = _named(scope, id_)
        now_us = self._journal.now_us()
        body = suspend_body(known, name, reason=reason, until=until, by=by, now_us=now_us)
        try:
            seq, suspended = self._order(body)
            self._journal.wait_durable(seq)
        except (JournalFullError, JournalFailedError) as error:
            state = self._state
            with state.order, state.live.index.lock:
                state.suspensions.apply(body, None, now_us)
            structlog.get_logger("enrich.suspensions").error("suspension_not_durable", scope=known)
            raise NotDurableError(f"the suspension acts in memory only: {error.message}", scope=known) from error
        # `until` may have come in the meantime
        return suspended or from_record(body, seq, now_us)

    def lift(self, scope: str, id_: str | None = None, *, by: object = None) -> Suspension:
        """Give authority back; durable on return.

        Raises:
            NotFoundError: `unknown_scope`; `not_suspended`.
            JournalFullError, JournalFailedError: it may still be in force.
        """
        known, name = _named(scope, id_)
        body = lift_body(known, name, by=by)
        found, _, _ = self.named(known, id_)
        seq, _ = self._order(body)
        self._journal.wait_durable(seq)
        return found

    def named(self, scope: str, id_: str | None = None) -> tuple[Suspension, int, int]:
        """(the one in force under that very name; as_of in microseconds; seq).

        Raises:
            NotFoundError: `unknown_scope`; `not_suspended`.
        """
        known, name = _named(scope, id_)
        state = self._state
        with state.live.index.lock:
            now_us = self._journal.now_us()
            found, seq = state.suspensions.get(known, name, now_us), state.seq
        if found is None:
            raise NotFoundError(f"{_shown(known, name)} is not suspended", code="not_suspended")
        return found, now_us, seq

    def in_force(self) -> tuple[list[Suspension], int, int]:
        """(all in force, oldest first; as_of in microseconds; seq)."""
        state = self._state
        with state.live.index.lock:
            now_us = self._journal.now_us()
            return state.suspensions.in_force(now_us), now_us, state.seq

    def _order(self, body: Mapping[str, Any]) -> tuple[int, Suspension | None]:
        """The record's seq, and what is in force under its name from there on."""
        record = self._journal.prepare("suspension", body)
        state = self._state
        with state.order:
            state.check_open()
            appended = self._journal.append(record)
            # INVARIANT: in force and at this seq in one step: no context has the seq and not the suspension
            with state.live.index.lock:
                state.suspensions.apply(body, appended.seq, appended.at_us)
                state.position = Position(appended.last_seq, appended.hash)
                held = state.suspensions.get(body["scope"], body["id"], appended.at_us)
            self._follower.submit(record, appended)
        return appended.last_seq, held


def _named(scope: str, id_: str | None) -> tuple[Scope, str]:
    known = read_scope(scope)
    if known == "all":
        if id_ is not None:
            raise BadRequestError("scope `all` has no id", code="invalid_entity_id", field="id")
        return known, ""
    return known, check_id(id_, known, "id")


def _shown(scope: Scope, id_: str) -> str:
    return f"{scope} {show(id_)}" if id_ else scope
