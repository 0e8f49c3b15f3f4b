"""The journal: prepare outside the order, append within it, durable together."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from enrich.errors import EnrichError, JournalCorruptError, JournalFailedError, JournalFullError, show
from enrich.events.canonical import canonical_events, format_us, parse_rfc3339_us
from enrich.events.model import EventBatch
from enrich.failpoints import Failpoint
from enrich.failpoints import failpoint as process_failpoint
from enrich.journal.bodies import (
    CARRYING,
    PreparedRecord,
    inline_body,
    leaves_sha256,
    new_salt,
    plain_body,
    sidecar_body,
)
from enrich.journal.disk import BUSY_ERRNOS, FULL_ERRNOS, Disk
from enrich.journal.format import TYPES, Position, encode_head
from enrich.journal.identity import (
    FILE,
    Identity,
    create_identity,
    migrate,
    read_identity,
    refuse_unfinished,
)
from enrich.journal.lock import DirectoryLock
from enrich.journal.prune import Ranges, take_place, write_aside_elsewhere
from enrich.journal.prune import finish as finish_pruning
from enrich.journal.records import Record, read_records
from enrich.journal.recovery import BEGINNING, Recovered, recover
from enrich.journal.reserve import Reserve
from enrich.journal.segment import Manifest, OpenSegment, manifest_path, read_manifest
from enrich.journal.sidecar import DIRECTORY, sidecar_table, write_table
from enrich.journal.sync import GroupSync

__all__ = ["Appended", "Journal"]

#: refused while the disk is low; what withdraws authority, makes room or says what was done is not
_ORDINARY: Final = frozenset(("events", "decision", "outcome", "source"))


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a record came to stand: event i has seq + i; `at_us` is recorded_at."""

    seq: int
    count: int
    last_seq: int
    at_us: int
    hash: str


def _system_us() -> int:
    return time.time_ns() // 1000


class Journal:
    """One process's journal over DATA. Thread-safe, except that `append` is called under the engine's order lock."""

    def __init__(
        self,
        directory: Path,
        *,
        lock: DirectoryLock,
        identity: Identity,
        recovered: Recovered,
        disk: Disk,
        clock: Callable[[], int],
        segment_bytes: int,
        sidecar_rows: int,
        disk_low_bytes: int,
        failpoint: Failpoint,
        verified_through: int,
    ) -> None:
        self.directory = directory
        self.identity = identity
        self.journal_id = identity.journal_id
        self.hash_key = identity.hash_key
        self.torn = recovered.torn
        self.removed_sidecars = recovered.removed_sidecars
        self._lock_file = lock
        self._disk = disk
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._sidecar_rows = sidecar_rows
        self._failpoint = failpoint
        self._verified_through = verified_through
        self._reserve = Reserve(directory, disk, disk_low_bytes)
        self._lock = threading.Lock()  # the files and the head
        self._clock_lock = threading.Lock()
        self._manifests: list[Manifest] = recovered.manifests
        self._open: OpenSegment = recovered.open
        self._full: OpenSegment | None = None  # written to the end, to be closed before anything after it is answered
        self._next: OpenSegment | None = None  # made ahead, so that the ordered step only changes over
        last_at = self._open.last_at
        #: `clock_behind_us` as of the last `now_us`, for who has just asked for that
        self.behind_us = 0
        self._last_us = 0 if last_at == BEGINNING else parse_rfc3339_us(last_at)
        self._closed = False
        self._sync = GroupSync(self._flush, self._idle, self._open.end)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        clock: Callable[[], int] = _system_us,
        segment_bytes: int = 64 << 20,
        sidecar_rows: int = 1_500,
        disk_low_bytes: int = 0,
        fsync: bool = True,
        failpoint: Failpoint = process_failpoint,
        verified_through: int | Callable[[str], tuple[int, int]] = 0,
        disk: Disk | None = None,
    ) -> Journal:
        """Lock DATA, check and recover DATA/journal, and take what follows.

        Manifests are checked against each other, every line after `verified_through` is verified (chain, bodies,
        sidecar digests), torn bytes move to a `.torn` file, the open segment's surviving part moves to a new durable
        file, and sidecars that no line names are removed.

        Args:
            directory: DATA; it is made if need be.
            clock: microseconds since 1970; `now_us` never goes back even where this does.
            segment_bytes: a segment past this size is closed.
            sidecar_rows: batches of at least so many events stand in a Parquet file of their own.
            disk_low_bytes: with less free space, events and decisions are refused; the rest may go on.
            fsync: False never waits for the disk: for tests and throw-away directories only.
            verified_through: the oldest follower's seq; lines up to there were verified before. Or a function that
                opens the followers and tells the oldest one's seq and the newest one's, called with the journal's id
                once the directory is locked: a journal that ends before the newest is refused untouched.
            disk: the file system calls; tests make them fail.

        Raises:
            LockedError: another process holds the directory.
            JournalCorruptError: a complete line, a manifest or a sidecar does not verify.
            JournalBehindError: it ends before what a follower has.
            NewerFormatError: a newer version wrote here.
            JournalFailedError: the disk does not take what it must.
            BackupError: the directory is a backup, or a restore into it was interrupted.
        """
        disk = disk or Disk(fsync=fsync)
        files = directory / "journal"
        refuse_unfinished(directory)
        try:
            # events are nobody else's business; a directory that is there keeps the mode that its owner gave it
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (files / DIRECTORY).mkdir(parents=True, exist_ok=True)
            for path in (directory.parent, directory, files):
                disk.sync_dir(path)
        except OSError as error:
            raise JournalFailedError(f"{show(str(files))} can't be made: {error.strerror}") from error
        try:
            lock = DirectoryLock(directory)
        except OSError as error:
            raise JournalFailedError(f"{show(str(directory))} can't be locked: {error.strerror}") from error
        try:
            if not (files / FILE).exists():
                _refuse_orphans(files)
                create_identity(files, disk, format_us(clock()))
            migrate(files, disk)
            finish_pruning(files, disk)
            identity = read_identity(files)
            followed = 0
            if callable(verified_through):
                verified_through, followed = verified_through(identity.journal_id)
            recovered = recover(files, identity, disk, verified_through, followed)
            return cls(
                files, lock=lock, identity=identity, recovered=recovered, disk=disk, clock=clock,
                segment_bytes=segment_bytes, sidecar_rows=sidecar_rows, disk_low_bytes=disk_low_bytes,
                failpoint=failpoint, verified_through=verified_through,
            )  # fmt: skip
        except OSError as error:
            lock.release()
            raise JournalFailedError(f"{show(str(files))} can't be opened: {error}") from error
        except BaseException:
            lock.release()
            raise

    # -- where it stands ------------------------------------------------------------------------------------------

    @property
    def head(self) -> Position:
        """The last record written."""
        return self._open.end

    @property
    def durable(self) -> Position:
        """The last record that is known to be on disk."""
        return self._sync.durable

    @property
    def failed(self) -> EnrichError | None:
        """Why nothing can be written until a restart; None while all is well."""
        return self._sync.failed

    @property
    def fsyncs(self) -> int:
        """How often the journal was made durable; writers that wait together share one."""
        return self._sync.flushes

    @property
    def disk_low(self) -> bool:
        """Whether events and decisions are refused for want of room."""
        return self._reserve.low

    @property
    def clock_behind_us(self) -> int:
        """How far the system clock lies behind the highest time in the journal or handed out; 0 when it does not."""
        return max(0, self._last_us - self._clock())

    def now_us(self) -> int:
        """The one clock: the system's, or the highest time in the journal or handed out if that is later."""
        with self._clock_lock:
            now = self._clock()
            if now > self._last_us:
                self._last_us = now
            self.behind_us = self._last_us - now
            return self._last_us

    # -- writing --------------------------------------------------------------------------------------------------

    def prepare_events(self, batch: EventBatch) -> PreparedRecord:
        """Hash a batch and write its sidecar if it is a big one, durable on return. Takes no part in the order.

        Raises:
            JournalFullError, JournalFailedError: nothing is left behind.
        """
        if not batch.n:
            raise ValueError("an `events` record has at least one event")
        self._check("events")
        salt = new_salt()
        if batch.n < self._sidecar_rows:
            canonical = canonical_events(batch)
            body = inline_body(salt, batch.contents, canonical)
            return PreparedRecord("events", batch.n, body, leaves_sha256(salt, batch.contents, canonical), batch)
        try:
            digest, path, leaves = self._beside(batch, salt)
        except JournalFailedError as error:
            cause = error.__cause__
            if not (isinstance(cause, OSError) and cause.errno in BUSY_ERRNOS):
                # what one fsync of the directory could not write, the next one, of another batch, may leave out
                self._sync.fail(error.message)
            raise
        return PreparedRecord("events", batch.n, sidecar_body(salt, batch.n, digest), leaves, batch, path)

    def prepare(self, type: str, body: Mapping[str, Any]) -> PreparedRecord:
        """Any other record: its body as canonical bytes, salted. The `event` (canonical form) of a decision or an
        outcome becomes its batch.

        Raises:
            ValueError, TypeError: not a type or a body that a record can have.
            JournalFullError, JournalFailedError
        """
        if type not in TYPES or type == "events":
            raise ValueError(f"no record type {show(type)} to prepare from a body")
        self._check(type)
        data, digest = plain_body(body, new_salt())
        carried = CARRYING.get(type)
        batch = None if carried is None else carried(body, self.hash_key)
        return PreparedRecord(type, 1, data, digest, batch)

    def discard(self, prepared: PreparedRecord) -> None:
        """Forget a record that will not be appended: its sidecar is removed."""
        if prepared.sidecar is not None:
            prepared.sidecar.unlink(missing_ok=True)

    def append(self, prepared: PreparedRecord) -> Appended:
        """Give the record its place and write it; it is durable when `wait_durable(last_seq)` returns.

        INVARIANT prefix: seqs are handed out and lines written in one step, under one lock, so the file's order is
        theirs.

        Raises:
            JournalFullError: nothing was written (what was, is cut off again).
            JournalFailedError: nothing can be written until a restart.
        """
        with self._lock:
            self._check(prepared.type)
            segment = self._open
            seq = segment.end.seq + 1
            at_us = self.now_us()
            at = format_us(at_us)
            head, digest = encode_head(seq, prepared.count, prepared.type, at, prepared.body_sha256, segment.end.hash)
            size = len(head) + len(prepared.body) + 2
            try:
                self._write(segment, (head, prepared.body, b"}\n"), size, prepared.type)
                segment.size += size
                segment.lines += 1
                segment.last_at = at
                if prepared.sidecar is not None:
                    segment.sidecars.append(prepared.sidecar.stem)
                last = seq + prepared.count - 1
                segment.end = Position(last, digest)
                if segment.size >= self._segment_bytes and self._next is not None and self._full is None:
                    self._change_over(segment, self._next)
            except EnrichError:
                raise
            except BaseException as error:
                # INVARIANT: nothing is written behind a line that may be there and was not counted: the next record
                # would have the same seq, and no start would take either
                self._sync.fail(f"writing a record was interrupted: {error!r}")
                raise
        self._sync.written()
        self._failpoint("journal.write")
        return Appended(seq, prepared.count, last, at_us, digest)

    def wait_durable(self, seq: int, timeout: float | None = None) -> None:
        """Return once everything up to `seq` is durable. Those who wait together share an fsync.

        Raises:
            JournalFailedError: it will not become durable before a restart.
            TimeoutError: not within `timeout` seconds.
        """
        self._sync.wait(seq, timeout)

    def on_durable(self, seq: int, callback: Callable[[EnrichError | None], None]) -> None:
        """Call `callback(None)` once everything up to `seq` is durable, `callback(error)` if it can't be.

        Called from the fsync thread, or at once when the answer is known; it must be quick and not raise.
        """
        self._sync.call(seq, callback)

    # -- letting go -----------------------------------------------------------------------------------------------

    @property
    def closed_segments(self) -> Sequence[Manifest]:
        """The manifests of the closed segments, oldest first."""
        with self._lock:
            return tuple(self._manifests)

    def prepare_prune(self, segment: Manifest, types: Collection[str]) -> Ranges:
        """Write a closed segment without the bodies of `types` aside.

        Returns:
            The seqs of the records that will lose their body, for a `prune` record; empty when there are none.

        Raises:
            JournalFailedError: it could not be written, or a body that would go does not verify; nothing has changed.
        """
        self._check("prune")
        ranges = write_aside_elsewhere(self.directory, segment, types, self._disk)
        if not ranges:
            self._swap(read_manifest(manifest_path(self.directory, segment.number)))
        return ranges

    def prune_segment(self, segment: Manifest) -> None:
        """Let go of the bodies that `prepare_prune` left out.

        INVARIANT: the caller's `prune` record that names them is durable.

        Raises:
            JournalFailedError: the disk does not take it; a start sorts it out.
        """
        self._failpoint("journal.prune.recorded")
        try:
            smaller = take_place(self.directory, segment, self._disk, self._failpoint)
        except OSError as error:
            raise JournalFailedError(f"segment {segment.number} can't be replaced: {error.strerror}") from error
        self._failpoint("journal.prune.replaced")
        self._swap(smaller)

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, after: int = 0) -> Iterator[Record]:
        """The records whose last seq is above `after`, in order, up to the head at the time of the call.

        Lines that the start has not verified (up to its `verified_through`) are verified here.

        Raises:
            JournalCorruptError, NewerFormatError
        """
        with self._lock:
            manifests = list(self._manifests)
            written = [(s.number, s.size) for s in (self._full, self._open) if s is not None]
            head = self._open.end
        if after >= head.seq:
            return iter(())  # without going through the open segment for nothing
        return read_records(
            self.directory, manifests, written, after, self.identity, self._verified_through
        )

    def close(self) -> None:
        """Make everything durable, end the thread and let go of the directory; twice does no harm."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._sync.stop()
        for segment in (self._full, self._open, self._next):
            if segment is not None and segment.fd >= 0:
                os.close(segment.fd)
                segment.fd = -1
        self._lock_file.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _check(self, type_: str) -> None:
        if self._sync.failed is not None or self._closed:
            raise self._sync.error()
        if self._reserve.low and type_ in _ORDINARY:
            raise self._reserve.error()

    def _swap(self, manifest: Manifest) -> None:
        with self._lock:
            self._manifests = [manifest if m.number == manifest.number else m for m in self._manifests]

    def _beside(self, batch: EventBatch, salt: bytes) -> tuple[str, Path, str]:
        """Write the sidecar in a thread (encoding, digest and fsync hold no GIL) while this one hashes the leaves."""
        table = sidecar_table(batch)
        with ThreadPoolExecutor(1, "enrich-sidecar") as beside:
            writing = beside.submit(write_table, self.directory, table, self._disk, self._failpoint)
            leaves = leaves_sha256(salt, batch.contents, canonical_events(batch))
            return *writing.result(), leaves

    def _write(self, segment: OpenSegment, parts: tuple[bytes, ...], size: int, type_: str) -> None:
        reason = "short write"
        for attempt in (1, 2):
            try:
                if self._disk.write(segment.fd, parts) == size:
                    return
                full = True
            except OSError as error:
                full, reason = error.errno in FULL_ERRNOS, error.strerror or str(error)
            try:
                self._disk.truncate(segment.fd, segment.size)
            except OSError as error:
                self._sync.fail(f"a record written in part can't be cut off: {error.strerror}")
                raise self._sync.error() from error
            if not full:
                self._sync.fail(f"writing to the journal failed: {reason}")
                raise self._sync.error()
            if attempt == 2 or type_ in _ORDINARY or not self._reserve.release():
                break
        raise JournalFullError(f"no room for a record of {size} bytes: {reason}", hint=Reserve.hint)

    def _change_over(self, segment: OpenSegment, following: OpenSegment) -> None:
        following.start = following.end = segment.end
        following.last_at = segment.last_at
        self._full, self._open, self._next = segment, following, None

    def _flush(self) -> Position:
        """In the fsync thread: everything written before the call. A full segment is closed first."""
        with self._lock:
            target, segment, full = self._open.end, self._open, self._full
        self._failpoint("journal.before_fsync")
        if full is not None:
            manifest = full.seal(self.directory, self.journal_id, self._disk)
            self._failpoint("journal.rotate.closed")
            with self._lock:
                self._manifests.append(manifest)
                self._full = None
        self._disk.datasync(segment.fd)
        self._failpoint("journal.after_fsync")
        return target

    def _idle(self) -> None:
        """In the fsync thread, behind the answers: the digest catches up, the next segment is made, free space is
        looked at."""
        with self._lock:
            segment, missing = self._open, self._next is None and self._full is None
        segment.digest_to(segment.size)
        # INVARIANT: never more than two segments without a manifest, which is what a start can tell apart. Without a
        # next one `segment` stays the open one.
        if missing:
            following = OpenSegment.create(self.directory, segment.number + 1, segment.end, segment.last_at, self._disk)
            self._failpoint("journal.rotate.created")
            with self._lock:
                self._next = following
        self._reserve.look()


def _refuse_orphans(files: Path) -> None:
    segments = any(p.suffix == ".ndjson" or p.name.endswith(".manifest.json") for p in files.iterdir())
    if segments or any((files / DIRECTORY).glob("*.parquet")):
        raise JournalCorruptError(f"{FILE}: the file is missing but records are there", file=FILE, reason="missing")
