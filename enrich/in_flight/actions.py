"""What is known of actions: what was said of a decision, what ended it, and when runs of an instance ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import Any, Final, NamedTuple

from enrich.events.model import OWN_SOURCE
from enrich.in_flight.definition import GRANTS

__all__ = [
    "IN_FLIGHT_COLUMNS",
    "NEVER_US",
    "Action",
    "End",
    "Flying",
    "Instance",
    "Own",
    "PreparedInFlight",
    "Said",
    "Totals",
    "prepare",
]

#: what is read of events; `occurred_at` in int microseconds
IN_FLIGHT_COLUMNS: Final = (
    "occurred_at", "source", "kind", "outcome", "agent_id", "team_id", "workflow_id", "org_id", "instance_id",
    "decision_id", "action", "environment", "materiality", "currency", "declared_amount_minor",
    "declared_cost_microusd",
)  # fmt: skip
#: before every moment
NEVER_US: Final = -(1 << 63)


class Own(NamedTuple):
    """What else a decision of the engine's own says of the action, for the event that ends it."""

    action: str | None
    environment: str | None
    materiality: str | None


class Said(NamedTuple):
    """An `authority` event. `grants`: True lets the action begin, False takes the authority back, None says neither.
    `ids` are those of `IN_FLIGHT_ENTITIES`."""

    occurred_us: int
    grants: bool | None
    ids: tuple[str | None, str | None, str | None, str | None]
    instance: str | None
    amount: int | None
    currency: str
    cost: int | None
    own: Own | None


class End(NamedTuple):
    """An `execution` event that names a decision; `own` is one that the engine made of a reported outcome."""

    occurred_us: int
    agent: str | None
    own: bool


class Totals:
    """What is in flight for one entity at the present; `actions` are all that may be at some other moment."""

    __slots__ = ("actions", "amounts", "cost", "count", "held", "key")

    def __init__(self, key: tuple[int, str]) -> None:
        self.key = key
        self.count = self.cost = self.held = 0
        #: currency to sum and number of amounts
        self.amounts: dict[str, tuple[int, int]] = {}
        self.actions: list[Action] = []


class Flying(NamedTuple):
    """What an action counts for, and among whom."""

    among: tuple[Totals, ...]
    amount: int | None
    currency: str
    cost: int


class Action:
    """What is known of one decision, or of one authority event without any; events in the order of their seqs."""

    __slots__ = ("decision_id", "dropped", "due", "ends", "flying", "named", "said", "wake")

    def __init__(self, decision_id: str | None, due: int) -> None:
        self.decision_id = decision_id
        self.said: tuple[Said, ...] = ()
        self.ends: tuple[End, ...] = ()
        self.flying: Flying | None = None
        self.named: tuple[Totals, ...] = ()
        self.wake = NEVER_US
        self.due = due
        self.dropped = False

    def newest_us(self) -> int:
        return max((*(s.occurred_us for s in self.said), *(e.occurred_us for e in self.ends)))


class Instance:
    """When runs of an instance ended, by agent, in order; and the actions of it that they may end."""

    __slots__ = ("due", "ends", "key", "newest_us", "open")

    def __init__(self, key: str, due: int) -> None:
        self.key = key
        self.due = self.newest_us = due
        self.ends: dict[str | None, list[int]] = {}
        self.open: dict[str | None, dict[Action, None]] = {}

    def lists(self, agent: str | None) -> Iterable[list[int]]:
        """The ends that can end an action of that agent."""
        if agent is None:
            return self.ends.values()
        return [found for who in (agent, None) if (found := self.ends.get(who)) is not None]


@dataclass(slots=True)
class PreparedInFlight:
    """What a batch says of actions: for one `apply`, since what is in it becomes part of what is held."""

    decided: dict[str, Action] = field(default_factory=dict)
    ended: dict[str, Action] = field(default_factory=dict)
    single: list[Action] = field(default_factory=list)
    instances: list[tuple[str, str | None, int]] = field(default_factory=list)


def prepare(columns: Mapping[str, Sequence[Any]], far_us: int, near_us: int) -> PreparedInFlight:
    """What events say of actions.

    Args:
        columns: those of `IN_FLIGHT_COLUMNS`.
        far_us, near_us: what occurred up to there does not matter any more, for decisions and for all others.
    """
    prepared = PreparedInFlight()
    decisions, times = columns["decision_id"], columns["occurred_at"]
    for i, kind in enumerate(columns["kind"]):
        if kind == "authority":
            decision_id, at = decisions[i], times[i]
            if decision_id is None:
                if at > near_us and columns["outcome"][i] in GRANTS:
                    action = Action(None, at)
                    action.said = (_said(columns, i),)
                    prepared.single.append(action)
            elif at > far_us:
                known = prepared.decided.get(decision_id)
                if known is None:
                    known = prepared.ended.pop(decision_id, None) or Action(decision_id, at)
                    prepared.decided[decision_id] = known
                known.said += (_said(columns, i),)
        elif kind == "execution":
            decision_id, at = decisions[i], times[i]
            if decision_id is not None:
                if at > far_us:
                    known = prepared.decided.get(decision_id) or prepared.ended.get(decision_id)
                    if known is None:
                        known = prepared.ended[decision_id] = Action(decision_id, at)
                    known.ends += (End(at, columns["agent_id"][i], columns["source"][i] == OWN_SOURCE),)
            elif (instance := columns["instance_id"][i]) is not None and at > near_us:
                prepared.instances.append((instance, columns["agent_id"][i], at))
    return prepared


def _said(columns: Mapping[str, Sequence[Any]], i: int) -> Said:
    outcome = columns["outcome"][i]
    own = None
    if columns["source"][i] == OWN_SOURCE:
        labels = (columns[c][i] for c in ("action", "environment", "materiality"))
        own = Own(*(None if label is None else intern(label) for label in labels))
    return Said(
        columns["occurred_at"][i],
        None if outcome == "required_human" else outcome in GRANTS,
        (columns["agent_id"][i], columns["team_id"][i], columns["workflow_id"][i], columns["org_id"][i]),
        columns["instance_id"][i],
        columns["declared_amount_minor"][i],
        columns["currency"][i] or "",
        columns["declared_cost_microusd"][i],
        own,
    )
