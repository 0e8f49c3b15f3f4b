"""The journal as it lies there now, read anew: every line with what is wrong with it, past all damage.

`verify` says whether a journal is whole, and a start refuses one that is not. Replay needs more: which records still
stand, and which lost their proof. So nothing here stops at the first problem, and nothing is changed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from enrich.errors import EnrichError
from enrich.journal.bodies import body_problem
from enrich.journal.bodycheck import EXCUSING
from enrich.journal.format import Header, Position, parse_line, read_header
from enrich.journal.identity import Identity
from enrich.journal.recovery import BEGINNING, find_files, list_segments
from enrich.journal.segment import Manifest, manifest_path, read_manifest, segment_path

__all__ = ["Place", "Survey", "read_place", "survey", "survey_around"]

Progress = Callable[[int, int], None]
#: the hashes that may stand before a segment, the seq that comes next, and the time before it
_Before = tuple[set[str], int, str]


@dataclass(frozen=True, slots=True)
class Place:
    """One line: where it lies, its header as far as it can be read, and what is wrong with it or its place.

    `problem` is about the line's own bytes, `displaced` about what stands before and behind it; None when all is well.
    The body is not looked at.
    """

    file: str
    number: int
    offset: int
    length: int
    header: Header | None
    problem: str | None
    displaced: str | None

    @property
    def last_seq(self) -> int:
        return 0 if self.header is None else self.header.last_seq


@dataclass(slots=True)
class Survey:
    """What was found.

    Attributes:
        places: every line of the files read, in order.
        breaks: indices into `places` in front of which the chain from the first record is broken.
        problems: of the journal as a whole: files that are missing, manifests that do not verify.
        excused: (first seq, last seq, type, seq) of what later records of type prune, erase and redact account for.
    """

    files: Path
    places: list[Place] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    excused: list[tuple[int, int, str, int]] = field(default_factory=list)
    _by_seq: dict[int, int] = field(default_factory=dict)

    def at(self, seq: int) -> tuple[int, Place] | None:
        """The line that says it is the record `seq`, and its index."""
        if not self._by_seq:
            self._by_seq = {p.header.seq: i for i, p in enumerate(self.places) if p.header is not None}
        found = self._by_seq.get(seq)
        return None if found is None else (found, self.places[found])

    def broken_before(self, index: int) -> bool:
        """Whether the chain from the first record does not reach this line."""
        return bool(self.breaks) and self.breaks[0] <= index

    def broken_after(self, index: int) -> bool:
        """Whether the chain from this line does not reach the last record."""
        return bool(self.breaks) and bisect_right(self.breaks, index) < len(self.breaks)

    def excuse(self, seq: int) -> str | None:
        """The type of the record that accounts for a body that is missing or altered."""
        return next((type_ for first, last, type_, _ in self.excused if first <= seq <= last), None)


def read_place(files: Path, place: Place) -> bytes:
    """The line's bytes as they are now."""
    with open(files / place.file, "rb") as handle:
        handle.seek(place.offset)
        return handle.read(place.length)


def survey(
    files: Path, identity: Identity | None, *, until: int | None = None, progress: Progress | None = None
) -> Survey:
    """Read every line.

    Args:
        files: DATA/journal.
        identity: None when it can't be read; then nothing says what the first record follows.
        until: the last seq to look at; what lies behind it may be in the middle of being written.
        progress: called with (bytes done, bytes in all).
    """
    found = Survey(files)
    walk = _Walk(found, identity, *_before(identity, None), until)
    segments, closed = find_files(files)
    numbers = range(1, max(segments | closed, default=0) + 1)
    total = sum(segment_path(files, n).stat().st_size for n in segments)
    done = 0
    for number in numbers:
        manifest = _manifest(found, number) if number in closed else None
        if number not in segments:
            if number in closed:
                found.problems.append(f"{segment_path(files, number).name}: the file is missing")
            walk.lost()
            continue
        for size in walk.segment(number, last=number not in closed):
            if progress is not None:
                progress(done + size, total)
        done += segment_path(files, number).stat().st_size
        if manifest is not None and not walk.stands_at(manifest):
            found.problems.append(f"{segment_path(files, number).name}: the segment is not what its manifest says")
    return found


def survey_around(files: Path, identity: Identity | None, seq: int, *, until: int | None = None) -> Survey:
    """Read the segment that holds `seq`, on the manifests' word for what lies before and behind.

    Where these do not fit together all is read, to see which part of the chain still stands.
    """
    if identity is None:
        return survey(files, None, until=until)
    try:
        manifests, rest = list_segments(files, identity)
        holding = next((m for m in manifests if m.first_seq <= seq <= m.last_seq), None)
        if holding is None:
            start = manifests[-1] if manifests else None
            return _read(files, identity, start, rest, until)
        start = manifests[holding.number - 2] if holding.number > 1 else None
        found = _read(files, identity, start, [holding.number], None, holding)
        end = identity.after(manifests[-1].end)
        if not found.breaks and not found.problems and (not rest or _holds_on(files, rest[0], end)):
            return found
    except (EnrichError, OSError):
        pass
    return survey(files, identity, until=until)


def _before(identity: Identity | None, manifest: Manifest | None) -> _Before:
    """Where a segment begins that follows another one; without an identity the first hash is not known."""
    if identity is None:
        return set(), 1, BEGINNING
    if manifest is None:
        return {identity.beginning.hash}, 1, BEGINNING
    return {identity.after(manifest.end).hash}, manifest.last_seq + 1, manifest.last_at


def _read(
    files: Path,
    identity: Identity,
    before: Manifest | None,
    numbers: Sequence[int],
    until: int | None,
    manifest: Manifest | None = None,
) -> Survey:
    """Segments that follow each other, the first of them the one with the manifest `before`."""
    found = Survey(files)
    walk = _Walk(found, identity, *_before(identity, before), until)
    for number in numbers:
        for _ in walk.segment(number, last=manifest is None):
            pass
    if manifest is not None and not walk.stands_at(manifest):
        found.problems.append(f"{segment_path(files, manifest.number).name}: the segment is not what its manifest says")
    return found


def _holds_on(files: Path, number: int, end: Position) -> bool:
    """Whether the first line of a segment follows the record that ended at `end`."""
    path = segment_path(files, number)
    with open(path, "rb") as handle:
        line = handle.readline()
    return not line.endswith(b"\n") or parse_line(line, file=path.name, number=1).prev == end.hash


def _manifest(found: Survey, number: int) -> Manifest | None:
    path = manifest_path(found.files, number)
    try:
        return read_manifest(path)
    except (EnrichError, OSError) as error:
        found.problems.append(f"{path.name}: {error}")
        return None


class _Walk:
    """Where a reading stands: behind a line whose hash is one of `ends` (empty: unknown), before seq `expected`."""

    def __init__(
        self,
        found: Survey,
        identity: Identity | None,
        ends: set[str],
        expected: int,
        last_at: str,
        until: int | None,
    ) -> None:
        self._found = found
        self._identity = identity
        self._joints = frozenset(() if identity is None else (one.seq for one in identity.ancestors))
        self._ends, self._expected, self._last_at = ends, expected, last_at
        self._until = until
        self._over = False

    def lost(self) -> None:
        """What comes next hangs in the air."""
        self._ends, self._expected = set(), 0
        self._found.breaks.append(len(self._found.places))

    def stands_at(self, manifest: Manifest) -> bool:
        """Whether a closed segment that was just read ends as its manifest says; true of one read in part."""
        if self._over or not self._ends:
            return True
        return self._after(manifest.last_seq, manifest.hash) in self._ends and self._expected == manifest.last_seq + 1

    def _after(self, seq: int, digest: str) -> str:
        """What stands before the record behind the one that ended at `seq`: its hash, or a restored journal's own
        beginning."""
        if self._identity is None or seq not in self._joints:
            return digest
        return self._identity.after(Position(seq, digest)).hash

    def segment(self, number: int, *, last: bool) -> Iterator[int]:
        """Read a segment; yields the bytes read now and then.

        Args:
            last: it may end in the middle of a line, as a crash leaves it.
        """
        path = segment_path(self._found.files, number)
        offset = 0
        with open(path, "rb", buffering=1 << 20) as handle:
            for n, raw in enumerate(handle, 1):
                if self._over:
                    return
                self._line(path.name, n, offset, raw, last)
                offset += len(raw)
                if n % 1024 == 0:
                    yield offset
        yield offset

    def _line(self, file: str, number: int, offset: int, raw: bytes, last: bool) -> None:
        whole = raw.endswith(b"\n")
        line = raw if whole else raw[:-1] + b"\n"
        problem = None
        found = read_header(line)
        header = None if found is None else found[0]
        try:
            parse_line(line, file=file, number=number)
        except EnrichError as error:
            problem = str(error.detail.get("reason", error.message))
        if problem is None and header is not None and self._until is not None and header.seq > self._until:
            self._over = True
            return
        if not whole:
            torn = header is None or problem is not None or not _stands(header, line)
            if last and torn:
                return  # what a crash leaves: no line, and never answered
            problem = problem or "the record's newline was overwritten"
        displaced = self._displaced(header)
        self._found.places.append(Place(file, number, offset, len(raw), header, problem, displaced))
        if problem is not None or displaced is not None:
            self._broken_here()
        if found is None or header is None:
            self._ends, self._expected = set(), 0
            return
        self._ends = {self._after(header.last_seq, digest) for digest in (header.hash, found[1])}
        self._expected, self._last_at = header.last_seq + 1, header.at
        if header.type in EXCUSING and problem is None:
            self._excuse(header, line)

    def _broken_here(self) -> None:
        breaks, here = self._found.breaks, max(0, len(self._found.places) - 1)
        if not breaks or breaks[-1] != here:
            breaks.append(here)

    def _displaced(self, header: Header | None) -> str | None:
        if header is None or not self._ends:
            return None
        if header.prev not in self._ends:
            return "`prev` is not the hash of the record before"
        if header.seq != self._expected:
            return f"seq {header.seq} where {self._expected} comes next"
        if header.at < self._last_at:
            return f"time {header.at} before that of the record before"
        return None

    def _excuse(self, header: Header, line: bytes) -> None:
        body = line[header.body_start : -2]
        if body_problem(header.type, header.count, header.body_sha256, body) is None:
            spans = orjson.loads(body).get("seqs", ())
            self._found.excused += [(int(a), int(b), header.type, header.seq) for a, b in spans]


def _stands(header: Header, line: bytes) -> bool:
    body = line[header.body_start : -2]
    return body_problem(header.type, header.count, header.body_sha256, body) is None
