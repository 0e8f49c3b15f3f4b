"""Verifying a whole journal: every byte that is there, against every hash that speaks of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from enrich.errors import EnrichError, JournalCorruptError, NewerFormatError
from enrich.journal.anchors import Anchor, AnchorCheck, AnchorProblem
from enrich.journal.bodycheck import BodyCheck, Problem
from enrich.journal.format import Position
from enrich.journal.identity import FILE, Identity, journal_files, read_identity
from enrich.journal.recovery import BEGINNING, complete_but_for_newline, list_segments, records_missing
from enrich.journal.segment import Manifest, Scan, current_manifest_path, read_manifest, scan, segment_path
from enrich.journal.sidecar import DIRECTORY

__all__ = ["VerifyReport", "verify"]

Progress = Callable[[int, int], None]

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found. Torn bytes and unnamed sidecars are what a crash leaves and a start clears away: no problems.

    Attributes:
        head: the last record that verifies.
        torn_bytes: bytes after the last newline.
        unnamed_sidecars: sidecars that no line names.
        anchors: how many anchors it was held against, and `anchor_problems` where it is not what they say.
    """

    journal_id: str
    head: Position
    problems: list[Problem] = field(default_factory=list)
    segments: int = 0
    records: int = 0
    events: int = 0
    sidecars: int = 0
    torn_bytes: int = 0
    unnamed_sidecars: int = 0
    anchors: int = 0
    anchor_problems: list[AnchorProblem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems and not self.anchor_problems


def verify(
    directory: Path, *, anchors: Sequence[Anchor] = (), progress: Progress | None = None
) -> VerifyReport:
    """Check everything: identity, manifests, file digests, chain, bodies, leaf hashes, sidecars row by row.

    Nothing is changed and no lock is taken: it may run beside a live engine, whose newest record may then appear as
    torn.

    Args:
        directory: DATA.
        anchors: heads that were kept elsewhere: the journal has to have those very records.
        progress: called with (bytes done, bytes in all).

    Raises:
        NewerFormatError: a newer version wrote here.
        JournalCorruptError: `directory` has no journal at all.
    """
    files = journal_files(directory)
    try:
        identity = read_identity(files)
        manifests, rest = list_segments(files, identity)
    except FileNotFoundError:
        return VerifyReport("", Position(0, ""), [Problem(FILE, None, None, "the file is missing")])
    except JournalCorruptError as error:
        return VerifyReport("", Position(0, ""), [_problem(error)])
    return _Walk(files, identity, anchors, progress).run(manifests, rest)


class _Walk:
    def __init__(
        self, files: Path, identity: Identity, anchors: Sequence[Anchor], progress: Progress | None
    ) -> None:
        self._files = files
        self._identity = identity
        self._progress = progress
        self._check = BodyCheck(files, identity, every_row=True)
        self._count = len(anchors)
        self._anchors = AnchorCheck(anchors, identity)
        self._problems: list[Problem] = []
        self._named: set[str] = set()
        self._records = self._events = self._done = self._total = self._torn = 0

    def run(self, manifests: list[Manifest], rest: list[int]) -> VerifyReport:
        closed: dict[int, Manifest | None] = {m.number: m for m in manifests}
        numbers = [*closed, *rest]
        self._total = sum(segment_path(self._files, n).stat().st_size for n in numbers)
        state = Scan(self._identity.beginning, BEGINNING)
        for number in numbers:
            manifest = closed.get(number)
            walk = Scan(state.end, state.last_at)
            try:
                self._segment(number, manifest, walk)
            except (JournalCorruptError, NewerFormatError) as error:
                self._problems.append(_problem(error))
                if manifest is None:
                    state = walk
                    break  # what follows an open segment that does not verify hangs in the air
            # a closed one that does not verify leaves its manifest's word for where the next one begins
            state = walk if manifest is None else Scan(self._identity.after(manifest.end), manifest.last_at)
        if (missing := records_missing(self._identity, state.end.seq)) is not None:
            self._problems.append(Problem(FILE, None, self._identity.restored_seq + 1, missing))
        present = {p.stem for p in (self._files / DIRECTORY).glob("*.parquet")}
        problems = [*self._problems, *self._check.problems()]
        return VerifyReport(
            self._identity.journal_id, state.end, problems, len(numbers), self._records, self._events,
            self._check.sidecars, self._torn, len(present - self._named), self._count,
            self._anchors.problems(state.end.seq),
        )  # fmt: skip

    def _segment(self, number: int, manifest: Manifest | None, walk: Scan) -> None:
        path = segment_path(self._files, number)
        if manifest is not None and (found := _digest(path)) != manifest.file_sha256:
            # a live engine may have pruned it since the manifests were read
            manifest = read_manifest(current_manifest_path(self._files, number))
            if found != manifest.file_sha256:
                found = _digest(path)
        if manifest is not None and found != manifest.file_sha256:
            self._problems.append(Problem(path.name, None, None, "the file does not have its manifest's digest"))
        for line in scan(path, walk):
            self._check.see(path.name, line)
            self._anchors.see(line.header)
            self._records += 1
            if line.header.type == "events":
                self._events += line.header.count
            if line.sidecar is not None:
                self._named.add(line.sidecar)
            self._done += len(line.raw)
            if self._progress is not None and self._records % 256 == 0:
                self._progress(self._done, self._total)
        if manifest is not None:
            self._against(path.name, manifest, walk)
        else:
            self._torn += len(walk.torn)
            complete_but_for_newline(walk, path.name, crashed=False)
        if self._progress is not None:
            self._progress(self._done, self._total)

    def _against(self, file: str, manifest: Manifest, walk: Scan) -> None:
        found = (walk.end, walk.last_at, walk.lines, walk.size, walk.sidecars, walk.torn)
        said = (manifest.end, manifest.last_at, manifest.lines, manifest.file_bytes, manifest.sidecars, b"")
        if found != said:
            self._problems.append(Problem(file, None, walk.end.seq, "the segment is not what its manifest says"))


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _problem(error: EnrichError) -> Problem:
    detail = error.detail
    return Problem(
        str(detail.get("file", "")), detail.get("line"), detail.get("seq"), str(detail.get("reason", error.message))
    )
