"""Events and faulty disks for the journal's tests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from enrich.events.arrow import with_hashes
from enrich.events.model import COLUMNS, RUN_OUTCOMES, EventBatch
from enrich.journal import Journal
from enrich.journal.disk import Disk

__all__ = ["NOW_US", "FaultyDisk", "batch", "fill", "fill_segments", "open_journal"]

NOW_US = 1_795_000_000_000_000


def batch(n: int, hash_key: bytes, *, seed: int = 0, wide: bool = True) -> EventBatch:
    """`n` events with ids that no other seed has."""
    random_ = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for i in range(n):
        row: dict[str, Any] = {
            "occurred_at": NOW_US - random_.randrange(10**12),
            "source": "ci",
            "event_id": f"{seed}-{i}",
            "kind": "execution",
            "outcome": random_.choice(RUN_OUTCOMES),
            "agent_id": f"agent-{random_.randrange(9)}",
        }
        if wide:
            row |= {
                "team_id": "Zahlung \u00fc\u20ac\U0001f600",
                "error_type": random_.choice([None, 'quote " back \\ slash']),
                "duration_ms": random_.randrange(2**63),
                "amount_minor": random_.choice([None, 0, 2**63 - 1]),
                "attributes": random_.choice([None, {}, {"region": "eu", "retry": 2, "paid": True}]),
            }
        rows.append(row)
    columns = {c: [row.get(c) for row in rows] for c in COLUMNS}
    return with_hashes(EventBatch(n, columns, [], []), hash_key)


def open_journal(directory: Path, **settings: Any) -> Journal:
    """A journal that never waits for the disk and never dies by the process's failpoint."""
    return Journal.open(directory, **{"fsync": False, "failpoint": lambda name: None, **settings})


def fill(journal: Journal, sizes: Sequence[int], *, seed: int = 0) -> int:
    """One record of events per size, each durable before the next; returns the last seq."""
    last = journal.head.seq
    for i, n in enumerate(sizes):
        prepared = journal.prepare_events(batch(n, journal.hash_key, seed=seed * 1000 + i))
        last = journal.append(prepared).last_seq
        journal.wait_durable(last)
    return last


def fill_segments(journal: Journal, closed: int) -> int:
    """Records of one event until so many segments are closed and the open one has lines; returns the last seq."""
    last = journal.head.seq
    while len(list(journal.directory.glob("*.manifest.json"))) < closed or not journal._open.lines:
        last = fill(journal, [1], seed=1_000_000 + last)
    return last


class FaultyDisk(Disk):
    """A disk whose calls fail on demand.

    `fail_sync`, `fail_truncate`: the OSError that the next calls raise. `room`: how many bytes may still be written,
    None for no limit. `free`: what `free_bytes` answers.
    """

    def __init__(self) -> None:
        super().__init__(fsync=False)
        self.fail_sync: OSError | None = None
        self.fail_truncate: OSError | None = None
        self.room: int | None = None
        self.free = 1 << 40

    def write(self, fd: int, parts: Sequence[bytes | memoryview]) -> int:
        if self.room is None:
            return super().write(fd, parts)
        data = b"".join(parts)[: self.room]
        if not data:
            raise OSError(28, "No space left on device")
        self.room -= len(data)
        return super().write(fd, [data])

    def truncate(self, fd: int, size: int) -> None:
        if self.fail_truncate is not None:
            raise self.fail_truncate
        super().truncate(fd, size)

    def datasync(self, fd: int) -> None:
        if self.fail_sync is not None:
            raise self.fail_sync
        super().datasync(fd)

    def free_bytes(self, path: Path) -> int:
        return self.free
