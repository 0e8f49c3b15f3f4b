"""The floor: what 20 sum-like signals over 3 windows cost when written by hand for one table, and nothing else is done.

Searches, a gather of running totals, 20 expressions a window, a dict. No late events, no tails, no nulls told from
zero, no snapshot, no catalog. Everything the engine takes longer than this for is what it does more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["SET_SQL", "Floor"]

#: the same twenty signals as a signal set
SET_SQL = """-- entity: agent
-- windows: 1h, 24h, 7d
-- owner: bench
-- description: Twenty sum-like signals.
SELECT
    count(*)                                                                 AS runs,             -- events
    count(*) FILTER (WHERE outcome = 'succeeded')                            AS successes,        -- ended well
    count(*) FILTER (WHERE outcome = 'failed')                               AS failures,         -- failed
    count(*) FILTER (WHERE outcome = 'timed_out')                            AS timeouts,         -- timed out
    count(*) FILTER (WHERE outcome = 'cancelled')                            AS cancels,          -- cancelled
    count(*) FILTER (WHERE outcome = 'failed' AND error_type = 'error-01')   AS one_error,        -- one kind of error
    sum(duration_ms)                                                         AS total_ms,         -- time spent
    sum(cost_microusd)                                                       AS total_cost,       -- spend
    sum(input_tokens)                                                        AS tokens_in,        -- tokens read
    sum(output_tokens)                                                       AS tokens_out,       -- tokens written
    failures / nullif(runs, 0)                                               AS failure_rate,     -- 0..1
    timeouts / nullif(runs, 0)                                               AS timeout_rate,     -- 0..1
    successes / nullif(runs, 0)                                              AS success_rate,     -- 0..1
    cancels / nullif(runs, 0)                                                AS cancel_rate,      -- 0..1
    (failures + timeouts) / nullif(runs, 0)                                  AS trouble_rate,     -- 0..1
    total_ms / nullif(runs, 0)                                               AS mean_ms,          -- ms
    total_cost / nullif(runs, 0)                                             AS mean_cost,        -- microusd
    tokens_out / nullif(tokens_in, 0)                                        AS token_ratio,      -- written per read
    total_cost / nullif(successes, 0)                                        AS cost_per_success, -- microusd
    runs - successes                                                         AS not_successes     -- the others
FROM events
WHERE kind = 'execution'
"""


class Floor:
    """Running totals by agent in one matrix, answered by hand-written code."""

    def __init__(self, table: pa.Table) -> None:
        kind = table["kind"].to_numpy(zero_copy_only=False)
        runs = table.filter(pa.array(kind == "execution"))
        agent = runs["agent_id"].combine_chunks().dictionary_encode()
        codes = agent.indices.to_numpy()
        t = runs["occurred_at"].cast(pa.int64()).to_numpy()
        order = np.lexsort((t, codes))
        codes, self.t = codes[order], np.ascontiguousarray(t[order])
        outcome = runs["outcome"].to_numpy(zero_copy_only=False)[order]
        error = runs["error_type"].to_numpy(zero_copy_only=False)[order]
        columns = [np.ones(len(order), np.int64)]
        columns += [(outcome == name).astype(np.int64) for name in ("succeeded", "failed", "timed_out", "cancelled")]
        columns += [((outcome == "failed") & (error == "error-01")).astype(np.int64)]
        columns += [
            np.nan_to_num(runs[name].to_numpy(zero_copy_only=False)[order]).astype(np.int64)
            for name in ("duration_ms", "cost_microusd", "input_tokens", "output_tokens")
        ]
        self.totals = np.zeros((len(order) + 1, len(columns)), np.int64)
        np.cumsum(np.stack(columns, axis=1), axis=0, out=self.totals[1:])
        names = agent.dictionary.to_pylist()
        starts = np.searchsorted(codes, np.arange(len(names)))
        ends = np.searchsorted(codes, np.arange(len(names)), "right")
        self.ranges = {name: (int(a), int(b)) for name, a, b in zip(names, starts, ends, strict=True)}

    def context(self, agent: str, as_of: int) -> dict[str, dict[str, Any]]:
        start, end = self.ranges[agent]
        edges = np.array((as_of, as_of - 3_600_000_000, as_of - 86_400_000_000, as_of - 604_800_000_000))
        positions = self.t[start:end].searchsorted(edges, "right")
        positions += start
        rows = self.totals[positions]
        windows = (rows[0] - rows[1:]).tolist()
        return {
            "last_1h": _signals(windows[0]),
            "last_24h": _signals(windows[1]),
            "last_7d": _signals(windows[2]),
        }


def _signals(totals: list[int]) -> dict[str, Any]:
    n, ok, bad, late, off, one, ms, cost, read, written = totals
    if not n:
        return {
            "runs": 0,
            "successes": 0,
            "failures": 0,
            "timeouts": 0,
            "cancels": 0,
            "one_error": 0,
            "not_successes": 0,
        }
    return {
        "runs": n,
        "successes": ok,
        "failures": bad,
        "timeouts": late,
        "cancels": off,
        "one_error": one,
        "total_ms": ms,
        "total_cost": cost,
        "tokens_in": read,
        "tokens_out": written,
        "failure_rate": bad / n,
        "timeout_rate": late / n,
        "success_rate": ok / n,
        "cancel_rate": off / n,
        "trouble_rate": (bad + late) / n,
        "mean_ms": ms / n,
        "mean_cost": cost / n,
        "token_ratio": written / read if read else None,
        "cost_per_success": cost / ok if ok else None,
        "not_successes": n - ok,
    }
