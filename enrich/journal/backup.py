"""Backups: a journal up to one durable record in a directory of its own, and a new journal made of one.

A restored journal has an id of its own, and begins with the records of the one that was backed up: a chain behind
theirs, whose first record names their head. What followed the old journal, or another restore of the same backup, does
not follow this one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from enrich.errors import BackupError, EnrichError, JournalBehindError, show
from enrich.events.canonical import format_us, parse_rfc3339_us
from enrich.failpoints import failpoint
from enrich.journal.anchors import Anchor, parse_anchor
from enrich.journal.bodies import new_salt, plain_body
from enrich.journal.copy import CopiedFile, JournalCopy, Progress, copied_file, copy_journal
from enrich.journal.disk import Disk
from enrich.journal.format import FORMAT, Position, encode_head
from enrich.journal.identity import (
    BACKUP_FILE,
    BACKUP_MARK,
    FILE,
    KEY_FILE,
    RESTORE_MARK,
    Ancestor,
    Identity,
    create_identity,
    journal_files,
    new_identity,
    read_identity,
    sealed,
    unseal,
)
from enrich.journal.segment import segment_path

__all__ = [
    "RECORDS", "Backup", "RestoredJournal", "begin_backup", "check_files", "finish_backup", "finish_restore",
    "read_backup", "restore_journal",
]  # fmt: skip

#: the journal's files within a backup; no start looks for them under that name
RECORDS: Final = "records"
_MARK: Final = b"not whole yet: see docs/how-to/back-up.md\n"


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup: `head` is the last record in it, `files` everything in it but `backup.json` itself."""

    head: Anchor
    created_at: str
    records: int
    events: int
    history: bool
    files: tuple[CopiedFile, ...]

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(file.bytes for file in self.files)

    def body(self) -> dict[str, Any]:
        """What `backup.json` says."""
        return {
            "format": FORMAT,
            "created_at": self.created_at,
            "head": self.head.body(),
            "records": self.records,
            "events": self.events,
            "history": self.history,
            "files": [file.body() for file in self.files],
        }


@dataclass(frozen=True, slots=True)
class RestoredJournal:
    """A journal that was made of a backup; `head` is the record that names the old one's."""

    identity: Identity
    head: Position
    copy: JournalCopy


def begin_backup(data: Path, target: Path, upto: Anchor, *, disk: Disk, progress: Progress) -> JournalCopy:
    """Copy the journal of a data directory, which may be in use, up to a durable record. What is in `target` is marked
    as incomplete until `finish_backup`.

    Raises:
        BackupError: `target_not_empty`; `backup_overtaken`, bodies were let go of since that record.
        JournalBehindError: the directory has another journal, or not that record.
        JournalCorruptError, NewerFormatError: something up to there does not verify.
        OSError
    """
    files = journal_files(data)
    identity = read_identity(files)
    if identity.journal_id != upto.journal_id:
        raise JournalBehindError(
            f"{show(str(data))} has journal {show(identity.journal_id)}, the head told is of {show(upto.journal_id)}",
            hint="name the data directory of the service that was asked",
            seq=upto.seq,
        )
    _make_empty(target, BACKUP_MARK, disk)
    records = target / RECORDS
    records.mkdir(mode=0o700)
    disk.sync_dir(target)
    copy = copy_journal(files, records, identity, Position(upto.seq, upto.hash), disk, progress)
    disk.write_file(records / FILE, (files / FILE).read_bytes())
    disk.write_file(records / KEY_FILE, identity.hash_key, mode=0o600)
    return copy


def finish_backup(
    target: Path, upto: Anchor, copy: JournalCopy, more: Sequence[CopiedFile], now_us: int, disk: Disk
) -> Backup:
    """Say that the backup is whole; everything in it is durable before.

    Args:
        more: files that follow the journal, in `target`.
    """
    files = tuple(CopiedFile(f"{RECORDS}/{file.name}", file.bytes, file.sha256) for file in copy.files)
    own = tuple(copied_file(target / RECORDS / name, f"{RECORDS}/{name}") for name in (FILE, KEY_FILE))
    backup = Backup(
        upto, format_us(now_us), copy.records, copy.events, bool(more), (*files, *own, *more)
    )
    failpoint("backup.written")
    disk.write_file(target / BACKUP_FILE, sealed(backup.body()))
    disk.remove(target / BACKUP_MARK)
    return backup


def read_backup(directory: Path) -> Backup:
    """What a backup says of itself.

    Raises:
        BackupError: `no_backup`, `backup_incomplete`, `backup_damaged`.
    """
    if (directory / BACKUP_MARK).exists():
        raise BackupError(
            f"{show(str(directory))} is an incomplete backup: making it was interrupted",
            code="backup_incomplete",
            hint="take another one",
        )
    try:
        fields = unseal((directory / BACKUP_FILE).read_bytes(), BACKUP_FILE)
        files = tuple(CopiedFile(**file) for file in fields["files"])
        head = parse_anchor(fields["head"], f"the head in {BACKUP_FILE}")
        return Backup(head, fields["created_at"], fields["records"], fields["events"], fields["history"], files)
    except FileNotFoundError as error:
        raise BackupError(f"{show(str(directory))} has no {BACKUP_FILE}", code="no_backup") from error
    except (EnrichError, KeyError, TypeError) as error:
        raise _damaged(directory, error) from error


def restore_journal(directory: Path, data: Path, *, now_us: int, disk: Disk, progress: Progress) -> RestoredJournal:
    """Make a data directory of a backup, everything in it verified. It is marked as incomplete until `finish_restore`.

    INVARIANT: nothing that an interrupted restore leaves starts: the mark comes first and goes last.

    Raises:
        BackupError: `no_backup`, `backup_incomplete`, `backup_damaged`, `target_not_empty`.
        OSError
    """
    backup = read_backup(directory)
    records, files = directory / RECORDS, data / "journal"
    with _told_as_damage(directory):
        named = {file.name: file for file in backup.files}
        for name in (f"{RECORDS}/{FILE}", f"{RECORDS}/{KEY_FILE}"):
            _check_file(directory, named.get(name), name)
        old = read_identity(records)
    _make_empty(data, RESTORE_MARK, disk)
    files.mkdir(mode=0o700)
    disk.sync_dir(data)
    head = Position(backup.head.seq, backup.head.hash)
    with _told_as_damage(directory):
        copy = copy_journal(records, files, old, head, disk, progress)
        for copied in copy.files:
            if named.get(f"{RECORDS}/{copied.name}") != CopiedFile(
                f"{RECORDS}/{copied.name}", copied.bytes, copied.sha256
            ):
                raise BackupError(f"{copied.name} is not the file that was backed up")
    identity = new_identity(old.hash_key, (*old.ancestors, Ancestor(old.journal_id, *head)))
    begun = _name_the_old(files, identity, copy, backup, now_us, disk)
    create_identity(files, disk, format_us(now_us), identity)
    failpoint("restore.identity")
    return RestoredJournal(identity, begun, copy)


def finish_restore(data: Path, disk: Disk) -> None:
    """Let the restored data directory be started."""
    disk.remove(data / RESTORE_MARK)


def check_files(directory: Path, backup: Backup) -> None:
    """Check those files of a backup that are not the journal's, which `restore_journal` checks.

    Raises:
        BackupError: `backup_damaged`.
    """
    with _told_as_damage(directory):
        for file in backup.files:
            if not file.name.startswith(f"{RECORDS}/"):
                _check_file(directory, file, file.name)


def _name_the_old(
    files: Path, identity: Identity, copy: JournalCopy, backup: Backup, now_us: int, disk: Disk
) -> Position:
    """The first record of the new chain, in a segment of its own."""
    ancestor = identity.ancestors[-1]
    start = identity.after(copy.end)
    body = {
        "restored": {"journal_id": ancestor.journal_id, "seq": ancestor.seq, "hash": ancestor.hash},
        "backup_created_at": backup.created_at,
    }
    data, digest = plain_body(body, new_salt())
    at = format_us(max(now_us, parse_rfc3339_us(copy.last_at)))
    head, hash_ = encode_head(start.seq + 1, 1, "anchor", at, digest, start.hash)
    disk.write_file(segment_path(files, len(copy.manifests) + 1), head + data + b"}\n")
    return Position(start.seq + 1, hash_)


def _make_empty(target: Path, mark: str, disk: Disk) -> None:
    """An empty directory, its owner's alone, with a mark in it that it is not whole.

    Raises:
        BackupError: `target_not_empty`.
    """
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise BackupError(
            f"{show(str(target))} is not empty",
            code="target_not_empty",
            hint="name a directory that is not there yet, or is empty",
        )
    disk.sync_dir(target.parent)
    disk.write_file(target / mark, _MARK)


def _check_file(directory: Path, file: CopiedFile | None, name: str) -> None:
    if file is None or copied_file(directory / name, name) != file:
        raise BackupError(f"{name} is not the file that was backed up")


@contextlib.contextmanager
def _told_as_damage(directory: Path) -> Iterator[None]:
    """Whatever is wrong with the files of a backup is damage to it: there is nothing to be cut in one."""
    try:
        yield
    except BackupError as error:
        if error.error_code == "backup_overtaken":  # nobody prunes a backup
            raise _damaged(directory, error) from error
        raise
    except (EnrichError, FileNotFoundError) as error:
        raise _damaged(directory, error) from error


def _damaged(directory: Path, error: Exception) -> BackupError:
    return BackupError(
        f"the backup {show(str(directory))} is damaged: {error}",
        hint="restore another one, or another copy of this one",
    )
