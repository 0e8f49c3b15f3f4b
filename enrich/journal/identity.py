"""What a journal is: its random id, its secret for keyed hashes, and the format version of its directory."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from enrich.errors import JournalCorruptError, NewerFormatError, show
from enrich.journal.disk import Disk
from enrich.journal.format import FORMAT, corrupt

__all__ = [
    "FILE",
    "KEY_FILE",
    "MIGRATIONS",
    "Identity",
    "create_identity",
    "journal_files",
    "migrate",
    "read_identity",
    "sealed",
    "unseal",
]

FILE: Final = "journal.json"
KEY_FILE: Final = "hash.key"

#: takes a directory of format n to n + 1, by n; each step must be repeatable, since a crash may come before the
#: version is written
MIGRATIONS: Final[Mapping[int, Callable[[Path, Disk], None]]] = {}


@dataclass(frozen=True, slots=True)
class Identity:
    """A journal's random id and the secret of its keyed hashes."""

    journal_id: str
    hash_key: bytes
    format: int


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


def create_identity(directory: Path, disk: Disk, created_at: str) -> Identity:
    """Write the secret first, then the file that makes the directory a journal; both durable."""
    journal_id, key = secrets.token_hex(16), os.urandom(32)
    disk.write_file(directory / KEY_FILE, key, mode=0o600)
    fields = {
        "created_at": created_at,
        "format": FORMAT,
        "hash_key_sha256": hashlib.sha256(key).hexdigest(),
        "journal_id": journal_id,
    }
    disk.write_file(directory / FILE, sealed(fields))
    return Identity(journal_id, key, FORMAT)


def journal_files(data: Path) -> Path:
    """The directory of the journal in a data directory.

    Raises:
        JournalCorruptError: there is none.
    """
    files = data / "journal"
    if not files.is_dir():
        raise JournalCorruptError(f"{show(str(data))} has no journal", file=str(files), reason="missing")
    return files


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
    return Identity(str(fields["journal_id"]), key, int(fields["format"]))


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
