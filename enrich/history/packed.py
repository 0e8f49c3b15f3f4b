"""Inline events as they wait for DuckDB: a few byte strings instead of hundreds of Python objects.

DuckDB reads the canonical JSON natively, without the GIL. A queue of unpacked batches would also make every full
garbage collection walk their lists: 50 000 single events stopped the process for 0.4 s.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from enrich.errors import JournalCorruptError, show
from enrich.events.canonical import canonical_events
from enrich.events.model import EventBatch

__all__ = ["PackedEvents", "PackedRecord", "pack", "packed_table"]

_PAUSE_SECONDS: Final = 50e-6
_PAUSE_ROWS: Final = 2_000
_NEWLINE: Final = 10


@dataclass(frozen=True, slots=True)
class PackedEvents:
    """`count` events: canonical JSON, a newline after each; int64 microseconds; 16-byte hashes, one after the other."""

    count: int
    lines: bytes
    occurred_us: bytes
    keys: bytes
    contents: bytes


#: first seq, recorded_at in microseconds, events
PackedRecord = tuple[int, int, PackedEvents]


def pack(batch: EventBatch) -> PackedEvents:
    """A batch as bytes; a single event takes about 2 us."""
    canonical = batch.canonical if batch.canonical is not None else canonical_events(batch)
    return PackedEvents(
        batch.n,
        b"\n".join((*canonical, b"")),
        array("q", batch.columns["occurred_at"]).tobytes(),
        b"".join(batch.keys),
        b"".join(batch.contents),
    )


def packed_table(records: Sequence[PackedRecord]) -> pa.Table:
    """The events of records in order, one row each: `line` (JSON), `occurred_us`, `seq`, `at_us` (int64), `key_hi`,
    `key_lo`, `content_hi`, `content_lo` (uint64).

    Raises:
        JournalCorruptError: a record says another number of events than it has, or has not a line or hash for each.
    """
    parts: list[tuple[bytes, bytes, bytes, bytes]] = []
    for start in range(0, len(records), _PAUSE_ROWS):
        some = [e for _, _, e in records[start : start + _PAUSE_ROWS]]
        parts.append(
            (
                b"".join([e.lines for e in some]),
                b"".join([e.occurred_us for e in some]),
                b"".join([e.keys for e in some]),
                b"".join([e.contents for e in some]),
            )
        )
        time.sleep(_PAUSE_SECONDS)  # a native wait gives the GIL to whoever waits for it
    lines, occurred, keys, contents = (b"".join(p) for p in zip(*parts, strict=True))
    places = np.array([(seq, at_us, e.count) for seq, at_us, e in records], dtype=np.int64)
    counts = places[:, 2]
    n = int(counts.sum())
    ends = np.flatnonzero(np.frombuffer(lines, np.uint8) == _NEWLINE) + 1
    if not (len(ends) == n == len(occurred) // 8 == len(keys) // 16 == len(contents) // 16):
        raise JournalCorruptError(
            f"records {show(records[0][0])} and following do not have the {show(n)} events that they say",
            seq=records[0][0],
        )
    offsets = np.zeros(n + 1, np.int64)
    offsets[1:] = ends
    starts = np.cumsum(counts) - counts
    key, content = (np.frombuffer(b, ">u8").reshape(-1, 2).astype(np.uint64) for b in (keys, contents))
    return pa.table(
        {
            "line": pa.Array.from_buffers(pa.large_string(), n, [None, pa.py_buffer(offsets), pa.py_buffer(lines)]),
            "occurred_us": pa.array(np.frombuffer(occurred, np.int64)),
            "seq": pa.array(np.arange(n, dtype=np.int64) + np.repeat(places[:, 0] - starts, counts)),
            "at_us": pa.array(np.repeat(places[:, 1], counts)),
            "key_hi": pa.array(np.ascontiguousarray(key[:, 0])),
            "key_lo": pa.array(np.ascontiguousarray(key[:, 1])),
            "content_hi": pa.array(np.ascontiguousarray(content[:, 0])),
            "content_lo": pa.array(np.ascontiguousarray(content[:, 1])),
        }
    )
