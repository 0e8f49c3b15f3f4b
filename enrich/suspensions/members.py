"""Which teams and orgs the events of an agent name: a suspended team's agent may not just claim another team."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from enrich.events import EventBatch

__all__ = ["Members", "Membership"]

_NOWHERE: Final[frozenset[str]] = frozenset()

#: (agent, team or None, org or None)
Membership = tuple[str, str | None, str | None]


class Members:
    """Agent to the teams and orgs that its events named. It only grows: what an old event said is not forgotten before
    a restart, which reads what is held then.

    Changed and read under the index's lock, so that it belongs to the same snapshot as the signals.
    """

    def __init__(self) -> None:
        self._teams: dict[str, frozenset[str]] = {}
        self._orgs: dict[str, frozenset[str]] = {}
        self._shared: dict[frozenset[str], frozenset[str]] = {}

    @staticmethod
    def of(batch: EventBatch) -> set[Membership]:
        """The distinct memberships of a batch; to be worked out outside the order."""
        columns = batch.columns
        found = set(zip(columns["agent_id"], columns["team_id"], columns["org_id"], strict=True))
        return {m for m in found if m[0] is not None and not m[1] is m[2] is None}

    def add(self, memberships: Iterable[Membership]) -> None:
        """Take in what a batch said."""
        for agent, team, org in memberships:
            if team is not None:
                self._put(self._teams, agent, team)
            if org is not None:
                self._put(self._orgs, agent, org)

    def load(self, cursor: Any) -> None:
        """Take in what DuckDB's `events` say."""
        rows = cursor.execute(
            "SELECT DISTINCT agent_id, team_id, org_id FROM events"
            " WHERE agent_id IS NOT NULL AND (team_id IS NOT NULL OR org_id IS NOT NULL)"
        ).fetchall()
        self.add(rows)

    def teams(self, agent: str) -> frozenset[str]:
        """The teams that events of this agent named."""
        return self._teams.get(agent, _NOWHERE)

    def orgs(self, agent: str) -> frozenset[str]:
        """The orgs that events of this agent named."""
        return self._orgs.get(agent, _NOWHERE)

    def _put(self, held: dict[str, frozenset[str]], agent: str, name: str) -> None:
        have = held.get(agent, _NOWHERE)
        if name not in have:
            more = have | {name}
            held[agent] = self._shared.setdefault(more, more)  # most agents share their team: one set for all of them
