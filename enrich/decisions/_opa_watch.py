"""Keeps one OPA answering, or known not to: verifies it, probes it, and, if it is the engine's own, starts it again.

One thread does all of that, so that no decision waits for a probe of its own. Between start or loss and the next
verification calls wait, as long as they may; while the circuit is open they are refused at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from enrich.decisions._breaker import Breaker
from enrich.decisions._opa_client import Address, Connection, Connections, NoAnswerError, Reply, TookTooLongError
from enrich.decisions._opa_process import OpaProcess
from enrich.decisions._opa_verify import Expected, UnverifiedError

__all__ = ["Watch"]

_ROUND_SECONDS: Final = 1.0
_PROBE_SECONDS: Final = 2.0
_VERIFY_SECONDS: Final = 5.0
#: the same for one of the engine's own, its start included
_START_SECONDS: Final = 30.0
#: how often the contents of an OPA that others run are read back, besides whenever it was lost
_VERIFY_AGAIN_SECONDS: Final = 30.0
#: how much later than that it hung up it may be seen that a process ended
_NOTICE_SECONDS: Final = 0.5
#: one of the engine's own that says nothing for so long is ended and started again
_SILENT_SECONDS: Final = 10.0
#: once closed: quiet for so long before it ends, and waited for no longer than
_QUIET_SECONDS: Final = 0.5
_LINGER_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Link:
    """An OPA whose contents were compared. As long as `anchor` is open it is the same process."""

    connections: Connections
    anchor: Connection


class Watch:
    """The way to one OPA. Thread-safe.

    Args:
        expected: what it has to hold.
        address: where somebody else's listens.
        start: starts one of the engine's own; either this or `address`.
        end: called once, when nothing of it is left.
    """

    def __init__(
        self,
        expected: Expected,
        *,
        address: Address | None = None,
        start: Callable[[], OpaProcess] | None = None,
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self._expected = expected
        self._start = start
        self._end = end
        self._connections = None if address is None else Connections(address)
        self._link: _Link | None = None
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._process: OpaProcess | None = None
        self._served = False  # this process was verified once
        self._verified_at = self._answered_at = time.monotonic()
        self._active = 0
        self._closing: float | None = None
        self._over = False
        self.breaker = Breaker()
        self.problem = "it was not asked yet"
        self.restarts = 0
        self.timeouts = 0
        self._log = structlog.get_logger("enrich.opa")
        self._thread = threading.Thread(target=self._run, name="enrich-opa", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether calls are let through: its contents were verified and it answers."""
        return self._link is not None and self.breaker.circuit != "open"

    @property
    def pid(self) -> int | None:
        """The process id of the engine's own; None when there is none at the moment."""
        process = self._process
        return None if process is None else process.pid

    def wait_ready(self, seconds: float) -> bool:
        """Wait until calls are let through, or a first attempt failed."""
        with self._changed:
            self._changed.wait_for(lambda: self.ready or self.breaker.circuit == "open" or self._over, seconds)
        return self.ready

    def ask(self, request: bytes, deadline: float) -> Reply:
        """One call to an OPA that was verified, and still is when it has answered.

        Raises:
            TookTooLongError: no answer before the deadline.
            NoAnswerError: none at all, or the circuit is open.
        """
        with self._changed:
            self._active += 1
        try:
            while True:
                link = self._wait(deadline)
                reply = self._ask(link, request, deadline)
                if link.anchor.alive():
                    return reply
                # it may be another process that answered: only what is verified anew is believed
                self._lose(link, "it went away")
        finally:
            with self._changed:
                self._active -= 1

    def _wait(self, deadline: float) -> _Link:
        link = self._link
        if link is not None and self.breaker.circuit != "open":
            return link
        with self._changed:
            while True:
                if self.breaker.circuit == "open" or self._over:
                    raise NoAnswerError(f"OPA is not asked: {self.problem}")
                if self._link is not None:
                    return self._link
                left = deadline - time.monotonic()
                if left <= 0:
                    raise NoAnswerError(f"OPA is not ready: {self.problem}")
                self._changed.wait(left)

    def _ask(self, link: _Link, request: bytes, deadline: float) -> Reply:
        try:
            reply = link.connections.ask(request, deadline)
        except TookTooLongError:
            # a policy may be slow, or OPA dead: that is for a probe to say
            with self._changed:
                self.timeouts += 1
            self._wake.set()
            raise
        except NoAnswerError as error:
            self._lose(link, str(error))
            self.failed()
            raise
        self._answered_at = time.monotonic()
        return reply

    def failed(self) -> None:
        """An answer made no sense, or there was none."""
        self.breaker.failed()
        if self.breaker.circuit == "open":
            self._tell()

    def unverified(self, why: str) -> None:
        """An answer was not made with what is expected."""
        link = self._link
        if link is not None:
            self._lose(link, why)
        self.failed()

    def close(self) -> None:
        """Come to an end once no call is under way; returns at once."""
        with self._changed:
            if self._closing is None:
                self._closing = time.monotonic()
        self._wake.set()

    def stop(self) -> None:
        """End now, whatever is under way; returns when nothing is left."""
        with self._changed:
            self._closing = time.monotonic() - _LINGER_SECONDS
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_LINGER_SECONDS)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        seconds = 0.0
        try:
            while self._closing is None:
                self._wake.wait(seconds)
                self._wake.clear()
                if self._closing is None:
                    seconds = self._round()
            self._linger(self._closing)
        finally:
            self._finish()

    def _round(self) -> float:
        """Start, verify or probe, whichever is due; how long the next round may wait."""
        pause = self.breaker.pause_left()
        if pause > 0:
            return pause
        try:
            self._keep_process()
            if self._link is None or self.breaker.circuit == "open" or self._old():
                self._verify()
            else:
                self._probe(self._link)
        except (NoAnswerError, UnverifiedError, OSError) as error:
            process = self._process
            if self._served and process is not None and process.ended(_NOTICE_SECONDS):
                return 0.0  # it served until now: a new one at once, and those who call wait for it
            self._fail(str(error))
            return self.breaker.pause_left()
        except Exception as error:  # noqa: BLE001 - INVARIANT: the thread lives on, and what it can't verify is not asked
            self._log.exception("opa_watch_failed")
            self._fail(type(error).__name__)
            return self.breaker.pause_left()
        return _ROUND_SECONDS

    def _old(self) -> bool:
        return self._start is None and time.monotonic() - self._verified_at > _VERIFY_AGAIN_SECONDS

    def _keep_process(self) -> None:
        """Have a process of the engine's own that runs, and is not silent for too long."""
        if self._start is None:
            return
        process = self._process
        if process is not None:
            silent = time.monotonic() - self._answered_at
            if process.alive() and (self.ready or silent < _SILENT_SECONDS):
                return
            self._log.error("opa_ended", said=process.said, silent_seconds=round(silent, 1))
            self._lose(self._link, "its process ended")
            self._process = None
            process.end()
            self.restarts += 1
        if self._connections is not None:
            self._connections.close()
        self._served = False
        self._process = process = self._start()
        self._answered_at = time.monotonic()
        self._connections = Connections(Address(path=process.socket))

    def _verify(self) -> None:
        connections, old = self._connections, self._link
        if connections is None:
            raise NoAnswerError("there is no OPA")
        deadline = time.monotonic() + (_VERIFY_SECONDS if self._start is None else _START_SECONDS)
        anchor = self._anchor(connections.address, deadline)
        try:
            self._expected.check(lambda path: _get(anchor, path, deadline))
        except BaseException:
            anchor.close()
            raise
        self._verified_at = self._answered_at = time.monotonic()
        self._served = True
        self.breaker.probed()
        if self.problem:
            self._log.info("opa_verified", revision=self._expected.revision)
        self.problem = ""
        self._link = _Link(connections, anchor)
        self._tell()
        if old is not None:
            old.anchor.close()

    def _anchor(self, address: Address, deadline: float) -> Connection:
        """A connection; one of the engine's own that just starts does not listen yet."""
        while True:
            try:
                return Connection(address, deadline)
            except NoAnswerError:
                process = self._process
                if process is None or not process.alive() or time.monotonic() > deadline or self._closing is not None:
                    raise
                time.sleep(0.01)

    def _probe(self, link: _Link) -> None:
        deadline = time.monotonic() + _PROBE_SECONDS
        reply = link.connections.ask(_head("/health"), deadline)
        if reply.status != 200:
            raise NoAnswerError(f"its health is HTTP {reply.status}")
        self._answered_at = time.monotonic()
        if not link.anchor.alive():
            self._lose(link, "it went away")

    def _fail(self, problem: str) -> None:
        if problem != self.problem:
            self._log.error("opa_failed", reason=problem)
        self._lose(self._link, problem)
        self.breaker.trip()
        self._tell()

    def _lose(self, link: _Link | None, problem: str) -> None:
        with self._changed:
            self.problem = problem
            if link is None or self._link is not link:
                return
            self._link = None
            self._changed.notify_all()
        link.anchor.close()
        link.connections.drop()
        self._wake.set()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _linger(self, since: float) -> None:
        """Whoever read these policies before others took their place may still ask."""
        quiet = time.monotonic()
        while time.monotonic() - (self._closing or since) < _LINGER_SECONDS:
            with self._changed:
                quiet = time.monotonic() if self._active else quiet
            if time.monotonic() - quiet > _QUIET_SECONDS:
                return
            time.sleep(0.02)

    def _finish(self) -> None:
        with self._changed:
            self._over, link, self._link = True, self._link, None
            self.problem = "it was closed"
            self._changed.notify_all()
        if link is not None:
            link.anchor.close()
        if self._connections is not None:
            self._connections.close()
        if self._process is not None:
            self._process.end()
            self._process = None
        self._end()


def _head(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: opa\r\n\r\n".encode("ascii")


def _get(connection: Connection, path: str, deadline: float) -> Reply:
    reply, reusable = connection.ask(_head(path), deadline)
    if not reusable:
        raise NoAnswerError("it does not keep a connection open")
    return reply
