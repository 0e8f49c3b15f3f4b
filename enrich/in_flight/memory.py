"""What is in flight, in memory: following the journal, and asked at any moment.

`enrich.in_flight.definition` says what it is; this gives the same answers, and for the moment that it has been brought
forward to in constant time: totals per entity, changed as events come in and as leases run out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

from enrich.events.model import EventBatch
from enrich.in_flight.actions import (
    IN_FLIGHT_COLUMNS,
    NEVER_US,
    Action,
    End,
    Flying,
    Instance,
    PreparedInFlight,
    Said,
    Totals,
    prepare,
)
from enrich.in_flight.definition import IN_FLIGHT_ENTITIES, REACH_US, in_flight_object

__all__ = ["InFlight"]

#: an entity's actions that are gone through for another moment than the present
_SCANNED: Final = 20_000
_ROWS: Final = 20_000


class InFlight:
    """Actions in flight at what was fed so far. Not thread-safe but for `prepare`: the engine holds the index's lock.

    Args:
        lease_us: how long an action is in flight at most.
        hold_us: how far before the present it can still be asked; None keeps everything that it is fed.
    """

    def __init__(self, lease_us: int, hold_us: int | None = None) -> None:
        self.lease_us = lease_us
        self._hold_us = hold_us
        self._at = NEVER_US
        self._decided: dict[str, Action] = {}
        self._instances: dict[str, Instance] = {}
        self._entities: dict[tuple[int, str], Totals] = {}
        self._wakes: list[tuple[int, int, Action]] = []
        self._number = count()
        #: what is let go of in time, oldest first or nearly so
        self._far: deque[Action] = deque()
        self._near: deque[Action | Instance] = deque()
        #: up to which moments decisions, and everything else, were let go of
        self._far_us = self._near_us = NEVER_US
        #: what occurred before this was pruned from history
        self._pruned_us = NEVER_US

    # -- taking in --------------------------------------------------------------------------------------------------

    def prepare(self, batch: EventBatch) -> PreparedInFlight:
        """What a batch says of actions; thread-safe, to be worked out outside the order."""
        return prepare(batch.columns, self._far_us, self._near_us)

    def feed(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Take in the next events, in the order of their seqs.

        Args:
            columns: those of `IN_FLIGHT_COLUMNS`, each with a value per event, null as None.
        """
        self.apply(prepare(columns, self._far_us, self._near_us))

    def apply(self, prepared: PreparedInFlight) -> None:
        """Take in what was prepared; batches come in the order of their seqs."""
        for instance, agent, at in prepared.instances:
            self._end_instance(instance, agent, at)
        for action in prepared.single:
            self._near.append(action)
            self._register(action)
            self._settle(action)
        decided = self._decided
        for decision_id, fresh in prepared.decided.items():
            held = decided.setdefault(decision_id, fresh)
            if held is fresh:
                self._far.append(fresh)
            else:
                held.said += fresh.said
                held.ends += fresh.ends
            self._register(held)
            self._settle(held)
        ended = prepared.ended
        if ended:
            # most are of decisions that nothing was said of yet: no work is done on them one by one
            common = {decision_id: decided[decision_id] for decision_id in decided.keys() & ended.keys()}
            for decision_id, held in common.items():
                held.ends += ended.pop(decision_id).ends
                self._settle(held)
            decided.update(ended)
            self._far.extend(ended.values())

    def _end_instance(self, key: str, agent: str | None, at: int) -> None:
        instance = self._instance(key, at)
        ends = instance.ends.setdefault(agent, [])
        insort(ends, at)
        old = bisect_right(ends, self._near_us)
        if 2 * old > len(ends):
            del ends[:old]
        for who in list(instance.open) if agent is None else (agent, None):
            still = instance.open.get(who)
            if still is not None:
                # what is over stays over, until something more is said of it, which puts it there again
                for action in [a for a in list(still) if not self._settle(a)]:
                    del still[action]

    def _instance(self, key: str, at: int) -> Instance:
        found = self._instances.get(key)
        if found is None:
            found = self._instances[key] = Instance(key, at)
            self._near.append(found)
        elif at > found.newest_us:
            found.newest_us = at
        return found

    def _register(self, action: Action) -> None:
        """Among the entities and instances that its events name, once it may be in flight at all."""
        if not any(s.grants for s in action.said):
            return
        agents: dict[str | None, None] = {s.ids[0]: None for s in action.said if s.ids[0] is not None} or {None: None}
        for s in action.said:
            for i, id_ in enumerate(s.ids):
                if id_ is not None:
                    key = (i, id_)
                    totals = self._entities.get(key)
                    if totals is None:
                        totals = self._entities[key] = Totals(key)
                    if totals not in action.named:
                        action.named += (totals,)
                        totals.actions.append(action)
                        totals.held += 1
            if s.instance is not None:
                instance = self._instance(s.instance, s.occurred_us)
                for agent in agents:
                    instance.open.setdefault(agent, {})[action] = None

    # -- the present ------------------------------------------------------------------------------------------------

    def advance(self, now_us: int) -> None:
        """Bring the totals forward to that moment; never back."""
        if now_us <= self._at:
            return
        self._at = now_us
        wakes = self._wakes
        while wakes and wakes[0][0] <= now_us:
            action = heappop(wakes)[2]
            if not action.dropped:
                self._settle(action)

    def step(self, now_us: int, limit: int = 256) -> bool:
        """A bounded part of what time brings: leases that ran out, what is too old to matter. Whether there is more."""
        wakes = self._wakes
        for _ in range(limit):
            if not wakes or wakes[0][0] > now_us:
                break
            self._at = max(self._at, wakes[0][0])
            action = heappop(wakes)[2]
            if not action.dropped:
                self._settle(action)
        else:
            return True
        self.advance(now_us)
        return self._hold_us is not None and self._let_go(now_us - self.lease_us - self._hold_us, limit)

    def _settle(self, action: Action) -> bool:
        """Count the action as it is at the present, and see to it that it is looked at again when that changes.

        Returns:
            Whether it is in flight, or may yet be by what is known.
        """
        at = self._at
        found, before = self._flying(action, at), action.flying
        if found != before:
            if before is not None:
                _count(before, -1)
            if found is not None:
                _count(found, 1)
            action.flying = found
        following = self._following(action, at)
        if following is None:
            return False
        # an earlier look that is still to come finds the later ones
        if not at < action.wake <= following:
            action.wake = following
            heappush(self._wakes, (following, next(self._number), action))
        return True

    def _following(self, action: Action, at: int) -> int | None:
        """The next moment at which it may be in flight or not, or with something else declared; None: never again."""
        lease_us = self.lease_us
        granted = [s.occurred_us for s in action.said if s.grants]
        if not granted or (last := max(granted) + lease_us) <= at:
            return None
        following = last
        if len(action.said) > 1 or action.ends or at < action.said[0].occurred_us:
            for t in (*(s.occurred_us for s in action.said), *(e.occurred_us for e in action.ends)):
                for moment in (t, t + lease_us, t + lease_us + REACH_US):
                    if at < moment < following:
                        following = moment
        for key in {s.instance for s in action.said if s.instance is not None}:
            instance = self._instances.get(key)
            if instance is not None and instance.newest_us > at:
                for ends in instance.ends.values():
                    i = bisect_right(ends, at)
                    if i < len(ends) and ends[i] < following:
                        following = ends[i]
        return None if following == last and action.flying is None else following

    def _flying(self, action: Action, at: int) -> Flying | None:
        """What it counts for at a moment; None when it is not in flight then."""
        lease_start = at - self.lease_us
        low = max(lease_start - REACH_US, self._pruned_us - 1)
        said: Sequence[Said] = action.said
        if len(said) == 1:
            s = said[0]
            if not s.grants or not lease_start < s.occurred_us <= at or s.occurred_us <= low:
                return None
            agent = s.ids[0]
        else:
            said = [s for s in said if low < s.occurred_us <= at]
            agent = next((s.ids[0] for s in said if s.ids[0] is not None), None)
            said = [s for s in said if s.ids[0] is None or s.ids[0] == agent]
        last: Said | None = None
        for s in said:
            if s.grants is not None and (last is None or s.occurred_us >= last.occurred_us):
                last = s
        if last is None or not last.grants or last.occurred_us <= lease_start:
            return None
        for end in action.ends:
            if low < end.occurred_us <= at and (end.agent is None or agent is None or end.agent == agent):
                return None
        key = next((s.instance for s in said if s.instance is not None), None)
        instance = None if key is None else self._instances.get(key)
        if instance is not None:
            for ends in instance.lists(agent):
                i = bisect_left(ends, last.occurred_us)
                if i < len(ends) and ends[i] <= at:
                    return None
        return self._declared(said)

    def _declared(self, said: Sequence[Said]) -> Flying:
        """Among whom an action with these events counts, and what it declares."""
        amount, cost = None, None
        for s in said:
            if s.amount is not None and (amount is None or s.occurred_us >= amount.occurred_us):
                amount = s
            if s.cost is not None and (cost is None or s.occurred_us >= cost.occurred_us):
                cost = s
        among = []
        for i in range(len(IN_FLIGHT_ENTITIES)):
            id_ = next((s.ids[i] for s in said if s.ids[i] is not None), None)
            if id_ is not None:
                among.append(self._entities[i, id_])
        return Flying(
            tuple(among),
            None if amount is None else amount.amount,
            "" if amount is None else amount.currency,
            0 if cost is None else cost.cost or 0,
        )

    # -- asking -----------------------------------------------------------------------------------------------------

    def read(self, entity: str, id_: str | None, as_of_us: int) -> dict[str, Any] | None:
        """The object under `history.<entity>.in_flight`.

        Quick at the present (`advance`), and as long as nothing changes after it; at other moments the entity's actions
        are gone through.

        Args:
            entity: of `IN_FLIGHT_ENTITIES`.
            id_: None for one that is missing: nothing is in flight for it.

        Returns:
            None where nobody can say any more, or where it would take too long for another moment than the present.
        """
        if not self.reaches(as_of_us):
            return None
        totals = None if id_ is None else self._entities.get((IN_FLIGHT_ENTITIES.index(entity), id_))
        if totals is None:
            return in_flight_object(0, 0, {})
        if self._at <= as_of_us and (not self._wakes or as_of_us < self._wakes[0][0]):
            return in_flight_object(totals.count, totals.cost, {c: amount for c, (amount, _) in totals.amounts.items()})
        if len(totals.actions) > _SCANNED:
            return None
        counted, cost = 0, 0
        amounts: dict[str, int] = {}
        for action in totals.actions:
            found = None if action.dropped else self._flying(action, as_of_us)
            if found is not None and totals in found.among:
                counted += 1
                cost += found.cost
                if found.amount is not None:
                    amounts[found.currency] = amounts.get(found.currency, 0) + found.amount
        return in_flight_object(counted, cost, amounts)

    def reaches(self, as_of_us: int) -> bool:
        """Whether all that it takes to tell what was in flight then is held."""
        lease_start = as_of_us - self.lease_us
        return lease_start >= self._near_us and lease_start - REACH_US >= self._far_us

    def said(self, decision_id: str) -> tuple[Sequence[Said], Sequence[End]]:
        """What is held of a decision: what was said of it, and what ended it, of whatever agent."""
        found = self._decided.get(decision_id)
        return ((), ()) if found is None else (found.said, found.ends)

    # -- letting go, and a start ------------------------------------------------------------------------------------

    def prune(self, before_us: int) -> None:
        """History has let go of what occurred before that moment."""
        self._pruned_us = max(self._pruned_us, before_us)
        if self._hold_us is not None and before_us <= self._at - self.lease_us - REACH_US - self._hold_us:
            return  # nothing that old is looked at
        for totals in list(self._entities.values()):
            for action in totals.actions:
                if not action.dropped:
                    self._settle(action)

    def _let_go(self, near_us: int, limit: int) -> bool:
        self._near_us = max(self._near_us, near_us)
        self._far_us = max(self._far_us, near_us - REACH_US)
        for queue, until_us in ((self._near, self._near_us), (self._far, self._far_us)):
            for _ in range(limit):
                if not queue or queue[0].due > until_us:
                    break
                self._let_one_go(queue, until_us)
            else:
                return True
        return False

    def _let_one_go(self, queue: Any, until_us: int) -> None:
        one: Action | Instance = queue.popleft()
        newest_us = one.newest_us if isinstance(one, Instance) else one.newest_us()
        if newest_us > until_us:
            one.due = newest_us
            queue.append(one)
        elif isinstance(one, Instance):
            del self._instances[one.key]
        else:
            self._drop(one)

    def _drop(self, action: Action) -> None:
        if action.decision_id is not None:
            del self._decided[action.decision_id]
        action.dropped = True
        for totals in action.named:
            totals.held -= 1
            if not totals.held:
                del self._entities[totals.key]
            elif len(totals.actions) > 2 * totals.held + 16:
                totals.actions = [a for a in totals.actions if not a.dropped]

    def load(self, cursor: Any, now_us: int, *, at_seq: int | None = None) -> None:
        """Take in what DuckDB's `events` say, as far back as it matters at `now_us` (all with `hold_us` None).

        Args:
            at_seq: only up to there; default: all that is applied.
        """
        if self._hold_us is not None:
            self._near_us = now_us - self.lease_us - self._hold_us
            self._far_us = self._near_us - REACH_US
        self._at = max(self._at, now_us)
        columns = ", ".join(f"epoch_us({c}) AS {c}" if c == "occurred_at" else c for c in IN_FLIGHT_COLUMNS)
        relation = "events WHERE void_seq IS NULL" if at_seq is None else f"events_at({at_seq:d}) WHERE true"
        after = "" if self._hold_us is None else f" AND occurred_at > make_timestamptz({self._far_us:d})"
        cursor.execute(
            f"SELECT {columns} FROM {relation}{after} AND (kind = 'authority' OR"
            " kind = 'execution' AND (decision_id IS NOT NULL OR instance_id IS NOT NULL)) ORDER BY seq"
        )
        while rows := cursor.fetchmany(_ROWS):
            self.feed(dict(zip(IN_FLIGHT_COLUMNS, zip(*rows, strict=True), strict=True)))

    def stats(self) -> dict[str, int]:
        """How many decisions, other actions and instances are held, and entities they are held for."""
        return {
            "decisions": len(self._decided),
            "instances": len(self._instances),
            "entities": len(self._entities),
            "wakes": len(self._wakes),
        }


def _count(flying: Flying, sign: int) -> None:
    for totals in flying.among:
        totals.count += sign
        totals.cost += sign * flying.cost
        if flying.amount is not None:
            amount, n = totals.amounts.get(flying.currency, (0, 0))
            if n + sign:
                totals.amounts[flying.currency] = (amount + sign * flying.amount, n + sign)
            else:
                del totals.amounts[flying.currency]
