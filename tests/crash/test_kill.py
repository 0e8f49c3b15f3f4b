"""kill -9 on the real engine under 64 writers, half of the time at failpoints: nothing acknowledged is lost, nothing is
doubled, and everything that follows the journal equals it after the restart."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import select
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import spawn
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Final

import pytest

from enrich.failpoints import FAILPOINTS
from tests.crash.story import QUERIES
from tests.crash.writer import Life, live

KILLS: Final = 204
LANES: Final = 2
#: those of backups and of pruning are passed by no writer: tests/engine/test_backups.py, tests/cli/test_backup.py,
#: tests/journal/test_prune.py
PASSED: Final = tuple(name for name in FAILPOINTS if not name.startswith(("backup.", "restore.", "journal.prune.")))
#: a directory's lives: each start checks all that came before, so that short lines of lives are cheaper
LIVES: Final = 12
#: the highest passing at which each failpoint kills
LAST: Final = {
    "journal.write": 120,
    "journal.before_fsync": 25,
    "journal.after_fsync": 25,
    "journal.rotate.closed": 3,
    "journal.rotate.created": 3,
    "sidecar.written": 3,
    "history.before_commit": 3,
    "history.after_commit": 3,
    "engine.applied": 120,
    "index.written": 3,
    "index.renamed": 3,
    "keys.written": 3,
    "keys.renamed": 3,
}
#: a failpoint that is not passed so often before this is left alone: the life ends by a kill at a random moment
PATIENCE_SECONDS: Final = 10.0


@dataclass
class Tally:
    """What happened in one lane."""

    by_failpoint: Counter[str] = field(default_factory=Counter)
    at_random: int = 0
    answers: int = 0
    starts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost_words: Counter[str] = field(default_factory=Counter)

    @property
    def kills(self) -> int:
        return self.at_random + self.by_failpoint.total()


class Lane:
    """Directories one after the other, in each a line of lives that end by being killed and a last one that closes."""

    def __init__(self, context: ForkServerContext, where: Path, queries: Path, number: int) -> None:
        self._context = context
        self._where = where
        self._queries = queries
        self._random = random.Random(4000 + number)
        self._names: Iterator[str] = itertools.cycle(PASSED[number::LANES] + PASSED[1 - number :: LANES])
        self.tally = Tally()

    def run(self, kills: int) -> Tally:
        for directory in itertools.count():
            self._directory(self._where / f"data-{directory}")
            if self.tally.kills >= kills or self.tally.wrong:
                return self.tally
        raise AssertionError

    def _directory(self, path: Path) -> None:
        path.mkdir(parents=True)
        acknowledged = path / "acknowledged"
        base_us = time.time_ns() // 1000
        for life in range(LIVES + 2):
            last = life >= LIVES
            rng = self._random
            at_failpoint = life % 2 == 1 and not last
            name = next(self._names) if at_failpoint else None
            forget = [n for n in ("history.duckdb", "index", "definitions.json") if rng.random() < 0.12]
            plan = Life(
                directory=path / "data", queries=self._queries, acknowledged=acknowledged, base_us=base_us,
                seed=rng.randrange(1 << 30), numbers=1_000_000 * life,
                failpoint=None if name is None else f"{name}:{rng.randint(1, LAST[name])}",
                saves=rng.random() < 0.5 or (name or "").startswith(("index.", "keys.")),
                # the last but one starts from what the others left, the last from nothing but the journal
                forget=() if life == LIVES else ("history.duckdb", "index") if last else tuple(forget), writes=not last,
            )  # fmt: skip
            self._live(plan, acknowledged)
            if self.tally.wrong:
                return

    def _live(self, life: Life, acknowledged: Path) -> None:
        reader, writer = self._context.Pipe(duplex=False)
        process = self._context.Process(target=live, args=(writer, life))
        started = time.monotonic()
        process.start()
        writer.close()
        assert process.pid is not None
        kill_at, kill_after = self._when(life, started)
        killed, lines, rest = False, 0, b""
        with acknowledged.open("ab") as file:
            while True:
                ready = select.select([reader], [], [], max(0.0, min(kill_at - time.monotonic(), 1.0)))[0]
                if not killed and (time.monotonic() >= kill_at or lines >= kill_after):
                    os.kill(process.pid, signal.SIGKILL)
                    killed = True
                if not ready:
                    continue
                data = os.read(reader.fileno(), 1 << 16)
                if not data:
                    break
                whole, _, rest = (rest + data).rpartition(b"\n")
                for line in whole.decode().split("\n") if whole else ():
                    lines += self._heard(line, file)
        reader.close()
        process.join()
        self._ended(life, process.exitcode, killed)

    def _when(self, life: Life, started: float) -> tuple[float, int]:
        """The time and the number of answers at which this test kills."""
        if not life.writes:
            return started + 60, 1 << 60
        if life.failpoint is not None:
            return started + PATIENCE_SECONDS, 1 << 60
        if self._random.random() < 0.3:
            return started + self._random.uniform(0.02, 1.0), 1 << 60
        return started + PATIENCE_SECONDS, self._random.randint(0, 150)

    def _heard(self, line: str, acknowledged: object) -> int:
        word, _, more = line.partition(" ")
        if word in ("ok", "no"):
            acknowledged.write(line.encode() + b"\n")  # type: ignore[attr-defined]
            self.tally.answers += 1
            return 1
        if word == "wrong":
            self.tally.wrong.append(more)
        elif word == "open":
            self.tally.starts[more] += 1
        self.tally.lost_words[word] += 1
        return 0

    def _ended(self, life: Life, code: int | None, killed: bool) -> None:
        # 255: the fork server saw it end, and lost how
        if code == -signal.SIGKILL or (killed and code == 255):
            if killed:
                self.tally.at_random += 1
            elif life.failpoint is not None:
                self.tally.by_failpoint[life.failpoint.partition(":")[0]] += 1
        elif code != 0 or life.writes:
            self.tally.wrong.append(f"a life ended with {code}: {life}")


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> ForkServerContext:
    """Processes forked from one that has imported everything, and that import nothing of this one's main module."""
    prepare = spawn.get_preparation_data

    def without_main(name: str) -> dict[str, Any]:
        return {k: v for k, v in prepare(name).items() if not k.startswith("init_main")}

    monkeypatch.setattr(spawn, "get_preparation_data", without_main)
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["tests.crash.writer"])
    return made


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_or_doubled_by_kill_9(tmp_path: Path, context: ForkServerContext) -> None:
    queries = tmp_path / "queries"
    queries.mkdir()
    for name, text in QUERIES.items():
        (queries / name).write_text(text)
    kills = int(os.environ.get("CRASH_KILLS", KILLS))
    started = time.monotonic()
    with ThreadPoolExecutor(LANES) as pool:
        lanes = [Lane(context, tmp_path / f"lane-{i}", queries, i) for i in range(LANES)]
        tallies = list(pool.map(lambda lane: lane.run(kills // LANES), lanes))
    by_failpoint = sum((t.by_failpoint for t in tallies), Counter[str]())
    print(
        f"\n{sum(t.kills for t in tallies)} kills in {time.monotonic() - started:.0f} s, "
        f"{sum(t.answers for t in tallies)} answers, starts {sum((t.starts for t in tallies), Counter[str]())}\n"
        f"{by_failpoint.total()} at failpoints: {dict(sorted(by_failpoint.items()))}"
    )
    assert [w for t in tallies for w in t.wrong] == []
    assert sum(t.kills for t in tallies) >= kills
    assert by_failpoint.total() >= 0.4 * kills
    assert {name: by_failpoint[name] for name in PASSED if by_failpoint[name] < kills // 80} == {}
