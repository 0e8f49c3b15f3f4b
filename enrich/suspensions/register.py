"""The suspensions that are in force, following the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from enrich.suspensions.members import Members
from enrich.suspensions.model import Covering, Match, Scope, Suspension, from_record

__all__ = ["Register"]


class Register:
    """What is suspended, by scope and id.

    Changed under the index's lock, and read under it where what is read belongs to a context; a reader without it sees
    some state, whole: what is held is replaced, never changed.

    INVARIANT: what could not be journaled stands beside what the journal has, and never in its place: the journal's own
    stays in force, and is saved, until the journal says otherwise.
    """

    def __init__(self, held: Iterable[Suspension] = ()) -> None:
        self._held: dict[tuple[Scope, str], Suspension] = {(s.scope, s.id): s for s in held}
        self._unjournaled: dict[tuple[Scope, str], Suspension] = {}
        #: nothing is held: what every context asks first
        self.empty = not self._held

    def apply(self, body: Mapping[str, Any], seq: int | None, at_us: int) -> None:
        """Take in a `suspension` record. One that renews another in force keeps its beginning.

        Args:
            seq: None for one that could not be journaled.
        """
        key = (body["scope"], body["id"])
        fresh = None
        if body["action"] == "suspend":
            fresh = from_record(body, seq, at_us)
            before = self.get(*key, at_us)
            if before is not None:
                fresh = Suspension(
                    fresh.scope, fresh.id, fresh.reason, before.since_us, fresh.until_us, fresh.by, fresh.seq
                )
        if seq is not None:
            self._held = _with(self._held, key, fresh)
            fresh = None
        self._unjournaled = _with(self._unjournaled, key, fresh)
        self.empty = not (self._held or self._unjournaled)

    def get(self, scope: Scope, id_: str, as_of_us: int) -> Suspension | None:
        """The one in force under that very name."""
        for among in (self._unjournaled, self._held):
            found = among.get((scope, id_))
            if found is not None and found.in_force(as_of_us):
                return found
        return None

    def durable(self, now_us: int) -> tuple[Suspension, ...]:
        """All that are held by a record and not over."""
        return tuple(s for s in self._held.values() if s.in_force(max(now_us, s.since_us)))

    def in_force(self, as_of_us: int) -> list[Suspension]:
        """All that hold at that moment, oldest first."""
        found = {
            key: s for among in (self._held, self._unjournaled) for key, s in among.items() if s.in_force(as_of_us)
        }
        return sorted(found.values(), key=lambda s: (s.since_us, s.scope, s.id))

    def covering(self, ids: Mapping[str, object], members: Members, as_of_us: int) -> list[Covering]:
        """Those in force that cover a request.

        Args:
            ids: the request's `agent`, `team`, `workflow`, `org`: a string, or None where the request lacks it. An
                entity that is not asked about at all is not in it; pairs may be, and say nothing here.
            members: what the agent's events name.
        """
        if not self:
            return []
        found = []
        for suspension in self.in_force(as_of_us):
            match = _match(suspension, ids, members)
            if match is not None:
                found.append(Covering(suspension, match))
        return found


def _with(
    held: dict[tuple[Scope, str], Suspension], key: tuple[Scope, str], fresh: Suspension | None
) -> dict[tuple[Scope, str], Suspension]:
    """Another dict that has `fresh` last, in place of what stood under the key; without it where that is None."""
    rest = {k: s for k, s in held.items() if k != key}
    return rest if fresh is None else {**rest, key: fresh}


def _match(suspension: Suspension, ids: Mapping[str, object], members: Members) -> Match | None:
    scope, wanted = suspension.scope, suspension.id
    if scope == "all":
        return "all"
    given = ids.get(scope)
    if given == wanted:
        return "id"
    agent = ids.get("agent")
    known: frozenset[str] = frozenset()
    if isinstance(agent, str) and scope in ("team", "org"):
        known = members.teams(agent) if scope == "team" else members.orgs(agent)
        if wanted in known:
            return "known"
    # INVARIANT: whoever leaves out the id that would tell is not better off than who sends it
    return "unknown" if scope in ids and given is None and not known else None
