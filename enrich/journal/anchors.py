"""Anchors: heads of a journal that are kept elsewhere, so that replacing or shortening the whole chain is noticed.

A chain proves itself: whoever can write all of its files can write another one that verifies as well. A hash that was
carried away before can't be written again. It speaks for every record up to its own, since each one's hash covers the
one before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from enrich.errors import BadRequestError, EnrichError, show
from enrich.events.canonical import parse_rfc3339_us
from enrich.journal.disk import Disk
from enrich.journal.format import Header, corrupt
from enrich.journal.identity import FILE, Identity, journal_files, read_identity
from enrich.journal.lock import DirectoryLock
from enrich.journal.recovery import BEGINNING, list_segments
from enrich.journal.segment import Scan, scan, segment_path

__all__ = [
    "Anchor", "AnchorCheck", "AnchorProblem", "anchor_problem", "directory_anchor", "head_anchor", "newest_anchors",
    "parse_anchor", "read_anchors",
]  # fmt: skip

_SHA: Final = re.compile(r"[0-9a-f]{64}")
_ID: Final = re.compile(r"[0-9a-f]{32}")
_FIELDS: Final = ("at", "hash", "journal_id", "seq")


@dataclass(frozen=True, slots=True)
class Anchor:
    """The head of a journal at some moment: the record that ended at `seq`, its hash, and when it was recorded."""

    journal_id: str
    seq: int
    hash: str
    at: str

    def body(self) -> dict[str, Any]:
        return asdict(self)

    def encode(self) -> bytes:
        """One line of JSON, as `read_anchors` reads it."""
        return orjson.dumps(self.body(), option=orjson.OPT_SORT_KEYS) + b"\n"


@dataclass(frozen=True, slots=True)
class AnchorProblem:
    """Why a journal is not the one that an anchor was taken of.

    `code`: `anchor_other_journal`, it has another id; `anchor_lost`, it ends before; `anchor_replaced`, it has another
    record there.
    """

    code: str
    seq: int
    journal_id: str
    reason: str




def parse_anchor(fields: object, where: str = "the anchor") -> Anchor:
    """An anchor from its JSON.

    Raises:
        BadRequestError: `invalid_anchor`.
    """
    if not isinstance(fields, Mapping) or sorted(fields) != list(_FIELDS):
        raise _invalid(f"{where} is {show(fields)}, not an object of {', '.join(_FIELDS)}")
    id_, seq, digest, at = (fields[name] for name in ("journal_id", "seq", "hash", "at"))
    if not isinstance(id_, str) or not _ID.fullmatch(id_):
        raise _invalid(f"{where} has journal_id {show(id_)}, not 32 hex digits", "journal_id")
    if type(seq) is not int or not 0 < seq < 1 << 63:
        raise _invalid(f"{where} has seq {show(seq)}, not a positive integer", "seq")
    if not isinstance(digest, str) or not _SHA.fullmatch(digest):
        raise _invalid(f"{where} has hash {show(digest)}, not 64 hex digits", "hash")
    try:
        parse_rfc3339_us(at if isinstance(at, str) else "")
    except EnrichError as error:
        raise _invalid(f"{where} has at {show(at)}, not a time", "at") from error
    return Anchor(id_, seq, digest, str(at))


def read_anchors(data: bytes, name: str) -> list[Anchor]:
    """Anchors from JSON lines, such as `enrich journal anchor` prints; blank lines are skipped.

    Raises:
        BadRequestError: `invalid_anchor`, naming the line. INVARIANT: none is left out in silence: a file that was
            damaged would vouch for less than it was kept for.
    """
    found = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise _invalid(f"{where} is no JSON: {error}") from error
        found.append(parse_anchor(fields, where))
    return found


def newest_anchors(anchors: Iterable[Anchor]) -> list[Anchor]:
    """Of each journal those with the highest seq: they speak for all before them."""
    highest: dict[str, int] = {}
    kept = list(anchors)
    for one in kept:
        highest[one.journal_id] = max(one.seq, highest.get(one.journal_id, 0))
    return list(dict.fromkeys(one for one in kept if one.seq == highest[one.journal_id]))


class AnchorCheck:
    """Holds anchors against the records of one walk over a journal, from its first record to its last."""

    def __init__(self, anchors: Sequence[Anchor], identity: Identity) -> None:
        self._anchors = anchors
        self._identity = identity
        self._wanted = {one.seq for one in anchors}
        self._found: dict[int, str] = {}

    def see(self, header: Header) -> None:
        """One record of the walk."""
        if header.last_seq in self._wanted:
            self._found[header.last_seq] = header.hash

    def problems(self, head_seq: int) -> list[AnchorProblem]:
        """What the walk did not bear out; it ended at `head_seq`."""
        found = (anchor_problem(one, self._identity, head_seq, self._found.get(one.seq)) for one in self._anchors)
        return [problem for problem in found if problem is not None]


def anchor_problem(anchor: Anchor, identity: Identity, head_seq: int, found: str | None) -> AnchorProblem | None:
    """Why a journal is not the one that the anchor was taken of, nor restored from it; None when it is.

    Args:
        head_seq: where the journal ends.
        found: the hash of its record that ends at the anchor's seq; None without one.
    """
    seq, of = anchor.seq, anchor.journal_id
    ends = {identity.journal_id: head_seq} | {one.journal_id: one.seq for one in identity.ancestors}
    if of not in ends:
        reason = f"the anchor is of journal {show(of)}, this one is {show(identity.journal_id)}"
        return AnchorProblem(code="anchor_other_journal", seq=seq, journal_id=of, reason=reason)
    if ends[of] < seq:
        how = "ends at" if of == identity.journal_id else "was restored from that at"
        reason = f"an anchor has record {seq}, the journal {how} {ends[of]}"
        return AnchorProblem(code="anchor_lost", seq=seq, journal_id=of, reason=reason)
    if found != anchor.hash:
        reason = f"the journal's record at {seq} is not the one that an anchor has"
        return AnchorProblem(code="anchor_replaced", seq=seq, journal_id=of, reason=reason)
    return None


def directory_anchor(data: Path) -> Anchor:
    """The head of a journal that nobody writes to, as the next start would find it; its files are fsynced first.

    Raises:
        LockedError: a process holds the directory: only that one knows what is durable.
        BadRequestError: `nothing_recorded`.
        JournalCorruptError: there is no journal, or its end does not verify.
        NewerFormatError: a newer version wrote it.
        OSError: a file can't be read.
    """
    journal_files(data)
    lock = DirectoryLock(data)
    try:
        return head_anchor(data)
    finally:
        lock.release()


def head_anchor(data: Path) -> Anchor:
    """The same, for who holds the directory's lock."""
    files = journal_files(data)
    try:
        identity = read_identity(files)
    except FileNotFoundError as error:
        raise corrupt("the file is missing", FILE) from error
    manifests, rest = list_segments(files, identity)
    walk = Scan(identity.beginning, BEGINNING)
    if manifests:
        walk = Scan(identity.after(manifests[-1].end), manifests[-1].last_at)
    for number in rest:
        path = segment_path(files, number)
        Disk().sync_file(path)
        walk = Scan(walk.end, walk.last_at)
        for _ in scan(path, walk):
            pass
        if walk.torn:
            break  # a start moves what follows aside
    if not walk.end.seq:
        raise BadRequestError("the journal has no record yet", code="nothing_recorded")
    return Anchor(identity.journal_id, walk.end.seq, walk.end.hash, walk.last_at)


def _invalid(message: str, field: str | None = None) -> BadRequestError:
    return BadRequestError(
        message,
        code="invalid_anchor",
        field=field,
        hint='a line of `enrich journal anchor`: {"at": ..., "hash": ..., "journal_id": ..., "seq": ...}',
    )
