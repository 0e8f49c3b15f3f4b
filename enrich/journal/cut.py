"""Working out a cut: whether everything up to a record verifies, and what would be given up behind it.

Nothing is changed here; `aside.give_up` makes the cut. What stays is verified as a start does that trusts no follower.
What goes is only read as far as it can be read, to be shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from enrich.errors import BadRequestError, EnrichError, JournalCorruptError, NewerFormatError
from enrich.journal.bodycheck import BodyCheck
from enrich.journal.format import Position, corrupt, parse_line
from enrich.journal.identity import FILE, Identity, journal_files, read_identity
from enrich.journal.recovery import BEGINNING, find_files
from enrich.journal.segment import Scan, current_manifest_path, manifest_path, read_manifest, scan, segment_path
from enrich.journal.sidecar import DIRECTORY

__all__ = ["CutPlan", "GivenUp", "plan_cut"]


@dataclass(slots=True)
class GivenUp:
    """What lies behind a cut.

    Attributes:
        records: complete lines, those that can't be read included.
        events: of the lines that can be read.
        unreadable: lines whose header does not verify.
        loose_bytes: bytes after the last newline of a segment.
        last_seq: the highest that can be read; None when none can.
        first_at, last_at: from when to when they were recorded, of those that can be read.
    """

    records: int = 0
    events: int = 0
    unreadable: int = 0
    loose_bytes: int = 0
    last_seq: int | None = None
    first_at: str | None = None
    last_at: str | None = None

    def add(self, path: Path, after_bytes: int) -> None:
        """Count what a segment holds behind its first bytes."""
        with open(path, "rb") as file:
            file.seek(after_bytes)
            for raw in file:
                if not raw.endswith(b"\n"):
                    self.loose_bytes += len(raw)
                    return
                self.records += 1
                try:
                    header = parse_line(raw, file=path.name, number=0)
                except EnrichError:
                    self.unreadable += 1
                    continue
                self.events += header.count if header.type == "events" else 0
                self.last_seq = max(self.last_seq or 0, header.last_seq)
                self.first_at = min(self.first_at or header.at, header.at)
                self.last_at = max(self.last_at or header.at, header.at)


@dataclass(frozen=True, slots=True)
class CutPlan:
    """A journal that can be cut.

    Attributes:
        files: DATA/journal.
        kept: the last record that stays; at 0, none does.
        segment: the one that ends with it.
        size: how many of its bytes stay.
        cut_bytes: how many of its bytes are given up.
        segments, manifests: given up whole, in order; the manifest of `segment` among them when it no longer holds.
        sidecars: those that no remaining line names.
    """

    journal_id: str
    files: Path
    kept: Position
    segment: Path
    size: int
    cut_bytes: int
    segments: tuple[Path, ...]
    manifests: tuple[Path, ...]
    sidecars: tuple[Path, ...]
    given_up: GivenUp

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that lose something or go."""
        return (*((self.segment,) if self.cut_bytes else ()), *self.segments, *self.manifests, *self.sidecars)


@dataclass(slots=True)
class _Place:
    """Where a walk stands: in segment `number`, which begins behind `start`. `sealed`: all segments before have their
    manifests."""

    number: int
    start: Position
    walk: Scan
    sealed: bool = True
    sidecars: set[str] = field(default_factory=set)

    def next(self, identity: Identity) -> None:
        self.sidecars.update(self.walk.sidecars)
        self.number, self.start = self.number + 1, identity.after(self.walk.end)
        self.walk = Scan(self.start, self.walk.last_at)


def plan_cut(data: Path, after: int) -> CutPlan:
    """Check that the journal can be cut after the record whose last seq is `after`. Reads only.

    The caller holds the directory's lock, or what was found may not be true any more.

    Args:
        data: the data directory.
        after: the last seq that stays; 0 leaves an empty journal with the identity it has.

    Raises:
        BadRequestError: `not_a_record_end`, with the ends of the records around; `before_restore`.
        JournalCorruptError: something up to there does not verify; the hint says up to where it does.
        NewerFormatError: a newer version wrote something up to there; the hint says the same.
        OSError: a file can't be read.
    """
    files = journal_files(data)
    try:
        identity = read_identity(files)
    except FileNotFoundError as error:
        raise corrupt("the file is missing", FILE) from error
    place = _reach(files, identity, after)
    number, walk = place.number, place.walk
    segment = segment_path(files, number)
    there = _size(files, number)
    numbers, manifests = find_files(files)
    later = sorted(n for n in numbers if n > number)
    if place.sealed and later == [number + 1] and number + 1 not in manifests and not _size(files, number + 1):
        later = []  # made ahead, as every journal has one
    whole = after > 0 and there == walk.size and place.sealed and _holds(files, identity, place)
    place.sidecars.update(walk.sidecars)
    given_up = GivenUp()
    if there > walk.size:
        given_up.add(segment, walk.size)
    for n in later:
        given_up.add(segment_path(files, n), 0)
    return CutPlan(
        identity.journal_id, files, walk.end, segment, walk.size, there - walk.size,
        tuple(segment_path(files, n) for n in later),
        tuple(manifest_path(files, n) for n in sorted(manifests) if n > number or (n == number and not whole)),
        _unnamed(files, place.sidecars), given_up,
    )  # fmt: skip


def _size(files: Path, number: int) -> int:
    path = segment_path(files, number)
    return path.stat().st_size if path.exists() else 0


def _unnamed(files: Path, named: Iterable[str]) -> tuple[Path, ...]:
    kept = set(named)
    return tuple(sorted(p for p in (files / DIRECTORY).glob("*.parquet") if p.stem not in kept))


def _reach(files: Path, identity: Identity, after: int) -> _Place:
    """Walk up to the record that ends at `after`, everything verified on the way."""
    if identity.ancestors and after <= identity.restored_seq:
        raise BadRequestError(
            f"the journal was restored at seq `{identity.restored_seq}`, and has to keep the record that says so",
            code="before_restore",
            hint="restore the backup again, or an older one",
        )
    begin = identity.beginning
    place = _Place(1, begin, Scan(begin, BEGINNING))
    if after == 0:
        return place
    check = BodyCheck(files, identity, every_row=False)
    try:
        _walk(files, identity, after, place, check)
        for problem in check.problems():
            raise corrupt(problem.reason, problem.file, problem.line, problem.seq)
    except (JournalCorruptError, NewerFormatError) as error:
        # a record whose body does not verify has a seq that does: its header's hash covers it
        good = min([place.walk.end.seq, *(p.seq - 1 for p in check.problems() if p.seq is not None)])
        hint = f"what verifies ends at {good}: `enrich journal cut --after {good}` keeps that"
        if isinstance(error, NewerFormatError):
            hint = f"{error.hint}; or, if it is damage, {hint}"
        detail = {**error.detail, "hint": hint, "verified_seq": good}
        raise type(error)(error.message, **detail) from error
    return place


def _walk(files: Path, identity: Identity, after: int, place: _Place, check: BodyCheck) -> None:
    numbers, manifests = find_files(files)
    highest = max(numbers | manifests, default=0)
    while place.number <= highest:
        path = segment_path(files, place.number)
        if place.number not in numbers:
            raise corrupt("the file is missing", path.name, seq=place.start.seq + 1)
        for line in scan(path, place.walk):
            check.see(path.name, line)
            if line.header.last_seq > after:
                raise _no_end(after, line.header.seq - 1, line.header.last_seq)
            if line.header.last_seq == after:
                return
        if place.number == highest:
            break
        if place.walk.torn:
            raise corrupt("the segment ends within a line", path.name, place.walk.lines + 1)
        if place.number in manifests and not _holds(files, identity, place):
            raise corrupt("the segment is not what its manifest says", path.name, seq=place.walk.end.seq)
        if not place.sealed:
            # a start takes two segments without a manifest, the last ones
            raise corrupt("the file is missing", manifest_path(files, place.number - 1).name, seq=place.start.seq)
        place.sealed = place.number in manifests
        place.next(identity)
    raise _no_end(after, place.walk.end.seq, None)


def _holds(files: Path, identity: Identity, place: _Place) -> bool:
    """Whether the segment walked through has a manifest, and is what it says."""
    path, walk = current_manifest_path(files, place.number), place.walk
    try:
        said = read_manifest(path)
    except (FileNotFoundError, JournalCorruptError):
        return False
    owner = identity.journal_of(place.start.seq + 1)
    found = (owner, place.number, place.start.seq + 1, place.start.hash, walk.end, walk.last_at)
    return (
        found == (said.journal_id, said.number, said.first_seq, said.prev, said.end, said.last_at)
        and (walk.lines, walk.size, walk.sidecars) == (said.lines, said.file_bytes, said.sidecars)
    )  # fmt: skip


def _no_end(after: int, before: int, behind: int | None) -> BadRequestError:
    if behind is None:
        ends, where = [before], f"the journal ends at `{before}`"
    else:
        ends, where = [before, behind], f"around it they end at `{before}` and at `{behind}`"
    return BadRequestError(
        f"no record ends at seq `{after}`: {where}",
        code="not_a_record_end",
        hint="cut where a record ends: " + " or ".join(f"`--after {end}`" for end in ends),
        ends=ends,
    )
