"""What people see: results on standard output, everything else on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from enrich.errors import DefinitionError, EnrichError

__all__ = ["errors", "print_error", "print_json", "print_page", "print_text", "problem_text"]

#: of a file or pipe: wider than any row
_UNFOLDED_COLUMNS: Final = 10_000


def errors() -> Console:
    """The console for messages, progress and errors: standard error, without wrapping when it is no terminal."""
    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def print_json(value: Any) -> None:
    """`value` as JSON, indented and in colour on a terminal, one line otherwise."""
    if sys.stdout.isatty():
        console = Console()
        with console.capture() as shown:
            console.print_json(orjson.dumps(value).decode())
        print_text(shown.get())
    else:
        print_text(orjson.dumps(value).decode())


def print_page(page: Mapping[str, Any], what: str, columns: Sequence[str], ids: Sequence[str]) -> None:
    """A page as a table, with its seq and where it goes on.

    Args:
        what: the key of its rows.
        columns: shown whole.
        ids: shown where any row has one; a narrow terminal folds them.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    shown_ids = [name for name in ids if any(row.get(name) for row in page[what])]
    for column in columns:
        table.add_column(column, no_wrap=True)
    for column in shown_ids:
        table.add_column(column, overflow="fold")
    for row in page[what]:
        table.add_row(*(str(row.get(column) or "") for column in (*columns, *shown_ids)))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _UNFOLDED_COLUMNS)
    more = f"; more: --cursor {page['next_cursor']}" if page["next_cursor"] else ""
    with console.capture() as shown:
        console.print(table)
        console.print(f"{len(page[what])} {what} at seq {page['seq']}{more}", markup=False, soft_wrap=True)
    print_text(shown.get())


def print_text(text: str) -> None:
    """`text` as it is. Ends the process with 0 when whoever reads it has seen enough."""
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # nothing is left to be flushed into the closed pipe at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def problem_text(error: EnrichError) -> str:
    """An error for people: where, what, and what to do about it."""
    if isinstance(error, DefinitionError) and "source" in error.detail:
        return error.pretty()
    lines = [f"{error.error_code}: {error.message}"]
    where = [str(error.detail[part]) for part in ("file", "line", "column") if part in error.detail]
    if where:
        lines[0] = ":".join(where) + ": " + lines[0]
    if "source" in error.detail and "column" in error.detail:
        source, column = str(error.detail["source"]), int(error.detail["column"])
        # a tab stays a tab, so that the caret stands below its place
        lines += [f"  {source}", "  " + "".join("\t" if c == "\t" else " " for c in source[: column - 1]) + "^"]
    if "hint" in error.detail:
        lines.append(f"  help: {error.detail['hint']}")
    return "\n".join(lines)


def print_error(error: EnrichError | Iterable[EnrichError]) -> None:
    """One error, or several, on standard error."""
    console = errors()
    for one in (error,) if isinstance(error, EnrichError) else error:
        text = problem_text(one)
        head, _, rest = text.partition("\n")
        console.print(f"[bold red]error[/]: {escape(head)}", soft_wrap=True)
        if rest:
            console.print(escape(rest), soft_wrap=True)
