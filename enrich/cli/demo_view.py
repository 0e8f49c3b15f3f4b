"""What the demo prints: it fits a terminal of 80 columns, a wider one, and a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table

__all__ = ["Answered", "decision_of", "demo_console", "print_answer", "print_query"]

_LEAST_COLUMNS: Final = 80
_MOST_COLUMNS: Final = 130
#: of the agent's history, what the question of this demo reads
_SHOWN: Final = ("known", "enough_decisions", "rejected_significantly", "rejection_change_z")
_SHOWN_7D: Final = ("complete", "allowed", "human_decisions", "rejections", "rejection_rate", "rejection_rate_low")


@dataclass(frozen=True)
class Answered:
    """One request, what the service made of it, and what each part took.

    Args:
        document: the input as sent.
        history: what was injected.
        blind, seen: the policy's document without and with it.
        took: (part, microseconds, the mean of `calls` calls), in the order of printing.
    """

    document: Mapping[str, Any]
    history: Mapping[str, Any]
    history_bytes: int
    blind: Mapping[str, Any]
    seen: Mapping[str, Any]
    calls: int
    took: Sequence[tuple[str, float]]


def demo_console() -> Console:
    """As wide as the terminal, within what can be laid out and read."""
    return Console(width=max(_LEAST_COLUMNS, min(Console().width, _MOST_COLUMNS)), highlight=False)


def print_query(console: Console, query: str) -> None:
    """A query as it runs, every line whole."""
    console.print(Syntax(query, "sql", background_color="default", word_wrap=True))


def print_answer(console: Console, answered: Answered) -> None:
    """Input and history side by side; below, the decision without and with it, and what each part took."""
    agent = answered.history["agent"]
    excerpt = {
        "agent": {
            **{n: agent[n] for n in _SHOWN if n in agent},
            "last_7d": {n: agent["last_7d"][n] for n in _SHOWN_7D if n in agent["last_7d"]},
        },
        **{k: answered.history[k] for k in ("seq", "status")},
    }
    side = Table.grid(expand=True)
    side.add_column(ratio=1)
    side.add_column(ratio=1)
    side.add_row(
        Panel(_json(answered.document), title="input as sent", padding=0),
        Panel(
            _json(_shortened(excerpt)),
            title="history injected",
            subtitle=f"an excerpt of {answered.history_bytes:,} bytes",
            padding=0,
        ),
    )
    console.print(side)
    decisions = Table("", "decision", "because", box=box.ROUNDED, expand=True)
    decisions.columns[2].ratio = 1
    decisions.add_row("without history", _coloured(answered.blind), "; ".join(answered.blind.get("reasons", [])))
    decisions.add_row("with history", _coloured(answered.seen), "; ".join(answered.seen.get("reasons", [])))
    console.print(decisions)
    took = Table(f"what each part took (mean of {answered.calls})", "us", box=box.ROUNDED)
    took.columns[1].justify = "right"
    for part, us in answered.took:
        took.add_row(part, f"{us:,.0f}")
    console.print(took)
    console.print()


def decision_of(document: Mapping[str, Any]) -> str:
    """ALLOW, REQUIRE_HUMAN or DENY; `undefined` where the policy says nothing."""
    return str(document.get("decision", {}).get("decision", "undefined"))


def _coloured(document: Mapping[str, Any]) -> str:
    colour = {"ALLOW": "green", "DENY": "red"}.get(decision_of(document), "yellow")
    return f"[bold {colour}]{decision_of(document)}[/]"


def _shortened(value: Any) -> Any:
    """Four digits are enough to read."""
    if isinstance(value, dict):
        return {name: _shortened(part) for name, part in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def _json(document: Mapping[str, Any]) -> Syntax:
    return Syntax(
        json.dumps(document, indent=1, ensure_ascii=False), "json", background_color="default", word_wrap=True
    )
