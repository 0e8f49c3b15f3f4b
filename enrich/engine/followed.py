"""Where the saved forms beside DuckDB stand: idempotency keys, index, definitions, suspensions.

Each names the journal that it follows and the record that it has seen. A journal without that record has lost or
replaced what was acknowledged; a saved form that is damaged says nothing, and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enrich.engine.definitions import FILE, saved_definitions
from enrich.engine.suspended import SUSPENSIONS
from enrich.errors import JournalBehindError, show
from enrich.journal import Journal, Position, keys_position
from enrich.suspensions import read_saved
from enrich.windows import saved_position

__all__ = ["INDEX", "KEYS", "Followed", "followed", "refuse_replaced"]

INDEX: Final = "index"
KEYS: Final = "keys"


@dataclass(frozen=True, slots=True)
class Followed:
    """What a saved form has seen; `path` is the file or directory that it is."""

    name: str
    journal_id: str
    position: Position
    path: Path

    def check_journal(self, journal_id: str) -> None:
        """
        Raises:
            JournalBehindError: the journal is another one.
        """
        if self.journal_id != journal_id:
            raise JournalBehindError(
                f"the saved {self.name} follow journal {show(self.journal_id)}, this one is {show(journal_id)}",
                hint="the data directory mixes two journals: put back the one that was here",
                seq=self.position.seq,
            )


def followed(data: Path) -> list[Followed]:
    """The saved forms of a data directory whose position can be read."""
    found = []
    if (index := saved_position(data / INDEX)) is not None:
        found.append(Followed("index files", index.journal_id, Position(index.seq, index.hash), data / INDEX))
    if (keys := keys_position(data / KEYS)) is not None:
        found.append(Followed("keys", *keys, data / KEYS))
    if (definitions := saved_definitions(data)) is not None:
        found.append(Followed("definitions", definitions.journal_id, definitions.position, data / FILE))
    if (suspensions := read_saved(data / SUSPENSIONS)) is not None:
        found.append(Followed("suspensions", suspensions.journal_id, suspensions.position, data / SUSPENSIONS))
    return found


def refuse_replaced(journal: Journal, saved: list[Followed]) -> None:
    """Check that the journal has the very record up to which each was saved.

    Raises:
        JournalBehindError: it is another journal, ends before, or has another record there.
    """
    for one in saved:
        seq = one.position.seq
        one.check_journal(journal.journal_id)
        if seq == 0 or one.position == journal.head:
            continue
        record = next(journal.read(after=seq - 1), None)
        if record is None or record.position != one.position:
            raise JournalBehindError(
                f"the journal's record at {show(seq)} is not the one that the saved {one.name} have seen", seq=seq
            )
