"""Sorted runs of idempotency keys in NumPy: 32 bytes per key, searched one at a time or by the thousand.

A key's 16 bytes are two uint64, `hi` and `lo`. Runs are ordered by `hi` alone (keyed hashes: two keys of 10 million
share it with a probability of 3e-6), so a search looks at all entries of equal `hi`. Beside the key stand the first
eight bytes of its content hash, and one uint64 that packs when the event occurred (18 bits, six-hour periods since
2000) over its seq (46 bits).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["SEQ_MASK", "U64", "PendingRun", "Run", "merge", "pack", "period", "split"]

U64 = npt.NDArray[np.uint64]

_EPOCH_US: Final = 946_684_800_000_000
_PERIOD_US: Final = 6 * 3_600_000_000
_SEQ_BITS: Final = 46
SEQ_MASK: Final = (1 << _SEQ_BITS) - 1
_LAST_PERIOD: Final = (1 << (64 - _SEQ_BITS)) - 1
#: a run's directory has about a slot for every 2 ** this many entries
_PER_SLOT_BITS: Final = 5
#: and its marks (one bit per possible beginning of `hi`, set where there is one) are 4 to 8 per entry
_MARKS_PER_KEY_BITS: Final = 2


def period(occurred_at_us: int) -> int:
    """The six-hour period since 2000 of a time, within what 18 bits hold (until 2179)."""
    return min(max((occurred_at_us - _EPOCH_US) // _PERIOD_US, 0), _LAST_PERIOD)


def pack(occurred_at_us: npt.NDArray[np.int64], seq: npt.NDArray[np.int64]) -> U64:
    """Periods over seqs."""
    periods = np.clip((occurred_at_us - _EPOCH_US) // _PERIOD_US, 0, _LAST_PERIOD).astype(np.uint64)
    packed: U64 = (periods << np.uint64(_SEQ_BITS)) | seq.astype(np.uint64)
    return packed


def split(hashes: Sequence[bytes]) -> tuple[U64, U64]:
    """16-byte hashes as (first eight bytes, last eight bytes), big-endian."""
    both = np.frombuffer(b"".join(hashes), dtype=">u8").reshape(-1, 2)
    return both[:, 0].astype(np.uint64), both[:, 1].astype(np.uint64)


class Run:
    """Immutable entries sorted by `hi`, all of them in [low, low + 2**bits).

    Attributes:
        hi, lo, content, packed: uint64 arrays of one length.
        oldest: the first period that any entry has.
        saved: where it stands on disk, see `_saved`.
    """

    __slots__ = (
        "_bits",
        "_bits_shift",
        "_low",
        "_shift",
        "_slots",
        "_views",
        "content",
        "hi",
        "lo",
        "oldest",
        "packed",
        "saved",
    )

    def __init__(self, hi: U64, lo: U64, content: U64, packed: U64, low: int = 0, bits: int = 64) -> None:
        self.hi, self.lo, self.content, self.packed = hi, lo, content, packed
        self.oldest = int(packed.min()) >> _SEQ_BITS if len(packed) else _LAST_PERIOD
        slot_bits = max(0, len(hi).bit_length() - _PER_SLOT_BITS)
        self._low, self._shift = low, bits - slot_bits
        edges = (np.arange(1, 1 << slot_bits, dtype=np.uint64) << np.uint64(self._shift)) + np.uint64(low)
        slots = np.concatenate([[0], np.searchsorted(hi, edges), [len(hi)]]).astype(np.uint32)
        self._slots = slots.data
        mark_bits = min(bits, len(hi).bit_length() + _MARKS_PER_KEY_BITS)
        self._bits_shift = bits - mark_bits
        marks = np.zeros(1 << mark_bits, np.bool_)
        marks[(hi - np.uint64(low)) >> np.uint64(self._bits_shift)] = True
        self._bits = np.packbits(marks, bitorder="little")
        self._views = (hi.data, lo.data, content.data, packed.data)  # items of a memoryview are ints, and quicker
        self.saved: dict[str, Any] | None = None

    @property
    def place(self) -> tuple[int, int, int]:
        """(the lowest `hi` there may be, and how far `hi` is shifted to find its slot and its mark)."""
        return self._low, self._shift, self._bits_shift

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """All that `of_arrays` needs beside `oldest` and `place`."""
        return self.hi, self.lo, self.content, self.packed, np.asarray(self._slots), self._bits

    @classmethod
    def of_arrays(cls, arrays: Sequence[npt.NDArray[Any]], oldest: int, place: tuple[int, ...]) -> Run:
        """The run that `arrays`, `oldest` and `place` were taken from; nothing is copied."""
        run = cls.__new__(cls)
        run.hi, run.lo, run.content, run.packed, slots, run._bits = arrays
        run._slots, run.oldest = slots.data, oldest
        run._low, run._shift, run._bits_shift = place
        run._views = (run.hi.data, run.lo.data, run.content.data, run.packed.data)
        run.saved = None
        return run

    def __len__(self) -> int:
        return len(self.hi)

    @property
    def nbytes(self) -> int:
        return 32 * len(self.hi) + self._slots.nbytes + self._bits.nbytes

    def find(self, hi: int, lo: int, cutoff: int) -> tuple[int, int] | None:
        """(content, packed) of a key whose period is not before `cutoff`; None when it is not here."""
        slots, slot = self._slots, (hi - self._low) >> self._shift
        at, end = slots[slot], slots[slot + 1]
        if at == end:
            return None
        his, los, contents, packeds = self._views
        at = bisect_left(his, hi, at, end)
        while at < end and his[at] == hi:
            if los[at] == lo:
                packed: int = packeds[at]
                if packed >> _SEQ_BITS >= cutoff:
                    return contents[at], packed
            at += 1
        return None

    def find_many(self, hi: U64, lo: U64, cutoff: int, found: npt.NDArray[np.bool_], content: U64, packed: U64) -> None:
        """`find` for needles sorted by `hi`: sets `found`, `content` and `packed` where a key is here."""
        if not len(self.hi) or not len(hi):
            return
        mark = (hi - np.uint64(self._low)) >> np.uint64(self._bits_shift)
        hits = np.flatnonzero(self._bits[mark >> np.uint64(3)] >> (mark & np.uint64(7)).astype(np.uint8) & np.uint8(1))
        if not len(hits):
            return
        where = np.searchsorted(self.hi, hi[hits])
        np.minimum(where, len(self.hi) - 1, out=where)
        equal = self.hi[where] == hi[hits]
        hits, where = hits[equal], where[equal]
        sure = (self.lo[where] == lo[hits]) & ((self.packed[where] >> np.uint64(_SEQ_BITS)) >= np.uint64(cutoff))
        exact = hits[sure]
        found[exact] = True
        content[exact] = self.content[where[sure]]
        packed[exact] = self.packed[where[sure]]
        for i in hits[~sure].tolist():  # expired, or another key with the same first eight bytes
            entry = self.find(int(hi[i]), int(lo[i]), cutoff)
            if entry is not None:
                found[i] = True
                content[i], packed[i] = entry


class PendingRun:
    """A batch's keys just committed, sorted before it was ordered; what depends on its place is computed when first
    read."""

    __slots__ = ("_first_seq", "_occurred_at", "_rank", "_run", "content", "hi", "lo")

    def __init__(self, hi: U64, lo: U64, content: U64, rank: npt.NDArray[np.int64]) -> None:
        self.hi, self.lo, self.content, self._rank = hi, lo, content, rank
        self._first_seq = 0
        self._occurred_at: Sequence[int] = ()
        self._run: Run | None = None

    def place(self, first_seq: int, occurred_at_us: Sequence[int]) -> None:
        """Event i of the batch got seq `first_seq` + i. O(1): this is called in the ordered step."""
        self._first_seq, self._occurred_at = first_seq, occurred_at_us

    def run(self) -> Run:
        run = self._run
        if run is None:  # two threads may both compute it; they compute the same
            times = np.fromiter(self._occurred_at, np.int64, len(self._occurred_at))[self._rank]
            run = self._run = Run(self.hi, self.lo, self.content, pack(times, self._rank + self._first_seq))
        return run


def merge(runs: Sequence[Run], low: int = 0, bits: int = 64, cutoff: int = 0) -> Run:
    """One run of all entries whose period is not before `cutoff`."""
    columns: list[U64] = [np.concatenate([getattr(r, c) for r in runs]) for c in ("hi", "lo", "content", "packed")]
    if cutoff and min((r.oldest for r in runs), default=cutoff) < cutoff:
        keep = (columns[3] >> np.uint64(_SEQ_BITS)) >= np.uint64(cutoff)
        columns = [c[keep] for c in columns]
    order = np.argsort(columns[0], kind="stable")  # timsort: linear over what is sorted already
    for i, column in enumerate(columns):  # one at a time, so that the old column goes before the next one comes
        columns[i] = column[order]
    hi, lo, content, packed = columns
    return Run(hi, lo, content, packed, low, bits)
