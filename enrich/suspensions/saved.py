"""The saved form: what was in force at one position of the journal, so that a start reads only what came after."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from enrich.journal import Position
from enrich.suspensions.model import Suspension

__all__ = ["SavedSuspensions", "read_saved", "write_saved"]

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class SavedSuspensions:
    """What was held when the journal stood at `position`."""

    journal_id: str
    position: Position
    held: tuple[Suspension, ...]


def write_saved(path: Path, saved: SavedSuspensions) -> None:
    """Write, fsync, rename.

    Raises:
        OSError: the disk does not take it; what was saved before stays.
    """
    body = {
        "format": FORMAT,
        "journal_id": saved.journal_id,
        "seq": saved.position.seq,
        "hash": saved.position.hash,
        "held": [asdict(s) for s in saved.held],
    }
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(_sealed(body))
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_saved(path: Path) -> SavedSuspensions | None:
    """What was saved; None when there is none of this format, or it is damaged: the journal has it all."""
    try:
        data = path.read_bytes()
        body: dict[str, Any] = orjson.loads(data)
        body.pop("sha256")
        if _sealed(body) != data or body["format"] != FORMAT:
            return None
        held = tuple(Suspension(**s) for s in body["held"])
        return SavedSuspensions(body["journal_id"], Position(body["seq"], body["hash"]), held)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _sealed(body: dict[str, Any]) -> bytes:
    seal = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return orjson.dumps({**body, "sha256": seal}, option=orjson.OPT_SORT_KEYS)
