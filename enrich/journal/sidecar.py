"""Parquet sidecars: the events of a batch too big for a line, in a file named by its own SHA-256.

Columns are those of an event in order, then `key` and `content` (16 bytes each); row i is the record's event i, so
DuckDB reads the file as it is. A nonce in the file's metadata keeps two equal batches from sharing a file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from enrich.errors import JournalFailedError, JournalFullError
from enrich.events.arrow import ARROW_SCHEMA, from_arrow
from enrich.events.canonical import canonical_events
from enrich.events.hashing import HASH_BYTES, key_hashes
from enrich.events.model import COLUMNS, EventBatch
from enrich.failpoints import Failpoint
from enrich.journal.bodies import leaves_sha256
from enrich.journal.disk import FULL_ERRNOS, Disk

__all__ = [
    "DIRECTORY", "read_sidecar", "remove_unnamed", "sidecar_path", "sidecar_problem", "sidecar_table", "write_sidecar",
    "write_table",
]  # fmt: skip

DIRECTORY: Final = "sidecars"
_NONCE: Final = b"enrich.nonce"
_HASH: Final = pa.binary(HASH_BYTES)
#: below this many rows zstd takes longer to begin (a context per column) than it saves
_ZSTD_ROWS: Final = 5_000
#: columns whose values repeat; the others would only pay for a dictionary
_REPEATING: Final = (
    "source", "kind", "outcome", "agent_id", "team_id", "workflow_id", "org_id", "action", "environment", "materiality",
    "actor_id", "error_type", "currency", "attributes",
)  # fmt: skip


def sidecar_path(directory: Path, digest: str) -> Path:
    return directory / DIRECTORY / f"{digest}.parquet"


def sidecar_table(batch: EventBatch) -> pa.Table:
    """A batch with the columns of a sidecar. Building it from Python lists is the part that holds the GIL."""
    attributes = batch.columns["attributes"]
    texts = [None if v is None else orjson.dumps(v, option=orjson.OPT_SORT_KEYS).decode() for v in attributes]
    columns = {**batch.columns, "attributes": texts}
    arrays = [pa.array(columns[c], ARROW_SCHEMA.field(c).type) for c in COLUMNS]
    arrays += [
        pa.Array.from_buffers(_HASH, batch.n, [None, pa.py_buffer(b"".join(hashes))])
        for hashes in (batch.keys, batch.contents)
    ]
    return pa.Table.from_arrays(arrays, names=[*COLUMNS, "key", "content"])


def write_sidecar(directory: Path, batch: EventBatch, disk: Disk, failpoint: Failpoint) -> tuple[str, Path]:
    """`write_table` of a batch."""
    return write_table(directory, sidecar_table(batch), disk, failpoint)


def write_table(directory: Path, table: pa.Table, disk: Disk, failpoint: Failpoint) -> tuple[str, Path]:
    """Write a `sidecar_table`; file and directory entry are durable on return. The heavy parts hold no GIL.

    Returns:
        The file's SHA-256 and its path.

    Raises:
        JournalFullError: no room; nothing is left behind.
        JournalFailedError: the disk failed.
    """
    table = table.replace_schema_metadata({_NONCE: secrets.token_hex(16)})
    large = table.num_rows >= _ZSTD_ROWS
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression="zstd" if large else "lz4", compression_level=1 if large else None,
        use_dictionary=list(_REPEATING), write_statistics=["occurred_at"],
    )  # fmt: skip
    data = sink.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    path = sidecar_path(directory, digest)
    aside = path.with_suffix(".tmp")
    try:
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[disk.write(fd, [view]) :]
            disk.datasync(fd)
        finally:
            os.close(fd)
        disk.replace(aside, path)
    except OSError as error:
        for leftover in (aside, path):
            leftover.unlink(missing_ok=True)
        if error.errno in FULL_ERRNOS:
            raise JournalFullError(f"no room for a batch of {table.num_rows} events: {error.strerror}") from error
        raise JournalFailedError(
            f"a batch of {table.num_rows} events can't be made durable: {error.strerror}"
        ) from error
    failpoint("sidecar.written")
    return digest, path


def read_sidecar(path: Path, hash_key: bytes) -> EventBatch:
    """The events of a sidecar, keys and contents as they were stored."""
    return from_arrow(pq.read_table(path), hash_key=hash_key)


def sidecar_problem(
    path: Path, count: int, salt: bytes, body_sha256: str, hash_key: bytes, *, every_row: bool
) -> str | None:
    """Why a sidecar does not stand for its record; None when it does.

    The file's digest finds any changed byte; with `every_row` each event's leaf hash and key are computed again too,
    which finds a file that was replaced together with its name.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return "the sidecar is missing"
    except OSError as error:
        return f"the sidecar can't be read: {os.strerror(error.errno or errno.EIO)}"
    if hashlib.sha256(data).hexdigest() != path.stem:
        return "the sidecar does not have the hash that names it"
    if not every_row:
        return None
    try:
        batch = from_arrow(pq.read_table(pa.BufferReader(data)), hash_key=hash_key)
        if batch.n != count:
            return f"the sidecar has {batch.n} rows, its record counts {count}"
        keys = key_hashes(batch.columns["source"], batch.columns["event_id"], hash_key)
        if keys != batch.keys:
            return f"row {next(i for i in range(count) if keys[i] != batch.keys[i])} of the sidecar has another key"
        good = leaves_sha256(salt, batch.contents, canonical_events(batch)) == body_sha256
    except (pa.ArrowException, ValueError, TypeError, KeyError, OverflowError) as error:
        return f"the sidecar can't be read: {error}"
    return None if good else "the sidecar's events do not have their leaf hashes"


def remove_unnamed(directory: Path, named: set[str], disk: Disk) -> list[str]:
    """Remove what a crash left between a sidecar and its line; returns the names removed."""
    removed = []
    for path in (directory / DIRECTORY).iterdir():
        if path.suffix != ".parquet" or path.stem not in named:
            path.unlink()
            removed.append(path.name)
    if removed:
        disk.sync_dir(directory / DIRECTORY)
    return sorted(removed)
