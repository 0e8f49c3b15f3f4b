"""`enrich serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enrich.cli.options import Config, Data, Policies, Queries, every_setting, settings_of
from enrich.cli.output import errors
from enrich.cli.targets import open_engine

__all__ = ["serve"]


@every_setting
def serve(
    data: Data = None,
    queries: Queries = None,
    policies: Policies = None,
    config: Config = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; without tokens only loopback. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 takes a free one. [default: 8686]")] = None,
    uds: Annotated[Path | None, typer.Option(metavar="PATH", help="Listen on a Unix socket instead.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error. [default: info]")] = None,
    log_format: Annotated[str | None, typer.Option(help="json, or console for people. [default: json]")] = None,
    **more: str | None,
) -> None:
    """Serve a data directory over HTTP until SIGTERM; SIGHUP and changed files reload the definitions."""
    settings = settings_of(
        config,
        data=data,
        queries=queries,
        policies=policies,
        host=host,
        port=port,
        uds=uds,
        log_level=log_level,
        log_format=log_format,
        **more,
    )
    from enrich.service import configure_logs, serve_engine  # imports that --help need not wait for

    configure_logs(settings.log_level, settings.log_format)
    sources = [p for p in (settings.queries, settings.policies, settings.shadow_policies) if p is not None]
    with open_engine(settings) as engine:
        serve_engine(
            engine,
            settings,
            watch=sources if settings.reload_watch else (),
            started=lambda where: errors().print(f"listening on {where}"),
        )
