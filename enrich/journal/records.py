"""Records as followers read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from enrich.errors import JournalCorruptError
from enrich.events.canonical import parse_rfc3339_us
from enrich.events.model import EventBatch
from enrich.journal.bodies import CARRYING, batch_of_events
from enrich.journal.bodycheck import BodyCheck
from enrich.journal.format import Position, corrupt
from enrich.journal.identity import Identity
from enrich.journal.recovery import BEGINNING
from enrich.journal.segment import Line, Manifest, Scan, scan, segment_path
from enrich.journal.sidecar import read_sidecar, sidecar_path

__all__ = ["Record", "read_records"]


class Record:
    """One record: of `count` events the first has `seq`; `body` and `batch` are read when they are asked for."""

    __slots__ = ("_batch", "_directory", "_hash_key", "_line", "at_us", "count", "hash", "seq", "sidecar", "type")

    def __init__(self, line: Line, directory: Path, hash_key: bytes) -> None:
        header = line.header
        self.seq = header.seq
        self.count = header.count
        self.type = header.type
        self.hash = header.hash
        self.at_us = parse_rfc3339_us(header.at)
        digest = line.sidecar
        self.sidecar: Path | None = None if digest is None else sidecar_path(directory, digest)
        self._line = line
        self._directory = directory
        self._hash_key = hash_key
        self._batch: EventBatch | None = None

    def __repr__(self) -> str:
        return f"Record(seq={self.seq}, count={self.count}, type={self.type!r}, hash={self.hash[:12]!r})"

    @property
    def last_seq(self) -> int:
        return self.seq + self.count - 1

    @property
    def position(self) -> Position:
        """What a follower that has applied this record stores."""
        return Position(self.last_seq, self.hash)

    @property
    def body(self) -> dict[str, Any] | None:
        """The body, decoded; None when it was pruned."""
        body: dict[str, Any] | None = orjson.loads(self._line.body)
        return body

    @property
    def batch(self) -> EventBatch | None:
        """The events of an `events` record or the one that a decision or an outcome carries; None for what has none
        (left)."""
        if self._batch is None:
            self._batch = self._read_batch()
        return self._batch

    def _read_batch(self) -> EventBatch | None:
        if self.sidecar is not None:
            try:
                return read_sidecar(self.sidecar, self._hash_key)
            except FileNotFoundError as error:
                raise corrupt("the sidecar is missing", self.sidecar.name, seq=self.seq) from error
        read = batch_of_events if self.type == "events" else CARRYING.get(self.type)
        if read is None:
            return None
        body: Mapping[str, Any] | None = self.body
        return None if body is None else read(body, self._hash_key)


def read_records(
    directory: Path,
    manifests: Sequence[Manifest],
    written: Sequence[tuple[int, int]],
    after: int,
    identity: Identity,
    verified_through: int,
) -> Iterator[Record]:
    """The records after `after` of closed segments, then of the first bytes of the `written` ones (number, bytes).

    Bodies of lines up to `verified_through` are checked here; the others were at the start, or are this process's own.

    Raises:
        JournalCorruptError, NewerFormatError
    """
    end, last_at = identity.beginning, BEGINNING
    sources: list[tuple[int, int | None, Manifest | None]] = [(m.number, m.file_bytes, m) for m in manifests]
    sources += [(number, size, None) for number, size in written]
    check = BodyCheck(directory, identity, every_row=False)
    for number, size, manifest in sources:
        if manifest is not None and manifest.last_seq <= after:
            end, last_at = identity.after(manifest.end), manifest.last_at
            continue
        path = segment_path(directory, number)
        state = Scan(end, last_at)
        for line in scan(path, state, after=after, limit=size):
            if line.header.last_seq <= verified_through:
                check.see(path.name, line)
            yield Record(line, directory, identity.hash_key)
        if manifest is not None and state.end != manifest.end:
            raise JournalCorruptError(
                f"{path.name} does not end as its manifest says", file=path.name, seq=state.end.seq, reason="end"
            )
        end, last_at = identity.after(state.end), state.last_at
    for problem in check.problems():
        raise corrupt(problem.reason, problem.file, problem.line, problem.seq)
