"""What the history reads of the journal: records in order, and how far the disk has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from enrich.errors import JournalCorruptError, show
from enrich.events.canonical import parse_rfc3339_us
from enrich.events.model import EventBatch
from enrich.history.packed import PackedEvents, pack
from enrich.journal.format import Position

__all__ = ["AppendedLike", "JournalLike", "PreparedLike", "QueuedRecord", "RecordLike"]


class RecordLike(Protocol):
    """One journal record; of `count` events the first has `seq`, the others follow without gaps.

    Events stand in `batch`, or in the Parquet file `sidecar`, or in both; other types have neither.
    """

    @property
    def seq(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def at_us(self) -> int: ...
    @property
    def hash(self) -> str: ...
    @property
    def batch(self) -> EventBatch | None: ...
    @property
    def sidecar(self) -> Path | None: ...
    @property
    def body(self) -> Any: ...


class PreparedLike(Protocol):
    """A record before the ordered step: everything but its place."""

    @property
    def type(self) -> str: ...
    @property
    def batch(self) -> EventBatch | None: ...
    @property
    def sidecar(self) -> Path | None: ...
    @property
    def body(self) -> Any: ...


class AppendedLike(Protocol):
    """The place that a record was given."""

    @property
    def seq(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def at_us(self) -> int: ...
    @property
    def hash(self) -> str: ...


class JournalLike(Protocol):
    """The journal as a follower sees it."""

    @property
    def journal_id(self) -> str: ...
    @property
    def head(self) -> Position: ...
    @property
    def durable(self) -> Position: ...
    def now_us(self) -> int: ...
    def read(self, after: int = 0) -> Iterator[RecordLike]: ...


@dataclass(frozen=True, slots=True)
class QueuedRecord:
    """A record as the history keeps it until it is applied: events packed, or in the sidecar, or none."""

    seq: int
    count: int
    type: str
    at_us: int
    hash: str
    packed: PackedEvents | None
    sidecar: Path | None
    prune_before_us: int | None = None

    @classmethod
    def of(cls, prepared: PreparedLike, appended: AppendedLike) -> QueuedRecord:
        """From what `append` was given and what it answered; a record of `Journal.read` is both.

        Raises:
            JournalCorruptError: the record has another number of events than it says.
        """
        packed = None
        before_us = _events_before_us(prepared.body) if prepared.type == "prune" else None
        if prepared.sidecar is None:
            batch = prepared.batch
            if batch is not None:
                if batch.n != appended.count:
                    raise JournalCorruptError(
                        f"record {show(appended.seq)} has {show(batch.n)} events and says {show(appended.count)}",
                        seq=appended.seq,
                    )
                packed = pack(batch)
        return cls(
            appended.seq,
            appended.count,
            prepared.type,
            appended.at_us,
            appended.hash,
            packed,
            prepared.sidecar,
            before_us,
        )

    @property
    def last_seq(self) -> int:
        """The sequence number of the last event (of the record itself when it has none)."""
        return self.seq + self.count - 1


def _events_before_us(body: Any) -> int | None:
    """From when on a `prune` record keeps events, in microseconds; None when it prunes none.

    Args:
        body: of a record that is about to be appended, as bytes, or of one that was read, decoded.
    """
    document = orjson.loads(body) if isinstance(body, bytes) else body
    text = (document or {}).get("events_before")
    return None if text is None else parse_rfc3339_us(text)
