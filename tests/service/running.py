"""A real `enrich serve` in its own process, for the tests of service and command line."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

__all__ = ["AGENT_SET", "POLICY", "Running", "definitions", "enrich", "event", "serving"]

AGENT_SET = """\
-- entity: agent
-- windows: 1h, 24h
-- owner: tests
-- description: What the agent did.
SELECT
    count(*)                                   AS executions,   -- runs that ended
    count(*) FILTER (WHERE outcome = 'failed') AS failures,     -- of these, failed
    failures / nullif(executions, 0)           AS failure_rate  -- 0..1
FROM events
WHERE kind = 'execution'
"""
PAIR_SET = """\
-- entity: agent_workflow
-- windows: 24h
-- owner: tests
-- description: What the agent did in the workflow.
SELECT
    count(*) AS runs -- runs that ended
FROM events
WHERE kind = 'execution'
"""
POLICY = """\
package test.authority

default decision := {"decision": "ALLOW"}

decision := {"decision": "DENY"} if {
    input.history.agent.last_24h.failures >= 2
}

asked := {"by": input.identity.actor_id}

known if input.history.agent.known
"""


def definitions(directory: Path) -> Path:
    """`queries` and `policies` in `directory`."""
    (directory / "queries").mkdir()
    (directory / "policies").mkdir()
    (directory / "queries" / "agent_runs.sql").write_text(AGENT_SET)
    (directory / "queries" / "agent_workflow_runs.sql").write_text(PAIR_SET)
    (directory / "policies" / "authority.rego").write_text(POLICY)
    return directory


def event(event_id: str, **fields: Any) -> dict[str, Any]:
    """A valid event of a few seconds ago."""
    return {
        "source": "tests",
        "event_id": event_id,
        "occurred_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 10)),
        "kind": "execution",
        "outcome": "failed",
        "agent_id": "a-1",
    } | fields


def enrich(
    *arguments: str | Path,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    timeout: float = 60,
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Runs the `enrich` command to its end."""
    return subprocess.run(
        [_command(), *map(str, arguments)],
        cwd=cwd,
        env=_environment(environment),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _command() -> str:
    return str(Path(sys.executable).with_name("enrich"))


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ENRICH_")}
    return clean | {"NO_COLOR": "1", "COLUMNS": "120"} | dict(more or {})


@dataclass
class Running:
    """A service under test."""

    url: str
    directory: Path
    process: subprocess.Popen[bytes]
    log: Path
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        transport = None
        base = self.url
        if self.url.startswith("unix:"):
            transport, base = httpx.HTTPTransport(uds=self.url.removeprefix("unix:")), "http://enrich"
        self.http = httpx.Client(base_url=base, transport=transport, timeout=30)

    def metric(self, line: str, headers: Mapping[str, str] | None = None) -> float:
        """The value of one sample of /metrics, by its name and labels as written there; 0 when absent."""
        text = self.http.get("/metrics", headers=dict(headers or {})).text
        found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends the process and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=40)


@contextlib.contextmanager
def serving(
    directory: Path,
    *flags: str,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = ("--port", "0"),
) -> Iterator[Running]:
    """Starts `enrich serve` on `directory`'s data, queries and policies; kills it at the end if it still runs."""
    log = directory / f"serve-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [_command(), "serve", "--data=data", "--queries=queries", "--policies=policies", *arguments, *flags],
            cwd=directory,
            env=_environment(environment),
            stdout=output,
            stderr=output,
        )
    running = None
    try:
        running = Running(_wait_for_url(process, log), directory, process, log)
        yield running
    finally:
        if running is not None:
            running.http.close()
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait_for_url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = re.search(r"listening on (\S+)", log.read_text())
        if found:
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise AssertionError(f"the service did not start:\n{log.read_text()}")
