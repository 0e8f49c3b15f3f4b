"""`enrich check` and `enrich reload`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape

from enrich.cli.client import ServiceClient
from enrich.cli.options import (
    TOKEN_VARIABLE,
    URL_VARIABLE,
    Config,
    Data,
    Policies,
    Queries,
    Token,
    Url,
    service_url,
    settings_of,
)
from enrich.cli.output import errors, print_text
from enrich.cli.targets import has_journal, open_engine

__all__ = ["check", "reload"]


def check(
    call: typer.Context,
    queries: Queries = None,
    policies: Policies = None,
    data: Data = None,
    url: Url = None,
    token: Token = None,
    config: Config = None,
) -> None:
    """Check definitions and policies: they parse, compile, and agree with DuckDB on the data at hand.

    Without data they are compared on a small history that is made up. With --url the running service compares what it
    has live. Ends with 1 when something is wrong.
    """
    settings = settings_of(config, data=data, queries=queries, policies=policies)
    url = service_url(call, url, data=data, queries=queries, policies=policies)
    if url is not None:
        with ServiceClient(url, token) as client:
            report = client.check()
        _print_report(report["compared"], report["differences"])
        return
    there = has_journal(settings.data)
    with open_engine(settings, temporary=not there) as engine:
        if not there:
            from enrich.engine import made_up_events

            keys = engine.catalog.attribute_keys
            engine.record(made_up_events(engine.journal.now_us(), settings.retention_us // 2, keys))
        compared = engine.check()
    _print_report(compared.compared, compared.differences, "" if there else ", on a made-up history")


def _print_report(compared: int, differences: Sequence[str], where: str = "") -> None:
    for difference in differences:
        errors().print(f"[bold red]differs from DuckDB[/]: {escape(difference)}", soft_wrap=True)
    if differences:
        raise typer.Exit(1)
    print_text(f"ok: every definition compiles; {compared} values equal DuckDB's{where}")


def reload(
    url: Annotated[
        str, typer.Option("--url", metavar="URL", envvar=URL_VARIABLE, help="The running service.")
    ] = "http://127.0.0.1:8686",
    token: Annotated[
        str | None, typer.Option("--token", metavar="TOKEN", envvar=TOKEN_VARIABLE, help="Bearer token.")
    ] = None,
) -> None:
    """Let a running service load its definitions and policies again; bad ones leave the old ones live."""
    with ServiceClient(url, token) as client:
        report = client.reload()
    print_text(f"{'changed' if report['changed'] else 'unchanged'}: catalog {report['catalog']}")
