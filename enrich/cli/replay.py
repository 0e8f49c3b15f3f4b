"""`enrich replay`: whether what was decided still stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from enrich.cli.client import ServiceClient
from enrich.cli.options import Config, Data, Json, Token, Url, service_url, settings_of
from enrich.cli.output import errors, print_json, print_text
from enrich.errors import BadRequestError, LockedError, show
from enrich.settings import Settings

__all__ = ["replay"]

_SHOWN: Final = 20
_PAGE: Final = 1_000


def replay(
    call: typer.Context,
    id_: Annotated[str | None, typer.Argument(metavar="[ID]", help="The decision's id.", show_default=False)] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every decision, and the journal as a whole.")] = False,
    since: Annotated[str | None, typer.Option(metavar="T", help="Decided at or after, RFC 3339.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="INCONCLUSIVE ends with 1 too.")] = False,
    json: Json = False,
    data: Data = None,
    url: Url = None,
    token: Token = None,
    config: Config = None,
) -> None:
    """Replay decisions: their lines in the journal, the policy, and the signals. Ends with 1 when any is INVALID.

    With a directory it reads files only and needs no engine that opens: also what does not verify is told decision by
    decision. Without INVALID ones it ends with 1 when the journal as a whole does not verify.
    """
    if [id_ is not None, all_ or since is not None].count(True) != 1:
        raise BadRequestError("name a decision, or give --all or --since", code="nothing_to_replay")
    url = service_url(call, url, data=data)
    if url is not None:
        with ServiceClient(url, token) as client:
            found, problems = _remote(client, id_, since)
    else:
        found, problems = _local(settings_of(config, data=data), id_, since)
    if json:
        print_json(found[0] if id_ is not None else {"problems": problems, "decisions": found})
    elif id_ is not None:
        _print_one(found[0])
    else:
        _print_all(found, problems)
    verdicts = {one["verdict"] for one in found}
    if problems or "INVALID" in verdicts or (strict and "INCONCLUSIVE" in verdicts):
        raise typer.Exit(1)


def _local(settings: Settings, id_: str | None, since: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    from enrich.decisions.replay import open_offline, replay_all, replay_one  # imports that --help need not wait for
    from enrich.engine.asked import moment_us

    since_us = None if since is None else moment_us(since)
    try:
        with open_offline(settings.data, settings) as source:
            if id_ is not None:
                return [replay_one(source, id_).body()], []
            with _progress() as told:
                report = replay_all(source, since_us=since_us, progress=told)
    except LockedError as error:
        hint = "ask it: use --url http://127.0.0.1:8686 (or where it listens) instead of --data"
        raise LockedError(f"a running service holds {show(str(settings.data))}", hint=hint) from error
    return [one.body() for one in report.decisions], list(report.problems)


def _remote(client: ServiceClient, id_: str | None, since: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Each decision asked of the service, whose DuckDB nobody else can open; and its own word on the journal."""
    if id_ is not None:
        return [client.replay(id_)], []
    ids: list[str] = []
    filters: dict[str, Any] = {"limit": _PAGE, "since": since}
    while True:
        page = client.decisions(**filters)
        ids += [one["decision_id"] for one in page["decisions"]]
        if not page["next_cursor"]:
            break
        filters["cursor"] = page["next_cursor"]
    found = []
    with _progress() as told:
        for n, one in enumerate(reversed(ids), 1):
            found.append(client.replay(one))
            told(n, len(ids))
    return found, []


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors(), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _print_one(one: Mapping[str, Any]) -> None:
    print_text(f"{one['verdict']}: {one['decision_id']}, seq {one['seq']}, checked {', '.join(one['checked'])}")
    for reason in one["reasons"]:
        print_text(f"  {reason['code']}: {reason['message']}")


def _print_all(found: Sequence[Mapping[str, Any]], problems: Sequence[str]) -> None:
    for problem in problems:
        errors().print(f"[bold red]problem[/]: {escape(problem)}", soft_wrap=True)
    doubtful = [one for one in found if one["verdict"] != "VALID"]
    for one in doubtful[:_SHOWN]:
        _print_one(one)
    if len(doubtful) > _SHOWN:
        print_text(f"... and {len(doubtful) - _SHOWN} more: --json has them all")
    reasons = Counter(reason["code"] for one in found for reason in one["reasons"])
    if reasons:
        print_text("reasons: " + ", ".join(f"{code} {n}" for code, n in reasons.most_common()))
    counts = Counter(one["verdict"] for one in found)
    shown = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("VALID", "INVALID", "INCONCLUSIVE"))
    print_text(f"{len(found)} decisions: {shown}")
