"""Group fsync: one thread makes durable what was written, everyone who waits shares it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from heapq import heappop, heappush

from enrich.errors import EnrichError, JournalFailedError
from enrich.journal.format import Position

__all__ = ["GroupSync"]

Callback = Callable[[EnrichError | None], None]


class GroupSync:
    """Runs `flush` whenever something was written, and tells those who wait for it.

    While one flush runs, writers go on writing; all they wrote is covered by the next. Nobody is told in the order's
    lock.

    Args:
        flush: makes everything written so far durable and returns its end; an OSError ends all writing.
        idle: called after waiters were told, for work that is in nobody's way; an OSError ends all writing too.
        durable: what is durable at the start.
    """

    def __init__(self, flush: Callable[[], Position], idle: Callable[[], None], durable: Position) -> None:
        self._flush = flush
        self._idle = idle
        self.durable = durable
        self.failed: JournalFailedError | None = None
        self.flushes = 0
        self._lock = threading.Lock()
        self._wake = threading.Lock()  # a binary semaphore: released once per raised `_signalled`
        self._wake.acquire()
        self._signalled = False
        self._stopping = False
        self._waiters: list[tuple[int, int, Callback]] = []
        self._count = 0
        self._thread = threading.Thread(target=self._run, name="enrich-fsync", daemon=True)
        self._thread.start()

    def written(self) -> None:
        """Say that there is something to flush. INVARIANT: called after it was written, so that no wake-up is lost."""
        with self._lock:
            if not self._signalled:
                self._signalled = True
                self._wake.release()

    def call(self, seq: int, callback: Callback) -> None:
        """See `Journal.on_durable`."""
        if seq > self.durable.seq:
            with self._lock:
                # INVARIANT: `durable` moves, and `failed` is set, under the lock: whoever is queued will be told
                if seq > self.durable.seq and self.failed is None:
                    self._count += 1
                    heappush(self._waiters, (seq, self._count, callback))
                    return
        callback(None if seq <= self.durable.seq else self.error())

    def wait(self, seq: int, timeout: float | None) -> None:
        """See `Journal.wait_durable`."""
        if seq <= self.durable.seq:
            return
        done = threading.Lock()
        done.acquire()
        outcome: list[EnrichError | None] = []

        def tell(error: EnrichError | None) -> None:
            outcome.append(error)
            done.release()

        self.call(seq, tell)
        if not done.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError(f"seq {seq} was not durable after {timeout} s")
        if outcome[0] is not None:
            raise outcome[0]

    def fail(self, reason: str) -> None:
        """End all writing: every waiting and later answer above `durable` is an error."""
        with self._lock:
            if self.failed is None:
                self.failed = JournalFailedError(reason, hint="restart the engine: it recovers what reached the disk")
            told, self._waiters = self._waiters, []
        for _, _, callback in sorted(told, key=lambda w: w[:2]):
            self._tell(callback, self.error())

    def error(self) -> JournalFailedError:
        """A new error for each who gets one: an exception must not be raised by two threads."""
        first = self.failed
        if first is None:
            return JournalFailedError("the journal is closed")
        return JournalFailedError(first.message, **first.detail)

    def stop(self) -> None:
        """Flush what is left and end the thread; who still waits for what was never written gets an error."""
        with self._lock:
            self._stopping = True
        self.written()
        self._thread.join()
        self.fail("the journal is closed")

    def _run(self) -> None:
        while True:
            self._wake.acquire()
            with self._lock:
                self._signalled = False
                stopping = self._stopping
            if self.failed is None:
                try:
                    self._advance(self._flush())
                    self._idle()
                except OSError as error:
                    self.fail(f"fsync of the journal failed: {error.strerror or error}")
                except Exception as error:  # noqa: BLE001 - else this thread would end, and all who wait never hear
                    self.fail(f"the journal can't be made durable: {error!r}")
            if stopping:
                return

    def _advance(self, durable: Position) -> None:
        self.flushes += 1
        told: list[Callback] = []
        with self._lock:
            self.durable = durable
            waiters = self._waiters
            while waiters and waiters[0][0] <= durable.seq:
                told.append(heappop(waiters)[2])
        for callback in told:
            self._tell(callback, None)

    @staticmethod
    def _tell(callback: Callback, error: EnrichError | None) -> None:
        try:
            callback(error)
        except Exception:  # one caller's bug must not keep the others' answers back for ever
            logging.getLogger(__name__).exception("a callback of on_durable raised")
