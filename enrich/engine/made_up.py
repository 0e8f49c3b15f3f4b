"""A history to compare definitions on where there is none yet: made up, small, and the same every time."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Final

from enrich.events import format_us
from enrich.events.model import AUTHORITY_OUTCOMES, INT_COLUMNS, KINDS, MATERIALITIES, MAX_ATTRIBUTES, RUN_OUTCOMES

__all__ = ["made_up_events"]

_EVENTS: Final = 600
_SEED: Final = 7


def made_up_events(now_us: int, span_us: int, attribute_keys: Iterable[str]) -> list[dict[str, Any]]:
    """Events of every kind and outcome, of a few agents, teams, workflows and approvers; with nulls and ties.

    Args:
        now_us: where they end.
        span_us: how far they reach back; they grow denser towards the end, so that short windows hold some too.
        attribute_keys: the attributes that definitions read.
    """
    rng = random.Random(_SEED)
    keys = sorted(attribute_keys)[:MAX_ATTRIBUTES]
    times = sorted(now_us - int(span_us * rng.random() ** 6) for _ in range(_EVENTS))
    # every seventh ties with its neighbour
    return [_event(rng, n, times[n - n % 7 // 6], keys) for n in range(_EVENTS)]


def _event(rng: random.Random, n: int, at_us: int, attribute_keys: list[str]) -> dict[str, Any]:
    kind = rng.choice(KINDS)
    event: dict[str, Any] = {
        "source": "made-up",
        "event_id": str(n),
        "occurred_at": format_us(at_us),
        "kind": kind,
        "outcome": rng.choice(AUTHORITY_OUTCOMES if kind == "authority" else RUN_OUTCOMES),
        "agent_id": f"agent-{rng.randrange(3)}",
    }
    for name, values in (
        ("team_id", 2), ("workflow_id", 3), ("org_id", 1), ("actor_id", 3), ("action", 3), ("environment", 2),
        ("error_type", 2),
    ):  # fmt: skip
        if rng.random() < 0.8:
            event[name] = f"{name.removesuffix('_id')}-{rng.randrange(values)}"
    if rng.random() < 0.5:
        event["materiality"] = rng.choice(MATERIALITIES)
    if rng.random() < 0.7:
        event["currency"] = rng.choice(("EUR", "USD", "JPY"))
    event |= {name: rng.randrange(10 ** rng.randrange(1, 8)) for name in INT_COLUMNS if rng.random() < 0.7}
    if attribute_keys:
        event["attributes"] = {
            key: rng.choice(("", "a", "7", "-3", "2.5", 0, 12, True, False))
            for key in attribute_keys
            if rng.random() < 0.8
        }
    return event
