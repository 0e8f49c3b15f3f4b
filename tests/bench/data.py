"""Synthetic history for speed only: what is measured here is time, never a signal's meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["AGENTS", "DAY_US", "agent_name", "document", "table", "write_parquet"]

DAY_US = 86_400_000_000
#: how many agents requests are about
AGENTS = 10_000
_KINDS = np.array(["execution", "authority"])
_RUN = np.array(["succeeded", "failed", "timed_out", "cancelled"])
_AUTHORITY = np.array(["allowed", "required_human", "approved", "rejected", "overridden"])


def agent_name(i: int) -> str:
    return f"agent-{i:06d}"


def document(i: int) -> dict[str, Any]:
    """A request about one of the agents."""
    agent = i * 7919 % AGENTS
    return {
        "instance": {
            "instance_id": f"inst-{i:08d}",
            "workflow_id": f"workflow-{i % 200:03d}",
            "workflow_version": "v3",
            "materiality": "HIGH",
            "owning_team_id": f"team-{agent % 200:04d}",
        },
        "execution": {"current_state": "RUNNING", "step": "refund", "cost_estimate": 12.5},
        "context": {"domain": "payments", "trigger": "webhook", "attributes": {"amount": 400, "currency": "EUR"}},
        "identity": {"actor_id": agent_name(agent), "roles": ["agent"]},
        "policy": {"policy_version_id": "2026-11-01"},
    }


def table(
    n: int, agents: int, *, end_us: int, days: int = 60, hot: float = 0.0, first: int = 0, seed: int = 7
) -> pa.Table:
    """`n` events of `agents` agents over `days` days before `end_us`, in order of time, as an Arrow table.

    `hot`: the share of all events that agent 0 has; the others share the rest evenly.
    """
    rng = np.random.default_rng(seed)
    agent = rng.integers(1 if hot else 0, agents, n)
    if hot:
        agent[rng.random(n) < hot] = 0
    team = agent % max(1, agents // 50)
    workflow = rng.integers(0, 200, n)
    occurred = np.sort(end_us - rng.integers(1, days * DAY_US, n))
    is_run = rng.random(n) < 0.7
    outcome = np.where(is_run, rng.choice(_RUN, n, p=[0.9, 0.06, 0.02, 0.02]), rng.choice(_AUTHORITY, n))
    human = ~is_run & np.isin(outcome, ["approved", "rejected", "overridden"])
    null = np.zeros(n, dtype=bool)

    def dictionary(codes: np.ndarray, names: list[str], mask: np.ndarray = null) -> pa.Array:
        array = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=mask), pa.array(names))
        return array.cast(pa.string())

    def ints(low: int, high: int, mask: np.ndarray) -> pa.Array:
        return pa.array(rng.integers(low, high, n), pa.int64(), mask=mask)

    ids = np.char.add("e", np.arange(first, first + n).astype(str))
    return pa.table(
        {
            "source": pa.array(np.full(n, "bench")),
            "event_id": pa.array(ids),
            "occurred_at": pa.array(occurred, pa.timestamp("us", "UTC")),
            "kind": pa.array(np.where(is_run, "execution", "authority")),
            "outcome": pa.array(outcome.astype(str)),
            "agent_id": dictionary(agent, [agent_name(i) for i in range(agents)]),
            "team_id": dictionary(team, [f"team-{i:04d}" for i in range(max(1, agents // 50))]),
            "workflow_id": dictionary(workflow, [f"workflow-{i:03d}" for i in range(200)]),
            "actor_id": dictionary(rng.integers(0, 40, n), [f"human-{i:02d}" for i in range(40)], ~human),
            "error_type": dictionary(
                rng.integers(0, 30, n), [f"error-{i:02d}" for i in range(30)], outcome != "failed"
            ),
            "duration_ms": ints(5, 600_000, ~is_run),
            "wait_ms": ints(0, 3_600_000, ~human),
            "cost_microusd": ints(10, 900_000, ~is_run),
            "input_tokens": ints(10, 20_000, ~is_run),
            "output_tokens": ints(10, 4_000, ~is_run),
            "amount_minor": ints(1, 100_000, is_run),
        }
    )


def write_parquet(path: Path, n: int, agents: int, **options: int | float) -> None:
    pq.write_table(table(n, agents, **options), path, compression="lz4")  # type: ignore[arg-type]
