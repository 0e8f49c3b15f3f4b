"""Where a DuckDB file stands, without following anything."""

from __future__ import annotations

from pathlib import Path

from enrich.errors import NewerFormatError, show
from enrich.history import schema
from enrich.history.connection import open_database, reading
from enrich.history.store import FILE_NAME
from enrich.journal.format import Position

__all__ = ["follow_on", "stored_position"]


def follow_on(directory: Path, journal_id: str) -> None:
    """Let the history of a data directory follow another journal, one that begins with the records which it has.

    The caller vouches for that; the next start checks that the journal has the very record where the history stands.

    Raises:
        LockedError, DataDirError: it can't be opened.
    """
    path = directory / FILE_NAME
    with reading(path.name):
        connection = open_database(path, threads=1, memory_limit="1GiB", read_only=False)
        try:
            connection.execute("UPDATE history_meta SET journal_id = ?", [journal_id])
            connection.execute("CHECKPOINT")
        finally:
            connection.close()


def stored_position(directory: Path) -> tuple[str, Position] | None:
    """Which journal the history of a data directory follows, and up to where; None when there is no history.

    The file and its log stay as they are.

    Raises:
        LockedError: another process has it open.
        NewerFormatError: a newer version wrote the file.
        DataDirError: it is no history of this engine, or is damaged.
    """
    path = directory / FILE_NAME
    if not path.exists():
        return None
    with reading(path.name):
        connection = open_database(path, threads=1, memory_limit="1GiB", read_only=True)
        try:
            found = schema.read_format(connection)
            if found is None:
                return None
            if found > schema.FORMAT:
                raise NewerFormatError(
                    f"the history file has format {show(found)}, newer than {show(schema.FORMAT)}",
                    found=found, supported=schema.FORMAT,
                )  # fmt: skip
            journal_id, seq, digest = connection.execute("SELECT journal_id, seq, hash FROM history_meta").fetchall()[0]
        finally:
            connection.close()
    return str(journal_id), Position(int(seq), str(digest))
