"""Copying a journal up to one record, verified as it is read: what a backup is made of, and a restored journal.

The source may be that of a live service: segments are only appended to, or replaced as whole files, and nothing up to a
durable record changes. So no lock is needed, and nobody waits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from enrich.errors import BackupError, JournalBehindError, show
from enrich.failpoints import failpoint
from enrich.journal.bodycheck import BodyCheck
from enrich.journal.disk import Disk
from enrich.journal.format import FORMAT, Position, corrupt
from enrich.journal.identity import Identity
from enrich.journal.recovery import BEGINNING
from enrich.journal.segment import (
    Manifest,
    Scan,
    current_manifest_path,
    manifest_path,
    read_manifest,
    scan,
    segment_path,
)
from enrich.journal.sidecar import DIRECTORY, sidecar_path

__all__ = ["CopiedFile", "JournalCopy", "copied_file", "copy_journal"]

_CHUNK: Final = 1 << 20

#: called with (bytes done, bytes in all, about)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class CopiedFile:
    """A file of a backup: its path within, size, and SHA-256."""

    name: str
    bytes: int
    sha256: str

    def body(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class JournalCopy:
    """What was copied; `manifests` are those of all segments, the last one's too: nothing in a copy is open."""

    end: Position
    last_at: str
    manifests: tuple[Manifest, ...]
    files: tuple[CopiedFile, ...]
    records: int
    events: int


def copy_journal(
    source: Path, target: Path, identity: Identity, upto: Position, disk: Disk, progress: Progress
) -> JournalCopy:
    """Copy everything up to the record at `upto` into an empty directory, durable on return.

    Each line's place in the chain, its body and the digest of its sidecar are checked on the way, and each segment
    against its manifest. The segment in which `upto` stands is cut behind it, and gets a manifest of its own.

    Args:
        source: a journal's directory; it may be in use.
        target: is there, and empty.
        upto: a durable record of the source.

    Raises:
        JournalCorruptError, NewerFormatError: something up to there does not verify.
        JournalBehindError: the source does not have that record.
        BackupError: `backup_overtaken`, bodies were let go of by a record behind `upto`.
        OSError: a file can't be read or written.
    """
    (target / DIRECTORY).mkdir(mode=0o700)
    disk.sync_dir(target)
    return _Copy(source, target, identity, upto, disk, progress).run()


def copied_file(path: Path, name: str) -> CopiedFile:
    """A file as it is."""
    with open(path, "rb") as file:
        return CopiedFile(name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


class _Copy:
    def __init__(
        self, source: Path, target: Path, identity: Identity, upto: Position, disk: Disk, progress: Progress
    ) -> None:
        self._source = source
        self._target = target
        self._identity = identity
        self._upto = upto
        self._disk = disk
        self._progress = progress
        # the copied sidecars are what is checked
        self._check = BodyCheck(target, identity, every_row=False)
        self._files: list[CopiedFile] = []
        self._pruned: set[str] = set()
        self._records = self._events = self._done = 0
        paths = (*source.glob("*.ndjson"), *(source / DIRECTORY).glob("*.parquet"))
        self._total = sum(path.stat().st_size for path in paths)

    def run(self) -> JournalCopy:
        end, last_at, number = self._identity.beginning, BEGINNING, 0
        manifests: list[Manifest] = []
        while end.seq < self._upto.seq:
            number += 1
            manifest = self._segment(number, end, last_at)
            manifests.append(manifest)
            end, last_at = self._identity.after(manifest.end), manifest.last_at
        if not manifests or manifests[-1].end != self._upto:
            raise JournalBehindError(
                f"the journal's record at {show(self._upto.seq)} is not the one that was told", seq=self._upto.seq
            )
        for problem in self._check.problems():
            if problem.file in self._pruned and "missing" in problem.reason:
                raise _overtaken(problem.file)
            raise corrupt(problem.reason, problem.file, problem.line, problem.seq)
        self._progress(self._total, self._total)
        return JournalCopy(self._upto, last_at, tuple(manifests), tuple(self._files), self._records, self._events)

    def _segment(self, number: int, start: Position, last_at: str) -> Manifest:
        path, walk = segment_path(self._source, number), Scan(start, last_at)
        if not path.exists():
            raise JournalBehindError(
                f"the journal ends at {show(start.seq)}, before {show(self._upto.seq)}", seq=self._upto.seq
            )
        said = current_manifest_path(self._source, number)
        before = read_manifest(said) if said.exists() else None
        digest = self._lines(path, walk)
        manifest = Manifest(
            FORMAT, self._identity.journal_of(walk.end.seq), number, start.seq + 1, walk.end.seq, start.hash,
            walk.end.hash, walk.last_at, walk.lines, walk.size, digest, walk.sidecars,
        )  # fmt: skip
        if walk.torn or not walk.lines:
            raise JournalBehindError(
                f"the journal ends at {show(walk.end.seq)}, before {show(self._upto.seq)}", seq=self._upto.seq
            )
        said = current_manifest_path(self._source, number)
        after = read_manifest(said) if said.exists() else manifest
        if after.pruned:
            self._pruned.add(path.name)
        # it may have been pruned meanwhile: what was copied is the file as it was before, or as it is now
        told = next((m for m in (before, after) if m is not None and m == replace(manifest, pruned=m.pruned)), after)
        manifest = replace(manifest, pruned=told.pruned)
        if told != manifest and told.last_seq <= self._upto.seq:
            raise corrupt("the segment is not what its manifest says", path.name, seq=walk.end.seq)
        self._write(manifest_path(self._target, number).name, manifest.encode())
        return manifest

    def _lines(self, path: Path, walk: Scan) -> str:
        """Copy a segment's lines, up to the last one wanted; the digest of what was copied."""
        digest, target = hashlib.sha256(), self._target / path.name
        with open(target, "xb", buffering=_CHUNK) as file:
            for line in scan(path, walk):
                if line.sidecar is not None:
                    self._sidecar(line.sidecar)
                self._check.see(path.name, line)
                file.write(line.raw)
                digest.update(line.raw)
                self._records += 1
                self._events += line.header.count if line.header.type == "events" else 0
                self._went(len(line.raw))
                if line.header.last_seq >= self._upto.seq:
                    walk.torn = b""
                    break
            file.flush()
            self._disk.datasync(file.fileno())
        self._add(path.name, walk.size, digest.hexdigest())
        return digest.hexdigest()

    def _sidecar(self, digest: str) -> None:
        path = sidecar_path(self._source, digest)
        if not path.exists():
            return  # which the check of the line finds, unless a later record accounts for it
        data = path.read_bytes()
        self._write(f"{DIRECTORY}/{path.name}", data)
        self._went(len(data))

    def _write(self, name: str, data: bytes) -> None:
        self._disk.write_file(self._target / name, data)
        self._add(name, len(data), hashlib.sha256(data).hexdigest())

    def _add(self, name: str, size: int, digest: str) -> None:
        self._disk.sync_dir((self._target / name).parent)
        self._files.append(CopiedFile(name, size, digest))
        failpoint("backup.file")

    def _went(self, size: int) -> None:
        self._done += size
        if self._records % 256 == 0:
            self._progress(self._done, max(self._done, self._total))


def _overtaken(file: str) -> BackupError:
    return BackupError(
        f"bodies in {file} were let go of after the head was told up to which it was to be copied",
        code="backup_overtaken",
        hint="take another backup: it will know of that",
    )
