"""Making a cut: what is given up moves aside to `*.cut` files, and nothing is deleted."""

from __future__ import annotations

import filecmp
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from enrich.journal.cut import CutPlan
from enrich.journal.disk import Disk

__all__ = ["aside_name", "give_up"]

_CHUNK: Final = 1 << 20


def aside_name(path: Path, *also: str) -> Path:
    """A `.cut` name beside `path` that nothing has, nor anything with one of the suffixes `also`."""
    return next(n for n in _names(path) if not any(os.path.lexists(f"{n}{suffix}") for suffix in ("", *also)))


def give_up(plan: CutPlan, disk: Disk) -> list[Path]:
    """Cut the journal as planned; returns the `.cut` files.

    The order makes a cut that is interrupted anywhere safe. Each step is durable before the next one begins.

    1. What would go with a file that stays, or would be removed by a start, gets a second place: the end of the cut
       segment a copy, sidecars a second name. A start finds the journal as it was.
    2. The kept part of the segment replaces it, by rename. From here on a start refuses as long as anything of the
       later steps is left: the segment has not the size that its manifest says, or the next one does not follow it.
    3. Later segments are renamed, the first one first: what is left is not connected to what stays.
    4. Manifests are renamed, the last one first: each one left names a segment that is not there, and the cut
       segment's own, renamed last, has another size.
    5. Sidecars lose their first names. A start does that too, and finds them unnamed.

    INVARIANT: no step touches a record up to the cut, nor needs one behind it, so the same cut can be planned and made
    again at any point. Whoever moves followers aside does so after this: until then, one that is ahead of the journal
    makes the start refuse.

    Raises:
        OSError: the disk does not take it; see above for what that leaves.
    """
    made: list[Path] = []
    new = plan.segment.with_name(plan.segment.name + ".new")  # a start clears it away
    if plan.cut_bytes:
        _copy(plan.segment, plan.size, plan.size + plan.cut_bytes, new, disk)
        target, there = _kept_place(new, plan.segment.with_name(f"{plan.segment.name}.{plan.size}"))
        if not there:
            disk.replace(new, target)
        made.append(target)
    for sidecar in plan.sidecars:
        target, there = _kept_place(sidecar, plan.files / sidecar.name)
        if not there:
            disk.link(sidecar, target)
        made.append(target)
    if plan.cut_bytes or not plan.segment.exists():
        _copy(plan.segment, 0, plan.size, new, disk)
        disk.replace(new, plan.segment)
    for path in (*plan.segments, *reversed(plan.manifests)):
        target = aside_name(path)
        disk.replace(path, target)
        made.append(target)
    for sidecar in plan.sidecars:
        disk.remove(sidecar)
    return made


def _copy(path: Path, begin: int, end: int, target: Path, disk: Disk) -> None:
    """Bytes [begin, end) of a file in a new, durable one."""
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        if begin < end:
            with open(path, "rb") as source:
                source.seek(begin)
                while begin < end:
                    data = source.read(min(_CHUNK, end - begin))
                    if not data:
                        raise OSError(f"{path.name} became shorter while it was copied")
                    begin += len(data)
                    while data:
                        data = data[disk.write(fd, [data]) :]
        disk.datasync(fd)
    finally:
        os.close(fd)


def _names(path: Path) -> Iterator[Path]:
    yield path.with_name(f"{path.name}.cut")
    for again in itertools.count(1):
        yield path.with_name(f"{path.name}.{again}.cut")


def _kept_place(content: Path, stem: Path) -> tuple[Path, bool]:
    """A free name, or the one under which an interrupted cut has left the same content (and then True)."""
    for name in _names(stem):
        if not os.path.lexists(name):
            break
        if filecmp.cmp(content, name, shallow=False):
            return name, True
    return name, False
