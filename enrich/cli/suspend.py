"""`enrich suspend`, `enrich lift`, `enrich suspensions`: break-glass from the command line."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from enrich.cli.options import Config, Data, Json, Queries, Token, Url, service_url, settings_of
from enrich.cli.output import print_json, print_text
from enrich.cli.targets import open_target

__all__ = ["lift", "suspend", "suspensions"]

Scope = Annotated[str, typer.Argument(metavar="SCOPE", help="all, org, team, workflow or agent.")]
Id = Annotated[str | None, typer.Argument(metavar="[ID]", help="Whose; `all` has none.")]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who says so.")]


def suspend(
    call: typer.Context,
    scope: Scope,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for those who meet it.")],
    id_: Id = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="T", help="When it ends, RFC 3339. [default: when it is lifted]")
    ] = None,
    by: By = None,
    data: Data = None,
    queries: Queries = None,
    url: Url = None,
    token: Token = None,
    config: Config = None,
) -> None:
    """Withdraw authority now, from everyone or from an org, a team, a workflow or an agent."""
    settings = settings_of(config, data=data, queries=queries)
    with open_target(settings, service_url(call, url, data=data, queries=queries), token) as target:
        print_text("suspended: " + _line(target.suspend(scope, id_, reason, until, by)))


def lift(
    call: typer.Context,
    scope: Scope,
    id_: Id = None,
    by: By = None,
    data: Data = None,
    queries: Queries = None,
    url: Url = None,
    token: Token = None,
    config: Config = None,
) -> None:
    """Give authority back."""
    settings = settings_of(config, data=data, queries=queries)
    with open_target(settings, service_url(call, url, data=data, queries=queries), token) as target:
        print_text("lifted: " + _line(target.lift(scope, id_, by)))


def suspensions(
    call: typer.Context,
    json: Json = False,
    data: Data = None,
    queries: Queries = None,
    url: Url = None,
    token: Token = None,
    config: Config = None,
) -> None:
    """Print what is suspended, oldest first."""
    settings = settings_of(config, data=data, queries=queries)
    with open_target(settings, service_url(call, url, data=data, queries=queries), token) as target:
        held = target.suspensions()
    if json:
        print_json({"suspensions": held})
    else:
        print_text("\n".join(map(_line, held)) if held else "nothing is suspended")


def _line(one: dict[str, Any]) -> str:
    until = f" until {one['until']}" if "until" in one else ""
    by = f", by {one['by']}" if "by" in one else ""
    return f"{one['scope']} {one.get('id', '')}".rstrip() + f" since {one['since']}{until}{by}: {one['reason']}"
