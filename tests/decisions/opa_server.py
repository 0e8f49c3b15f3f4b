"""A real OPA for tests: found on PATH or where `go install` puts it, served on loopback, ended by its pid."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["ask", "opa_binary", "paused", "serve_opa"]


def opa_binary() -> str:
    """The path of `opa`; without it the test is skipped, in CI it fails."""
    found = shutil.which("opa")
    if found is None and shutil.which("go"):
        path = subprocess.run(["go", "env", "GOPATH"], capture_output=True, text=True, check=True).stdout.strip()
        found = shutil.which("opa", path=os.path.join(path, "bin"))
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI has to have opa")
        pytest.skip("opa is not installed")
    return found


@contextmanager
def serve_opa(directory: Path, options: Sequence[str] = ()) -> Iterator[int]:
    """Serve a directory as a bundle; yields the port."""
    binary = opa_binary()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    server = subprocess.Popen(
        [binary, "run", "--server", "--bundle", str(directory), "--addr", f"127.0.0.1:{port}",
         "--log-level", "error", "--disable-telemetry", *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(200):
            try:
                if ask(port, "GET", "/health")[0] == 200:
                    break
            except OSError:
                time.sleep(0.05)
        else:
            pytest.fail("opa did not start within 10 s")
        yield port
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """A process that stands still, every thread of it, until the block ends."""
    os.kill(pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 60
        while not all(") T " in task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/stat")):
            assert time.monotonic() < deadline, "it does not stop"
            time.sleep(0.005)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def ask(
    port: int, method: str, target: str, body: bytes | None = None, content_type: str = "application/json"
) -> tuple[int, str | None, Any]:
    """Status, location, decoded body of one call."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, target, body=body, headers={} if body is None else {"Content-Type": content_type})
        response = connection.getresponse()
        raw = response.read()
        parsed = json.loads(raw) if response.getheader("Content-Type") == "application/json" and raw else None
        return response.status, response.getheader("Location"), parsed
    finally:
        connection.close()
