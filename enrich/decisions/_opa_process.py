"""An OPA of the engine's own: started on a Unix socket in a private directory, and ended with whoever started it."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Final

from enrich.decisions._opa_build import BUNDLE

__all__ = ["OpaProcess"]

_GUARD: Final = str(Path(__file__).with_name("_opa_guard.py"))
_START_SECONDS: Final = 20.0
_END_SECONDS: Final = 5.0


class OpaProcess:
    """One OPA that serves the bundle in a directory.

    Args:
        executable: the path of `opa`.
        directory: holds the bundle; the socket is put beside it. Nobody else may get at it.

    Raises:
        OSError: it could not be started.
    """

    def __init__(self, executable: str, directory: Path) -> None:
        # a directory of its own: who was connected to an earlier process never meets this one by chance. Relative in
        # the command, since the path of a socket is short.
        self._place = tempfile.TemporaryDirectory(prefix="s", dir=directory)
        self.socket = Path(self._place.name) / "opa"
        address = f"unix://{self.socket.relative_to(directory)}"
        self._said: list[bytes] = []
        self._process = subprocess.Popen(
            [
                sys.executable, "-I", "-S", _GUARD, executable,
                "run", "--server", "--addr", address, "--bundle", BUNDLE,
                "--log-level", "error", "--skip-version-check",
            ],
            cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, bufsize=0,
        )  # fmt: skip
        # what OPA says has to be read, or it would stand still once the pipe is full
        self._listener = threading.Thread(target=self._listen, name="enrich-opa-stderr", daemon=True)
        self._listener.start()
        try:
            self.pid = self._read_pid(self._process.stdout)
        except BaseException:
            self.end()
            raise

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def ended(self, seconds: float) -> bool:
        """Whether it does not run any more; who sees that it hung up may be a moment ahead of that."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def said(self) -> str:
        """The last line that it wrote; empty for none."""
        lines = b"".join(self._said).decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip()[:200] if lines else ""

    def end(self) -> None:
        """Kill it and give everything back. What it is in the middle of is lost."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:  # the guard itself stands still: its child goes with it
            self._process.kill()
            self._process.wait()
        self._listener.join(_END_SECONDS)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._place.cleanup()

    def _listen(self) -> None:
        stream = self._process.stderr
        while stream is not None and (data := stream.read(4096)):
            self._said = [*self._said[-3:], data]

    def _read_pid(self, stream: IO[bytes] | None) -> int:
        """The process id that the guard writes; it may fail to start the command, and say nothing."""
        if stream is None:
            raise OSError("it has no output")
        text, deadline = b"", time.monotonic() + _START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while not text.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise OSError("it does not start")
                part = os.read(stream.fileno(), 64)
                if not part:
                    raise OSError(self.said or "it ended at once")
                text += part
        return int(text)
