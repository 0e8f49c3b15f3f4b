"""What is in flight: its definition, as SQL over the events that DuckDB has.

An action is in flight from the moment authority was given until it ends, or its lease does. For one entity at one
(as_of, seq, lease), of the events with `occurred_at <= as_of` and a seq up to `seq`:

- The `authority` events of one decision_id are one action; one without a decision_id is an action of its own. Of a
  decision count the events of the last lease and seven days before as_of, and among those only such as have no agent or
  the decision's own: that of the first one, by seq, that has any. So an approval may come a week after the request.
- It is in flight when the last of its events (by occurred_at, then seq; `required_human` aside) is `allowed`,
  `approved` or `overridden` and lies within the lease: `as_of - lease < occurred_at`. A later approval begins the lease
  again; a later `rejected`, `denied` or `timed_out` takes the authority back.
- It has ended when an `execution` event has its decision_id, whenever that one occurred: what ended stays ended. One
  without a decision_id ends the actions of its instance_id that were given authority at that time or before. Neither
  ends an action of another agent.
- It belongs to the agent, team, workflow, org and instance that its events name, the first by seq where several do.
- The amount (with its currency) and the cost are those that the last of its events (by occurred_at, then seq) that has
  one declares, so that an approval that names none leaves those of the request.

The engine itself answers from `enrich.in_flight.memory`; this is what it is held to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb

from enrich.events.model import ENTITY_KEYS, INT64_MAX

__all__ = [
    "GRANTS",
    "IN_FLIGHT_ENTITIES",
    "REACH_US",
    "InFlightQuestion",
    "in_flight_at",
    "in_flight_bulk",
    "in_flight_object",
]

#: the entities that have something in flight
IN_FLIGHT_ENTITIES: Final = ("agent", "team", "workflow", "org")
#: outcomes of authority that let an action begin
GRANTS: Final = ("allowed", "approved", "overridden")
#: how long before the lease what was said of a decision still counts, in microseconds
REACH_US: Final = 7 * 86_400_000_000

_SEEN: Final = "e.seq <= a.at_seq AND (e.void_seq IS NULL OR e.void_seq > a.at_seq) AND e.occurred_at <= a.as_of"
_SAME_AGENT: Final = "(e.agent_id IS NULL OR {agent} IS NULL OR e.agent_id = {agent})"
_GRANTED: Final = f"IN ({', '.join(map(repr, GRANTS))})"
_IDS: Final = ("team_id", "workflow_id", "org_id", "instance_id")

#: `{id}` is the entity's column
_SQL: Final = f"""
WITH asked AS (
    SELECT k, id, at_seq, make_timestamptz(us) AS as_of, make_timestamptz(us - lease) AS lease_start,
        make_timestamptz(us - lease - {REACH_US}) AS reach_start
    FROM (SELECT unnest(range(len($ids))) AS k, unnest($ids::VARCHAR[]) AS id, unnest($as_of::BIGINT[]) AS us,
        unnest($seqs::BIGINT[]) AS at_seq, unnest($leases::BIGINT[]) AS lease)
),
named AS (
    SELECT DISTINCT a.k, e.decision_id FROM asked AS a JOIN events AS e ON e.{{id}} = a.id
    WHERE {_SEEN} AND e.occurred_at > a.reach_start AND e.kind = 'authority' AND e.decision_id IS NOT NULL
),
said AS (
    SELECT a.k, e.* FROM named AS n JOIN asked AS a ON a.k = n.k JOIN events AS e ON e.decision_id = n.decision_id
    WHERE {_SEEN} AND e.occurred_at > a.reach_start AND e.kind = 'authority'
),
holders AS (
    SELECT k, decision_id, arg_min(agent_id, seq) AS agent FROM said GROUP BY k, decision_id
),
decided AS (
    SELECT e.k, e.decision_id, h.agent AS agent_id,
        {", ".join(f"arg_min(e.{c}, e.seq) AS {c}" for c in _IDS)},
        arg_max(e.outcome, (e.occurred_at, e.seq)) FILTER (WHERE e.outcome <> 'required_human') AS outcome,
        max(e.occurred_at) FILTER (WHERE e.outcome <> 'required_human') AS since,
        arg_max({{{{'amount': e.declared_amount_minor, 'currency': coalesce(e.currency, '')}}}},
            (e.occurred_at, e.seq)) FILTER (WHERE e.declared_amount_minor IS NOT NULL) AS declared,
        arg_max(e.declared_cost_microusd, (e.occurred_at, e.seq)) AS cost
    FROM said AS e JOIN holders AS h ON h.k = e.k AND h.decision_id = e.decision_id
    WHERE {_SAME_AGENT.format(agent="h.agent")}
    GROUP BY e.k, e.decision_id, h.agent
),
actions AS (
    SELECT a.*, d.decision_id, d.agent_id, d.instance_id, d.since, d.declared, d.cost
    FROM decided AS d JOIN asked AS a ON a.k = d.k
    WHERE d.outcome {_GRANTED} AND d.since > a.lease_start AND d.{{id}} = a.id
    UNION ALL
    SELECT a.*, NULL, e.agent_id, e.instance_id, e.occurred_at,
        CASE WHEN e.declared_amount_minor IS NOT NULL
            THEN {{{{'amount': e.declared_amount_minor, 'currency': coalesce(e.currency, '')}}}} END,
        e.declared_cost_microusd
    FROM asked AS a JOIN events AS e ON e.{{id}} = a.id
    WHERE {_SEEN} AND e.occurred_at > a.lease_start AND e.kind = 'authority' AND e.decision_id IS NULL
        AND e.outcome {_GRANTED}
),
flying AS (
    SELECT k, declared, cost FROM actions AS a
    WHERE NOT EXISTS (
        FROM events AS e WHERE e.kind = 'execution' AND e.decision_id = a.decision_id
            AND {_SEEN} AND e.occurred_at > a.reach_start AND {_SAME_AGENT.format(agent="a.agent_id")}
    ) AND NOT EXISTS (
        FROM events AS e WHERE e.kind = 'execution' AND e.decision_id IS NULL AND e.instance_id = a.instance_id
            AND {_SEEN} AND e.occurred_at >= a.since AND {_SAME_AGENT.format(agent="a.agent_id")}
    )
)
SELECT k, declared.currency, count(*), sum(declared.amount), sum(cost) FROM flying GROUP BY ALL
"""


@dataclass(frozen=True, slots=True)
class InFlightQuestion:
    """What was in flight for one entity (of `IN_FLIGHT_ENTITIES`), as known at `seq`; times in microseconds."""

    entity: str
    id: str
    as_of_us: int
    seq: int
    lease_us: int


def in_flight_at(cursor: duckdb.DuckDBPyConnection, question: InFlightQuestion) -> dict[str, Any]:
    """One answer; see `in_flight_bulk`."""
    return in_flight_bulk(cursor, [question])[0]


def in_flight_bulk(cursor: duckdb.DuckDBPyConnection, questions: Sequence[InFlightQuestion]) -> list[dict[str, Any]]:
    """The object under `history.<entity>.in_flight` for each question, in order.

    Every decision that an entity asked about has had in the seven days and the lease before is gone through: for very
    many questions feed an `enrich.in_flight.InFlight` in the order of seqs instead.

    Args:
        cursor: on a history file that has applied the highest seq asked about, in UTC.
    """
    answers: list[dict[str, Any]] = [{} for _ in questions]
    for entity in IN_FLIGHT_ENTITIES:
        mine = [i for i, q in enumerate(questions) if q.entity == entity]
        if not mine:
            continue
        asked = [questions[i] for i in mine]
        rows = cursor.execute(
            _SQL.format(id=ENTITY_KEYS[entity][0]),
            {
                "ids": [q.id for q in asked],
                "as_of": [q.as_of_us for q in asked],
                "seqs": [q.seq for q in asked],
                "leases": [q.lease_us for q in asked],
            },
        ).fetchall()
        counts, costs = [0] * len(mine), [0] * len(mine)
        amounts: list[dict[str, int]] = [{} for _ in mine]
        for k, currency, count, amount, cost in rows:
            counts[k] += count
            costs[k] += cost or 0
            if currency is not None:
                amounts[k][currency] = amount
        for k, i in enumerate(mine):
            answers[i] = in_flight_object(counts[k], costs[k], amounts[k])
    return answers


def in_flight_object(count: int, cost: int, amounts: Mapping[str, int]) -> dict[str, Any]:
    """What stands under `in_flight`.

    Args:
        cost: declared, together, in millionths of a US dollar.
        amounts: declared, together, in minor units, by currency; under the empty string those without one.

    Returns:
        `declared_amount_minor` where there are no two currencies; sums beyond 64 bits are left out, and with one of
        them all amounts: a currency that is not listed has nothing in flight.
    """
    found: dict[str, Any] = {"count": count}
    if cost <= INT64_MAX:
        found["declared_cost_microusd"] = cost
    if all(amount <= INT64_MAX for amount in amounts.values()):
        found["declared_amount_minor_by_currency"] = dict(amounts)
        if len(amounts) <= 1:
            found["declared_amount_minor"] = sum(amounts.values())
    return found
