"""`enrich backup` and `enrich restore`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from enrich.cli.client import ServiceClient
from enrich.cli.options import Config, Data, Json, Token, Url, settings_of
from enrich.cli.output import errors, print_json, print_text
from enrich.cli.targets import service_named

if TYPE_CHECKING:
    from enrich.journal import Anchor

__all__ = ["backup", "restore"]


def backup(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A directory that is not there yet, or is empty.")],
    data: Data = None,
    url: Url = None,
    token: Token = None,
    history: Annotated[bool, typer.Option("--history", help="Have DuckDB's file in it, for a quick start.")] = False,
    json: Json = False,
    config: Config = None,
) -> None:
    """Back up a data directory: the journal and its sidecars up to one durable record, verified on the way.

    A service may go on using it: name the service by --url, which says what is durable, beside its --data. Nobody who
    records or decides waits meanwhile. A backup holds the journal's secret: keep it as you keep the data directory.
    """
    from enrich.engine.backups import make_backup  # imports that --help need not wait for

    directory = settings_of(config, data=data).data
    with _head(directory, url, token) as upto, _shown() as progress:
        made = make_backup(directory, target, upto, now_us=_now_us(), history=history, progress=progress)
    if json:
        print_json({"head": made.head.body(), "records": made.records, "events": made.events, "bytes": made.bytes})
    else:
        counts = f"{made.records} records, {made.events} events, {made.bytes} bytes"
        print_text(f"backed up to seq {made.head.seq}: {counts}")


def restore(
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="What `enrich backup` made.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A directory that is not there yet, or is empty.")],
    json: Json = False,
) -> None:
    """Make a data directory of a backup, everything in it verified.

    Its journal is a new one, with an id of its own: it holds the old records, and its first own record names the old
    head. Events, decisions, idempotency keys, suspensions and definitions are as they were at that record.
    """
    from enrich.engine.backups import restore_backup  # imports that --help need not wait for

    with _shown() as progress:
        made = restore_backup(backup, data, now_us=_now_us(), progress=progress)
    old = made.backup
    if json:
        print_json({"journal_id": made.journal_id, "seq": made.seq, "restored": old.head.body()})
    else:
        print_text(
            f"restored up to seq {old.head.seq} of journal {old.head.journal_id}: {old.records} records, {old.events} "
            f"events; journal {made.journal_id} goes on from seq {made.seq}"
        )


def _now_us() -> int:
    return time.time_ns() // 1000


@contextmanager
def _head(directory: Path, url: str | None, token: str | None) -> Iterator[Anchor]:
    """Up to where: what the service says is durable, or the head of a directory that is held meanwhile."""
    from enrich.journal import DirectoryLock, head_anchor, parse_anchor
    from enrich.journal.identity import journal_files

    if url is not None:
        with ServiceClient(url, token) as client:
            told = parse_anchor(client.anchor(), "the service's anchor")
        yield told
        return
    journal_files(directory)
    hint = "name it by --url http://127.0.0.1:8686 beside --data: it alone knows what is durable"
    with service_named(directory, hint):
        lock = DirectoryLock(directory)
    try:
        yield head_anchor(directory)
    finally:
        lock.release()


@contextmanager
def _shown() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each part."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors(), transient=True) as bars:
        tasks = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=max(1, total))
            bars.update(tasks[what], completed=done, total=max(1, total))

        yield progress
