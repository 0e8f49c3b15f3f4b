"""Files and bodies of events: NDJSON (plain or gzip) and Parquet, read in bounded batches for `EventParser`.

A line that is no JSON becomes an `Unreadable` in its event's place, which the parser refuses like any other bad event;
the file is read on.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from enrich.errors import BadRequestError, EnrichError, show
from enrich.events.json import strict_loads
from enrich.events.refusals import Unreadable

__all__ = ["FileBatch", "decode_ndjson", "read_events"]

#: an event is at most some 20 KB: attributes of 8 KiB in escapes, and 16 strings of 200 characters
MAX_LINE_BYTES: Final = 262_144
_MAX_DEPTH: Final = 16


@dataclass(frozen=True, slots=True)
class FileBatch:
    """A bounded part of a file.

    `events` is for `EventParser.parse` (a list) or `parse_frame` (a table); `places[i]` is the line (NDJSON) or row
    (Parquet) of event i, counted from 1; `read_bytes` of `total_bytes` of the file have been read so far, for a
    progress bar (as stored, so compressed bytes of a .gz).
    """

    events: list[object] | pa.Table
    places: range | list[int]
    read_bytes: int
    total_bytes: int


def read_events(
    path: Path, *, batch_rows: int = 10_000, batch_bytes: int = 32 << 20, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[FileBatch]:
    """The events of one file in its order; which format it has is told by its first bytes, not by its name.

    Args:
        path: an NDJSON file, the same gzipped, or a Parquet file.
        batch_rows: the most events in a batch.
        batch_bytes: an NDJSON batch ends after the line that passes this.
        max_line_bytes: a longer line is one unreadable event; it is skipped, not held in memory.

    Raises:
        BadRequestError: `unreadable_file`: it can't be opened, is a damaged gzip or Parquet file. Batches before the
            damage have been given.
    """
    try:
        with path.open("rb") as file:
            total = path.stat().st_size
            magic = file.read(4)
            file.seek(0)
            if magic == b"PAR1":
                yield from _read_parquet(file, batch_rows, total)
            elif magic[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=file, mode="rb") as plain:
                    stream = io.BufferedReader(plain, 1 << 20)
                    yield from _read_ndjson(stream, file, batch_rows, batch_bytes, max_line_bytes, total)
            else:
                yield from _read_ndjson(file, file, batch_rows, batch_bytes, max_line_bytes, total)
    except (OSError, EOFError, zlib.error, pa.ArrowException) as e:
        raise BadRequestError(f"{show(str(path))} can't be read: {e}", code="unreadable_file", file=str(path)) from e


def decode_ndjson(data: bytes, *, max_line_bytes: int = MAX_LINE_BYTES) -> list[object]:
    """The events of an NDJSON body: one per line that is not blank, an `Unreadable` for each line that is no JSON."""
    return [_decode_line(line, max_line_bytes) for line in data.split(b"\n") if not line.isspace() and line]


def _decode_line(line: bytes, max_line_bytes: int) -> object:
    if len(line) > max_line_bytes:
        return _too_long(max_line_bytes)
    try:
        return strict_loads(line, max_bytes=max_line_bytes, max_depth=_MAX_DEPTH)
    except EnrichError as e:
        return Unreadable(e.error_code, e.message)


def _too_long(max_line_bytes: int) -> Unreadable:
    return Unreadable("line_too_long", f"the line is longer than {max_line_bytes} bytes")


def _read_ndjson(
    stream: IO[bytes], file: IO[bytes], batch_rows: int, batch_bytes: int, max_line_bytes: int, total: int
) -> Iterator[FileBatch]:
    events: list[object] = []
    places: list[int] = []
    size, number = 0, 0
    while line := stream.readline(max_line_bytes + 2):
        number += 1
        size += len(line)
        if not line.isspace():
            whole = line.endswith(b"\n") or len(line) <= max_line_bytes
            events.append(_decode_line(line.rstrip(b"\r\n"), max_line_bytes) if whole else _too_long(max_line_bytes))
            places.append(number)
        while not line.endswith(b"\n") and line:
            line = stream.readline(1 << 20)
        if len(events) >= batch_rows or size >= batch_bytes:
            yield FileBatch(events, places, file.tell(), total)
            events, places, size = [], [], 0
    if events:
        yield FileBatch(events, places, total, total)


def _read_parquet(file: IO[bytes], batch_rows: int, total: int) -> Iterator[FileBatch]:
    with pq.ParquetFile(file) as parquet:
        rows, first = parquet.metadata.num_rows, 1
        for batch in parquet.iter_batches(batch_size=batch_rows):
            table = pa.Table.from_batches([batch])
            end = first + table.num_rows
            yield FileBatch(table, range(first, end), total * (end - 1) // max(1, rows), total)
            first = end
