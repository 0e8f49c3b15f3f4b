"""Whether records' bodies stand up to their hashes, and which missing or altered ones a later record accounts for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

import orjson

from enrich.journal.bodies import body_problem
from enrich.journal.identity import Identity
from enrich.journal.segment import Line
from enrich.journal.sidecar import sidecar_path, sidecar_problem

__all__ = ["EXCUSING", "BodyCheck", "Problem"]

#: types whose body names, as `seqs`, ranges [first, last] of records that may lack their body or have another
EXCUSING: Final = frozenset(("prune", "erase", "redact"))


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not verify: file, line (None: the whole file), first seq (None: unknown), reason."""

    file: str
    line: int | None
    seq: int | None
    reason: str


class BodyCheck:
    """Collects body problems along a walk; those that a later `prune`, `erase` or `redact` names are none.

    Args:
        directory: DATA/journal.
        every_row: compute the leaf hashes of sidecars again, not only the file's digest.
    """

    def __init__(self, directory: Path, identity: Identity, *, every_row: bool) -> None:
        self._directory = directory
        self._hash_key = identity.hash_key
        self._behind = {one.seq + 1: asdict(one) for one in identity.ancestors}
        self._every_row = every_row
        self._problems: list[Problem] = []
        self.sidecars = 0

    def see(self, file: str, line: Line) -> None:
        """Judge one line's body; lines come in journal order."""
        header = line.header
        reason = body_problem(header.type, header.count, header.body_sha256, line.body)
        sidecar = line.sidecar
        if reason is None and sidecar is not None:
            self.sidecars += 1
            reason = sidecar_problem(
                sidecar_path(self._directory, sidecar), header.count, bytes.fromhex(orjson.loads(line.body)["salt"]),
                header.body_sha256, self._hash_key, every_row=self._every_row,
            )  # fmt: skip
        if reason is None and header.seq in self._behind and not self._names(line, self._behind[header.seq]):
            reason = "the first record after a restore does not name the head that was restored"
        if reason is not None:
            self._problems.append(Problem(file, line.number, header.seq, reason))
        elif header.type in EXCUSING:
            self._excuse(orjson.loads(line.body).get("seqs", ()))

    @staticmethod
    def _names(line: Line, head: Mapping[str, object]) -> bool:
        """INVARIANT: the first record that was written after a restore says of which head."""
        return line.header.type == "anchor" and orjson.loads(line.body).get("restored") == head

    def _excuse(self, ranges: Iterable[tuple[int, int]]) -> None:
        spans = sorted((first, last) for first, last in ranges)
        firsts = [first for first, _ in spans]
        lasts = list(accumulate((last for _, last in spans), max))

        def excused(problem: Problem) -> bool:
            at = -1 if problem.seq is None else bisect_right(firsts, problem.seq) - 1
            return at >= 0 and problem.seq is not None and problem.seq <= lasts[at]

        self._problems = [p for p in self._problems if not excused(p)]

    def problems(self) -> list[Problem]:
        """What no record accounts for."""
        return list(self._problems)
