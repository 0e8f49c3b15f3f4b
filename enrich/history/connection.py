"""Opening the DuckDB file: its settings, and DuckDB's refusals as errors of this project."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import duckdb

from enrich.errors import DataDirError, LockedError, show

__all__ = ["open_database", "reading"]

#: DuckDB rewrites its file after this much log: larger is faster to follow with, and slower to open after a crash
_WAL_BYTES: Final = "64MiB"
_DAMAGE: Final = (
    duckdb.IOException, duckdb.FatalException, duckdb.InternalException, duckdb.SerializationException,
)  # fmt: skip
_SETTINGS: Final[dict[str, Any]] = {
    # nothing is fetched from anywhere, and no Python variable stands for a table
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "wal_autocheckpoint": _WAL_BYTES,
}


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Damage that DuckDB finds, each block when it is first read, as an error of this project that says what to do.

    Raises:
        DataDirError
    """
    try:
        yield
    except duckdb.Error as error:
        # damage has no class of its own: it comes as the root class, as broken input, or as a database that gives up
        if type(error) is not duckdb.Error and not isinstance(error, _DAMAGE):
            raise
        raise DataDirError(
            f"{show(name)} can't be read: {error}",
            hint=f"delete {name} while the engine is stopped: it is rebuilt from the journal",
        ) from error


def open_database(path: Path, *, threads: int, memory_limit: str, read_only: bool) -> duckdb.DuckDBPyConnection:
    """A connection to the file, UTC on it and on all its cursors.

    Raises:
        LockedError: another process has it open.
        DataDirError: it is no DuckDB file, or can't be read.
    """
    config = {**_SETTINGS, "threads": threads, "memory_limit": memory_limit}
    with reading(path.name):
        try:
            connection = duckdb.connect(str(path), read_only=read_only, config=config)
        except duckdb.IOException as error:
            if "lock" in str(error).lower():
                raise LockedError(
                    f"another process has {show(path.name)} open",
                    hint="it must not be open elsewhere while the engine opens it",
                    file=path.name,
                ) from error
            raise
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        return connection
