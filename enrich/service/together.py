"""Small posts that arrive in one turn of the event loop become one record of the journal.

A record costs far more than an event in it: of 64 clients that post single events, each would pay for a record, while
together they share it. Each still gets its own answer, and nobody waits for others to come: what is here when the
turn ends goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from enrich.engine import Engine
from enrich.engine.results import RecordResult
from enrich.service.durable import LoopBridge

__all__ = ["Together"]

#: a record of more would hold the loop for milliseconds
_MOST: Final = 128

Results = Sequence[RecordResult]


class Together:
    """Collects the posts of one turn; for one event loop."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop
        self._bridge: LoopBridge[Results] = LoopBridge(loop)
        self._requests: list[Sequence[Any]] = []
        self._futures: list[asyncio.Future[RecordResult]] = []

    def add(self, events: Sequence[Any]) -> asyncio.Future[RecordResult]:
        """The future result of one post: completes once its events are durable."""
        future: asyncio.Future[RecordResult] = self._loop.create_future()
        if not self._requests:
            self._loop.call_soon(self._flush)
        self._requests.append(events)
        self._futures.append(future)
        if len(self._requests) >= _MOST:
            self._flush()
        return future

    def _flush(self) -> None:
        requests, futures = self._requests, self._futures
        if not requests:  # they were too many to wait for the turn's end
            return
        self._requests, self._futures = [], []
        whole = self._bridge.future()
        whole.add_done_callback(lambda done: _hand_out(done, futures))
        bridge = self._bridge
        try:
            self._engine.submit_each(requests, lambda outcome: bridge.complete(whole, outcome))
        except Exception as error:  # noqa: BLE001 - raised again in each of the requests, which log and answer it
            whole.set_exception(error)


def _hand_out(done: asyncio.Future[Results], futures: Sequence[asyncio.Future[RecordResult]]) -> None:
    error = done.exception()
    for i, future in enumerate(futures):
        if future.done():  # its request was cancelled: the client hung up
            continue
        if error is None:
            future.set_result(done.result()[i])
        else:
            future.set_exception(error)
