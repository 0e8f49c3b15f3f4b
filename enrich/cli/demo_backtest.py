"""The demo's last part: a changed threshold, tried on what was decided before it would have gone live."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import httpx
from rich.console import Console

from enrich.cli.backtest_view import headline
from enrich.decisions.backtest.texts import policy_texts
from enrich.events import format_us

__all__ = ["try_a_threshold"]

_DAYS: Final = 2
_DAY_US: Final = 86_400_000_000
_DATA: Final = "gantral/data.json"
_LIMIT: Final = "requests_1h"
_CHANGED: Final = 1
_SECONDS: Final = 90


def try_a_threshold(client: httpx.Client, policies: Path, decision: str, now_us: int, console: Console) -> None:
    """Backtests the policies with one threshold changed, on the last days; nothing where they have no such threshold.

    Args:
        decision: the decision's path, as in a URL.
        now_us: where the days end.
    """
    texts = policy_texts(policies)
    if _DATA not in texts:
        return
    data = json.loads(texts[_DATA])
    before = data["limits"][_LIMIT]
    data["limits"][_LIMIT] = _CHANGED
    console.rule("[bold]a changed threshold, tried on the past")
    wanted = {
        "policies": {**texts, _DATA: json.dumps(data)},
        "since": format_us(now_us - _DAYS * _DAY_US),
        "path": decision,
        "against": "live",
    }
    found = client.post("/v1/backtest", json=wanted, timeout=_SECONDS).raise_for_status().json()
    kinds = ", ".join(f"{one['flips']} {one['kind']}" for one in found["flips_by"]["kind"])
    console.print(
        f"What if an agent were left alone for {_CHANGED} request an hour in place of {before}? In the last {_DAYS} "
        f"days [bold]{headline(found)}[/bold]{f': {kinds}' if kinds else ''}. Each was asked again on what had "
        f"happened before it; {found['not_tested']} more could not be, since their events do not tell enough. "
        "`enrich backtest` says which, and why.\n"
    )
