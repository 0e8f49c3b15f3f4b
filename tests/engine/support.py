"""An engine on a small catalog, events to feed it, and disks that stop or break."""

from __future__ import annotations

import errno
import functools
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from enrich import Engine
from enrich.engine.results import RecordResult
from enrich.events import format_us
from enrich.journal import Journal
from enrich.journal.disk import Disk
from enrich.settings import Settings

__all__ = [
    "DAY_US",
    "HOUR_US",
    "QUERIES",
    "FaultyDisk",
    "event",
    "events",
    "now_us",
    "open_engine",
    "runs",
    "write_queries",
]

HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US
QUERIES: Final = {
    "runs.sql": """
-- entity: agent
-- windows: 1h, 30d
-- owner: tests
-- description: Runs.
SELECT
    count(*) AS runs, -- runs that ended
    count(*) FILTER (WHERE outcome = 'failed') AS failures, -- of these, failed
    failures / nullif(runs, 0) AS failure_rate, -- 0..1
    sum(duration_ms) AS ms -- together
FROM events
WHERE kind = 'execution'
""",
    "team_runs.sql": """
-- entity: team
-- windows: 1h, 30d
-- owner: tests
-- description: Runs of the team.
SELECT count(*) AS team_runs -- runs that ended
FROM events
""",
    "workflow_runs.sql": """
-- entity: workflow
-- windows: 1h, 30d
-- owner: tests
-- description: Runs of the workflow.
SELECT count(*) AS workflow_runs -- runs that ended
FROM events
""",
}


def write_queries(directory: Path, queries: Mapping[str, str] = QUERIES) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in queries.items():
        (directory / name).write_text(text.lstrip())
    return directory


def now_us() -> int:
    return time.time_ns() // 1000


def event(n: int, *, ago_us: int = 60_000_000, at_us: int | None = None, **changes: Any) -> dict[str, Any]:
    """Run `n` of agent `a`."""
    made: dict[str, Any] = {
        "source": "tests",
        "event_id": f"e{n}",
        "occurred_at": format_us(now_us() - ago_us if at_us is None else at_us),
        "kind": "execution",
        "outcome": "failed" if n % 4 == 0 else "succeeded",
        "agent_id": "a",
        "team_id": "t",
        "workflow_id": "w",
        "duration_ms": n,
    }
    return {k: v for k, v in (made | changes).items() if v is not None}


def events(first: int, count: int, **changes: Any) -> list[dict[str, Any]]:
    at_us = changes.pop("at_us", now_us() - 60_000_000)
    return [event(n, at_us=at_us, **changes) for n in range(first, first + count)]


def open_engine(where: Path, queries: Mapping[str, str] | None = None, **settings: Any) -> Engine:
    """The engine on `where/data` with the signal sets in `where/queries`."""
    directory = where / "queries"
    if queries is not None or not directory.exists():
        write_queries(directory, QUERIES if queries is None else queries)
    return Engine.open(where / "data", queries=directory, settings=Settings(disk_low_bytes=0, **settings))


def runs(engine: Engine, agent: str = "a", window: str = "last_30d") -> int:
    count = engine.context({"agent": agent})["agent"][window]["runs"]
    assert isinstance(count, int)
    return count


def fates(result: RecordResult) -> tuple[int, int, list[str]]:
    """(accepted, duplicates, codes of the rejected)."""
    return result.accepted, result.duplicates, [r.code for r in result.rejected]


class FaultyDisk(Disk):
    """A disk whose fsync waits while `gate` is closed, and fails once `broken`; whose writes fail with `full`."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Event()
        self.broken = False
        self.full = False

    def datasync(self, fd: int) -> None:
        self.arrived.set()
        self.gate.wait()
        if self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().datasync(fd)

    def write(self, fd: int, parts: Sequence[bytes | memoryview]) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(fd, parts)

    def close_gate(self) -> None:
        self.arrived.clear()
        self.gate.clear()

    @classmethod
    def put_in(cls, monkeypatch: pytest.MonkeyPatch) -> FaultyDisk:
        """Every journal opened from here on writes to this disk."""
        disk = cls()
        monkeypatch.setattr(Journal, "open", functools.partial(Journal.open, disk=disk))
        return disk
