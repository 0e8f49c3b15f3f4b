"""Processes that replay beside each other, each a range of the journal: this is Python, and one core is not enough.

They are started by their module's name, so that a caller's script needs no guard of its own. What an engine's open
DuckDB holds reaches them as a Parquet file; a directory without an engine they open themselves, read-only.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import duckdb

from enrich.decisions.replay.policy import PolicyReplay
from enrich.decisions.replay.reasons import Replayed
from enrich.decisions.replay.run import Item, Progress, Work, run_items
from enrich.decisions.replay.signals import Events
from enrich.decisions.replay.source import Source
from enrich.errors import EvaluationError
from enrich.history.connection import open_database
from enrich.journal import verify

__all__ = ["main", "run_beside"]

#: fewer decisions than this are quicker done here than a process is started
_FEW: Final = 2_000


@dataclass(frozen=True, slots=True)
class _Job:
    """What a process is given. `source` has no events: where they are is said by `path`, with the rest beside it."""

    source: Source
    work: Work
    items: Sequence[Item]
    path: Path | None
    parquet: bool
    applied_seq: int
    pruned_before_us: int | None


def run_beside(
    source: Source,
    work: Work,
    items: Sequence[Item],
    progress: Progress | None,
    processes: int | None,
    policy: PolicyReplay | None,
) -> tuple[list[Replayed], list[str]]:
    """All items, and what verifying the whole journal meanwhile has found."""
    count = _Count(len(items), progress)
    share = processes if processes is not None else (1 if len(items) < _FEW else os.cpu_count() or 1)
    if share <= 1:
        done = run_items(source, work, items, count.add, policy)
        return done, _problems(source)
    size = -(-len(items) // share)
    ranges = [items[at : at + size] for at in range(0, len(items), size)]
    with ExitStack() as stack:
        path, parquet = stack.enter_context(_events_file(source))
        events = source.events
        applied, pruned = (0, None) if events is None else (events.applied_seq, events.pruned_before_us)
        bare = replace(source, events=None, settings=source.settings.model_copy(update=_secrets(source)))
        jobs = [_Job(bare, work, some, path, parquet, applied, pruned) for some in ranges]
        crew = [stack.enter_context(_started(job, count)) for job in jobs]
        problems = _problems(source)
        return [one for member in crew for one in member.results()], problems


def _secrets(source: Source) -> dict[str, Any]:
    """Settings that no process needs to know."""
    return {name: () for name in type(source.settings).model_fields if name.startswith("tokens_")}


def _problems(source: Source) -> list[str]:
    report = verify(source.files.parent)
    return [f"{p.file}{'' if p.line is None else f', line {p.line}'}: {p.reason}" for p in report.problems]


class _Count:
    """Adds up what processes have done."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done = total, progress, 0
        self._lock = threading.Lock()

    def add(self, more: int) -> None:
        with self._lock:
            self._done += more
            if self._progress is not None:
                self._progress(self._done, self._total)


@contextmanager
def _events_file(source: Source) -> Iterator[tuple[Path | None, bool]]:
    """A file that other processes can read events from, and whether it is Parquet."""
    events = source.events
    if events is None:
        yield None, False
        return
    if getattr(events.source, "read_only", False):
        yield events.source.path, False  # type: ignore[attr-defined]
        return
    with tempfile.TemporaryDirectory(prefix="enrich-replay-") as directory:
        path = Path(directory) / "events.parquet"
        with events.source.cursor() as cursor:
            cursor.execute(
                f"COPY (SELECT * FROM {events.relation} WHERE seq <= {events.applied_seq:d} ORDER BY seq)"
                f" TO '{str(path).replace(chr(39), chr(39) * 2)}' (FORMAT parquet)"
            )
        yield path, True


class _Member:
    """One process, and a thread that listens to it."""

    def __init__(self, job: _Job, count: _Count) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "enrich.decisions.replay.crew"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._count = count
        self._results: list[Replayed] | None = None
        self._thread = threading.Thread(target=self._listen, args=(job,), name="enrich-replay", daemon=True)
        self._thread.start()

    def _listen(self, job: _Job) -> None:
        given, told = self._process.stdin, self._process.stdout
        if given is None or told is None:
            return
        try:
            with given:
                pickle.dump(job, given, pickle.HIGHEST_PROTOCOL)
            while True:
                said = pickle.load(told)  # from a process of our own
                if isinstance(said, int):
                    self._count.add(said)
                else:
                    self._results = said
                    return
        except (OSError, EOFError, pickle.UnpicklingError):
            return

    def results(self) -> list[Replayed]:
        """Wait for them.

        Raises:
            EvaluationError: `replay_failed`; the process ended without.
        """
        self._thread.join()
        if self._results is None:
            raise EvaluationError(
                f"a process of the replay ended with {self._process.wait()}", code="replay_failed"
            )
        return self._results

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def _started(job: _Job, count: _Count) -> Iterator[_Member]:
    member = _Member(job, count)
    try:
        yield member
    finally:
        member.end()


@contextmanager
def _events_of(job: _Job) -> Iterator[Events | None]:
    if job.path is None:
        yield None
        return
    limit = job.source.settings.duckdb_memory_limit
    if job.parquet:
        connection = duckdb.connect(config={"threads": 1, "memory_limit": limit})
        connection.execute("SET TimeZone = 'UTC'")
        name = str(job.path).replace("'", "''")
        connection.execute(
            f"CREATE VIEW events AS SELECT * REPLACE (attributes::JSON AS attributes) FROM read_parquet('{name}')"
        )
    else:
        connection = open_database(job.path, threads=1, memory_limit=limit, read_only=True)
    with connection:
        yield Events(connection, "events", job.applied_seq, job.pruned_before_us)


def main(given: BinaryIO, told: BinaryIO) -> None:
    """A process's whole life: a job in, numbers of what is done and then the results out."""
    job: _Job = pickle.load(given)  # from the process that started this one

    def tell(what: int | list[Replayed]) -> None:
        pickle.dump(what, told, pickle.HIGHEST_PROTOCOL)
        told.flush()

    report: Callable[[int], None] = tell
    with _events_of(job) as events:
        tell(run_items(replace(job.source, events=events), job.work, job.items, report, None))


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
