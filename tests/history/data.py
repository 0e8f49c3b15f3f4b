"""Records, batches and a journal whose durable seq the test moves."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enrich.events.model import COLUMNS, INT_COLUMNS, EventBatch
from enrich.history.records import RecordLike
from enrich.journal.disk import Disk
from enrich.journal.format import Position, genesis_hash
from enrich.journal.sidecar import DIRECTORY, write_sidecar

JOURNAL_ID = "0123456789abcdef0123456789abcdef"
BASE_US = 1_790_000_000_000_000
AT_US = 1_795_000_000_000_000


@dataclass(frozen=True)
class Rec:
    seq: int
    count: int
    type: str
    at_us: int
    hash: str
    batch: EventBatch | None = None
    sidecar: Path | None = None
    body: Any = None


def make_batch(n: int, seed: int = 0, *, spread_us: int = 86_400_000_000) -> EventBatch:
    """`n` events with ties in time, nulls, attributes and text beyond ASCII."""
    r = random.Random(seed)
    columns: dict[str, list[Any]] = {c: [] for c in COLUMNS}
    for i in range(n):
        row: dict[str, Any] = {
            "occurred_at": BASE_US + r.randrange(spread_us) // 7 * 7,
            "source": "temporal",
            "event_id": f"ev-{seed}-{i}",
            "kind": r.choice(["execution", "step"]),
            "outcome": r.choice(["succeeded", "failed", "timed_out"]),
            "agent_id": r.choice(["agent-1", "agent-2", "Größe-π", None]),
            "team_id": f"team-{r.randrange(3)}",
            "attributes": r.choice([None, {"n": 2**53 + 1, "ok": True, "tool": 'sé"l'}]),
        }
        row |= {c: r.choice([None, 0, r.randrange(2**62), 2**63 - 1]) for c in INT_COLUMNS}
        for c in COLUMNS:
            columns[c].append(row.get(c))
    digests = [hashlib.blake2b(f"{seed}/{i}".encode(), digest_size=32).digest() for i in range(n)]
    return EventBatch(n, columns, [d[:16] for d in digests], [d[16:] for d in digests])


def single(batch: EventBatch, i: int) -> EventBatch:
    return batch.take([i])


def to_sidecar(directory: Path, batch: EventBatch) -> Path:
    (directory / DIRECTORY).mkdir(exist_ok=True)
    return write_sidecar(directory, batch, Disk(fsync=False), lambda _: None)[1]


def records_of(
    batches: list[EventBatch | Path | str], counts: list[int] | None = None, *, first_seq: int = 1
) -> list[Rec]:
    """Records in order: a batch stands inline, a path is a sidecar of `counts[i]` events, a text is another type."""
    records = []
    seq = first_seq
    for i, item in enumerate(batches):
        at = AT_US + seq
        digest = hashlib.sha256(f"{seq}".encode()).hexdigest()
        if isinstance(item, EventBatch):
            records.append(Rec(seq, item.n, "events", at, digest, item))
        elif isinstance(item, Path):
            assert counts is not None
            records.append(Rec(seq, counts[i], "events", at, digest, None, item))
        else:
            records.append(Rec(seq, 1, item, at, digest))
        seq += records[-1].count
    return records


@dataclass
class MemoryJournal:
    """Appends to a list; nothing is durable until the test says so."""

    journal_id: str = JOURNAL_ID
    records: list[Rec] = field(default_factory=list)
    durable: Position = field(default_factory=lambda: Position(0, genesis_hash(JOURNAL_ID)))
    reads: int = 0

    @property
    def head(self) -> Position:
        return self.position_of(self.records[-1]) if self.records else Position(0, genesis_hash(self.journal_id))

    @staticmethod
    def position_of(record: RecordLike) -> Position:
        return Position(record.seq + record.count - 1, record.hash)

    def append(self, record: Rec, *, durable: bool = True) -> Rec:
        self.records.append(record)
        if durable:
            self.sync()
        return record

    def sync(self) -> None:
        self.durable = self.head

    def now_us(self) -> int:
        return AT_US + 10_000_000

    def read(self, after: int = 0) -> Iterator[Rec]:
        self.reads += 1
        return iter([r for r in self.records if r.seq + r.count - 1 > after])
