"""`enrich backtest`: what changed policies and signals would have decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from enrich.cli.options import Config, Data, Json, Token, Url, service_url, settings_of
from enrich.cli.output import errors, print_json, print_text
from enrich.errors import BadRequestError, show

__all__ = ["backtest"]

_SUFFIXES: Final = (".parquet", ".csv", ".ndjson")


def backtest(
    call: typer.Context,
    policies: Annotated[
        Path | None, typer.Option("--policies", metavar="DIR", help="Changed policies. [default: the live ones]")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option("--queries", metavar="DIR", help="Changed signal sets. [default: the live ones]")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="T", help="Decided at or after, RFC 3339.")] = None,
    until: Annotated[str | None, typer.Option(metavar="T", help="Decided at or before, RFC 3339.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only about this agent.")] = None,
    team: Annotated[str | None, typer.Option(help="Only about this team.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Only about this workflow.")] = None,
    org: Annotated[str | None, typer.Option(help="Only about this org.")] = None,
    decision: Annotated[str | None, typer.Option(help="Only what was ALLOW, REQUIRE_HUMAN or DENY.")] = None,
    path: Annotated[
        str | None,
        typer.Option(help="Only of this path, which decisions known only as events are then asked at too."),
    ] = None,
    against: Annotated[
        str, typer.Option(help="recorded: what was decided; live: what the live policies say of it now.")
    ] = "recorded",
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="COLUMN=PATH",
            help="Where a column of an event stands in a synthesised input, such as action=context.action; repeatable.",
        ),
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option("--fail-on", metavar="KIND", help="End with 1 on such a flip: allow-to-deny ...; repeatable."),
    ] = None,
    max_slowdown: Annotated[
        float | None,
        typer.Option(min=0, help="End with 1 when the policies take more than so many times as long as the live ones."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=0, max=64, help="Processes that test beside each other. [default: one per core]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every flip: .parquet, .csv or .ndjson.", dir_okay=False)
    ] = None,
    live_policies: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory of the live policies. [default: the setting]")
    ] = None,
    live_queries: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory of the live signal sets. [default: the setting]")
    ] = None,
    json: Json = False,
    data: Data = None,
    url: Url = None,
    token: Token = None,
    config: Config = None,
) -> None:
    """Try changed policies or signals on the decisions of the past: what would have been decided, and why.

    Each decision is tested on what was known when it was made; those known only as events on what is known now of the
    time before them. Open-loop: what a changed decision would have changed later is not simulated. Ends with 1 when
    --fail-on or --max-slowdown says so.
    """
    from enrich.decisions.backtest.result import check_kinds, failures  # Polars: --help need not wait for it

    kinds = [kind.strip() for one in fail_on or () for kind in one.split(",")]
    check_kinds(kinds)
    _check_suffix(out)
    url = service_url(call, url, data=data, live_policies=live_policies, live_queries=live_queries)
    settings = settings_of(config, data=data, queries=live_queries, policies=live_policies)
    wanted: dict[str, Any] = {
        "since": since, "until": until, "agent": agent, "team": team, "workflow": workflow, "org": org,
        "decision": decision, "path": path, "against": against, "mapping": _mapping(mapping or ()),
    }  # fmt: skip
    wanted = {name: value for name, value in wanted.items() if value}
    if url is not None:
        body = _ask(url, token, policies, queries, wanted, out)
    else:
        body = _run(settings, policies, queries, {**wanted, "processes": processes}, out, whole=json)
    if json:
        print_json(body)
    else:
        from enrich.cli.backtest_view import report

        print_text(report(body))
    reasons = failures(body, kinds, max_slowdown)
    for reason in reasons:
        errors().print(f"[bold red]failed[/]: {reason}", soft_wrap=True)
    if reasons:
        raise typer.Exit(1)


def _run(
    settings: Any, policies: Path | None, queries: Path | None, wanted: dict[str, Any], out: Path | None, *, whole: bool
) -> dict[str, Any]:
    """On the data directory, with a bar for how far it is."""
    from enrich.cli.targets import has_journal, open_engine, refuse_no_data

    if not has_journal(settings.data):
        raise refuse_no_data(settings.data)
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with open_engine(settings) as engine, Progress(*columns, console=errors(), transient=True) as bar:
        task = bar.add_task("testing decisions", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        found = engine.backtests.run(policies=policies, queries=queries, progress=progress, **wanted)
    if out is not None:
        _write(found.frame, out)
    return found.body(None if whole else 0)


def _ask(
    url: str, token: str | None, policies: Path | None, queries: Path | None, wanted: dict[str, Any], out: Path | None
) -> dict[str, Any]:
    """Through the service: what is tried travels as texts."""
    from enrich.cli.client import ServiceClient
    from enrich.decisions.backtest.result import flips_of
    from enrich.decisions.backtest.texts import policy_texts, query_texts

    if policies is not None:
        wanted["policies"] = policy_texts(policies)
    if queries is not None:
        wanted["queries"] = query_texts(queries)
    with ServiceClient(url, token) as client, errors().status("the service tests decisions"):
        body = client.backtest(wanted)
    if out is not None:
        _write(flips_of(body), out)
    return body


def _mapping(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for one in given:
        column, equals, path = one.partition("=")
        if not equals:
            raise BadRequestError(
                f"--map {show(one)} maps nothing",
                code="invalid_mapping",
                hint="write COLUMN=PATH, such as action=context.action",
            )
        found[column] = path
    return found


def _check_suffix(out: Path | None) -> None:
    if out is not None and out.suffix not in _SUFFIXES:
        raise BadRequestError(
            f"--out {show(str(out))} is of no kind that is written",
            code="invalid_parameter",
            hint=f"kinds: {', '.join(_SUFFIXES)}",
        )


def _write(frame: Any, out: Path) -> None:
    """The flips as a file; in CSV what is a list is JSON."""
    import polars as pl

    from enrich.decisions.backtest.flips import json_text

    writers: dict[str, Callable[[Path], Any]] = {".parquet": frame.write_parquet, ".ndjson": frame.write_ndjson}
    if out.suffix == ".csv":
        lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]
        texts = [pl.Series(n, [json_text(v) for v in frame[n].to_list()], dtype=pl.String) for n in lists]
        frame.with_columns(texts).write_csv(out)
        return
    writers[out.suffix](out)
