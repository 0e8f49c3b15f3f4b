"""The `enrich` command: every subcommand, and how errors end."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from enrich.cli import backtest, backup, check, decisions, ingest, journal, read, replay, serve, suspend
from enrich.cli.output import print_error
from enrich.errors import BadRequestError, EnrichError

__all__ = ["app", "main"]


def app() -> typer.Typer:
    """The command line, assembled."""
    commands = typer.Typer(
        name="enrich",
        help="An agent's history, exact to the microsecond, inside the input of every authority decision.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        add_completion=False,
    )
    commands.callback()(_options)
    commands.command("serve")(serve.serve)
    commands.command("ingest")(ingest.ingest)
    commands.command("context")(read.context)
    commands.command("events")(read.events)
    commands.command("decisions")(decisions.decisions)
    commands.command("decision")(decisions.decision)
    commands.command("replay")(replay.replay)
    commands.command("outcome")(decisions.outcome)
    commands.command("backtest")(backtest.backtest)
    commands.command("sql")(read.sql)
    commands.command("suspend")(suspend.suspend)
    commands.command("lift")(suspend.lift)
    commands.command("suspensions")(suspend.suspensions)
    commands.command("check")(check.check)
    commands.command("reload")(check.reload)
    commands.command("backup")(backup.backup)
    commands.command("restore")(backup.restore)
    journals = typer.Typer(name="journal", help="The journal: what the engine learned, in order.", no_args_is_help=True)
    journals.callback()(journal.group)
    journals.command("verify")(journal.verify)
    journals.command("anchor")(journal.anchor)
    journals.command("cut")(journal.cut)
    commands.add_typer(journals)
    return commands


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"enrich {version('enrich')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """An agent's history, exact to the microsecond, inside the input of every authority decision."""


def main() -> None:
    """Runs the command line. An error of ours ends with its message and 1, a wrong call with 2."""
    try:
        _refuse_other_than_utf8(sys.argv)
        app()()
    except EnrichError as error:
        print_error(_parts(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # whoever read our output has seen enough; leave nothing to flush into the closed pipe at exit
        sys.stdout = None
        sys.exit(0)


def _refuse_other_than_utf8(arguments: list[str]) -> None:
    for i, argument in enumerate(arguments):
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise BadRequestError(f"argument {i} is not UTF-8", code="invalid_utf8") from error


def _parts(error: EnrichError) -> list[EnrichError]:
    """An error that stands for several, taken apart."""
    several = getattr(error, "errors", None)
    if isinstance(several, list | tuple) and several:
        return [one for one in several if isinstance(one, EnrichError)]
    return [error]
