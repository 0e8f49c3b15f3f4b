"""Letting go of what is older than retention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enrich.engine import startup
from enrich.engine.state import State
from enrich.events import format_us
from enrich.journal import Position

if TYPE_CHECKING:
    from enrich.engine.engine import Engine

__all__ = ["prune"]


def prune(engine: Engine, state: State) -> int | None:
    """Journal what is let go of, and let the parser and the index know; the journal itself keeps it.

    Returns:
        The seq of the record; None while all history is younger.
    """
    before = engine.journal.now_us() - engine.settings.retention_us
    held = state.held_since_us
    if held is None or held >= before:
        return None
    record = engine.journal.prepare("prune", {"events_before": format_us(before)})
    with state.order:
        state.check_open()
        appended = engine.journal.append(record)
        with state.live.index.lock:
            state.position = Position(appended.last_seq, appended.hash)
            state.pruned_us = before
        state.parser = startup.event_parser(state.live.catalog, engine.settings, engine.journal, before)
        engine.follower.submit(record, appended)
    engine.keys.expire(before)
    return appended.last_seq
