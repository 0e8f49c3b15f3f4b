"""The command reference page, made from the commands' own help: `python -m enrich.cli.reference`."""

from __future__ import annotations

import sys
from typing import Final

import typer
from typer.cli import get_docs_for_click

from enrich.cli.main import app

__all__ = ["reference"]

_NOTE: Final = """\
This page is the output of `python -m enrich.cli.reference`: the commands' own `--help`.

Every command but `serve` and `journal cut` that takes `--data` takes `--url` too, and then asks the running service
that holds the directory. Settings come from flags, then `ENRICH_*` variables, then `enrich.toml` (see settings). An
exit code of 0 says that all went well, 1 that something did not (the reason is on standard error), 2 that the command
was called wrongly.
"""


def reference() -> str:
    """The page, Markdown."""
    command = typer.main.get_command(app())
    context = typer.Context(command, info_name="enrich")
    page = get_docs_for_click(obj=command, ctx=context, name="enrich", title="Command line")
    # a console block of the documentation is run by the suite; these are patterns, no commands
    title, _, rest = page.replace("```console\n$ ", "```text\n").partition("\n\n")
    return f"{title}\n\n{_NOTE}\n{rest.rstrip()}\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
