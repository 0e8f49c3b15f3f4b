"""From the journal's fsync thread to the event loop.

INVARIANT *durable answers* (journal contract): an answer leaves only when everything it has seen is durable. One fsync
covers many requests; `LoopBridge` wakes the loop once for all of them, not once for each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

from enrich.engine import Engine
from enrich.errors import EnrichError

__all__ = ["DurableAnswers", "LoopBridge"]

T = TypeVar("T")


class LoopBridge(Generic[T]):
    """Completes futures of one event loop from other threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done: deque[tuple[asyncio.Future[T], T | EnrichError]] = deque()
        self._armed = False

    def future(self) -> asyncio.Future[T]:
        return self._loop.create_future()

    def complete(self, future: asyncio.Future[T], outcome: T | EnrichError) -> None:
        """From any thread: `future` gets `outcome` as its result or, an error, as its exception."""
        self._done.append((future, outcome))
        # Without a lock on purpose: whoever finds `_armed` set appended before `_drain` cleared it, and `_drain`
        # empties the queue after clearing; at worst it runs once for nothing.
        if not self._armed:
            self._armed = True
            if not self._loop.is_closed():  # closed: the service has stopped and nobody waits
                self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._armed = False
        done = self._done
        while done:
            future, outcome = done.popleft()
            if future.done():  # its request was cancelled: the client hung up
                continue
            if isinstance(outcome, EnrichError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


class DurableAnswers:
    """Holds answers back until the journal is durable up to what they have seen."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._bridge: LoopBridge[None] = LoopBridge(loop)

    async def wait(self, seq: int) -> None:
        """Returns once `seq` is durable.

        Raises:
            JournalFailedError: it never will be.
        """
        if self._engine.durable_seq >= seq:
            return
        bridge = self._bridge
        future = bridge.future()
        self._engine.on_durable(seq, lambda error: bridge.complete(future, error))
        await future
