"""The history: a DuckDB file that holds the journal's events, exactly up to one stored position."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import polars as pl

from enrich.errors import (
    DataDirError,
    HistoryBehindError,
    HistoryGapError,
    JournalBehindError,
    NewerFormatError,
    show,
)
from enrich.failpoints import Failpoint
from enrich.failpoints import failpoint as process_failpoint
from enrich.history import schema
from enrich.history.connection import open_database
from enrich.history.decisions import (
    DecisionFilter,
    DecisionsPage,
    KeyedDecision,
    decision_body,
    decisions_page,
    end_of,
    keyed_decisions,
    outcome_body,
)
from enrich.history.insert import insert_decisions, insert_outcomes, insert_records
from enrich.history.keys import KeyBlock, key_blocks
from enrich.history.query import EventFilter, EventsPage, events_frame, events_page
from enrich.history.records import JournalLike, Prune, QueuedRecord, RecordLike
from enrich.journal.format import Position, genesis_hash

__all__ = ["FILE_NAME", "History", "PruneReport"]

FILE_NAME: Final = "history.duckdb"
#: what takes events away, and this version does not act on: passed over, every later answer is wrong
_NOT_APPLIED: Final = frozenset(("erase", "void"))


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a prune removed from DuckDB."""

    events: int
    keys: int


class History:
    """The one writer of DATA/history.duckdb, and the source of read cursors on it. Thread-safe.

    INVARIANT: events, keys, decisions and position change in one transaction: the file always equals the journal up to
    `position`.
    """

    def __init__(
        self,
        path: Path,
        *,
        journal_id: str,
        threads: int,
        memory_limit: str,
        read_only: bool,
        failpoint: Failpoint,
    ) -> None:
        """Use `History.open`."""
        self.path = path
        self.journal_id = journal_id
        self.read_only = read_only
        self._threads = threads
        self._memory_limit = memory_limit
        self._failpoint = failpoint
        self._write_lock = threading.RLock()
        self._root: duckdb.DuckDBPyConnection | None = None
        self._writer: duckdb.DuckDBPyConnection | None = None
        self._position = Position(0, genesis_hash(journal_id))
        self._connect()

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        journal_id: str,
        threads: int = 1,
        memory_limit: str = "1GiB",
        read_only: bool = False,
        failpoint: Failpoint | None = None,
    ) -> History:
        """Open the history in the data directory, creating it when it is missing.

        Args:
            directory: the data directory; the file is `history.duckdb` in it.
            journal_id: the journal that this history follows.
            threads: of DuckDB. With 1, a query runs in the thread that asks.
            memory_limit: of DuckDB's buffers, as DuckDB writes sizes (`1GiB`).
            read_only: open beside another reader; nothing is created or brought forward.
            failpoint: passed as `history.before_commit` and `history.after_commit`; default: the process's own.

        Raises:
            JournalBehindError: the file follows another journal.
            NewerFormatError: a newer version wrote the file.
            LockedError: another process has it open.
            DataDirError: the file is no history of this engine, or is damaged.
        """
        return cls(
            directory / FILE_NAME,
            journal_id=journal_id,
            threads=threads,
            memory_limit=memory_limit,
            read_only=read_only,
            failpoint=failpoint or process_failpoint,
        )

    def _connect(self) -> None:
        root = open_database(
            self.path, threads=self._threads, memory_limit=self._memory_limit, read_only=self.read_only
        )
        try:
            found = schema.read_format(root)
            if found is None and not self.read_only:
                schema.create(root, journal_id=self.journal_id, position=self._position)
            elif found is None:
                raise DataDirError(f"{show(self.path.name)} is empty")
            elif self.read_only and found < schema.FORMAT:
                raise DataDirError(
                    f"{show(self.path.name)} has the older format {show(found)}",
                    hint="start the engine on this directory once to bring it forward",
                )
            else:
                schema.upgrade(root, found)
            self._position = self._read_position(root)
            self._writer = root.cursor()
        except BaseException:
            root.close()
            raise
        self._root = root

    def _read_position(self, con: duckdb.DuckDBPyConnection) -> Position:
        journal_id, seq, digest = con.execute("SELECT journal_id, seq, hash FROM history_meta").fetchall()[0]
        if journal_id != self.journal_id:
            raise JournalBehindError(
                f"{show(self.path.name)} follows journal {show(journal_id)}, not {show(self.journal_id)}",
                hint="the data directory mixes two journals: put back the journal that belongs to this history",
                seq=seq,
            )
        return Position(int(seq), str(digest))

    @property
    def position(self) -> Position:
        """How far this history has followed, committed."""
        return self._position

    def check_against(self, journal: JournalLike) -> None:
        """Refuse a journal that has lost or replaced records which this history knows.

        Raises:
            JournalBehindError: another journal, one whose head lies before `position`, or one that has another
                record there.
        """
        position = self.position
        if journal.journal_id != self.journal_id:
            raise JournalBehindError(
                f"history follows journal {show(self.journal_id)}, not {show(journal.journal_id)}", seq=position.seq
            )
        head = journal.head
        if head.seq < position.seq:
            raise JournalBehindError(
                f"history has record {show(position.seq)}, the journal ends at {show(head.seq)}", seq=position.seq
            )
        if position.seq == 0 or position == head:
            return
        record = next(journal.read(after=position.seq - 1), None)
        if record is None or record.seq + record.count - 1 != position.seq or record.hash != position.hash:
            raise JournalBehindError(
                f"the journal's record at {show(position.seq)} is not the one that history has", seq=position.seq
            )

    def apply(self, records: Sequence[RecordLike | QueuedRecord]) -> int:
        """Apply the next records, in one transaction with the new position.

        Records at or below `position` are skipped.

        Returns:
            How many events were added.

        Raises:
            HistoryGapError: the records are not the next ones, without gap or overlap; nothing is applied.
            JournalBehindError: a record at `position` has another hash.
            NewerFormatError: a record is of a type that this version does not act on.
            duckdb.Error: DuckDB failed; nothing is applied, and the call can be repeated.
        """
        with self._write_lock:
            writer = self._open_writer()
            fresh = self._next_records(records)
            if not fresh:
                return 0
            reached = Position(fresh[-1].last_seq, fresh[-1].hash)
            writer.begin()
            try:
                count = insert_records(writer, fresh)
                insert_decisions(writer, fresh)
                insert_outcomes(writer, fresh)
                _observe(writer, self._position.seq)
                for record in fresh:
                    if record.prune is not None:
                        _apply_prune(writer, record.prune, record.seq)
                writer.execute("UPDATE history_meta SET seq = ?, hash = ?", [reached.seq, reached.hash])
                self._failpoint("history.before_commit")
                writer.commit()
            except BaseException:
                self._undo(writer)
                raise
            self._position = reached
            self._failpoint("history.after_commit")
            return count

    def catch_up(
        self,
        journal: JournalLike,
        *,
        batch_events: int = 50_000,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Apply what the journal has beyond `position`, up to its durable seq, before anything follows it.

        Args:
            batch_events: a transaction holds about this many.
            progress: called with (seq applied, seq to reach) after each.
        """
        end = journal.durable.seq
        waiting: list[QueuedRecord] = []
        events = 0
        for read in journal.read(after=self._position.seq):
            record = QueuedRecord.of(read, read)
            if record.last_seq > end:
                break
            waiting.append(record)
            events += max(record.count, record.weight)
            if events >= batch_events:
                self.apply(waiting)
                waiting, events = [], 0
                if progress is not None:
                    progress(self._position.seq, end)
        self.apply(waiting)
        if progress is not None:
            progress(self._position.seq, end)

    def _next_records(self, records: Sequence[RecordLike | QueuedRecord]) -> list[QueuedRecord]:
        position = self._position
        expected = position.seq + 1
        fresh: list[QueuedRecord] = []
        for record in records:
            last = record.seq + record.count - 1
            if not fresh and last <= position.seq:
                if last == position.seq and record.hash != position.hash:
                    raise JournalBehindError(
                        f"the journal's record at {show(last)} is not the one that history has", seq=last
                    )
                continue
            if record.seq != expected or record.count < 1:
                raise HistoryGapError(
                    f"history expects record {show(expected)} next, got {show(record.seq)} to {show(last)}",
                    expected=expected,
                    seq=record.seq,
                )
            if record.type in _NOT_APPLIED:
                raise NewerFormatError(
                    f"record {show(record.seq)} is of type {show(record.type)}, which this version does not act on",
                    seq=record.seq,
                )
            expected = last + 1
            fresh.append(record if isinstance(record, QueuedRecord) else QueuedRecord.of(record, record))
        return fresh

    def _undo(self, writer: duckdb.DuckDBPyConnection) -> None:
        """Roll back; after a failed commit the file itself says whether it took place."""
        with contextlib.suppress(duckdb.Error):  # no transaction is left, or the database is invalidated
            writer.rollback()
        with contextlib.suppress(duckdb.Error):  # else `reopen` reads it
            self._position = self._read_position(writer)

    def reopen(self) -> None:
        """Close and open the file again, after DuckDB has invalidated it. Cursors taken before stop working."""
        with self._write_lock:
            self.close()
            self._connect()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own for one reader (not for two threads at once); it never blocks the writer.

        Ask for times as `epoch_us(occurred_at)`: DuckDB needs a package that is not installed to make `datetime`s.
        """
        root = self._root
        if root is None:
            raise DataDirError(f"{show(self.path.name)} is closed")
        return root.cursor()

    def _open_writer(self) -> duckdb.DuckDBPyConnection:
        writer = self._writer
        if writer is None or self.read_only:
            raise DataDirError(f"{show(self.path.name)} is {'read-only' if self.read_only else 'closed'}")
        return writer

    def prune(self, before_us: int) -> PruneReport:
        """Remove events that occurred before `before_us`, and their keys; the position stays.

        The engine prunes by a `prune` record of the journal, so that a history built again prunes the same.
        """
        with self._write_lock:
            writer = self._open_writer()
            writer.begin()
            try:
                report = _prune(writer, before_us, None)
                writer.commit()
            except BaseException:
                self._undo(writer)
                raise
            return report

    def pruned_before_us(self) -> int | None:
        """The latest cutoff that was pruned; None when nothing was ever pruned."""
        return self._scalar("SELECT epoch_us(pruned_before) FROM history_meta")

    def observed_us(self) -> tuple[int, int] | None:
        """The earliest and the latest occurred_at that are held; None when there are no events."""
        low = self._scalar("SELECT epoch_us(min(occurred_at)) FROM events")
        high = self._scalar("SELECT epoch_us(max(occurred_at)) FROM events")
        return None if low is None or high is None else (low, high)

    def observed_since_us(self) -> int | None:
        """The earliest occurred_at of all events ever applied, pruned ones included; None before the first."""
        return self._scalar("SELECT epoch_us(observed_since) FROM history_meta")

    def count(self) -> int:
        """How many events are held."""
        return self._scalar("SELECT count(*) FROM events") or 0

    def events_page(
        self,
        *,
        at_seq: int | None = None,
        since_us: int | None = None,
        until_us: int | None = None,
        cursor: str | None = None,
        limit: int = 100,
        **filters: str | None,
    ) -> EventsPage:
        """A page of events, newest first, at `at_seq` (default: all that is applied), or where `cursor` goes on.

        Args:
            since_us, until_us: bounds of occurred_at, both inclusive.
            filters: `agent`, `team`, `workflow`, `org`, `approver`, `kind`, `outcome`.

        Raises:
            HistoryBehindError: `at_seq` is not applied yet.
            BadRequestError: an unknown filter, a bad limit or cursor.
        """
        wanted = EventFilter.of(since_us, until_us, **filters)
        with self.cursor() as con:
            return events_page(con, wanted, at_seq=self._reached(at_seq), cursor=cursor, limit=limit)

    def decisions_page(
        self, wanted: DecisionFilter, *, at_seq: int | None = None, cursor: str | None = None, limit: int = 100
    ) -> DecisionsPage:
        """A page of decisions, newest first, at `at_seq` (default: all that is applied), or where `cursor` goes on."""
        with self.cursor() as con:
            return decisions_page(con, wanted, at_seq=self._reached(at_seq), cursor=cursor, limit=limit)

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        """A decision's record as the journal has it, with its seq, and under `outcome` what was reported of it, if
        anything was; None when there is no decision of that id."""
        with self.cursor() as con:
            return decision_body(con, decision_id)

    def outcome(self, decision_id: str) -> dict[str, Any] | None:
        """The record of what was reported of a decision, with its seq; None when nothing was."""
        with self.cursor() as con:
            return outcome_body(con, decision_id)

    def end_of(self, decision_id: str) -> tuple[bool, bool]:
        """Of the events held: whether the decision was given authority, and whether a run of it ended."""
        with self.cursor() as con:
            return end_of(con, decision_id)

    def keyed_decisions(self, since_us: int) -> Iterator[KeyedDecision]:
        """All decisions with an idempotency key and an as_of after `since_us`, in order."""
        with self.cursor() as con:
            yield from keyed_decisions(con, since_us)

    def frame(
        self,
        *,
        at_seq: int | None = None,
        since_us: int | None = None,
        until_us: int | None = None,
        **filters: str | None,
    ) -> pl.DataFrame:
        """The same events as a Polars frame, ordered by seq; columns and dtypes as in `events_frame`."""
        wanted = EventFilter.of(since_us, until_us, **filters)
        with self.cursor() as con:
            return events_frame(con, wanted, at_seq=self._reached(at_seq))

    def _reached(self, at_seq: int | None) -> int:
        applied = self._position.seq
        if at_seq is None:
            return applied
        if at_seq > applied:
            raise HistoryBehindError(
                f"history has applied {show(applied)}, the answer needs {show(at_seq)}", applied=applied, needed=at_seq
            )
        return at_seq

    def _scalar(self, sql: str) -> int | None:
        with self.cursor() as cursor:
            value: Any = cursor.execute(sql).fetchall()[0][0]
        return None if value is None else int(value)

    @contextlib.contextmanager
    def all_cores(self) -> Iterator[None]:
        """DuckDB computes on every core in here: for the start, when nobody is served yet."""
        with self.cursor() as con:
            con.execute(f"SET threads = {max(self._threads, os.cpu_count() or 1)}")
            try:
                yield
            finally:
                con.execute(f"SET threads = {self._threads}")

    def key_blocks(self, rows_per_block: int = 1 << 20, after: int = 0) -> Iterator[KeyBlock]:
        """All idempotency keys that are held of seqs above `after`, in blocks, from one snapshot; not in order."""
        with self.cursor() as con:
            yield from key_blocks(con, rows_per_block, after)

    def close(self) -> None:
        """Close the file and all cursors; what was committed is on disk."""
        with self._write_lock:
            root, self._root, self._writer = self._root, None, None
            if root is not None:
                root.close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _observe(writer: duckdb.DuckDBPyConnection, after: int) -> None:
    writer.execute(
        "UPDATE history_meta SET observed_since ="
        " least(observed_since, (SELECT min(occurred_at) FROM events WHERE seq > ?))",
        [after],
    )


def _apply_prune(writer: duckdb.DuckDBPyConnection, prune: Prune, at_seq: int) -> None:
    """What a `prune` record says."""
    if prune.events_before_us is not None:
        _prune(writer, prune.events_before_us, at_seq)
    if prune.decisions_through:
        for table in ("decisions", "outcomes"):
            writer.execute(f"DELETE FROM {table} WHERE seq <= ?", [prune.decisions_through])
    if prune.observed_since_us is not None:
        writer.execute(
            "UPDATE history_meta SET observed_since = least(observed_since, make_timestamptz(?))",
            [prune.observed_since_us],
        )


def _prune(writer: duckdb.DuckDBPyConnection, before_us: int, at_seq: int | None) -> PruneReport:
    """Delete what occurred before the cutoff and, with `at_seq`, was learned before the record that says so."""
    removed = []
    for table in ("events", "event_keys"):
        deleted = writer.execute(
            f"DELETE FROM {table} WHERE occurred_at < make_timestamptz(?) AND (?::BIGINT IS NULL OR seq < ?)",
            [before_us, at_seq, at_seq],
        )
        removed.append(int(deleted.fetchall()[0][0]))
    writer.execute("UPDATE history_meta SET pruned_before = greatest(pruned_before, make_timestamptz(?))", [before_us])
    return PruneReport(*removed)
