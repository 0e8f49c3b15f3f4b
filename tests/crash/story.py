"""Events that can be made again from their numbers: what writers send, and what a judge expects of them."""

from __future__ import annotations

from typing import Any, Final

from enrich.events import format_us

__all__ = ["AGENTS", "DAY_US", "QUERIES", "TEAMS", "WINDOWS_US", "agent_of", "event", "number_of", "team_of"]

AGENTS: Final = 11
TEAMS: Final = 3
DAY_US: Final = 86_400_000_000
WINDOWS_US: Final = {"last_1h": DAY_US // 24, "last_7d": 7 * DAY_US, "last_30d": 30 * DAY_US}
_MASK: Final = (1 << 64) - 1
_SIGNALS: Final = """
SELECT
    count(*) AS {p}runs, -- runs that ended
    sum(duration_ms) AS {p}ms, -- which of them, nearly: every event has a duration of its own
    count(*) FILTER (WHERE outcome = 'failed') AS {p}failures, -- runs that failed
    count(DISTINCT error_type) AS {p}errors, -- kinds of errors
    arg_max(duration_ms, (occurred_at, seq)) AS {p}newest, -- the last run's
    quantile_disc(duration_ms, 0.5) AS {p}middle -- the middle run's
FROM events
"""
_HEADER: Final = """\
-- entity: {entity}
-- windows: 1h, 7d, 30d
-- owner: tests
-- description: What the judge counts.
"""
QUERIES: Final = {
    f"{entity}.sql": _HEADER.format(entity=entity) + _SIGNALS.format(p=prefix).lstrip()
    for entity, prefix in (("agent", ""), ("team", "team_"))
}


def _mixed(n: int) -> int:
    h = (n + 1) * 0x9E3779B97F4A7C15 & _MASK
    return (h ^ (h >> 29)) * 0xBF58476D1CE4E5B9 & _MASK


def agent_of(n: int) -> str:
    """A third of all events belong to one agent."""
    h = _mixed(n) >> 40
    return f"agent-{0 if h % 3 == 0 else 1 + h // 3 % (AGENTS - 1)}"


def team_of(n: int) -> str | None:
    h = _mixed(n) >> 33
    return None if h % 5 == 0 else f"team-{h % TEAMS}"


def event(base_us: int, n: int, variant: int) -> dict[str, Any]:
    """Event `n`; its variants are different contents under one idempotency key.

    A tenth is late by days, a tenth has one and the same time.
    """
    h = _mixed(n) >> 20
    if h % 10 == 0:
        ago_us = h // 10 % (25 * DAY_US)
    elif h % 10 == 1:
        ago_us = 1_800_000_000
    else:
        ago_us = h // 10 % 3_000_000_000
    failed = h % 4 == 3
    found = {
        "source": "crash",
        "event_id": f"e{n}",
        "occurred_at": format_us(base_us - ago_us),
        "kind": "execution",
        "outcome": "failed" if failed else "succeeded",
        "agent_id": agent_of(n),
        "team_id": team_of(n),
        "error_type": f"E{h % 7}" if failed else None,
        "duration_ms": 2 * n + variant,
        "attributes": {"tool": "t" * (h % 50)},
    }
    return {k: v for k, v in found.items() if v is not None}


def number_of(duration_ms: int) -> tuple[int, int]:
    """(n, variant) of an event, from its duration."""
    return duration_ms >> 1, duration_ms & 1
