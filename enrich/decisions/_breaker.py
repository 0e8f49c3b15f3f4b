"""A circuit breaker: after some failures in a row nobody waits for what does not answer, until a probe says it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from enrich.decisions.protocol import Circuit

__all__ = ["Breaker"]

_FAILURES: Final = 5
_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 5.0


class Breaker:
    """Thread-safe. `closed`: calls pass. `open`: none does, and after a pause, doubled each time, it is for the owner
    to probe. `half_open`: a probe went well and calls pass, but the first that fails opens it again.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._pause_seconds = 0.0
        self._until = 0.0
        self.circuit: Circuit = "closed"

    def succeeded(self) -> None:
        """A call was answered."""
        if self._failures == 0 and self.circuit == "closed":
            return
        with self._lock:
            if self.circuit == "open":
                return  # it had begun before; whether the next one would succeed is for a probe to say
            self._failures, self._pause_seconds, self.circuit = 0, 0.0, "closed"

    def failed(self) -> None:
        """A call was not answered, or not with sense."""
        with self._lock:
            self._failures += 1
            if self.circuit == "half_open" or (self.circuit == "closed" and self._failures >= _FAILURES):
                self._open()

    def trip(self) -> None:
        """A probe found it out of order."""
        with self._lock:
            self._open()

    def probed(self) -> None:
        """A probe went well."""
        with self._lock:
            if self.circuit == "open":
                self.circuit = "half_open"

    def pause_left(self) -> float:
        """Seconds until the next probe is due; 0 when it is, or when the circuit is not open."""
        with self._lock:
            return max(0.0, self._until - self._clock()) if self.circuit == "open" else 0.0

    def _open(self) -> None:
        longer = min(_LONGEST_PAUSE_SECONDS, 2 * self._pause_seconds)
        self._pause_seconds = max(_FIRST_PAUSE_SECONDS, longer)
        self._until = self._clock() + self._pause_seconds
        self._failures, self.circuit = 0, "open"
