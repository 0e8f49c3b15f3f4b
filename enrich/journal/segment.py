"""Segments: the numbered NDJSON files of a journal, the manifest of a closed one, and reading their lines in order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from enrich.journal.disk import Disk
from enrich.journal.format import FORMAT, Header, Position, corrupt, parse_line, skim_line
from enrich.journal.identity import sealed, unseal

__all__ = [
    "PRUNED", "Line", "Manifest", "OpenSegment", "Scan", "current_manifest_path", "manifest_path", "read_manifest",
    "scan", "segment_path",
]  # fmt: skip

_CHUNK: Final = 1 << 20
#: behind the name of a file that is about to take the place of a segment or a manifest, see `prune`
PRUNED: Final = ".pruned"


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:08d}.ndjson"


def manifest_path(directory: Path, number: int) -> Path:
    return directory / f"{number:08d}.manifest.json"


def current_manifest_path(directory: Path, number: int) -> Path:
    """The manifest of the segment's file as it is: of one that was pruned, the new one from the file's rename on."""
    path, segment = manifest_path(directory, number), segment_path(directory, number)
    new = path.with_name(path.name + PRUNED)
    return new if new.exists() and not segment.with_name(segment.name + PRUNED).exists() else path


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a closed segment holds. `prev` is the hash before its first record, `hash` that of its last; `pruned` are
    the types whose bodies it was relieved of."""

    format: int
    journal_id: str
    number: int
    first_seq: int
    last_seq: int
    prev: str
    hash: str
    last_at: str
    lines: int
    file_bytes: int
    file_sha256: str
    sidecars: list[str]
    pruned: list[str] = field(default_factory=list)

    @property
    def end(self) -> Position:
        return Position(self.last_seq, self.hash)

    def encode(self) -> bytes:
        return sealed(asdict(self))


def read_manifest(path: Path) -> Manifest:
    """A manifest, its own seal checked.

    Raises:
        JournalCorruptError, NewerFormatError
    """
    fields: dict[str, Any] = unseal(path.read_bytes(), path.name)
    try:
        return Manifest(**fields)
    except TypeError as error:
        raise corrupt(f"not the fields of a manifest: {error}", path.name) from error


@dataclass(slots=True)
class OpenSegment:
    """The segment that is appended to; `digest` runs behind over the first `hashed` bytes of the file."""

    number: int
    path: Path
    fd: int
    start: Position
    end: Position
    last_at: str
    size: int = 0
    lines: int = 0
    sidecars: list[str] = field(default_factory=list)
    digest: Any = field(default_factory=hashlib.sha256)
    hashed: int = 0

    @classmethod
    def create(cls, directory: Path, number: int, start: Position, last_at: str, disk: Disk) -> OpenSegment:
        """An empty segment whose directory entry is durable."""
        path = segment_path(directory, number)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        disk.sync_dir(directory)
        return cls(number, path, fd, start, start, last_at)

    def digest_to(self, size: int) -> None:
        """Let the digest catch up to the first `size` bytes, read back from the file."""
        while self.hashed < size:
            data = os.pread(self.fd, min(_CHUNK, size - self.hashed), self.hashed)
            if not data:
                raise OSError(f"{self.path.name} is shorter than what was written to it")
            self.digest.update(data)
            self.hashed += len(data)

    def seal(self, directory: Path, journal_id: str, disk: Disk) -> Manifest:
        """Close for good: everything fsynced, then the manifest."""
        disk.datasync(self.fd)
        self.digest_to(self.size)
        manifest = Manifest(
            FORMAT, journal_id, self.number, self.start.seq + 1, self.end.seq, self.start.hash, self.end.hash,
            self.last_at, self.lines, self.size, self.digest.hexdigest(), self.sidecars,
        )  # fmt: skip
        disk.write_file(manifest_path(directory, self.number), manifest.encode())
        os.close(self.fd)
        self.fd = -1
        return manifest


@dataclass(frozen=True, slots=True)
class Line:
    """A line whose header and place in the chain are checked; its body is not."""

    number: int
    header: Header
    raw: bytes

    @property
    def body(self) -> bytes:
        return self.raw[self.header.body_start : -2]

    @property
    def sidecar(self) -> str | None:
        """The digest that names the record's sidecar."""
        if self.header.type != "events" or self.raw[-79:-68] != b'"sidecar":"':
            return None
        return self.raw[-68:-4].decode("ascii", "replace")


@dataclass(slots=True)
class Scan:
    """Where a walk over a segment stands: behind the last line yielded; `torn` are bytes after the last newline."""

    end: Position
    last_at: str
    size: int = 0
    lines: int = 0
    sidecars: list[str] = field(default_factory=list)
    torn: bytes = b""


def scan(path: Path, state: Scan, *, after: int = 0, limit: int | None = None) -> Iterator[Line]:
    """The lines of a segment whose last seq is above `after`, each one's header and chain checked.

    Lines up to `after` are skimmed: only that their seqs follow each other (the last of them is checked, since the next
    one's `prev` is its hash). `state` moves along.

    Args:
        path: the segment.
        state: the position before the segment; changed in place.
        limit: read only this many bytes; they end with a line.

    Raises:
        JournalCorruptError, NewerFormatError: with file, line and reason.
    """
    file = path.name
    left = limit if limit is not None else 1 << 62
    with open(path, "rb", buffering=_CHUNK) as handle:
        for raw in handle:
            if len(raw) > left:
                return
            left -= len(raw)
            if not raw.endswith(b"\n"):
                state.torn = raw
                return
            number = state.lines + 1
            expected = state.end.seq + 1
            if expected <= after:
                seq, count = skim_line(raw, file=file, number=number)
                if seq == expected and seq + count <= after:  # the next line is still one to skim
                    _move(state, raw, Position(seq + count - 1, ""), None)
                    if raw[-79:-68] == b'"sidecar":"' and b'"type":"events"' in raw[:80]:
                        state.sidecars.append(raw[-68:-4].decode("ascii", "replace"))
                    continue
            header = parse_line(raw, file=file, number=number)
            if header.seq != expected:
                raise corrupt(f"seq {header.seq} where {expected} comes next", file, number, header.seq)
            if header.prev != state.end.hash and state.end.hash:
                raise corrupt("`prev` is not the hash of the record before", file, number, header.seq)
            if header.at < state.last_at:
                raise corrupt(f"time {header.at} before that of the record before", file, number, header.seq)
            line = Line(number, header, raw)
            _move(state, raw, Position(header.last_seq, header.hash), header.at)
            if (sidecar := line.sidecar) is not None:
                state.sidecars.append(sidecar)
            if header.last_seq > after:
                yield line


def _move(state: Scan, raw: bytes, end: Position, at: str | None) -> None:
    state.end = end
    state.size += len(raw)
    state.lines += 1
    if at is not None:
        state.last_at = at
