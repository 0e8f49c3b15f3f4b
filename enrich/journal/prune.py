"""Letting go of bodies whose keep time is over, a closed segment at a time.

A pruned line keeps its header, so that the chain goes on through it, and has `null` for its body; its sidecar goes.
Three steps, and a crash between any two leaves a journal that starts and verifies:

1. `write_aside` writes the smaller file and its manifest under other names. Nothing has changed yet.
2. The caller journals a `prune` record that names the seqs, and waits until it is durable.
3. `take_place` renames the file, then the manifest; from the first rename on the new manifest is the one that counts.

The first step is bytes and hashes for a second or so. `write_aside_elsewhere` has a process of its own do it, so that
no decision waits for the interpreter meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import orjson

from enrich.errors import JournalFailedError, show
from enrich.failpoints import Failpoint
from enrich.journal.bodies import body_problem
from enrich.journal.disk import Disk
from enrich.journal.format import Position, corrupt
from enrich.journal.segment import (
    PRUNED,
    Line,
    Manifest,
    Scan,
    current_manifest_path,
    manifest_path,
    read_manifest,
    scan,
    segment_path,
)
from enrich.journal.sidecar import sidecar_path

__all__ = ["finish", "take_place", "write_aside", "write_aside_elsewhere"]

_LIMIT_SECONDS: Final = 600.0

#: [first, last] of records without a gap between them
Ranges = list[tuple[int, int]]


def write_aside(directory: Path, manifest: Manifest, types: Collection[str], disk: Disk) -> Ranges:
    """Write a segment without the bodies of `types`, and its manifest, under other names; durable on return.

    Returns:
        The records that lose their body, as ranges of seqs; empty when none is left to lose one.

    Raises:
        JournalCorruptError: a body that would go is not the one that was written. It stays, to be seen.
        OSError: the disk does not take it; nothing has changed.
    """
    ranges: Ranges = []
    kept: list[str] = []
    walk = Scan(Position(manifest.first_seq - 1, manifest.prev), "")
    digest, size = hashlib.sha256(), 0
    path = segment_path(directory, manifest.number)
    with open(_aside(path), "wb") as out:
        for line in scan(path, walk):
            raw = line.raw
            if line.header.type in types and line.body != b"null":
                _check(path.name, line)
                raw = raw[: line.header.body_start] + b"null}\n"
                first, last = line.header.seq, line.header.last_seq
                if ranges and ranges[-1][1] == first - 1:
                    ranges[-1] = (ranges[-1][0], last)
                else:
                    ranges.append((first, last))
            elif line.sidecar is not None:
                kept.append(line.sidecar)
            digest.update(raw)
            size += len(raw)
            out.write(raw)
        if walk.torn or walk.end != manifest.end:
            raise corrupt("the segment does not end as its manifest says", path.name, walk.lines, walk.end.seq)
        out.flush()
        disk.datasync(out.fileno())
    pruned = sorted({*manifest.pruned, *types})
    if not ranges:
        # the manifest remembers it, so that nobody looks again
        _aside(path).unlink()
        disk.write_file(manifest_path(directory, manifest.number), replace(manifest, pruned=pruned).encode())
        return []
    smaller = replace(
        manifest, file_bytes=size, file_sha256=digest.hexdigest(), sidecars=kept, pruned=pruned
    )  # fmt: skip
    disk.write_file(_aside(manifest_path(directory, manifest.number)), smaller.encode())
    return ranges


def write_aside_elsewhere(directory: Path, manifest: Manifest, types: Collection[str], disk: Disk) -> Ranges:
    """`write_aside` in a process of its own.

    Raises:
        JournalFailedError: it did not come to its end; what it says is in the message.
    """
    arguments = [str(directory), str(manifest.number), ",".join(sorted(types)), str(int(disk.fsync))]
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, *arguments],
            capture_output=True, timeout=_LIMIT_SECONDS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JournalFailedError(f"segment {manifest.number} can't be pruned: {show(str(error))}") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
        raise JournalFailedError(f"segment {manifest.number} can't be pruned: {show(said)}")
    return [(first, last) for first, last in orjson.loads(done.stdout)]


def take_place(directory: Path, manifest: Manifest, disk: Disk, failpoint: Failpoint) -> Manifest:
    """Put what `write_aside` wrote in the place of the segment, and remove the sidecars that it lets go of.

    INVARIANT: a durable `prune` record names the bodies that go.
    """
    path, said = segment_path(directory, manifest.number), manifest_path(directory, manifest.number)
    smaller = read_manifest(_aside(said))
    disk.replace(_aside(path), path)
    failpoint("journal.prune.renamed")
    disk.replace(_aside(said), said)
    for digest in set(manifest.sidecars).difference(smaller.sidecars):
        sidecar_path(directory, digest).unlink(missing_ok=True)
    return smaller


def finish(directory: Path, disk: Disk) -> None:
    """After a crash: what had taken its place gets its manifest, what had not is removed.

    Raises:
        JournalCorruptError: a segment is neither what its manifest says nor what the new one says.
    """
    for said in sorted(directory.glob(f"*.manifest.json{PRUNED}")):
        number = int(said.name.partition(".")[0])
        if current_manifest_path(directory, number) == said:
            path, wanted = segment_path(directory, number), read_manifest(said)
            with open(path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != wanted.file_sha256:
                    raise corrupt("the segment is not what its manifest says", path.name, seq=wanted.last_seq)
            disk.replace(said, manifest_path(directory, number))
        else:
            disk.remove(said)
    for path in directory.glob(f"*.ndjson{PRUNED}"):
        path.unlink()


def _aside(path: Path) -> Path:
    return path.with_name(path.name + PRUNED)


def _check(file: str, line: Line) -> None:
    header = line.header
    problem = body_problem(header.type, header.count, header.body_sha256, line.body)
    if problem is not None:
        raise corrupt(problem, file, line.number, header.seq)


def _main(arguments: Sequence[str]) -> None:
    """The process of `write_aside_elsewhere`: ranges as JSON on standard output."""
    directory, number, types, fsync = Path(arguments[0]), int(arguments[1]), arguments[2].split(","), arguments[3]
    os.nice(10)
    manifest = read_manifest(current_manifest_path(directory, number))
    ranges = write_aside(directory, manifest, types, Disk(fsync=fsync == "1"))
    sys.stdout.buffer.write(orjson.dumps(ranges))


if __name__ == "__main__":
    _main(sys.argv[1:])
