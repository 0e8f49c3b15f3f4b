"""Worker processes for the embedded evaluator: started when needed, one request at a time each, ended on failure."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from enrich.decisions._worker import LENGTH

__all__ = ["Worker", "WorkerDiedError", "WorkerPool", "WorkerTimeoutError"]

#: so many evaluations abandoned in so short a time are no accident
_MANY: Final = 4
_RECENT_SECONDS: Final = 60.0
_SCRIPT: Final = str(Path(__file__).with_name("_worker.py"))


class WorkerDiedError(Exception):
    """The worker's process ended in the middle of a request; the text is the last that it said."""


class WorkerTimeoutError(Exception):
    """The worker did not answer in time and was ended."""


class Worker:
    """One process. Not thread-safe: whoever has it has it alone."""

    def __init__(self) -> None:
        # -P: the modules beside the script are no top-level modules; a session of its own: Ctrl-C is for the engine
        self._process = subprocess.Popen(
            [sys.executable, "-P", _SCRIPT],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, bufsize=0,
        )  # fmt: skip
        self._said: list[bytes] = []
        # stderr has to be read, or a worker that says much would wait for ever
        self._listener = threading.Thread(target=self._listen, name="enrich-policy-stderr", daemon=True)
        self._listener.start()

    def ask(self, request: Mapping[str, Any], given: bytes | None, seconds: float) -> dict[str, Any]:
        """One request and its reply.

        Raises:
            WorkerDiedError, WorkerTimeoutError: the worker is of no more use; its end has come, or is under way.
        """
        frames = [orjson.dumps(request)] if given is None else [orjson.dumps(request), given]
        deadline = time.monotonic() + seconds
        try:
            self._write(b"".join(LENGTH.pack(len(f)) + f for f in frames), deadline)
            (length,) = LENGTH.unpack(self._read(LENGTH.size, deadline))
            reply: dict[str, Any] = orjson.loads(self._read(length, deadline))
        except (OSError, WorkerDiedError, orjson.JSONDecodeError):
            self.end()
            said = b"".join(self._said).decode("utf-8", "replace").strip().splitlines()
            raise WorkerDiedError(said[-1].strip() if said else "its process ended") from None
        except WorkerTimeoutError:
            # a process that took much memory is some time in going, and whoever asked has a deadline
            self._process.kill()
            threading.Thread(target=self.end, name="enrich-policy-end", daemon=True).start()
            raise
        return reply

    def alive(self) -> bool:
        """Whether the process still runs; something outside may have ended it while it was idle."""
        return self._process.poll() is None

    def end(self) -> None:
        """Kill the process and give everything back."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                # what was not yet written to a dead process is lost, and that is what ending means
                with contextlib.suppress(OSError):
                    stream.close()

    def _listen(self) -> None:
        stream = self._process.stderr
        while stream is not None and (data := stream.read(4096)):
            self._said = [*self._said[-3:], data]

    def _write(self, data: bytes, deadline: float) -> None:
        if self._process.stdin is None:
            raise WorkerDiedError
        fd, view = self._process.stdin.fileno(), memoryview(data)
        while view:
            self._wait([], [fd], deadline)
            # at most what a pipe takes at once when it is writable: never blocks past the deadline
            view = view[os.write(fd, view[: select.PIPE_BUF]) :]

    def _read(self, count: int, deadline: float) -> bytes:
        if self._process.stdout is None:
            raise WorkerDiedError
        fd, parts = self._process.stdout.fileno(), []
        while count:
            self._wait([fd], [], deadline)
            part = os.read(fd, count)
            if not part:
                raise WorkerDiedError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    @staticmethod
    def _wait(readable: list[int], writable: list[int], deadline: float) -> None:
        poll = select.poll()
        for fd in readable:
            poll.register(fd, select.POLLIN)
        for fd in writable:
            poll.register(fd, select.POLLOUT)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise WorkerTimeoutError


class WorkerPool:
    """Up to `limit` workers that all had the same start.

    Args:
        start: makes a worker ready.
        limit: how many at most; further callers wait for one.
        clock: seconds that only rise.

    Attributes:
        replaced: workers that ended, or were ended, outside of `close`; another one takes their place when it is asked.
        abandoned: those of them that did not answer in time.
    """

    def __init__(
        self, start: Callable[[], Worker], limit: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._start = start
        self._clock = clock
        self._free = threading.BoundedSemaphore(limit)
        self._idle: list[Worker] = []
        self._lock = threading.Lock()
        self._closed = False
        self.replaced = 0
        self.abandoned = 0
        self._abandoned_at: deque[float] = deque(maxlen=_MANY)
        self._end_idle = weakref.finalize(self, _end_all, self._idle)

    def add(self, worker: Worker) -> None:
        """Take in a worker that is ready."""
        with self._lock:
            self._idle.append(worker)

    def ask(self, request: Mapping[str, Any], given: bytes | None, seconds: float) -> dict[str, Any]:
        """One request to any worker; one that fails is not used again.

        Raises:
            WorkerDiedError, WorkerTimeoutError: see `Worker.ask`; also when no worker gets free in time.
        """
        deadline = time.monotonic() + seconds
        if not self._free.acquire(timeout=seconds):
            raise WorkerTimeoutError
        try:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is not None and not worker.alive():
                worker.end()
                worker = None
                self._replace(abandoned=False)
            worker = worker or self._start()
            try:
                reply = worker.ask(request, given, max(0.001, deadline - time.monotonic()))
            except (WorkerDiedError, WorkerTimeoutError) as error:
                self._replace(abandoned=isinstance(error, WorkerTimeoutError))
                raise
            with self._lock:
                kept = not self._closed
                if kept:
                    self._idle.append(worker)
            if not kept:
                worker.end()
            return reply
        finally:
            self._free.release()

    def too_many_abandoned(self) -> bool:
        """Whether four evaluations or more did not end in time within the last minute."""
        with self._lock:
            times = self._abandoned_at
            return len(times) == _MANY and self._clock() - times[0] < _RECENT_SECONDS

    def _replace(self, *, abandoned: bool) -> None:
        with self._lock:
            self.replaced += 1
            if abandoned:
                self.abandoned += 1
                self._abandoned_at.append(self._clock())

    def close(self) -> None:
        """End idle workers now and busy ones after their request; later requests are served and leave no worker."""
        with self._lock:
            self._closed = True
            idle = self._idle[:]
            self._idle.clear()
        _end_all(idle)


def _end_all(workers: list[Worker]) -> None:
    while workers:
        workers.pop().end()
