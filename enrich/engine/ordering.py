"""The ordered step: a prepared record of events gets its place, and is visible from there on."""

from __future__ import annotations

from collections.abc import Callable

from enrich.engine.live import Live
from enrich.engine.startup import Parts
from enrich.engine.state import State
from enrich.errors import EnrichError, IndexNotReadyError, show
from enrich.events import EventBatch
from enrich.failpoints import failpoint
from enrich.journal import Appended, Position, PreparedRecord, Reservation
from enrich.suspensions import Members
from enrich.windows import PreparedBlock

__all__ = ["Ordering"]


class Ordering:
    """Shared by all who record events, decisions with their own included."""

    def __init__(self, parts: Parts, state: State) -> None:
        self._journal = parts.journal
        self._keys = parts.keys
        self._follower = parts.follower
        self._state = state

    def place(
        self,
        batch: EventBatch,
        record: PreparedRecord,
        block: PreparedBlock,
        reservation: Reservation,
        live: Live,
        unless: Callable[[], bool],
    ) -> Appended | None:
        """Append `record` and make `batch`, its events, visible.

        Args:
            block: the batch, prepared for the index of `live`.
            reservation: of the batch's keys; it is committed here, or is still the caller's.
            unless: asked in the ordered step, where nothing that shapes contexts can change; true, or what it raises,
                leaves everything as it was.

        Returns:
            None when `live` is no longer live, or when `unless` says so: nothing was appended.

        Raises:
            JournalFullError, JournalFailedError: nothing was appended.
            IndexNotReadyError: the engine is closed or broken.
        """
        state = self._state
        named = False  # by a line of the journal, or perhaps
        try:
            members = Members.of(batch)
            actions = state.in_flight.prepare(batch)
            times = batch.columns["occurred_at"]
            earliest = min(times)
            with state.order:
                state.check_open()
                if state.live is not live or unless():
                    return None
                head, named = self._journal.head, True
                try:
                    appended = self._journal.append(record)
                    with live.index.lock:
                        live.index.link(block, appended.seq)
                        state.members.add(members)
                        state.in_flight.apply(actions)
                        state.position = Position(appended.last_seq, appended.hash)
                        state.observe(earliest)
                    if state.ordered is not None:
                        state.ordered.append((batch, appended.seq))
                    self._keys.commit(reservation, appended.seq, times)
                    failpoint("engine.applied")
                    self._follower.submit(record, appended)
                except BaseException as error:
                    if self._journal.head != head:
                        # INVARIANT prefix: an appended record that is not applied would be a hole in every later answer
                        state.broken = IndexNotReadyError(f"applying record {head.seq + 1} failed: {show(str(error))}")
                    else:
                        named = not isinstance(error, EnrichError)
                    raise
        finally:
            if not named:
                self._journal.discard(record)
        return appended
