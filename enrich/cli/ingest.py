"""`enrich ingest`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from enrich.cli.client import ServiceClient
from enrich.cli.options import Config, Data, Json, Queries, Token, Url, service_url, settings_of
from enrich.cli.output import errors, print_json, print_text
from enrich.cli.targets import open_engine

if TYPE_CHECKING:
    from enrich.events.files import FileBatch

__all__ = ["ingest"]

_SHOWN = 10
#: small enough that a service parses it within milliseconds, and its other callers don't notice
_REMOTE_ROWS = 1_000
_LOCAL_ROWS = 10_000
_BATCH_BYTES = 4 << 20


@dataclass
class _Summary:
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    dropped_attributes: int = 0
    seq: int = 0
    first_rejections: list[str] = field(default_factory=list)

    def add(self, path: Path, batch: FileBatch, answer: dict[str, Any]) -> None:
        self.accepted += answer["accepted"]
        self.duplicates += answer["duplicates"]
        self.rejected += answer["rejected_count"]
        self.dropped_attributes += answer["dropped_attributes"]
        self.seq = max(self.seq, answer["seq"])
        for rejection in answer["rejected"][: _SHOWN - len(self.first_rejections)]:
            place = batch.places[rejection["index"]]
            self.first_rejections.append(f"{path}:{place}: {rejection['code']}: {rejection['message']}")


def ingest(
    call: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="NDJSON, plain or gzip, or Parquet.", exists=True, dir_okay=False),
    ],
    data: Data = None,
    queries: Queries = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
    config: Config = None,
) -> None:
    """Record the events of files, into a data directory or a running service.

    What was ingested before counts as duplicate, so an interrupted ingest is simply run again. Ends with 1 when any
    event was rejected.
    """
    settings = settings_of(config, data=data, queries=queries)
    summary = _Summary()
    url = service_url(call, url, data=data, queries=queries)
    if url is not None:
        with ServiceClient(url, token) as client:
            _each(files, _REMOTE_ROWS, summary, lambda batch: _post(client, batch))
    else:
        with open_engine(settings) as engine:
            _each(files, _LOCAL_ROWS, summary, lambda batch: engine.record(batch.events).body())
    _print(summary, json)
    if summary.rejected:
        raise typer.Exit(1)


def _each(files: list[Path], rows: int, summary: _Summary, record: Callable[[FileBatch], dict[str, Any]]) -> None:
    from enrich.events.files import read_events  # pyarrow: --help need not wait for it

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[events]} events"),
    )
    with Progress(*columns, console=errors(), transient=True) as progress:
        for path in files:
            task = progress.add_task(escape(path.name), total=max(1, path.stat().st_size), events=0)
            events = 0
            for batch in read_events(path, batch_rows=rows, batch_bytes=_BATCH_BYTES):
                summary.add(path, batch, record(batch))
                events += len(batch.events)
                progress.update(task, completed=batch.read_bytes, events=events)


def _post(client: ServiceClient, batch: FileBatch) -> dict[str, Any]:
    """Sends a batch. What this side could not decode goes as `null`, to be refused in its place; the reason is ours."""
    from enrich.events.frame import Frame
    from enrich.events.refusals import Unreadable

    events: Sequence[Any] = batch.events if isinstance(batch.events, list) else Frame.read(batch.events)
    answer = client.record(
        [b"null" if isinstance(event, Unreadable) else orjson.dumps(event, default=str) for event in events]
    )
    for rejection in answer["rejected"]:
        event = events[rejection["index"]]
        if isinstance(event, Unreadable):
            rejection |= {"code": event.code, "message": event.message}
    return answer


def _print(summary: _Summary, json: bool) -> None:
    if json:
        print_json({name: getattr(summary, name) for name in ("accepted", "duplicates", "rejected", "seq")})
        return
    console = errors()
    for rejection in summary.first_rejections:
        console.print(f"[red]rejected[/] {escape(rejection)}", soft_wrap=True)
    if summary.rejected > len(summary.first_rejections):
        console.print(f"... and {summary.rejected - len(summary.first_rejections)} more")
    if summary.dropped_attributes:
        console.print(f"{summary.dropped_attributes} attributes dropped: no signal reads them (see attributes_allow)")
    print_text(
        f"accepted {summary.accepted}, duplicate {summary.duplicates}, rejected {summary.rejected}, seq {summary.seq}"
    )
