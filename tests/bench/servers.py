"""Real servers and wrk, on loopback, ended by their pids."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

__all__ = ["Load", "echo_server", "enrich_server", "free_port", "opa_server", "wrk"]

_LATENCY = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s)$", re.M)
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def _server(command: list[str], url: str) -> Iterator[str]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                httpx.get(url, timeout=1.0)
                break
            except httpx.TransportError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def echo_server(kind: str) -> Iterator[str]:
    """`fastapi` or `bare`."""
    port = free_port()
    with _server([sys.executable, "-m", "tests.bench.echo", kind, str(port)], f"http://127.0.0.1:{port}/echo") as url:
        yield url


@contextmanager
def enrich_server(
    data: Path, queries: str = "queries", policies: Path | str = "policies", arguments: Sequence[str] = ()
) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "enrich", "serve", "--data", str(data), "--queries", queries]
    command += ["--policies", str(policies), "--port", str(port), *arguments]
    with _server(command, f"http://127.0.0.1:{port}/health") as url:
        yield url.removesuffix("/health")


@contextmanager
def opa_server(policies: Path) -> Iterator[str]:
    """A real OPA with a directory of policies."""
    port = free_port()
    command = ["opa", "run", "--server", "--addr", f"127.0.0.1:{port}", "--log-level", "error", str(policies)]
    with _server(command, f"http://127.0.0.1:{port}/health") as url:
        yield url.removesuffix("/health")


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw."""

    per_second: float
    p50_us: float
    p99_us: float
    errors: int

    def __str__(self) -> str:
        return f"{self.per_second:,.0f} req/s, p50 {self.p50_us / 1e3:.2f} ms, p99 {self.p99_us / 1e3:.2f} ms"


def wrk(url: str, bodies: list[bytes], root: Path, *, connections: int, seconds: int = 6, unique: bool = False) -> Load:
    """POST the bodies in turn. `unique`: each `@@` in a body becomes a number that no other request has."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    script = root / f"load-{time.monotonic_ns()}.lua"
    lines = ",\n".join(json.dumps(b.decode()) for b in bodies)
    replace = 'body = body:gsub("@@", tostring(n) .. "-" .. start)' if unique else ""
    script.write_text(
        f"""
local bodies = {{{lines}}}
local n = 0
local start = tostring({time.time_ns()})
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
request = function()
  n = n + 1
  local body = bodies[n % #bodies + 1]
  {replace}
  return wrk.format(nil, nil, nil, body)
end
"""
    )
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if rate is None:
        raise SystemExit(text)
    latency = {k: float(v) * _UNITS[u] for k, v, u in _LATENCY.findall(text)}
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Load(float(rate[1]), latency["50"], latency["99"], int(bad[1]) if bad else 0)
