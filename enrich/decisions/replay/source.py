"""What replay reads: a journal's files, and DuckDB where there is one. Nothing here is written to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import orjson

from enrich.decisions.evaluators import evaluator_of
from enrich.decisions.protocol import Evaluator
from enrich.decisions.replay.replayer import Copy
from enrich.decisions.replay.signals import Events
from enrich.decisions.replay.texts import Definitions
from enrich.errors import DataDirError, EnrichError, JournalCorruptError
from enrich.events.canonical import format_us
from enrich.history import FILE_NAME, History
from enrich.journal.bodies import body_problem
from enrich.journal.format import parse_line
from enrich.journal.identity import Identity, journal_files, read_identity
from enrich.journal.recovery import find_files
from enrich.journal.segment import segment_path
from enrich.journal.survey import Place, Survey, read_place
from enrich.settings import Settings

__all__ = [
    "DefinitionsIndex",
    "Known",
    "Source",
    "copies",
    "decision_places",
    "evaluators_of",
    "events_of",
    "open_offline",
    "read_definitions",
]

_MARK: Final = b'"type":"definitions"'


@dataclass(frozen=True, slots=True)
class Source:
    """Everything that replay reads.

    Attributes:
        identity: None when the journal's can't be read.
        events: None when there is no history at hand.
        until: the last seq of the journal to look at; None for all of it.
        problems: what was found on the way here.
    """

    files: Path
    identity: Identity | None
    events: Events | None
    until: int | None
    settings: Settings
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """A decision as DuckDB lists it."""

    seq: int
    copy: Copy
    row: Mapping[str, Any]


def copies(events: Events, since_us: int | None = None, decision_id: str | None = None) -> dict[int, Known]:
    """The decisions that DuckDB has, by seq."""
    conditions = ["true"]
    values: list[Any] = []
    if since_us is not None:
        conditions.append("as_of >= make_timestamptz(?)")
        values.append(since_us)
    if decision_id is not None:
        conditions.append("decision_id = ?")
        values.append(decision_id)
    with events.source.cursor() as cursor:
        rows = cursor.execute(
            "SELECT seq, decision_id, sha256(body::VARCHAR), epoch_us(as_of), path, decision FROM decisions"
            f" WHERE {' AND '.join(conditions)} ORDER BY seq",
            values,
        ).fetchall()
    return {
        seq: Known(seq, (id_, digest), {"as_of": format_us(as_of), "path": path, "decision": decision})
        for seq, id_, digest, as_of, path, decision in rows
    }


def read_definitions(survey: Survey) -> list[dict[str, Any]]:
    """The bodies of the definitions among the lines surveyed, of those that stand up to their hashes."""
    found = []
    for place in survey.places:
        if place.header is not None and place.header.type == "definitions" and place.problem is None:
            body = _body(place, read_place(survey.files, place))
            if body is not None:
                found.append(body)
    return found


def _body(place: Place, raw: bytes) -> dict[str, Any] | None:
    header = place.header
    if header is None or body_problem(header.type, 1, header.body_sha256, raw[header.body_start : -2]) is not None:
        return None
    body: dict[str, Any] = orjson.loads(raw[header.body_start : -2])
    return body


class DefinitionsIndex:
    """The definitions of a journal, found by going through its segments once; what was read before is not read again.

    Not thread-safe.
    """

    def __init__(self, files: Path) -> None:
        self.definitions = Definitions()
        self._files = files
        #: segment to its file and the bytes read of it; a pruned one is another, shorter file
        self._read: dict[int, tuple[int, int]] = {}

    def refresh(self) -> Definitions:
        """Take in what was written since."""
        segments, _ = find_files(self._files)
        for number in sorted(segments):
            for body in self._new_in(number):
                self.definitions.add(body)
        return self.definitions

    def _new_in(self, number: int) -> Iterator[dict[str, Any]]:
        path = segment_path(self._files, number)
        with open(path, "rb", buffering=1 << 20) as handle:
            now = os.fstat(handle.fileno())
            file, done = self._read.get(number, (now.st_ino, 0))
            if file != now.st_ino:
                done = 0
            if now.st_size <= done:
                return
            handle.seek(done)
            for raw in handle:
                if not raw.endswith(b"\n"):
                    break
                done += len(raw)
                if _MARK in raw[:100]:
                    body = self._sound(raw, path.name)
                    if body is not None:
                        yield body
        self._read[number] = now.st_ino, done

    @staticmethod
    def _sound(raw: bytes, file: str) -> dict[str, Any] | None:
        try:
            header = parse_line(raw, file=file, number=0)
        except EnrichError:
            return None
        if header.type != "definitions":
            return None
        return _body(Place(file, 0, 0, len(raw), header, None, None), raw)


def evaluators_of(settings: Settings) -> Callable[[str], Evaluator]:
    """An evaluator by the name that a record has; the one of the settings where there is none of that name."""
    known = get_args(Settings.model_fields["evaluator"].annotation)

    def named(name: str) -> Evaluator:
        if name in known and name != settings.evaluator:
            try:
                return evaluator_of(settings.model_copy(update={"evaluator": name}))
            except EnrichError:
                pass  # the settings do not say where it is
        return evaluator_of(settings)

    return named


@contextmanager
def open_offline(data: Path, settings: Settings) -> Iterator[Source]:
    """The source of a data directory that no engine has open, or that no engine can open.

    Raises:
        JournalCorruptError: there is no journal at all.
        LockedError: a running service has DuckDB's file.
    """
    files = journal_files(data)
    problems: list[str] = []
    identity: Identity | None = None
    try:
        identity = read_identity(files)
    except (JournalCorruptError, OSError) as error:
        problems.append(str(error))
    history: History | None = None
    if identity is not None and (data / FILE_NAME).exists():
        try:
            history = History.open(
                data,
                journal_id=identity.journal_id,
                threads=settings.duckdb_threads,
                memory_limit=settings.duckdb_memory_limit,
                read_only=True,
            )
        except DataDirError as error:
            problems.append(error.message)
    try:
        events = None if history is None else events_of(history)
        yield Source(files, identity, events, None, settings, tuple(problems))
    finally:
        if history is not None:
            history.close()


def events_of(history: History) -> Events:
    """The events of a history as it stands."""
    return Events(history, "events", history.position.seq, history.pruned_before_us())


def decision_places(survey: Survey, known: Iterable[int]) -> list[int]:
    """Indices of the lines that are decisions, or stand where DuckDB knows one."""
    wanted = set(known)
    return [
        i
        for i, p in enumerate(survey.places)
        if p.header is not None and (p.header.type == "decision" or p.header.seq in wanted)
    ]


