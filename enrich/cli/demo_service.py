"""The demo's own `enrich serve`: started, told apart from what it says, ended with the demo."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["DemoService", "demo_service"]

_LISTENING: Final = "listening on "
_END_SECONDS: Final = 30.0


class DemoService:
    """A running service and where it listens."""

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self.url = url
        self._process = process

    def wait(self) -> int:
        """Wait until it ends; returns its exit code."""
        return self._process.wait()


@contextmanager
def demo_service(data: Path, *, port: int | None) -> Iterator[DemoService]:
    """`enrich serve` on `data` and the checkout's definitions, in a process of its own that ends with the block.

    Args:
        port: 0 takes a free one; None leaves it to the settings.

    Raises:
        SystemExit: it did not start; with what it said.
    """
    command = [sys.executable, "-m", "enrich", "serve", "--data", str(data), "--queries", "queries"]
    command += ["--policies", "policies", "--log-level", "warning"]
    command += [] if port is None else ["--port", str(port)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"}
    ) as process:
        try:
            said: list[str] = []
            for line in process.stderr or ():
                said.append(line)
                if line.startswith(_LISTENING):
                    break
            else:
                raise SystemExit("the service did not start:\n" + "".join(said))
            # a pipe that nobody reads fills up, and then whoever logs stands still
            threading.Thread(target=_pass_on, args=(process,), daemon=True).start()
            yield DemoService(line.removeprefix(_LISTENING).strip(), process)
        finally:
            process.terminate()
            process.wait(_END_SECONDS)


def _pass_on(process: subprocess.Popen[str]) -> None:
    for line in process.stderr or ():
        sys.stderr.write(line)
