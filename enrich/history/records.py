"""What the history reads of the journal: records in order, and how far the disk has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from enrich.errors import JournalCorruptError, show
from enrich.events.canonical import parse_rfc3339_us
from enrich.events.model import EventBatch
from enrich.history.packed import PackedEvents, pack
from enrich.journal.format import Position

__all__ = ["AppendedLike", "JournalLike", "PreparedLike", "QueuedRecord", "RecordLike"]

#: what an inline event takes in memory, or somewhat less
_EVENT_BYTES: Final = 512


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
class Prune:
    """What a `prune` record lets go of.

    Attributes:
        events_before_us: events that occurred before this no longer count; None: all still do.
        decisions_through: the decisions up to this seq have lost their bodies; 0: none has.
        observed_since_us: how far observed history had reached back, for a history that is built again without the
            events that said so.
    """

    events_before_us: int | None
    decisions_through: int
    observed_since_us: int | None

    @classmethod
    def of(cls, body: Any) -> Prune:
        """
        Args:
            body: of a record that is about to be appended, as bytes, or of one that was read, decoded.
        """
        document = (orjson.loads(body) if isinstance(body, bytes) else body) or {}
        before, since = document.get("events_before"), document.get("observed_since")
        return cls(
            None if before is None else parse_rfc3339_us(before),
            int(document.get("decisions_through", 0)),
            None if since is None else parse_rfc3339_us(since),
        )


@dataclass(frozen=True, slots=True)
class QueuedRecord:
    """A record as the history keeps it until it is applied: events packed, or in the sidecar, or none; of a decision
    or an outcome the body's bytes too."""

    seq: int
    count: int
    type: str
    at_us: int
    hash: str
    packed: PackedEvents | None
    sidecar: Path | None
    prune: Prune | None = None
    decision: bytes | None = None
    outcome: bytes | None = None
    #: its body was let go of: a later `prune` record says so, or reading the journal fails
    pruned: bool = False

    @classmethod
    def of(cls, prepared: PreparedLike, appended: AppendedLike) -> QueuedRecord:
        """From what `append` was given and what it answered; a record of `Journal.read` is both.

        Raises:
            JournalCorruptError: the record has another number of events than it says.
        """
        packed, pruned = None, False
        prune = Prune.of(prepared.body) if prepared.type == "prune" else None
        decision = _body_bytes(prepared.body) if prepared.type == "decision" else None
        outcome = _body_bytes(prepared.body) if prepared.type == "outcome" else None
        if prepared.sidecar is None:
            batch = prepared.batch
            pruned = batch is None and prepared.body is None
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
            prune,
            decision,
            outcome,
            pruned,
        )

    @property
    def last_seq(self) -> int:
        """The sequence number of the last event (of the record itself when it has none)."""
        return self.seq + self.count - 1

    @property
    def weight(self) -> int:
        """What it counts against a bound on memory, in events: those it holds, and the body of a decision or outcome by
        its size."""
        held = 1 if self.packed is None else self.packed.count
        return held + len(self.decision or self.outcome or b"") // _EVENT_BYTES


def _body_bytes(body: Any) -> bytes | None:
    """The canonical bytes of a body; None when it was pruned. Bodies as in `Prune.of`."""
    return body if body is None or isinstance(body, bytes) else orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
