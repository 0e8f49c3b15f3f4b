"""A small thread pool with a bounded queue: work that must not hold the event loop, refused when too much waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from enrich.errors import BusyError

__all__ = ["BoundedPool"]

T = TypeVar("T")


class BoundedPool:
    """Threads for one kind of work.

    Args:
        name: stands in the refusal and in thread names.
        threads: how many calls run at once.
        waiting: how many more may wait.
        deadline_seconds: how long a call may wait for its turn; None: for ever.
    """

    def __init__(self, name: str, *, threads: int, waiting: int, deadline_seconds: float | None = None) -> None:
        self._name = name
        self._limit = threads + waiting
        self._deadline = deadline_seconds
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"enrich-{name}")
        self.depth = 0

    async def run(self, call: Callable[[], T]) -> T:
        """`call()` on a thread of the pool.

        Raises:
            BusyError: the queue is full, or the call's turn did not come in time; nothing was begun.
        """
        if self.depth >= self._limit:
            raise BusyError(f"{self.depth} {self._name} requests are waiting")
        loop = asyncio.get_running_loop()
        self.depth += 1
        held = [call]
        future = self._executor.submit(lambda: held.pop()())
        # A request that is cancelled leaves its call running: the place is free again only when that has ended.
        future.add_done_callback(lambda _: _quietly(loop, self._leave))
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = future.cancel()  # only what has not begun
            if expired:
                held.clear()  # the executor keeps the shell until its turn; what the call holds is free now

        timer = None if self._deadline is None else loop.call_later(self._deadline, expire)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not expired:
                raise
            raise BusyError(f"the {self._name} request waited {self._deadline:g} s for its turn") from None
        finally:
            if timer is not None:
                timer.cancel()

    def _leave(self) -> None:
        self.depth -= 1

    def close(self) -> None:
        """Runs what waits, then stops."""
        self._executor.shutdown(wait=True)


def _quietly(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
