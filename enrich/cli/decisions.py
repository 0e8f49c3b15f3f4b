"""`enrich decisions`, `enrich decision`, `enrich outcome`: what was decided, and what became of it."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from enrich.cli.options import Config, Data, Json, Queries, Token, Url, service_url, settings_of
from enrich.cli.output import print_json, print_page, print_text
from enrich.cli.targets import open_target

__all__ = ["decision", "decisions", "outcome"]

_COLUMNS: Final = ("seq", "as_of", "decision", "cause", "path")
_IDS: Final = ("agent", "team", "workflow", "org", "decision_id")


def decisions(
    call: typer.Context,
    agent: Annotated[str | None, typer.Option(help="Only about this agent.")] = None,
    team: Annotated[str | None, typer.Option(help="Only about this team.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Only about this workflow.")] = None,
    org: Annotated[str | None, typer.Option(help="Only about this org.")] = None,
    decision: Annotated[str | None, typer.Option(help="ALLOW, REQUIRE_HUMAN or DENY.")] = None,
    path: Annotated[str | None, typer.Option(help="Only of this path, such as gantral/authority/decision.")] = None,
    differs: Annotated[bool, typer.Option("--differs", help="Only where shadow policies decide otherwise.")] = False,
    since: Annotated[str | None, typer.Option(metavar="T", help="Decided at or after, RFC 3339.")] = None,
    until: Annotated[str | None, typer.Option(metavar="T", help="Decided at or before, RFC 3339.")] = None,
    cursor: Annotated[str | None, typer.Option(help="Where the page before ended.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Decisions to print.")] = 20,
    json: Json = False,
    data: Data = None,
    queries: Queries = None,
    url: Url = None,
    token: Token = None,
    config: Config = None,
) -> None:
    """Print decisions, newest first."""
    filters = {
        "agent": agent, "team": team, "workflow": workflow, "org": org, "decision": decision, "path": path,
        "shadow": "differs" if differs else None, "since": since, "until": until, "cursor": cursor,
    }  # fmt: skip
    settings = settings_of(config, data=data, queries=queries)
    with open_target(settings, service_url(call, url, data=data, queries=queries), token) as target:
        page = target.decisions(limit=limit, **{name: value for name, value in filters.items() if value is not None})
    if json:
        print_json(page)
    else:
        print_page(page, "decisions", _COLUMNS, _IDS if not differs else ("shadow", *_IDS))


def decision(
    call: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The decision's id.")],
    data: Data = None,
    queries: Queries = None,
    url: Url = None,
    token: Token = None,
    config: Config = None,
) -> None:
    """Print a decision's whole record, as JSON."""
    settings = settings_of(config, data=data, queries=queries)
    with open_target(settings, service_url(call, url, data=data, queries=queries), token) as target:
        found: dict[str, Any] = target.decision(id_)
    print_json(found)


def outcome(
    call: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The decision's id.")],
    outcome: Annotated[str, typer.Option(help="succeeded, failed, timed_out or cancelled.")],
    amount_minor: Annotated[int | None, typer.Option(help="What was moved, in minor units.")] = None,
    currency: Annotated[str | None, typer.Option(help="Of the amount. [default: the one that was declared]")] = None,
    cost_microusd: Annotated[int | None, typer.Option(help="What it did cost, in millionths of a US dollar.")] = None,
    duration_ms: Annotated[int | None, typer.Option(help="How long it took, in ms.")] = None,
    input_tokens: Annotated[int | None, typer.Option(help="Tokens read by models.")] = None,
    output_tokens: Annotated[int | None, typer.Option(help="Tokens written by models.")] = None,
    error_type: Annotated[str | None, typer.Option(help="What kind of failure it was.")] = None,
    occurred_at: Annotated[str | None, typer.Option(metavar="T", help="When, RFC 3339. [default: now]")] = None,
    data: Data = None,
    queries: Queries = None,
    url: Url = None,
    token: Token = None,
    config: Config = None,
) -> None:
    """Say how the action of a decision ended: it is no longer in flight."""
    actual = {
        "amount_minor": amount_minor, "currency": currency, "cost_microusd": cost_microusd, "duration_ms": duration_ms,
        "input_tokens": input_tokens, "output_tokens": output_tokens, "error_type": error_type,
        "occurred_at": occurred_at,
    }  # fmt: skip
    settings = settings_of(config, data=data, queries=queries)
    given = {name: value for name, value in actual.items() if value is not None}
    with open_target(settings, service_url(call, url, data=data, queries=queries), token) as target:
        settled = target.outcome(id_, outcome, given)
    print_text(f"{settled['outcome']} at {settled['occurred_at']}, seq {settled['seq']}")
