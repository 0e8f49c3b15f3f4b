"""Letting go: of events that no longer count, and of bodies whose keep time in the journal is over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from enrich.engine import startup
from enrich.engine.state import State
from enrich.events import format_us, parse_rfc3339_us
from enrich.journal import Position
from enrich.settings import Settings

if TYPE_CHECKING:
    from enrich.engine.engine import Engine

__all__ = ["prune", "prune_bodies"]

_DAY_US: Final = 86_400_000_000
#: an event occurred at most so long after it was recorded: no `max_clock_skew_seconds` is longer
_SKEW_US: Final = _DAY_US
#: the setting that says how long the bodies of record types are kept
_KEPT: Final = {"keep_events_days": ("events",), "keep_decisions_days": ("decision", "outcome")}


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
            state.in_flight.prune(before)
        state.parser = startup.event_parser(state.live.catalog, engine.settings, engine.journal, before)
        engine.follower.submit(record, appended)
    engine.keys.expire(before)
    return appended.last_seq


def prune_bodies(engine: Engine, state: State) -> int:
    """Let go of the bodies in closed segments whose keep time is over, one segment after the other.

    INVARIANT: a body goes only when DuckDB has applied it, and has let go of every event in it. A segment holds nothing
    that was recorded after its last record, so that its time speaks for all of them.

    Returns:
        How many segments have become smaller.

    Raises:
        JournalFailedError, JournalFullError: that segment keeps its bodies.
    """
    journal, history = engine.journal, engine.history
    done = 0
    for segment in journal.closed_segments:
        pruned_us = history.pruned_before_us()
        if pruned_us is None or segment.last_seq > history.position.seq or segment.last_seq > engine.durable_seq:
            break
        latest_us = parse_rfc3339_us(segment.last_at) + _SKEW_US
        types = set(_over(engine.settings, latest_us, pruned_us, journal.now_us()))
        if not types.difference(segment.pruned):
            continue
        ranges = journal.prepare_prune(segment, types)
        if not ranges:
            continue
        body: dict[str, object] = {"seqs": ranges}
        if "decision" in types:
            body["decisions_through"] = segment.last_seq
        if state.observed_since is not None:
            body["observed_since"] = state.observed_since
        record = journal.prepare("prune", body)
        with state.order:
            state.check_open()
            appended = journal.append(record)
            with state.live.index.lock:
                state.position = Position(appended.last_seq, appended.hash)
            engine.follower.submit(record, appended)
        engine.durable(appended.last_seq)
        journal.prune_segment(segment)
        done += 1
    return done


def _over(settings: Settings, latest_us: int, pruned_us: int, now_us: int) -> Iterator[str]:
    """The types of record whose bodies may go when nothing that they hold is later than `latest_us`."""
    if latest_us >= pruned_us:
        return
    for setting, types in _KEPT.items():
        days = getattr(settings, setting)
        if days is not None and latest_us < now_us - days * _DAY_US:
            yield from types
