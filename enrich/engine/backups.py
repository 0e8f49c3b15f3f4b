"""Backups of a data directory, and data directories of backups: the journal, and DuckDB if it is wanted.

DuckDB's own file is never copied: who wants it in the backup gets one that follows the journal that was just copied,
and so stands at the same record. Nothing of this needs the engine that has the directory open, beyond its word on what
is durable; nobody who decides or records waits for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enrich.errors import BackupError, JournalFailedError, show
from enrich.history import FILE_NAME, History, follow_on
from enrich.journal import Anchor, Disk, Position, Record
from enrich.journal.backup import (
    RECORDS,
    Backup,
    begin_backup,
    check_files,
    finish_backup,
    finish_restore,
    read_backup,
    restore_journal,
)
from enrich.journal.copy import CopiedFile, JournalCopy, copied_file
from enrich.journal.identity import read_identity
from enrich.journal.records import read_records

__all__ = ["Restored", "make_backup", "restore_backup"]

#: called with (what, done, total)
Progress = Callable[[str, int, int], None]
_MEMORY: Final = "1GiB"


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored data directory: its journal's own id, where it goes on, and what it was restored from."""

    journal_id: str
    seq: int
    backup: Backup


def make_backup(
    data: Path,
    target: Path,
    upto: Anchor,
    *,
    now_us: int,
    history: bool = False,
    disk: Disk | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Backup:
    """Back up a data directory up to a durable record; an engine may go on using it.

    Args:
        data: the data directory.
        target: a directory that is not there yet, or is empty.
        upto: the durable head, as the engine that has the directory open tells it (`Engine.anchor`); of a directory
            that nobody has open, `directory_anchor`.
        history: also build DuckDB's file up to that record, so that the first start after a restore is quick.

    Raises:
        BackupError: `target_not_empty`; `backup_overtaken`, bodies were let go of since that record.
        JournalBehindError: the directory has another journal, or not that record.
        JournalCorruptError: something up to there does not verify: what is in `target` stays marked as incomplete.
        JournalFailedError: a file can't be read or written; the same.
    """
    disk = disk or Disk()
    try:
        copy = begin_backup(
            data, target, upto, disk=disk, progress=lambda done, total: progress("journal", done, total)
        )
        more = [_follow(target, copy, disk, progress)] if history else []
        return finish_backup(target, upto, copy, more, now_us, disk)
    except OSError as error:
        raise JournalFailedError(f"the backup was not finished: {error}", hint="delete it, and take another") from error


def restore_backup(
    backup: Path,
    data: Path,
    *,
    now_us: int,
    disk: Disk | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Restored:
    """Make a data directory of a backup. Its journal is a new one: see `enrich.journal.backup`.

    Raises:
        BackupError: `no_backup`, `backup_incomplete`, `backup_damaged`, `target_not_empty`.
        JournalFailedError: a file can't be read or written; what is in `data` does not start.
    """
    disk = disk or Disk()
    try:
        told = read_backup(backup)
        check_files(backup, told)
        restored = restore_journal(
            backup, data, now_us=now_us, disk=disk, progress=lambda done, total: progress("journal", done, total)
        )
        identity = restored.identity
        if told.history:
            progress("history", 0, 1)
            shutil.copyfile(backup / FILE_NAME, data / FILE_NAME)
            follow_on(data, identity.journal_id)
            disk.sync_file(data / FILE_NAME)
            progress("history", 1, 1)
        finish_restore(data, disk)
    except OSError as error:
        raise JournalFailedError(
            f"the restore was not finished: {error}", hint=f"delete {show(str(data))}, and restore again"
        ) from error
    return Restored(identity.journal_id, restored.head.seq, told)


class _CopiedJournal:
    """A copied journal, as a history follows one."""

    def __init__(self, records: Path, copy: JournalCopy) -> None:
        self._records = records
        self._copy = copy
        self._identity = read_identity(records)
        self.journal_id = self._identity.journal_id
        self.head: Position = copy.end
        self.durable: Position = copy.end

    def read(self, after: int = 0) -> Iterator[Record]:
        return read_records(self._records, self._copy.manifests, (), after, self._identity, 0)

    def now_us(self) -> int:
        return 0


def _follow(target: Path, copy: JournalCopy, disk: Disk, progress: Progress) -> CopiedFile:
    """DuckDB's file, built from the copied journal."""
    journal = _CopiedJournal(target / RECORDS, copy)
    history = History.open(target, journal_id=journal.journal_id, memory_limit=_MEMORY)
    try:
        with history.all_cores():
            history.catch_up(journal, progress=lambda seq, end: progress("history", seq, end))
    finally:
        history.close()
    if list(target.glob(f"{FILE_NAME}.*")):
        raise BackupError(f"{FILE_NAME} was not closed", code="backup_incomplete")
    disk.sync_file(target / FILE_NAME)
    disk.sync_dir(target)
    return copied_file(target / FILE_NAME, FILE_NAME)
