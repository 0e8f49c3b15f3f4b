"""What became of a decision's action: reported once, settled and let go of in one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from enrich.engine.ordering import Ordering
from enrich.engine.startup import Parts
from enrich.engine.state import State
from enrich.errors import BadRequestError, ConflictError, HistoryBehindError, NotFoundError, show
from enrich.events import format_us, parse_rfc3339_us
from enrich.events._check import check_event
from enrich.events.model import OWN_SOURCE
from enrich.in_flight import IN_FLIGHT_ENTITIES, End
from enrich.journal import Appended

__all__ = ["OUTCOME_FIELDS", "Outcomes", "Settled"]

#: what a report says beside its outcome
OUTCOME_FIELDS: Final = (
    "amount_minor", "cost_microusd", "currency", "duration_ms", "input_tokens", "output_tokens", "error_type",
    "occurred_at",
)  # fmt: skip
_AMOUNTS: Final = ("amount_minor", "cost_microusd")
_CATCH_UP_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Settled:
    """A reported outcome. Nobody may hear of it before the journal is durable up to `seq`, that of its record."""

    decision_id: str
    outcome: str
    occurred_at: str
    seq: int

    def body(self) -> dict[str, Any]:
        """The answer of `POST /v1/decisions/{id}/outcome`."""
        return {
            "decision_id": self.decision_id,
            "outcome": self.outcome,
            "occurred_at": self.occurred_at,
            "seq": self.seq,
        }


@dataclass(frozen=True, slots=True)
class _Decided:
    """A decision that may be reported on: its time, what its event says, and what it declared its amount in."""

    as_of_us: int
    columns: Mapping[str, str]
    currency: str | None


class Outcomes:
    """Takes reports. Thread-safe.

    Args:
        caller_hash: what stands for a caller in records.
    """

    def __init__(
        self, parts: Parts, state: State, ordering: Ordering, caller_hash: Callable[[str], str | None]
    ) -> None:
        self._journal = parts.journal
        self._keys = parts.keys
        self._history = parts.history
        self._follower = parts.follower
        self._skew_us = parts.settings.max_clock_skew_seconds * 1_000_000
        self._state = state
        self._ordering = ordering
        self._caller_hash = caller_hash

    def report(
        self, decision_id: str, outcome: object, *, caller: str = "", wait: bool = True, **actual: object
    ) -> Settled:
        """Say how the action of a decision ended, and what it really moved and cost.

        Its `execution` event becomes visible in the step in which the action is no longer in flight: no context has
        both, or neither. The same report again is answered as the first one was. Whoever may decide may report, of any
        decision: who asks for authority and who runs the action are often two.

        Args:
            outcome: `succeeded`, `failed`, `timed_out`, or `cancelled`, which moved and cost nothing.
            caller: who says so; see `Gate.decide`.
            wait: return when it is durable.
            actual: of `OUTCOME_FIELDS`, as an event has them, None for none; `currency` is by default the one that the
                decision declared, `occurred_at` now.

        Raises:
            NotFoundError: `unknown_decision`.
            BadRequestError: `unknown_field`, `missing_field`, `cancelled_with_amount`, `invalid_time`.
            EventError: a value that an event can't have; `detail` has `field` and `value`.
            ConflictError: `not_allowed`, it was denied; `already_settled`, something else was reported;
                `already_ended`, an event has ended it.
            HistoryBehindError: it is no recent decision, and DuckDB did not catch up within a second.
            JournalFullError, JournalFailedError, IndexNotReadyError: it can't be recorded.
        """
        self._state.check_open()
        report = _report(outcome, actual)
        known = self._recent(decision_id)
        if known is None:
            known, before = self._earlier(decision_id)
            if before is not None:
                return self._again(before, report)
        event = self._event(decision_id, known, report)
        settled = self._order(decision_id, report, event, self._caller_hash(caller))
        if wait:
            self._journal.wait_durable(settled.seq)
        return settled

    # -- the decision -----------------------------------------------------------------------------------------------

    def _recent(self, decision_id: str) -> _Decided | None:
        """From memory, which has every decision of the last days; None for one that it does not have."""
        state = self._state
        with state.live.index.lock:
            said, _ = state.in_flight.said(decision_id)
        for s in said:
            if s.own is not None:
                if s.grants is False and not any(o.grants for o in said if o.ids[0] in (None, s.ids[0])):
                    raise _denied(decision_id)
                columns = {f"{entity}_id": id_ for entity, id_ in zip(IN_FLIGHT_ENTITIES, s.ids, strict=True)}
                columns |= {"instance_id": s.instance, **s.own._asdict()}
                found = {name: value for name, value in columns.items() if value is not None}
                return _Decided(s.occurred_us, found, s.currency or None)
        return None

    def _earlier(self, decision_id: str) -> tuple[_Decided, Mapping[str, Any] | None]:
        """From DuckDB, with what was reported of it before."""
        seq = self._journal.durable.seq
        if not self._follower.wait_applied(seq, _CATCH_UP_SECONDS):
            raise HistoryBehindError(f"history has applied {self._follower.applied.seq} of {seq}", needed=seq)
        body = self._history.decision(decision_id)
        if body is None:
            raise NotFoundError(f"no decision {show(decision_id)}", code="unknown_decision")
        before = self._history.outcome(decision_id)
        granted, ended = self._history.end_of(decision_id)
        if body["decision"] == "DENY" and not granted:
            raise _denied(decision_id)
        if ended and before is None:
            raise _ended(decision_id)
        event: Mapping[str, str] = body["event"]
        names = (*(f"{e}_id" for e in IN_FLIGHT_ENTITIES), "instance_id", "action", "environment", "materiality")
        columns = {name: event[name] for name in names if name in event}
        return _Decided(parse_rfc3339_us(event["occurred_at"]), columns, event.get("currency")), before

    # -- the report -------------------------------------------------------------------------------------------------

    def _event(self, decision_id: str, known: _Decided, report: Mapping[str, Any]) -> dict[str, Any]:
        """The execution event, in canonical form."""
        now_us = self._journal.now_us()
        event = {
            **known.columns,
            **report,
            "source": OWN_SOURCE,
            "event_id": f"outcome:{decision_id}",
            "decision_id": decision_id,
            "kind": "execution",
            "occurred_at": report.get("occurred_at", format_us(now_us)),
        }
        if "amount_minor" in report and known.currency is not None:
            event.setdefault("currency", known.currency)
        row = check_event(event, replace(self._state.parser.bounds(now_us), reserved=frozenset()))
        if row["occurred_at"] < known.as_of_us - self._skew_us:
            raise BadRequestError(
                f"occurred_at {show(event['occurred_at'])} lies before the decision, {format_us(known.as_of_us)}",
                code="invalid_time",
                field="occurred_at",
                value=str(event["occurred_at"]),
            )
        return row | {"occurred_at": format_us(row["occurred_at"])}

    def _order(self, decision_id: str, report: dict[str, Any], event: dict[str, Any], caller: str | None) -> Settled:
        state = self._state
        if "occurred_at" in report:
            report = report | {"occurred_at": event["occurred_at"]}  # the same moment may be written in many ways
        body = {"decision_id": decision_id, "report": report, "caller": caller, "event": event}
        agent = event.get("agent_id")

        def unless() -> bool:
            # INVARIANT: a run is not counted twice; what ends actions changes in ordered steps only
            for end in state.in_flight.said(decision_id)[1]:
                if not end.own and (end.agent is None or agent is None or end.agent == agent):
                    raise _ended(decision_id)
            return False

        while True:
            record = self._journal.prepare("outcome", body)
            batch, live = record.batch, state.live
            if batch is None:
                raise TypeError("an outcome's record has an event")
            block = live.index.prepare(batch)
            reservation = self._keys.check_and_reserve(batch.keys, batch.contents)
            if reservation.conflicts:
                raise _settled(decision_id)
            if reservation.duplicates:
                return self._repeated(decision_id, report, reservation.known_seq)
            try:
                appended: Appended | None = self._ordering.place(batch, record, block, reservation, live, unless)
            except BaseException:
                self._keys.release(reservation)
                raise
            if appended is not None:
                return Settled(decision_id, report["outcome"], event["occurred_at"], appended.seq)
            self._keys.release(reservation)  # other definitions went live

    def _repeated(self, decision_id: str, report: Mapping[str, Any], seq: int) -> Settled:
        """The answer that the same report was given before."""
        with self._state.live.index.lock:
            _, ends = self._state.in_flight.said(decision_id)
        own: End | None = next((end for end in ends if end.own), None)
        if own is None:  # a decision that is let go of at this very moment
            _, before = self._earlier(decision_id)
            if before is None:
                raise NotFoundError(f"no decision {show(decision_id)}", code="unknown_decision")
            return self._again(before, report)
        return Settled(decision_id, report["outcome"], format_us(own.occurred_us), seq)

    def _again(self, before: Mapping[str, Any], report: Mapping[str, Any]) -> Settled:
        if isinstance(at := report.get("occurred_at"), str):
            report = {**report, "occurred_at": format_us(parse_rfc3339_us(at))}
        if before["report"] != report:
            raise _settled(before["decision_id"])
        return Settled(before["decision_id"], report["outcome"], before["event"]["occurred_at"], before["seq"])


def _report(outcome: object, actual: Mapping[str, object]) -> dict[str, Any]:
    """What was sent, without what is null."""
    unknown = sorted(actual.keys() - set(OUTCOME_FIELDS))
    if unknown:
        raise BadRequestError(f"no such field: {show(unknown[0])}", code="unknown_field", field=unknown[0][:80])
    if outcome is None:
        raise BadRequestError("the report has no `outcome`", code="missing_field", field="outcome")
    report = {"outcome": outcome, **{name: value for name, value in actual.items() if value is not None}}
    for name in _AMOUNTS:
        if outcome == "cancelled" and report.get(name, 0) != 0:
            raise BadRequestError(
                f"`{name}` is {show(report[name])} and the outcome `cancelled`",
                code="cancelled_with_amount",
                field=name,
                value=show(report[name]).strip("`"),
                hint="what moved or cost something has `failed`",
            )
    return report


def _denied(decision_id: str) -> ConflictError:
    return ConflictError(
        f"decision {show(decision_id)} is DENY: there is no action to end",
        code="not_allowed",
        hint="a human who let it happen all the same is an `authority` event with this decision_id",
    )


def _settled(decision_id: str) -> ConflictError:
    return ConflictError(
        f"another outcome of decision {show(decision_id)} was reported",
        code="already_settled",
        hint="the first report stands; `enrich decision` shows it",
    )


def _ended(decision_id: str) -> ConflictError:
    return ConflictError(
        f"an `execution` event has ended decision {show(decision_id)}",
        code="already_ended",
        hint="report an outcome or send the event: both would count the run twice",
    )
