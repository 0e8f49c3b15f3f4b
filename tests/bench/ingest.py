"""`engine.record`, validated and durable; and starting with ten million events."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from enrich import Engine
from tests.bench.data import table
from tests.bench.measure import Row

__all__ = ["record", "start"]


def record(root: Path) -> list[Row]:
    """Batches of dicts, as decoded from JSON, in one thread; each call returns when its events are durable."""
    rows = []
    end = time.time_ns() // 1000 - 60_000_000
    for size, target in ((1_000, 60_000), (10_000, 150_000)):
        data: list[dict[str, Any]] = table(300_000, 10_000, end_us=end, days=30).to_pylist()
        for row in data:
            at = row["occurred_at"]
            row["occurred_at"] = at.isoformat().replace("+00:00", "Z")
        data = [{k: v for k, v in row.items() if v is not None} for row in data]
        with Engine.open(root / f"record-{size}", queries="queries") as engine:
            engine.record(data[:size])
            began = time.perf_counter()
            for i in range(size, len(data), size):
                engine.record(data[i : i + size])
            rate = (len(data) - size) / (time.perf_counter() - began)
        shutil.rmtree(root / f"record-{size}")
        rows.append(
            Row(f"`engine.record`, batches of {size:,}, validated and durable", f">= {target:,} events/s",
                f"{rate:,.0f} events/s", "dicts in, shipped catalog", rate >= target)
        )  # fmt: skip
    return rows


_START = """
import gc, json, sys, time
from pathlib import Path
from enrich import Engine

def memory(*names):
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(names))

def rss():
    return memory("RssAnon", "RssFile", "RssShmem")

import enrich.engine
before = rss()
began = time.perf_counter()
engine = Engine.open(sys.argv[1], queries="queries")
seconds = time.perf_counter() - began
peak = memory("VmHWM")  # ru_maxrss would count what the process that started this one had
gc.collect()
after = rss()
stats = engine.stats()
context = engine.context({"agent": "agent-000777"})
engine.close()
seen = {"seconds": seconds, "before": before, "after": after, "peak": peak}
print(json.dumps({**seen, "stats": stats["index"], "keys": stats["keys"]}))
"""


def start(root: Path, events: int = 10_000_000, agents: int = 100_000) -> list[Row]:
    """Each start in a process of its own: from DuckDB, then from the index that its end saved."""
    end = time.time_ns() // 1000 - 60_000_000
    data = root / "start"
    part = 1_000_000
    began = time.perf_counter()
    with Engine.open(data, queries="queries") as engine:
        for i in range(0, events, part):
            engine.record(table(part, agents, end_us=end, days=80, first=i, seed=i))
            print(f"  {i + part:,} events recorded, {time.perf_counter() - began:.0f} s", flush=True)
            while engine.stats()["lag_events"] > 1_000_000:
                time.sleep(0.05)
    shutil.rmtree(data / "index", ignore_errors=True)
    cold = _start(data)
    warm = _start(data)
    per_event = (cold["after"] - cold["before"]) / events
    peak = (cold["peak"] - cold["before"]) / (cold["after"] - cold["before"])
    return [
        Row(f"start with {events / 1e6:g} M events, {agents // 1000} k agents, shipped catalog, from DuckDB", "<= 25 s",
            f"{cold['seconds']:.1f} s", f"journal verified; {cold['keys']:,} keys", cold["seconds"] <= 25),
        Row("the same from the saved index", "<= 3 s", f"{warm['seconds']:.1f} s", "", warm["seconds"] <= 3),
        Row("memory per event, keys included", "<= 600 bytes", f"{per_event:.0f} bytes",
            f"{(cold['after'] - cold['before']) / 1e9:.2f} GB", per_event <= 600),
        Row("build peak", "<= 1.5 x", f"{peak:.2f} x", f"{cold['peak'] / 1e9:.2f} GB", peak <= 1.5),
    ]  # fmt: skip


def _start(data: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", _START, str(data)], check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
