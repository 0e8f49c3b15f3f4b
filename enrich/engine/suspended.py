"""What is suspended, across restarts: a saved form, and the journal's records after it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from enrich.engine.state import State
from enrich.journal import Journal
from enrich.suspensions import Register, SavedSuspensions, read_saved, write_saved

__all__ = ["SUSPENSIONS", "load_register", "save_register"]

SUSPENSIONS: Final = "suspensions.json"


def load_register(data: Path, journal: Journal) -> Register:
    """What is suspended at the journal's head. A saved form that is damaged is left out: then the whole journal is
    read. That the journal goes on from where it stands was checked before (`refuse_replaced`)."""
    saved = read_saved(data / SUSPENSIONS)
    register, after = Register(), 0
    if saved is not None:
        register, after = Register(saved.held), saved.position.seq
    for record in journal.read(after=after):
        if record.type == "suspension" and record.body is not None:
            register.apply(record.body, record.seq, record.at_us)
    return register


def save_register(data: Path, journal: Journal, state: State) -> None:
    """Save what is suspended, once it is durable. What acts in memory only is not saved.

    Raises:
        OSError, JournalFailedError: what was saved before stays.
    """
    with state.order, state.live.index.lock:
        at, held = state.position, state.suspensions.durable(journal.now_us())
    if at.seq:
        journal.wait_durable(at.seq)
        write_saved(data / SUSPENSIONS, SavedSuspensions(journal.journal_id, at, held))
