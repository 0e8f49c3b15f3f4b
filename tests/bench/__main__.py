"""`make bench [ONLY=section,...]`: a table of ratios, printed and kept in docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
from rich.console import Console
from rich.table import Table

from tests.bench import decisions, in_process, ingest, over_http, past
from tests.bench.measure import Row, in_turns

_OUT = Path("docs/benchmarks.md")
_FEAST = Path(".make/feast")


def _feast(root: Path) -> list[Row]:
    """Feast in a virtual environment of its own: ten stored values against ten live windows' signals."""
    python = _FEAST / "bin/python"
    if not python.exists():
        subprocess.run([".make/uv/bin/uv", "venv", "-q", str(_FEAST)], check=True)
        subprocess.run([".make/uv/bin/uv", "pip", "install", "-q", "-p", str(python), "feast==0.67.0"], check=True)
    select = [
        f"agent.last_{window}.{name}"
        for window in ("24h", "7d")
        for name in ("executions", "attempts", "failures", "timeouts", "failure_rate")
    ]
    from enrich import Engine
    from tests.bench.data import agent_name, table

    end = time.time_ns() // 1000 - 60_000_000
    with Engine.open(root / "feast", queries="queries") as engine:
        engine.record(table(100_000, 1_000, end_us=end))
        while engine.merge_step(idle=True):
            pass
        (ours,) = in_turns([lambda i: engine.context({"agent": agent_name(i % 1000)}, select=select)])
    peer = json.loads(
        subprocess.run(
            [str(python), "-W", "ignore", "tests/bench/peer_feast.py"], check=True, capture_output=True, text=True
        ).stdout.splitlines()[-1]
    )
    ratio = peer["p50_us"] / ours.p50
    return [
        Row("Feast 0.67 (SQLite online store, 10 stored values), in process", ">= 5 x its speed", f"{ratio:.1f} x",
            f"{len(select)} live signals: {ours}; Feast p50 {peer['p50_us']:.0f} us", ratio >= 5)
    ]  # fmt: skip


_SECTIONS: dict[str, Callable[[Path], list[Row]]] = {
    "context": in_process.contexts,
    "hot": in_process.hot,
    "http": over_http.http,
    "record": ingest.record,
    "start": ingest.start,
    "decide": decisions.decide,
    "past": past.past,
    "feast": _feast,
}


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("sections", nargs="*", default=[], help=f"of {', '.join(_SECTIONS)}; default: all")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {_OUT}")
    args = parser.parse_args()
    rows: list[Row] = []
    for name in args.sections or _SECTIONS:
        root = Path(tempfile.mkdtemp(prefix=f"enrich-bench-{name}-"))
        print(f"{name} ...", flush=True)
        try:
            rows += _SECTIONS[name](root)
        finally:
            shutil.rmtree(root, ignore_errors=True)
    shown = Table("measured", "to reach", "seen", "figures")
    for row in rows:
        mark = "" if row.reached is None else ("[green]" if row.reached else "[red]")
        shown.add_row(row.measured, row.target, mark + row.seen, row.figures)
    Console(width=180).print(shown)
    if args.write:
        _write(rows)
    return 0


def _write(rows: list[Row]) -> None:
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`: every ratio was measured in one run, floor or peer and subject in turns.",
        "",
        f"Machine: {os.cpu_count()} x {_cpu()}, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, DuckDB {duckdb.__version__}; {time.strftime('%Y-%m-%d')}.",
        "",
        "| measured | to reach | seen | | figures |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        mark = "" if row.reached is None else ("yes" if row.reached else "**no**")
        lines.append(f"| {row.measured} | {row.target} | {row.seen} | {mark} | {row.figures} |")
    _OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
