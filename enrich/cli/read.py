"""`enrich context`, `enrich events`, `enrich sql`: questions whose answer is printed."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from enrich.cli.options import AsOf, Config, Data, Json, Queries, Token, Url, service_url, settings_of
from enrich.cli.output import print_json, print_page, print_text
from enrich.cli.targets import open_target
from enrich.errors import BadRequestError, NotFoundError, show
from enrich.events.model import ENTITY_KEYS

__all__ = ["context", "events", "sql"]

#: shown whole, and the ids, which a narrow terminal folds
_COLUMNS: Final = ("seq", "occurred_at", "kind", "outcome")
_IDS: Final = ("agent_id", "team_id", "workflow_id", "actor_id")


def context(
    call: typer.Context,
    entity: Annotated[str, typer.Argument(metavar="ENTITY", help="agent, team, workflow, agent_workflow ...")],
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The entity's id; a pair has two.")],
    as_of: AsOf = None,
    select: Annotated[
        list[str] | None,
        typer.Option("--select", metavar="SIGNAL", help="Only these, such as agent.last_24h.failures; repeatable."),
    ] = None,
    data: Data = None,
    queries: Queries = None,
    url: Url = None,
    token: Token = None,
    config: Config = None,
) -> None:
    """Print an entity's signals as they stand under `history`, as JSON."""
    settings = settings_of(config, data=data, queries=queries)
    with open_target(settings, service_url(call, url, data=data, queries=queries), token) as target:
        print_json(target.entity(entity, ids, as_of, select or ()))


def events(
    call: typer.Context,
    agent: Annotated[str | None, typer.Option(help="Only this agent's.")] = None,
    team: Annotated[str | None, typer.Option(help="Only this team's.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Only this workflow's.")] = None,
    org: Annotated[str | None, typer.Option(help="Only this org's.")] = None,
    approver: Annotated[str | None, typer.Option(help="Only what this human or system decided.")] = None,
    kind: Annotated[str | None, typer.Option(help="execution, step or authority.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only this outcome.")] = None,
    since: Annotated[str | None, typer.Option(metavar="T", help="Occurred at or after, RFC 3339.")] = None,
    until: Annotated[str | None, typer.Option(metavar="T", help="Occurred at or before, RFC 3339.")] = None,
    cursor: Annotated[str | None, typer.Option(help="Where the page before ended.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Events to print.")] = 20,
    json: Json = False,
    data: Data = None,
    queries: Queries = None,
    url: Url = None,
    token: Token = None,
    config: Config = None,
) -> None:
    """Print events, newest first."""
    filters = {
        "agent": agent, "team": team, "workflow": workflow, "org": org, "approver": approver,
        "kind": kind, "outcome": outcome, "since": since, "until": until, "cursor": cursor,
    }  # fmt: skip
    settings = settings_of(config, data=data, queries=queries)
    with open_target(settings, service_url(call, url, data=data, queries=queries), token) as target:
        page = target.events(limit=limit, **{name: value for name, value in filters.items() if value is not None})
    if json:
        print_json(page)
    else:
        print_page(page, "events", _COLUMNS, _IDS)


def sql(
    call: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SET", help="A signal set, such as agent_reliability.")],
    entity: Annotated[str, typer.Argument(metavar="ENTITY", help="The set's entity.")],
    arguments: Annotated[list[str], typer.Argument(metavar="ID... [WINDOW]", help="Its id (a pair: two), a window.")],
    as_of: AsOf = None,
    data: Data = None,
    queries: Queries = None,
    url: Url = None,
    token: Token = None,
    config: Config = None,
) -> None:
    """Print a signal set as SQL to paste into DuckDB: prelude and query for one entity and window."""
    keys = ENTITY_KEYS.get(entity)
    if keys is None:
        raise NotFoundError(f"no entity {show(entity)}", code="unknown_entity", hint=", ".join(ENTITY_KEYS))
    ids, rest = arguments[: len(keys)], arguments[len(keys) :]
    if len(ids) < len(keys) or len(rest) > 1:
        raise typer.BadParameter(f"{entity} has {len(keys)} id(s), then comes at most one window")
    settings = settings_of(config, data=data, queries=queries)
    with open_target(settings, service_url(call, url, data=data, queries=queries), token) as target:
        owner = target.entity_of(name)
        if owner is not None and owner != entity:
            raise BadRequestError(
                f"set {show(name)} is about {show(owner)}, not {show(entity)}",
                code="wrong_entity",
                hint=f"enrich sql {name} {owner} {' '.join(key.upper() for key in ENTITY_KEYS[owner])}",
            )
        print_text(target.sql(name, ids, rest[0] if rest else None, as_of))
