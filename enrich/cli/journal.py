"""`enrich journal verify` and `enrich journal cut`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from enrich.cli.client import ServiceClient
from enrich.cli.options import Config, Data, Json, Token, Url, service_url, settings_of
from enrich.cli.output import errors, print_json, print_text
from enrich.cli.targets import service_named
from enrich.errors import BadRequestError

if TYPE_CHECKING:
    from enrich.engine.cut import JournalCut

__all__ = ["cut", "group", "verify"]


def group() -> None:
    """The journal: what the engine learned and decided, in order."""


def verify(
    call: typer.Context,
    data: Data = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
    config: Config = None,
) -> None:
    """Verify the whole journal: chain, bodies, sidecars, manifests. Ends with 1 when anything does not verify.

    It reads files only: a service may go on using the directory meanwhile.
    """
    url = service_url(call, url, data=data)
    if url is not None:
        with ServiceClient(url, token) as client:
            report = client.verify()
    else:
        from enrich.journal import verify as verify_journal  # imports that --help need not wait for
        from enrich.service.operations import verify_body

        with errors().status("verifying"):
            report = verify_body(verify_journal(settings_of(config, data=data).data))
    if json:
        print_json(report)
    else:
        for problem in report["problems"]:
            text = ", ".join(f"{name} {value}" for name, value in problem.items() if value is not None)
            errors().print(f"[bold red]problem[/]: {escape(text)}", soft_wrap=True)
        counts = ", ".join(f"{report[name]} {name}" for name in ("segments", "records", "events", "sidecars"))
        print_text(f"{'ok' if report['ok'] else 'NOT OK'}: {counts}")
    if not report["ok"]:
        raise typer.Exit(1)


def cut(
    after: Annotated[int, typer.Option("--after", metavar="SEQ", min=0, help="The last seq that stays.")],
    data: Data = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = None,
) -> None:
    """Give up everything behind a record: for a journal that does not verify to its end, and has no copy.

    It shows what would be given up, and asks. Nothing is deleted: what is given up moves to *.cut files beside the
    journal, and so does whatever has seen it (DuckDB, saved index, keys), to be built again by the next start. Only
    while no service runs. Cut off before its end, it is simply run again.
    """
    from enrich.engine.cut import JournalCut  # imports that --help need not wait for

    directory = settings_of(config, data=data).data
    hint = "stop it first: a journal is cut while nobody writes to it"
    with errors().status("verifying what stays"), service_named(directory, hint):
        planned = JournalCut(directory, after)
    with planned:
        if not planned.needed:
            print_text(f"nothing lies behind seq {after}: nothing was changed")
            return
        _show(planned)
        if not yes:
            _confirm(after)
        made = planned.make()
    for path in made:
        errors().print(f"moved aside: {escape(str(path))}", soft_wrap=True)
    up = planned.plan.given_up
    print_text(f"cut after seq {after}: {up.records} records, {up.events} events given up")


def _show(planned: JournalCut) -> None:
    plan, up = planned.plan, planned.plan.given_up
    lines = [f"behind seq {plan.kept.seq}, this would be given up:"]
    unreadable = f" ({up.unreadable} of them can't be read)" if up.unreadable else ""
    lines.append(f"  {up.records} records{unreadable}, {up.events} events")
    if up.records:
        last = "where can't be read" if up.last_seq is None else up.last_seq
        lines.append(f"  from seq {plan.kept.seq + 1} to {last}")
    if up.first_at is not None:
        lines.append(f"  recorded {up.first_at} to {up.last_at}")
    if up.loose_bytes:
        lines.append(f"  {up.loose_bytes} bytes that end no line")
    lines += [f"  file {path.relative_to(plan.files.parent)}" for path in plan.paths]
    lines += [f"  {one.name} ({one.path.name}), at seq {one.position.seq}: built again" for one in planned.ahead]
    for line in lines:
        errors().print(escape(line), soft_wrap=True)


def _confirm(after: int) -> None:
    """
    Raises:
        BadRequestError: `not_confirmed`; there is nobody to ask.
        typer.Exit: with 1; the answer is no.
    """
    if not sys.stdin.isatty():
        raise BadRequestError(
            "a cut is to be confirmed, and standard input is no terminal; nothing was changed",
            code="not_confirmed",
            hint="give --yes when this is what you want",
        )
    if not typer.confirm(f"Cut the journal after seq {after}?", err=True):
        errors().print("nothing was changed")
        raise typer.Exit(1)
