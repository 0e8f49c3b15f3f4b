"""What a journal is: its random id, its secret for keyed hashes, and the format version of its directory."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from enrich.errors import BackupError, JournalCorruptError, NewerFormatError, show
from enrich.journal.disk import Disk
from enrich.journal.format import FORMAT, Position, corrupt, genesis_hash

__all__ = [
    "BACKUP_FILE",
    "BACKUP_MARK",
    "FILE",
    "KEY_FILE",
    "MIGRATIONS",
    "RESTORE_MARK",
    "Ancestor",
    "Identity",
    "create_identity",
    "journal_files",
    "migrate",
    "new_identity",
    "read_identity",
    "refuse_unfinished",
    "sealed",
    "unseal",
]

FILE: Final = "journal.json"
KEY_FILE: Final = "hash.key"
#: what makes a directory a backup, what says that it is not one yet, and the same of a restored data directory
BACKUP_FILE: Final = "backup.json"
BACKUP_MARK: Final = "backup.incomplete"
RESTORE_MARK: Final = "restore.incomplete"

#: takes a directory of format n to n + 1, by n; each step must be repeatable, since a crash may come before the
#: version is written
MIGRATIONS: Final[Mapping[int, Callable[[Path, Disk], None]]] = {}


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A journal that another one was restored from: its records up to the one that ends at `seq` are that one's too."""

    journal_id: str
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Identity:
    """A journal's random id, the secret of its keyed hashes, and the journals that its first records are of.

    Each journal's own records are a chain that begins with the hash of its id; behind an ancestor's last record the
    next chain begins, in a segment of its own, with a record that names that last one.
    """

    journal_id: str
    hash_key: bytes
    format: int
    ancestors: tuple[Ancestor, ...] = ()

    @property
    def beginning(self) -> Position:
        """Before the first record."""
        first = self.ancestors[0].journal_id if self.ancestors else self.journal_id
        return Position(0, genesis_hash(first))

    @property
    def restored_seq(self) -> int:
        """The last record of an ancestor; 0 without one."""
        return self.ancestors[-1].seq if self.ancestors else 0

    def journal_of(self, seq: int) -> str:
        """The id of the journal that wrote a record."""
        return next((one.journal_id for one in self.ancestors if seq <= one.seq), self.journal_id)

    def after(self, end: Position) -> Position:
        """What a segment begins with that follows one which ended at `end`: that, or a new chain."""
        if any((one.seq, one.hash) == end for one in self.ancestors):
            return Position(end.seq, genesis_hash(self.journal_of(end.seq + 1)))
        return end


def sealed(fields: Mapping[str, Any]) -> bytes:
    """Canonical JSON of `fields` with `sha256`, the hash of the rest: any changed byte is found."""
    digest = hashlib.sha256(orjson.dumps(dict(fields), option=orjson.OPT_SORT_KEYS)).hexdigest()
    return orjson.dumps({**fields, "sha256": digest}, option=orjson.OPT_SORT_KEYS) + b"\n"


def unseal(data: bytes, file: str) -> dict[str, Any]:
    """The fields of a sealed file.

    Raises:
        JournalCorruptError: a byte of it has changed.
        NewerFormatError: its `format` is newer than this version's.
    """
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise corrupt(f"no JSON: {error}", file) from error
    if not isinstance(fields, dict) or fields.pop("sha256", None) is None or sealed(fields) != data:
        raise corrupt("the file does not have the hash that it carries", file)
    if not isinstance(fields.get("format"), int):
        raise corrupt("the file says no format", file)
    if fields["format"] > FORMAT:
        raise NewerFormatError(f"{file} has format {show(fields['format'])}, this version knows {FORMAT}", file=file)
    return fields


def new_identity(hash_key: bytes | None = None, ancestors: tuple[Ancestor, ...] = ()) -> Identity:
    """The identity of a journal that is about to be made."""
    return Identity(secrets.token_hex(16), hash_key or os.urandom(32), FORMAT, ancestors)


def create_identity(directory: Path, disk: Disk, created_at: str, identity: Identity | None = None) -> Identity:
    """Write the secret first, then the file that makes the directory a journal; both durable."""
    identity = identity or new_identity()
    journal_id, key = identity.journal_id, identity.hash_key
    disk.write_file(directory / KEY_FILE, key, mode=0o600)
    fields: dict[str, Any] = {
        "created_at": created_at,
        "format": FORMAT,
        "hash_key_sha256": hashlib.sha256(key).hexdigest(),
        "journal_id": journal_id,
    }
    if identity.ancestors:
        fields["ancestors"] = [asdict(one) for one in identity.ancestors]
    disk.write_file(directory / FILE, sealed(fields))
    return identity


def journal_files(data: Path) -> Path:
    """The directory of the journal in a data directory.

    Raises:
        JournalCorruptError: there is none.
        BackupError: the directory is a backup, or a restore into it was interrupted.
    """
    refuse_unfinished(data)
    files = data / "journal"
    if not files.is_dir():
        raise JournalCorruptError(f"{show(str(data))} has no journal", file=str(files), reason="missing")
    return files


def refuse_unfinished(data: Path) -> None:
    """INVARIANT: neither a backup nor what an interrupted restore left is ever taken for a data directory.

    Raises:
        BackupError: `backup_not_restored`, `restore_incomplete`.
    """
    if (data / BACKUP_FILE).exists() or (data / BACKUP_MARK).exists():
        raise BackupError(
            f"{show(str(data))} is a backup",
            code="backup_not_restored",
            hint="`enrich restore` makes a data directory of it",
        )
    if (data / RESTORE_MARK).exists():
        raise BackupError(
            f"{show(str(data))} holds a part of a restored journal: the restore was interrupted",
            code="restore_incomplete",
            hint="delete the directory, and restore again",
        )


def read_identity(directory: Path) -> Identity:
    """The identity of an existing journal.

    Raises:
        JournalCorruptError: a file of it is missing or altered.
        NewerFormatError: a newer version wrote it.
    """
    fields = unseal((directory / FILE).read_bytes(), FILE)
    try:
        key = (directory / KEY_FILE).read_bytes()
    except FileNotFoundError as error:
        raise corrupt("the secret of the keyed hashes is missing", KEY_FILE) from error
    if hashlib.sha256(key).hexdigest() != fields.get("hash_key_sha256"):
        raise corrupt("this is not the secret that the journal was made with", KEY_FILE)
    ancestors = tuple(Ancestor(**one) for one in fields.get("ancestors", ()))
    return Identity(str(fields["journal_id"]), key, int(fields["format"]), ancestors)


def migrate(
    directory: Path,
    disk: Disk,
    *,
    target: int = FORMAT,
    migrations: Mapping[int, Callable[[Path, Disk], None]] = MIGRATIONS,
) -> None:
    """Bring the directory forward to format `target`, step by step, the version written after each step.

    Raises:
        JournalCorruptError: there is no step from the version found.
    """
    fields = unseal((directory / FILE).read_bytes(), FILE)
    while fields["format"] < target:
        step = migrations.get(fields["format"])
        if step is None:
            raise JournalCorruptError(
                f"no migration from format {show(fields['format'])}", file=FILE, reason="no migration"
            )
        step(directory, disk)
        fields["format"] += 1
        disk.write_file(directory / FILE, sealed(fields))
