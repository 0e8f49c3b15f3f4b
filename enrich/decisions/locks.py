"""Who decides on an entity's history decides alone: two decisions that read the same total never both read the old one.

A decision adds to the history of every entity that it is about. One that reads an entity's history is alone with it;
those that only add to it go side by side.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from enrich.errors import BusyError

__all__ = ["EntityLocks", "LockKey"]

#: (entity, id)
LockKey = tuple[str, str]


class _Waiter:
    __slots__ = ("alone", "granted")

    def __init__(self, alone: bool) -> None:
        self.alone = alone
        self.granted = threading.Event()


class _Held:
    """One entity: who is in, and who waits, first come first served."""

    __slots__ = ("alone", "inside", "queue")

    def __init__(self) -> None:
        self.inside = 0
        self.alone = False
        self.queue: deque[_Waiter] = deque()

    def enter(self, alone: bool) -> bool:
        """Take it if that can be now, whoever waits."""
        if self.inside and (alone or self.alone):
            return False
        self.inside += 1
        self.alone = alone
        return True

    def admit(self) -> None:
        """Let in those who waited longest, as far as they can be in together."""
        while self.queue and self.enter(self.queue[0].alone):
            self.queue.popleft().granted.set()


class EntityLocks:
    """A lock for every entity that somebody decides about at the moment.

    Args:
        max_waiting: how many callers may wait at the same time.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._guard = threading.Lock()
        self._held: dict[LockKey, _Held] = {}
        self.waiting = 0

    @contextmanager
    def hold(self, keys: Iterable[LockKey], deadline: float, *, shared: Iterable[LockKey] = ()) -> Iterator[None]:
        """Hold the locks of all `keys`, alone, and of those in `shared` together with others who share them.

        INVARIANT: taken in sorted order, so that no two callers wait for each other.

        Args:
            deadline: on `time.monotonic`'s clock.

        Raises:
            BusyError: too many wait, or the deadline came first; nothing is held.
        """
        wanted = dict.fromkeys(shared, False) | dict.fromkeys(keys, True)
        taken: list[LockKey] = []
        try:
            for key in sorted(wanted):
                self._take(key, wanted[key], deadline)
                taken.append(key)
            yield
        finally:
            for key in reversed(taken):
                self._leave(key)

    def _take(self, key: LockKey, alone: bool, deadline: float) -> None:
        with self._guard:
            held = self._held.get(key)
            if held is None:
                held = self._held[key] = _Held()
            # who comes later does not pass those who wait, or many who share would keep out one who is to be alone
            if not held.queue and held.enter(alone):
                return
            if self.waiting >= self._max_waiting:
                raise BusyError(f"{self.waiting} decisions wait for one about the same entity")
            waiter = _Waiter(alone)
            held.queue.append(waiter)
            self.waiting += 1
        in_time = False
        try:
            in_time = waiter.granted.wait(max(0.0, deadline - time.monotonic()))
        finally:
            with self._guard:
                self.waiting -= 1
                if not in_time:
                    self._give_up(key, held, waiter)
        if not in_time:
            raise BusyError("a decision about the same entity did not end in time")

    def _give_up(self, key: LockKey, held: _Held, waiter: _Waiter) -> None:
        """Under the guard: out of the queue, or out again when it was let in meanwhile."""
        if waiter.granted.is_set():
            self._out(key, held)
        else:
            held.queue.remove(waiter)
            held.admit()  # one who was behind it may share with those inside

    def _leave(self, key: LockKey) -> None:
        with self._guard:
            self._out(key, self._held[key])

    def _out(self, key: LockKey, held: _Held) -> None:
        held.inside -= 1
        held.admit()
        if not held.inside:
            del self._held[key]
