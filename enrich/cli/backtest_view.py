"""A backtest as people read it: how many flips, of what kind, whose, by which rules, and what the figures rest on."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["headline", "report"]

#: rows of a table that goes on for as long as there are agents, rules or signals
_ROWS: Final = 10
_UNFOLDED_COLUMNS: Final = 200


def headline(body: Mapping[str, Any]) -> str:
    """One line that says what came of it."""
    than = "what the live policies say" if body["against"] == "live" else "what was decided"
    return f"{body['flipped']:,} of {body['tested']:,} decisions would be others than {than}"


def report(body: Mapping[str, Any]) -> str:
    """The report of `Backtest.body`, as text."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _UNFOLDED_COLUMNS)
    with console.capture() as shown:
        console.print(f"[bold]{headline(body)}[/]", soft_wrap=True)
        if body["changed_results"]:
            console.print(f"{body['changed_results']:,} more stay, with another result around them", soft_wrap=True)
        for by, rows in body["flips_by"].items():
            if rows:
                console.print(_table(by, rows))
        if body["not_testable"]:
            console.print(_not_testable(body["not_testable"]))
        slowdown = body["slowdown"]
        if slowdown is not None:
            console.print(
                f"the policies take {slowdown['ratio']:.2f} times as long as the live ones: "
                f"{slowdown['after_us']:,.0f} us against {slowdown['before_us']:,.0f} us, "
                f"medians of {slowdown['samples']}",
                soft_wrap=True,
            )
        for title, lines in (("changed", body["changes"]), ("note", body["notes"])):
            for line in lines:
                console.print(f"{title}: {escape(line)}", soft_wrap=True)
        console.print(f"tested up to seq {body['seq']}", soft_wrap=True)
    return shown.get()


def _table(by: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [name for name in rows[0] if name != "flips"]
    table = Table(
        title=f"flips by {by}", title_justify="left", title_style="bold", box=None, header_style="bold", pad_edge=False
    )
    for name in columns:
        table.add_column(name, overflow="fold")
    table.add_column("flips", justify="right")
    for row in rows[:_ROWS]:
        shown = ("not known" if row[name] is None else escape(row[name]) for name in columns)
        table.add_row(*shown, f"{row['flips']:,}")
    if len(rows) > _ROWS:
        table.add_row(f"and {len(rows) - _ROWS} more", *[""] * len(columns))
    return table


def _not_testable(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(
        title="not testable", title_justify="left", title_style="bold", box=None, header_style="bold", pad_edge=False
    )
    table.add_column("path")
    table.add_column("because", overflow="fold")
    table.add_column("decisions", justify="right")
    for row in rows:
        table.add_row(escape(row["path"]), escape(row["reason"]), f"{row['decisions']:,}")
    return table
