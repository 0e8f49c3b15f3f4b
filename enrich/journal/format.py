"""The line of a record: how it is written, read and hashed.

    {"v","seq","count","type","at","body_sha256","prev","hash","body"}

`hash` is the SHA-256 of the canonical header (sorted keys, no spaces) without `hash` and `body`. Everything here
works on the line's own bytes: a JSON parser that rewrites number text never stands between the file and its hash.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from enrich.errors import JournalCorruptError, NewerFormatError, show

__all__ = [
    "FORMAT",
    "TYPES",
    "Header",
    "Position",
    "encode_head",
    "genesis_hash",
    "parse_line",
    "read_header",
    "skim_line",
]

#: version of lines, manifests and the journal's directory
FORMAT: Final = 1

TYPES: Final = frozenset(
    (
        "events", "decision", "outcome", "suspension", "definitions", "source",
        "void", "erase", "redact", "prune", "anchor",
    )
)  # fmt: skip

#: what has records in it, and can be given up; without the journal's identity there is nothing to cut
_CUTTABLE: Final = (".ndjson", ".manifest.json", ".parquet")

_SHA: Final = rb"([0-9a-f]{64})"
_LINE: Final = re.compile(
    rb'\{"v":([0-9]{1,9}),"seq":([0-9]{1,19}),"count":([0-9]{1,9}),"type":"([a-z_]{1,32})",'
    rb'"at":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z)",'
    rb'"body_sha256":"' + _SHA + rb'","prev":"' + _SHA + rb'","hash":"' + _SHA + rb'","body":'
)
_VERSION: Final = re.compile(rb'\{"v":([0-9]{1,9}),')
_SKIM: Final = re.compile(rb'\{"v":[0-9]{1,9},"seq":([0-9]{1,19}),"count":([0-9]{1,9}),"type":"([a-z_]{1,32})"')
_HEAD: Final = b'{"v":%d,"seq":%d,"count":%d,"type":"%b","at":"%b","body_sha256":"%b","prev":"%b","hash":"%b","body":'
_HASHED: Final = b'{"at":"%b","body_sha256":"%b","count":%b,"prev":"%b","seq":%b,"type":"%b","v":%b}'


class Position(NamedTuple):
    """A place in the journal: a record's last seq and its hash. At 0, before the first record, the genesis hash."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Header:
    """A line's header as read, and where in the line its body stands."""

    seq: int
    count: int
    type: str
    at: str
    body_sha256: str
    prev: str
    hash: str
    body_start: int

    @property
    def last_seq(self) -> int:
        return self.seq + self.count - 1


def genesis_hash(journal_id: str) -> str:
    """`prev` of the first record."""
    return hashlib.sha256(journal_id.encode()).hexdigest()


def encode_head(seq: int, count: int, type_: str, at: str, body_sha256: str, prev: str) -> tuple[bytes, str]:
    """The line up to its body, and the record's hash; the line ends with the body, `}` and a newline."""
    kind, time, body, before = type_.encode(), at.encode(), body_sha256.encode(), prev.encode()
    hashed = _HASHED % (time, body, b"%d" % count, before, b"%d" % seq, kind, b"%d" % FORMAT)
    digest = hashlib.sha256(hashed).hexdigest()
    return _HEAD % (FORMAT, seq, count, kind, time, body, before, digest.encode()), digest


def parse_line(line: bytes, *, file: str, number: int) -> Header:
    """The header of a complete line, its own hash checked; the body and the chain are the caller's to check.

    Raises:
        NewerFormatError: the line has a newer version.
        JournalCorruptError: it has not the form of a line, its hash is wrong, or its type unknown.
    """
    match = _LINE.match(line)
    if match is None or not line.endswith(b"}\n"):
        version = _VERSION.match(line)
        if version is not None and int(version[1]) > FORMAT:
            raise NewerFormatError(
                f"line {number} of {file} has version {show(version[1].decode())}", file=file, line=number
            )
        raise corrupt("the line has not the form of a record", file, number)
    if int(match[1]) > FORMAT:
        raise NewerFormatError(f"line {number} of {file} has version {show(match[1].decode())}", file=file, line=number)
    header = _header(match)
    if _hash_of(match) != header.hash:
        raise corrupt("the hash is not that of the header", file, number, header.seq)
    if header.type not in TYPES:
        raise corrupt(f"unknown record type {show(header.type)}", file, number, header.seq)
    if header.count < 1 or (header.count != 1 and header.type != "events"):
        raise corrupt(f"a record of type {header.type} can't count {show(header.count)}", file, number, header.seq)
    return header


def _header(match: re.Match[bytes]) -> Header:
    _, seq, count, kind, at, body, prev, digest = match.groups()
    return Header(
        int(seq), int(count), kind.decode(), at.decode(), body.decode(), prev.decode(), digest.decode(), match.end()
    )


def _hash_of(match: re.Match[bytes]) -> str:
    v, seq, count, kind, at, body, prev, _ = match.groups()
    return hashlib.sha256(_HASHED % (at, body, count, prev, seq, kind, v)).hexdigest()


def read_header(line: bytes) -> tuple[Header, str] | None:
    """The header that a line says it has, and the hash that this header has; None when it has not the form of one.

    Nothing is judged: for who looks at a line that does not verify.
    """
    match = _LINE.match(line)
    return None if match is None else (_header(match), _hash_of(match))


def skim_line(line: bytes, *, file: str, number: int) -> tuple[int, int]:
    """(seq, count) of a line that need not be verified.

    Raises:
        JournalCorruptError: it does not begin like a line, or its type is unknown.
    """
    match = _SKIM.match(line)
    if match is None:
        raise corrupt("the line has not the form of a record", file, number)
    if match[3].decode() not in TYPES:
        raise corrupt(f"unknown record type {show(match[3].decode())}", file, number, int(match[1]))
    return int(match[1]), int(match[2])


def corrupt(reason: str, file: str, line: int | None = None, seq: int | None = None) -> JournalCorruptError:
    """The error that stops a start: file, line and reason, and what an operator can do."""
    where = file if line is None else f"{file}, line {line}"
    hint = "put the file back from a copy"
    if file.endswith(_CUTTABLE):
        hint += ": nothing from here on can be trusted; or give all of that up by `enrich journal cut --after SEQ`"
    return JournalCorruptError(
        f"{where}: {reason}",
        hint=hint,
        file=file, line=line, seq=seq, reason=reason,
    )  # fmt: skip
