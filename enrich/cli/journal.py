"""`enrich journal verify`, `enrich journal anchor` and `enrich journal cut`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from enrich.cli.client import ServiceClient
from enrich.cli.options import Config, Data, Json, Token, Url, service_url, settings_of
from enrich.cli.output import errors, print_json, print_text
from enrich.cli.targets import service_named
from enrich.errors import BadRequestError, ConfigError, show

if TYPE_CHECKING:
    from enrich.engine.cut import JournalCut
    from enrich.journal import Anchor

__all__ = ["anchor", "cut", "group", "verify"]


def group() -> None:
    """The journal: what the engine learned and decided, in order."""


def verify(
    call: typer.Context,
    anchors: Annotated[
        list[str] | None,
        typer.Option("--anchor", metavar="FILE", help="Anchors that the journal must bear out; - is standard input."),
    ] = None,
    data: Data = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
    config: Config = None,
) -> None:
    """Verify the whole journal: chain, bodies, sidecars, manifests. Ends with 1 when anything does not verify.

    With --anchor it also has to have the records that `enrich journal anchor` told of before: a chain that was
    replaced or cut verifies on its own. Ends with 3 when it verifies and is not the one that was anchored.

    It reads files only: a service may go on using the directory meanwhile.
    """
    kept = [one for name in anchors or () for one in _read_anchors(name)]
    url = service_url(call, url, data=data)
    if url is not None:
        with ServiceClient(url, token) as client:
            report = client.verify([one.body() for one in kept])
    else:
        from enrich.journal import verify as verify_journal  # imports that --help need not wait for
        from enrich.service.operations import verify_body

        with errors().status("verifying"):
            report = verify_body(verify_journal(settings_of(config, data=data).data, anchors=kept))
    if json:
        print_json(report)
    else:
        for problem in report["problems"]:
            text = ", ".join(f"{name} {value}" for name, value in problem.items() if value is not None)
            errors().print(f"[bold red]problem[/]: {escape(text)}", soft_wrap=True)
        for problem in report["anchor_problems"]:
            errors().print(f"[bold red]{problem['code']}[/]: {escape(problem['reason'])}", soft_wrap=True)
        names = ("segments", "records", "events", "sidecars", *(("anchors",) if report["anchors"] else ()))
        counts = ", ".join(f"{report[name]} {name}" for name in names)
        print_text(f"{'ok' if report['ok'] else 'NOT OK'}: {counts}")
    if not report["ok"]:
        raise typer.Exit(1 if report["problems"] else 3)


def _read_anchors(name: str) -> list[Anchor]:
    """
    Raises:
        BadRequestError: `invalid_anchor`; there is none, or a line is no anchor.
        ConfigError: the file can't be read.
    """
    from enrich.journal import read_anchors  # imports that --help need not wait for

    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"the anchors {show(name)} can't be read: {error.strerror}") from error
    where = "standard input" if name == "-" else Path(name).name
    found = read_anchors(data, where)
    if not found:
        # a journal that was held against nothing would be told as one that was held against something
        raise BadRequestError(f"{where} has no anchor", code="invalid_anchor")
    return found


def anchor(
    call: typer.Context,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Append it to this file instead of printing it.")
    ] = None,
    data: Data = None,
    url: Url = None,
    token: Token = None,
    config: Config = None,
) -> None:
    """Print the journal's head, to be kept where whoever can write the data directory can't.

    One line of JSON: journal_id, seq, hash, at. `enrich journal verify --anchor FILE` and the setting `anchors` show
    later that the journal still has that very record, and so everything before it. Of a running service it is the last
    durable record; ask that with --url.
    """
    from enrich.journal import directory_anchor, parse_anchor  # imports that --help need not wait for

    url = service_url(call, url, data=data)
    if url is not None:
        with ServiceClient(url, token) as client:
            found = parse_anchor(client.anchor(), "the service's anchor")
    else:
        directory = settings_of(config, data=data).data
        with service_named(directory, "ask it: what is durable it alone knows; use --url http://127.0.0.1:8686"):
            found = directory_anchor(directory)
    if out is None:
        print_text(found.encode().decode())
        return
    try:
        with out.open("ab") as file:
            file.write(found.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"the anchor can't be written to {show(str(out))}: {error.strerror}") from error


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
