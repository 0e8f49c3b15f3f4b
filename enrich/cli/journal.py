"""`enrich journal verify`."""

from __future__ import annotations

import typer
from rich.markup import escape

from enrich.cli.client import ServiceClient
from enrich.cli.options import Config, Data, Json, Token, Url, service_url, settings_of
from enrich.cli.output import errors, print_json, print_text

__all__ = ["group", "verify"]


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
