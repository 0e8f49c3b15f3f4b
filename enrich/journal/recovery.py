"""Opening a journal's files: manifests checked, the tail verified, torn bytes set aside, the open segment made anew.

Torn is only what follows the last newline of the last segment. A complete line that does not verify is never cut: it
stops the start, and `enrich journal cut` is the operator's decision.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from enrich.errors import EnrichError, JournalBehindError, JournalCorruptError, JournalFailedError
from enrich.journal.bodies import body_problem
from enrich.journal.bodycheck import BodyCheck
from enrich.journal.disk import Disk
from enrich.journal.format import Position, corrupt, parse_line
from enrich.journal.identity import FILE, Identity
from enrich.journal.segment import (
    Manifest,
    OpenSegment,
    Scan,
    current_manifest_path,
    manifest_path,
    read_manifest,
    scan,
    segment_path,
)
from enrich.journal.sidecar import DIRECTORY, remove_unnamed

__all__ = [
    "BEGINNING", "Recovered", "complete_but_for_newline", "find_files", "list_segments", "records_missing", "recover",
]  # fmt: skip

#: `at` before the first record
BEGINNING: Final = "0001-01-01T00:00:00.000000Z"
_SEGMENT: Final = re.compile(r"([0-9]{8})\.(ndjson|manifest\.json)")
_LEFTOVER: Final = re.compile(r"[0-9]{8}\.(ndjson\.new|manifest\.json\.tmp)|journal\.json\.tmp|hash\.key\.tmp")
_CHUNK: Final = 1 << 20


@dataclass(slots=True)
class Recovered:
    """A journal ready to be appended to, and what had to be done to it."""

    manifests: list[Manifest]
    open: OpenSegment
    torn: list[str] = field(default_factory=list)
    removed_sidecars: list[str] = field(default_factory=list)


def find_files(directory: Path) -> tuple[set[int], set[int]]:
    """The numbers of the segments that are there, and of the manifests."""
    found: dict[str, set[int]] = {"ndjson": set(), "manifest.json": set()}
    for name in os.listdir(directory):
        match = _SEGMENT.fullmatch(name)
        if match is not None:
            found[match[2]].add(int(match[1]))
    return found["ndjson"], found["manifest.json"]


def list_segments(directory: Path, identity: Identity) -> tuple[list[Manifest], list[int]]:
    """The manifests of the closed segments, checked against each other, and the numbers of those without one.

    Raises:
        JournalCorruptError: a segment is missing, has another size than its manifest says, or does not follow the
        one before.
    """
    files, closed = find_files(directory)
    highest = max(closed | files, default=0)
    if not highest and any((directory / DIRECTORY).glob("*.parquet")):
        # a journal that was just made has no sidecars yet: these are of lines that are gone
        raise corrupt("the file is missing", segment_path(directory, 1).name)
    manifests: list[Manifest] = []
    end = identity.beginning
    for number in range(1, highest + 1):
        if number not in closed:
            rest = list(range(number, highest + 1))
            missing = [n for n in rest if n not in files]
            if missing or any(n in closed for n in rest) or len(rest) > 2:
                name = segment_path(directory, missing[0]).name if missing else manifest_path(directory, number).name
                raise corrupt("the file is missing", name)
            return manifests, rest
        path = current_manifest_path(directory, number)
        manifest = read_manifest(path)
        # a segment is one journal's: what an ancestor wrote ends with a segment
        owners = {manifest.journal_id, identity.journal_of(manifest.first_seq), identity.journal_of(manifest.last_seq)}
        if len(owners) != 1 or manifest.number != number:
            raise corrupt("the manifest is of another segment or journal", path.name)
        if (manifest.first_seq, manifest.prev) != (end.seq + 1, end.hash):
            raise corrupt("the segment does not follow the one before", path.name, seq=manifest.first_seq)
        if number not in files:
            raise corrupt("the file is missing", segment_path(directory, number).name, seq=manifest.first_seq)
        size = segment_path(directory, number).stat().st_size
        if size != manifest.file_bytes:
            raise corrupt(
                f"{size} bytes, its manifest says {manifest.file_bytes}", segment_path(directory, number).name
            )
        manifests.append(manifest)
        end = identity.after(manifest.end)
    return manifests, []


def records_missing(identity: Identity, head_seq: int) -> str | None:
    """Why a journal that ends at `head_seq` can't be whole; None when nothing is known against it."""
    if not identity.ancestors or head_seq > identity.restored_seq:
        return None
    return f"the journal was restored at {identity.restored_seq}, and nothing is there of what was written since"


def recover(directory: Path, identity: Identity, disk: Disk, verified_through: int, followed: int = 0) -> Recovered:
    """See `Journal.open`.

    Args:
        followed: what followers have applied.

    Raises:
        JournalCorruptError, NewerFormatError, JournalBehindError: the start stops; no record was touched.
        JournalFailedError: the surviving part can't be made durable.
    """
    manifests, rest = list_segments(directory, identity)
    check = BodyCheck(directory, identity, every_row=False)
    start = Scan(identity.beginning, BEGINNING)
    for manifest in manifests:
        if manifest.last_seq > verified_through:
            path = segment_path(directory, manifest.number)
            walk = Scan(start.end, start.last_at)
            for line in scan(path, walk, after=verified_through):
                check.see(path.name, line)
            if walk.torn or walk.end != manifest.end:
                raise corrupt("the segment does not end as its manifest says", path.name, walk.lines, walk.end.seq)
        start = Scan(identity.after(manifest.end), manifest.last_at)
    scans: list[Scan] = []
    for number in rest:
        path = segment_path(directory, number)
        try:
            walk = _walk_open(path, start, check, verified_through)
            complete_but_for_newline(walk, path.name)
        except JournalCorruptError:
            if not (scans and scans[0].torn):
                raise
            walk = Scan(start.end, start.last_at)  # see `_set_aside`
        scans.append(walk)
        start = Scan(walk.end, walk.last_at)
    for problem in check.problems():
        raise corrupt(problem.reason, problem.file, problem.line, problem.seq)
    if (missing := records_missing(identity, start.end.seq)) is not None:
        raise corrupt(missing, FILE, seq=identity.restored_seq + 1)
    if start.end.seq < followed:
        raise JournalBehindError(
            f"followers or anchors have record {followed}, the journal ends at {start.end.seq}",
            hint="put back the journal's files: records that were acknowledged are missing",
            seq=followed,
        )

    try:
        return _rewrite(directory, identity, disk, manifests, rest, scans)
    except OSError as error:
        raise JournalFailedError(f"the journal's tail can't be made durable: {error}") from error


def _walk_open(path: Path, start: Scan, check: BodyCheck, after: int) -> Scan:
    walk = Scan(start.end, start.last_at)
    for line in scan(path, walk, after=after):
        check.see(path.name, line)
    if walk.lines and not walk.end.hash:  # all of it was skimmed: the last line's hash is needed all the same
        last = walk.end.seq
        walk = Scan(start.end, start.last_at)
        for _ in scan(path, walk, after=last):
            pass
    return walk


def complete_but_for_newline(walk: Scan, file: str, *, crashed: bool = True) -> None:
    """Refuse a tail that is a whole record with something else in place of its newline: no torn write leaves that.

    Args:
        crashed: take a NUL there for what a power cut leaves.

    Raises:
        JournalCorruptError
    """
    if len(walk.torn) < 2 or (crashed and walk.torn.endswith(b"\0")):
        return
    line = walk.torn[:-1] + b"\n"
    try:
        header = parse_line(line, file=file, number=walk.lines + 1)
    except EnrichError:
        return
    if body_problem(header.type, header.count, header.body_sha256, line[header.body_start : -2]) is None:
        raise corrupt("the record's newline was overwritten", file, walk.lines + 1, header.seq)


def _rewrite(
    directory: Path, identity: Identity, disk: Disk, manifests: list[Manifest], rest: list[int], scans: list[Scan]
) -> Recovered:
    """What is known to be good moves to new files: a second fsync of the same file would prove nothing."""
    for name in os.listdir(directory):
        if _LEFTOVER.fullmatch(name):
            (directory / name).unlink()
    named = {s for m in manifests for s in m.sidecars}.union(*(w.sidecars for w in scans))
    done = Recovered(list(manifests), _none_open())
    _set_aside(directory, disk, rest, scans, done)
    start = identity.after(manifests[-1].end) if manifests else identity.beginning
    last_at = manifests[-1].last_at if manifests else BEGINNING
    for i, (number, walk) in enumerate(zip(rest, scans, strict=True)):
        segment = _copied(directory, number, start, walk, disk)
        if i + 1 < len(rest):
            done.manifests.append(segment.seal(directory, identity.journal_id, disk))
        else:
            done.open = segment
        start, last_at = walk.end, walk.last_at
    if not rest:
        done.open = OpenSegment.create(directory, len(manifests) + 1, start, last_at, disk)
    done.removed_sidecars = remove_unnamed(directory, named, disk)
    return done


def _none_open() -> OpenSegment:
    return OpenSegment(0, Path(), -1, Position(0, ""), Position(0, ""), BEGINNING)


def _set_aside(directory: Path, disk: Disk, rest: list[int], scans: list[Scan], done: Recovered) -> None:
    """Move torn bytes to `.torn` files, and forget a next segment that was made ahead.

    Where two segments are without a manifest and the first is torn, a power cut lost the end of the first before its
    fsync: no line of the second was ever answered (its answers wait for the first's manifest), so the second goes
    whole.
    """
    if len(rest) == 2 and (not scans[1].size or scans[0].torn):
        path = segment_path(directory, rest[1])
        data = path.read_bytes()
        if data:
            _write_torn(directory, f"{path.name}.0", data, disk, done)
        path.unlink()
        disk.sync_dir(directory)
        del rest[1], scans[1]
    for number, walk in zip(rest, scans, strict=True):
        if walk.torn:
            _write_torn(directory, f"{segment_path(directory, number).name}.{walk.size}", walk.torn, disk, done)


def _write_torn(directory: Path, stem: str, data: bytes, disk: Disk, done: Recovered) -> None:
    path, again = directory / f"{stem}.torn", 0
    while path.exists() and path.read_bytes() != data:  # an earlier crash was torn at the same place
        again += 1
        path = directory / f"{stem}.{again}.torn"
    disk.write_file(path, data)
    done.torn.append(path.name)


def _copied(directory: Path, number: int, start: Position, walk: Scan, disk: Disk) -> OpenSegment:
    """The surviving part of a segment in a new, durable file under the old name, opened for appending."""
    path = segment_path(directory, number)
    aside = path.with_name(path.name + ".new")
    digest = hashlib.sha256()
    fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        left = walk.size
        with open(path, "rb") as source:
            while left:
                data = source.read(min(_CHUNK, left))
                if not data:
                    raise OSError(f"{path.name} became shorter while it was copied")
                digest.update(data)
                left -= len(data)
                while data:
                    data = data[disk.write(fd, [data]) :]
        disk.datasync(fd)
        disk.replace(aside, path)
    except BaseException:
        os.close(fd)
        raise
    return OpenSegment(
        number, path, fd, start, walk.end, walk.last_at, walk.size, walk.lines, walk.sidecars, digest, walk.size
    )
