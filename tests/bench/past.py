"""Decisions of the past in bulk: replay, one by one against the signals' own SQL, and a changed policy tried on all."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from enrich import Engine
from enrich.settings import Settings
from tests.bench.data import AGENTS, document, table
from tests.bench.decisions import PATH, POLICY
from tests.bench.measure import Row

__all__ = ["past"]

_CHECKED = 1_000
_MILLION = 1_000_000


def past(root: Path, events: int = 1_000_000, decisions: int = 100_000) -> list[Row]:
    """Decisions made through the gate without waiting for the disk; who evaluates is wasm."""
    policies = root / "policies"
    policies.mkdir(parents=True)
    (policies / "bench.rego").write_text(POLICY)
    stricter = root / "stricter"
    stricter.mkdir()
    (stricter / "bench.rego").write_text(POLICY.replace("day.failure_rate > 0.5", "day.failure_rate > 0.05"))
    end = time.time_ns() // 1000 - 60_000_000
    settings = Settings(evaluator="wasm", fsync=False, log_level="error")
    with Engine.open(root / "data", queries="queries", policies=policies, settings=settings) as engine:
        engine.record(table(events, AGENTS, end_us=end))
        for i in range(decisions):
            engine.decide(PATH, document(i), wait=False)
        engine.caught_up(600)
        return [*_replay(engine, decisions, events), _backtest(engine, stricter, decisions)]


def _replay(engine: Engine, decisions: int, events: int) -> list[Row]:
    began = time.monotonic()
    frame = engine.replays.all()
    rate = decisions / (time.monotonic() - began)
    _all_valid(frame["verdict"].to_list(), decisions)
    chosen = random.Random(7).sample(frame["decision_id"].to_list(), _CHECKED)
    began = time.monotonic()
    _all_valid([engine.replays.one(id_).verdict for id_ in chosen], _CHECKED)
    alone = (time.monotonic() - began) / _CHECKED
    return [
        Row(
            f"replay --all of {decisions:,} decisions over {events:,} events, in bulk",
            ">= 3 000/s",
            f"{rate:,.0f}/s",
            f"all VALID; a random {_CHECKED:,} of them again one by one, by the signals' own SQL: all VALID, "
            f"{alone * 1e3:.0f} ms each",
            rate >= 3_000,
        )
    ]


def _all_valid(verdicts: list[str], count: int) -> None:
    if verdicts != ["VALID"] * count:
        raise SystemExit(f"of {count} decisions {verdicts.count('VALID')} are VALID")


def _backtest(engine: Engine, stricter: Path, decisions: int) -> Row:
    with _peak() as peak:
        began = time.monotonic()
        tested = engine.backtests.run(policies=stricter)
        seconds = time.monotonic() - began
    recorded = int(tested.counts.filter(tested.counts["basis"] == "as_recorded")["decisions"].sum())
    if recorded != decisions or not len(tested.frame):
        raise SystemExit(f"{recorded} of {decisions} decisions were tested, {len(tested.frame)} flips")
    minutes, gigabytes = seconds / tested.tested * _MILLION / 60, peak() / 1e9
    return Row(
        "backtest of a million decisions, reckoned from fewer",
        "<= 10 min, <= 2 GB",
        f"{minutes:.1f} min, {gigabytes:.2f} GB",
        f"{recorded:,} recorded decisions and {tested.tested - recorded:,} known as events only in {seconds:.1f} s, "
        f"{len(tested.frame):,} flips; memory is that of all processes at "
        "their highest, the engine with its history included",
        minutes <= 10 and gigabytes <= 2,
    )


@contextmanager
def _peak() -> Iterator[Callable[[], int]]:
    """The most memory that this process and those it started have held at a time, in bytes; what files are mapped
    counts once for each."""
    seen, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            seen[0] = max(seen[0], sum(map(_resident, _family())))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: seen[0]
    finally:
        done.set()
        thread.join()


def _family() -> list[int]:
    found, waiting = [], [os.getpid()]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                waiting += map(int, path.read_text().split())
            except OSError:
                continue
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
