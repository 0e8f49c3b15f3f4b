"""Idempotency keys: which events are new, which were here before, and who is just now writing them.

All keys of all events within retention are held in memory: 32 bytes per key in sorted runs, a dict for the newest.
Content hashes are compared by their first 64 bits (keyed, so that nobody can look for a collision). Times are kept
to six hours: a key is held that much longer than its event at most.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from enrich.journal._runs import SEQ_MASK, U64, PendingRun, Run, merge, pack, period, split

__all__ = ["KeyStore", "Reservation"]

_SHARD_BITS: Final = 4
_SHARDS: Final = 1 << _SHARD_BITS
_LOW_BITS: Final = 64 - _SHARD_BITS
#: batches up to this size are looked up key by key
_FEW: Final = 24
#: a dict this big is turned into a run
_TAIL: Final = 4096
#: a shard's fresh keys move to its base past this many, and past an eighth of the base
_FRESH: Final = 8192
_RATIO: Final = 8
_SEQ_BITS: Final = SEQ_MASK.bit_length()

#: key to its content hash's first eight bytes and the packed eight, as they stand in a run
_Tail = dict[bytes, bytes]


@dataclass(slots=True, eq=False)
class Reservation:
    """What became of a batch's keys, by index into it, ascending; `new` ones are this writer's until commit or release.

    Attributes:
        new: to be accepted, if the writer manages to append them.
        duplicates: here already with the same content (in the store, or earlier in this batch).
        conflicts: here already with other content.
        known_seq: the highest seq of an original in the store, of duplicates and of conflicts: once it is durable, what
            is said of them is; 0 when there is none.
    """

    owner: Hashable
    new: list[int]
    duplicates: list[int]
    conflicts: list[int]
    known_seq: int
    done: bool = False
    _keys: Sequence[bytes] = field(default=(), repr=False)
    _key_set: frozenset[bytes] = field(default=frozenset(), repr=False)
    _contents: Sequence[bytes] = field(default=(), repr=False)
    _pending: PendingRun | None = field(default=None, repr=False)
    _waiting: list[threading.Lock] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class _Held:
    """Everything that holds keys at one moment; the dicts may still grow, the rest never changes."""

    tails: tuple[_Tail, ...]
    pending: tuple[PendingRun, ...]
    fresh: tuple[Run, ...]
    base: tuple[Run, ...]


def _empty(shard: int) -> Run:
    none: U64 = np.empty(0, np.uint64)
    return Run(none, none, none, none, shard << _LOW_BITS, _LOW_BITS)


class KeyStore:
    """Thread-safe. `merge_step` is called from a background thread; without it all stays right, only slower."""

    def __init__(self) -> None:
        self._reserving = threading.Lock()  # who reserves; never taken in the ordered step
        self._lock = threading.Lock()  # `_held`; held for a few instructions only
        self._merging = threading.Lock()  # one merge at a time
        self._reserved: dict[bytes, Reservation] = {}
        self._large: list[Reservation] = []
        self._held = _Held(({},), (), tuple(map(_empty, range(_SHARDS))), tuple(map(_empty, range(_SHARDS))))
        self._loading: list[list[Run]] = [[] for _ in range(_SHARDS)]
        self._unsettled = False
        self._cutoff = 0

    def __len__(self) -> int:
        self.settle()
        held = self._held
        return (
            sum(map(len, held.tails)) + sum(map(len, (*held.fresh, *held.base))) + sum(len(p.hi) for p in held.pending)
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the runs, and an estimate for the dicts."""
        held = self._held
        runs = sum(r.nbytes for r in (*held.fresh, *held.base, *(r for part in self._loading for r in part)))
        return runs + sum(40 * len(p.hi) for p in held.pending) + sum(270 * len(t) for t in held.tails)

    # -- writers --------------------------------------------------------------------------------------------------

    def check_and_reserve(
        self,
        keys: Sequence[bytes],
        contents: Sequence[bytes],
        owner: Hashable = None,
        *,
        timeout: float | None = None,
    ) -> Reservation:
        """Tell new keys from duplicates and conflicts, and reserve the new ones, all or none.

        A key that another writer has reserved is waited for: afterwards it is a duplicate or a conflict, or this
        writer's if the other one failed. A writer that waits holds nothing, so writers can't wait for each other in
        a circle.

        Args:
            keys, contents: 16-byte hashes, one per event.
            owner: whatever tells writers apart in a debugger.
            timeout: seconds to wait for other writers at most.

        Raises:
            TimeoutError: another writer kept a key for longer than that.
        """
        if self._unsettled:
            self.settle()
        reservation = Reservation(owner, [], [], [], 0, _keys=keys, _contents=contents)
        large = len(keys) > _FEW
        if large:
            reservation._key_set = frozenset(keys)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._reserving:
                other = self._holder(reservation)
                if other is None:
                    if large:
                        self._large = [r for r in self._large if not r.done]
                        self._large.append(reservation)
                    else:
                        for key in keys:
                            self._reserved[key] = reservation
                    break
                gate = threading.Lock()
                gate.acquire()
                other._waiting.append(gate)
                if other.done:  # it may have been told to wake its waiters before this one came
                    continue
            left = -1.0 if deadline is None else max(0.0, deadline - time.monotonic())
            if not gate.acquire(timeout=left):
                raise TimeoutError(f"another writer has kept a key reserved for more than {timeout} s")
        try:
            # INVARIANT: read after the keys were reserved; whoever had them before has put them there by then
            self._look_up(reservation, self._held)
        except BaseException:
            self.release(reservation)
            raise
        if not reservation.new:
            self.release(reservation)
        return reservation

    def commit(self, reservation: Reservation, first_seq: int, occurred_at_us: Sequence[int]) -> None:
        """The new events were appended: new event i has seq `first_seq` + i. Quick: it is called in the ordered step.

        Args:
            occurred_at_us: of the new events, in order; the list is kept and must not change.

        Raises:
            ValueError: the reservation is over, or has another number of new events.
        """
        if reservation.done:
            raise ValueError("the reservation was committed or released before")
        if len(occurred_at_us) != len(reservation.new):
            raise ValueError(f"{len(reservation.new)} events are new, {len(occurred_at_us)} times are given")
        pending = reservation._pending
        if pending is not None:
            pending.place(first_seq, occurred_at_us)
            with self._lock:
                held = self._held
                self._held = _Held(held.tails, (*held.pending, pending), held.fresh, held.base)
        else:
            with self._lock:
                tail = self._held.tails[-1]
                for n, i in enumerate(reservation.new):
                    packed = period(occurred_at_us[n]) << _SEQ_BITS | (first_seq + n)
                    tail[reservation._keys[i]] = reservation._contents[i][:8] + packed.to_bytes(8)
        self._end(reservation)

    def release(self, reservation: Reservation) -> None:
        """The writer gives up: its new keys are free, and the next one who waits takes over. Again does no harm."""
        if not reservation.done:
            self._end(reservation)

    def _end(self, reservation: Reservation) -> None:
        # INVARIANT: what was committed is to be found first, then the keys are let go, then `done`, then waiters are
        # woken. No lock: each step is one atomic operation; until `done` nobody else can have put these keys into
        # `_reserved` before they are taken out (once each), and a waiter looks at `done` again after it has queued.
        if not reservation._key_set:
            for key in set(reservation._keys):
                self._reserved.pop(key, None)
        reservation.done = True
        waiting = reservation._waiting
        while waiting:
            waiting.pop().release()

    def _holder(self, asking: Reservation) -> Reservation | None:
        """Another writer's reservation of any of the same keys."""
        if asking._key_set:
            if self._reserved and not self._reserved.keys().isdisjoint(asking._key_set):
                for key in asking._key_set & self._reserved.keys():
                    other = self._reserved.get(key)
                    if other is not None and not other.done:
                        return other
            for other in self._large:
                if not other.done and not other._key_set.isdisjoint(asking._key_set):
                    return other
            return None
        for key in asking._keys:
            other = self._reserved.get(key)
            if other is not None and not other.done:
                return other
            for large in self._large:
                if not large.done and key in large._key_set:
                    return large
        return None

    # -- looking up -----------------------------------------------------------------------------------------------

    def _look_up(self, reservation: Reservation, held: _Held) -> None:
        if reservation._key_set:
            found, content, packed = self._find_many(reservation, held)
            if len(reservation._key_set) == len(reservation._keys) and not found.any():
                reservation.new = list(range(len(found)))
                return
            mine, _ = split(reservation._contents)
            same = found & (content == mine)
            if found.any():
                reservation.known_seq = int((packed[found] & np.uint64(SEQ_MASK)).max())
            self._sort_out(reservation, found.tolist(), same.tolist())
            _keep_new(reservation)
            return
        founds, sames = [], []
        for key, content_hash in zip(reservation._keys, reservation._contents, strict=True):
            entry = self._find(key, held)
            founds.append(entry is not None)
            sames.append(entry is not None and entry[0] == int.from_bytes(content_hash[:8]))
            if entry is not None:
                reservation.known_seq = max(reservation.known_seq, entry[1] & SEQ_MASK)
        self._sort_out(reservation, founds, sames)

    @staticmethod
    def _sort_out(reservation: Reservation, found: list[bool], same: list[bool]) -> None:
        keys, contents = reservation._keys, reservation._contents
        first: dict[bytes, int] = {}
        for i, key in enumerate(keys):
            if found[i]:
                (reservation.duplicates if same[i] else reservation.conflicts).append(i)
            elif (before := first.setdefault(key, i)) == i:
                reservation.new.append(i)
            elif contents[before] == contents[i]:
                reservation.duplicates.append(i)
            else:
                reservation.conflicts.append(i)

    def _find(self, key: bytes, held: _Held) -> tuple[int, int] | None:
        cutoff = self._cutoff
        for tail in held.tails:
            entry = _unpacked(tail.get(key), cutoff)
            if entry is not None:
                return entry
        hi, lo = int.from_bytes(key[:8]), int.from_bytes(key[8:])
        for pending in held.pending:
            entry = pending.run().find(hi, lo, cutoff)
            if entry is not None:
                return entry
        shard = hi >> _LOW_BITS
        return held.fresh[shard].find(hi, lo, cutoff) or held.base[shard].find(hi, lo, cutoff)

    def _find_many(self, reservation: Reservation, held: _Held) -> tuple[npt.NDArray[np.bool_], U64, U64]:
        """(found, content, packed) by index; on the way the batch is sorted for its own run."""
        keys, key_set, cutoff, n = reservation._keys, reservation._key_set, self._cutoff, len(reservation._keys)
        all_hi, all_lo = split(keys)
        order = np.argsort(all_hi)
        hi, lo = all_hi[order], all_lo[order]
        contents, _ = split(reservation._contents)
        reservation._pending = PendingRun(hi, lo, contents[order], order)
        found, content, packed = np.zeros(n, np.bool_), np.zeros(n, np.uint64), np.zeros(n, np.uint64)
        for pending in held.pending:
            pending.run().find_many(hi, lo, cutoff, found, content, packed)
        edges = [*np.searchsorted(hi, np.arange(_SHARDS, dtype=np.uint64) << np.uint64(_LOW_BITS)).tolist(), n]
        for shard in range(_SHARDS):
            part = slice(edges[shard], edges[shard + 1])
            for run in (held.fresh[shard], held.base[shard]):
                run.find_many(hi[part], lo[part], cutoff, found[part], content[part], packed[part])
        back = np.empty(n, np.int64)
        back[order] = np.arange(n)
        found, content, packed = found[back], content[back], packed[back]
        for tail in held.tails:
            if tail.keys().isdisjoint(key_set):
                continue
            for i, key in enumerate(keys):
                entry = _unpacked(tail.get(key), cutoff)
                if entry is not None:
                    found[i] = True
                    content[i], packed[i] = entry
        return found, content, packed

    # -- start, and behind the scenes -----------------------------------------------------------------------------

    def load(self, keys: U64, contents: U64, seq: npt.NDArray[np.int64], occurred_at_us: npt.NDArray[np.int64]) -> None:
        """Take keys in bulk at the start, in blocks of any order; `settle` when all are there.

        Args:
            keys, contents: uint64 of shape (n, 2): the first and the last eight bytes, big-endian.
            seq, occurred_at_us: int64 of shape (n,).
        """
        columns = (
            np.ascontiguousarray(keys[:, 0], np.uint64), np.ascontiguousarray(keys[:, 1], np.uint64),
            np.ascontiguousarray(contents[:, 0], np.uint64), pack(np.asarray(occurred_at_us), np.asarray(seq)),
        )  # fmt: skip
        shards = (columns[0] >> np.uint64(_LOW_BITS)).astype(np.uint8)
        order = np.argsort(shards, kind="stable")
        edges = np.searchsorted(shards[order], np.arange(_SHARDS + 1)).tolist()
        with self._merging:
            self._unsettled = True
            for shard in range(_SHARDS):
                rows = order[edges[shard] : edges[shard + 1]]
                if len(rows):
                    self._loading[shard].append(_unsorted(*(c[rows] for c in columns)))

    def settle(self) -> None:
        """Sort what was loaded; about 0.1 us per key."""
        with self._merging:
            for shard, parts in enumerate(self._loading):
                if parts:
                    fresh, base = self._held.fresh[shard], self._held.base[shard]
                    few = sum(map(len, parts)) < len(base) // _RATIO  # the base stays as it is, perhaps on disk
                    run = merge([*parts, fresh if few else base], shard << _LOW_BITS, _LOW_BITS, self._cutoff)
                    self._loading[shard] = []
                    self._swap(shard, *((run, base) if few else (fresh, run)))
            self._unsettled = False

    def add(
        self, keys: Sequence[bytes], contents: Sequence[bytes], first_seq: int, occurred_at_us: Sequence[int]
    ) -> None:
        """Take the keys of a record that is in the journal already: event i has seq `first_seq` + i."""
        seqs = np.arange(first_seq, first_seq + len(keys), dtype=np.int64)
        self.load(
            np.column_stack(split(keys)), np.column_stack(split(contents)), seqs, np.asarray(occurred_at_us, np.int64)
        )

    def expire(self, before_us: int) -> None:
        """Events that occurred before this have left retention: their keys are as if never seen (to six hours).

        At once for whoever asks; the memory comes back with the next `merge_step`s.
        """
        self._cutoff = max(self._cutoff, period(before_us))

    def snapshot(self) -> Callable[[], tuple[tuple[Run, ...], tuple[Run, ...]]]:
        """All keys committed up to now, in O(1): what is returned does the work, and gives what `restore` takes.

        The caller keeps commits away until this returns; what is committed later is not part of it.
        """
        if self._unsettled:
            self.settle()
        with self._lock:
            held = self._held
            tails = [tail for tail in held.tails if tail]  # INVARIANT: none of them grows any more
            if held.tails[-1]:
                self._held = _Held((*held.tails, {}), held.pending, held.fresh, held.base)
        return lambda: (_spread([*map(_run_of, tails), *(p.run() for p in held.pending)], held.fresh), held.base)

    def restore(self, fresh: Sequence[Run], base: Sequence[Run]) -> None:
        """Take the runs of a snapshot into an empty store, as they are.

        Raises:
            ValueError: they are not a snapshot's of this version.
        """
        shards = [shard << _LOW_BITS for shard in range(_SHARDS)]
        if [r.place[0] for r in fresh] != shards or [r.place[0] for r in base] != shards:
            raise ValueError(f"{len(fresh)} and {len(base)} runs are no snapshot")
        with self._merging, self._lock:
            self._held = _Held(({},), (), tuple(fresh), tuple(base))

    def merge_step(self) -> bool:
        """One bounded piece of background work, NumPy for the most part; False when there is nothing to do."""
        with self._merging:
            held = self._held
            if len(held.tails[-1]) >= _TAIL or len(held.tails) > 1:
                self._freeze()
                return True
            if held.pending:
                self._take_in(held.pending)
                return True
            for shard in range(_SHARDS):
                fresh, base = held.fresh[shard], held.base[shard]
                grown = len(fresh) >= max(_FRESH, len(base) // _RATIO)
                if grown or min(fresh.oldest, base.oldest) < self._cutoff:
                    run = merge((base, fresh), shard << _LOW_BITS, _LOW_BITS, self._cutoff)
                    self._swap(shard, _empty(shard), run)
                    return True
            return False

    def _freeze(self) -> None:
        """The tail becomes a pending run; writers get a new one at once."""
        with self._lock:
            held = self._held
            if len(held.tails) == 1:
                self._held = held = _Held((held.tails[0], {}), held.pending, held.fresh, held.base)
        run = _run_of(held.tails[0])
        pending = PendingRun(run.hi, run.lo, run.content, np.empty(0, np.int64))
        pending._run = run
        with self._lock:
            held = self._held
            self._held = _Held(held.tails[1:], (*held.pending, pending), held.fresh, held.base)

    def _take_in(self, pending: tuple[PendingRun, ...]) -> None:
        """Pending runs move into the shards' fresh runs."""
        fresh = _spread([p.run() for p in pending], self._held.fresh, self._cutoff)
        with self._lock:
            held = self._held
            self._held = _Held(held.tails, held.pending[len(pending) :], fresh, held.base)

    def _swap(self, shard: int, fresh: Run, base: Run) -> None:
        with self._lock:
            held = self._held
            self._held = _Held(
                held.tails, held.pending,
                (*held.fresh[:shard], fresh, *held.fresh[shard + 1 :]),
                (*held.base[:shard], base, *held.base[shard + 1 :]),
            )  # fmt: skip


def _unpacked(value: bytes | None, cutoff: int) -> tuple[int, int] | None:
    if value is None:
        return None
    packed = int.from_bytes(value[8:])
    return (int.from_bytes(value[:8]), packed) if packed >> _SEQ_BITS >= cutoff else None


def _unsorted(hi: U64, lo: U64, content: U64, packed: U64) -> Run:
    """Columns on their way into `merge`; a run of its own only by type."""
    run = Run.__new__(Run)
    run.hi, run.lo, run.content, run.packed = hi, lo, content, packed
    run.oldest = int(packed.min()) >> _SEQ_BITS if len(packed) else 0
    run._slots, run._bits = np.empty(0, np.uint32).data, np.empty(0, np.uint8)
    return run


def _run_of(tail: _Tail) -> Run:
    hi, lo = split(list(tail))
    content, packed = split(list(tail.values()))
    return merge([_unsorted(hi, lo, content, packed)])


def _spread(runs: Sequence[Run], fresh: tuple[Run, ...], cutoff: int = 0) -> tuple[Run, ...]:
    """The shards' runs with the entries of `runs` taken in."""
    if not any(map(len, runs)):
        return fresh
    together = merge(runs, cutoff=cutoff)
    marks = np.arange(_SHARDS, dtype=np.uint64) << np.uint64(_LOW_BITS)
    edges = [*np.searchsorted(together.hi, marks).tolist(), len(together)]
    spread = []
    for shard, run in enumerate(fresh):
        part = slice(edges[shard], edges[shard + 1])
        if part.start == part.stop:
            spread.append(run)
            continue
        piece = _unsorted(together.hi[part], together.lo[part], together.content[part], together.packed[part])
        spread.append(merge((run, piece), shard << _LOW_BITS, _LOW_BITS, cutoff))
    return tuple(spread)


def _keep_new(reservation: Reservation) -> None:
    """The batch's own run holds its new keys only, ranked among themselves."""
    pending = reservation._pending
    if pending is None or not reservation.new:
        return
    new = np.zeros(len(reservation._keys), np.bool_)
    new[reservation.new] = True
    ranks = np.cumsum(new) - 1
    keep = new[pending._rank]
    reservation._pending = PendingRun(
        pending.hi[keep], pending.lo[keep], pending.content[keep], ranks[pending._rank[keep]]
    )
