"""Who decides about an entity decides alone: two decisions that read the same total never both read the old one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from enrich.errors import BusyError

__all__ = ["EntityLocks"]

#: (entity, id)
LockKey = tuple[str, str]


class _Held:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


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
    def hold(self, keys: Iterable[LockKey], deadline: float) -> Iterator[None]:
        """Hold the locks of all `keys`; who shares none is not waited for.

        INVARIANT: taken in sorted order, so that no two callers wait for each other.

        Args:
            deadline: on `time.monotonic`'s clock.

        Raises:
            BusyError: too many wait, or the deadline came first; nothing is held.
        """
        taken: list[LockKey] = []
        try:
            for key in sorted(set(keys)):
                self._take(key, deadline)
                taken.append(key)
            yield
        finally:
            for key in reversed(taken):
                self._held[key].lock.release()
                self._leave(key)

    def _take(self, key: LockKey, deadline: float) -> None:
        with self._guard:
            held = self._held.setdefault(key, _Held())
            held.users += 1
        if held.lock.acquire(blocking=False):
            return
        try:
            with self._guard:
                if self.waiting >= self._max_waiting:
                    raise BusyError(f"{self.waiting} decisions wait for one about the same entity")
                self.waiting += 1
            try:
                if not held.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                    raise BusyError("a decision about the same entity did not end in time")
            finally:
                with self._guard:
                    self.waiting -= 1
        except BaseException:
            self._leave(key)
            raise

    def _leave(self, key: LockKey) -> None:
        with self._guard:
            held = self._held[key]
            held.users -= 1
            if not held.users:
                del self._held[key]
