"""One incarnation of the engine: start on what the last one left, be judged, write with 64 threads until killed.

It is forked from a server that has imported everything; what it says goes through a pipe in lines of at most 4 096
bytes, which the system writes whole or not at all.
"""

from __future__ import annotations

import faulthandler
import itertools
import os
import random
import shutil
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from enrich import Engine
from enrich.engine import startup
from enrich.engine.results import RecordResult
from enrich.errors import EnrichError
from enrich.failpoints import VARIABLE, failpoint
from enrich.journal import verify
from enrich.settings import Settings
from tests.crash.judge import Wrong, judge
from tests.crash.story import event

__all__ = ["Life", "live"]

THREADS = 64
_LINE_BYTES = 4_000


@dataclass(frozen=True, slots=True)
class Life:
    """What one incarnation is to do. `numbers` is where its new events begin; lives of one directory share none."""

    directory: Path
    queries: Path
    acknowledged: Path
    base_us: int
    seed: int
    numbers: int
    failpoint: str | None
    saves: bool
    forget: tuple[str, ...]
    writes: bool = True
    seconds: float = 15.0


def live(said: Connection, life: Life) -> None:
    """Runs in a process of its own until it is killed, or until its time is over."""
    faulthandler.enable()  # a life that ends by anything but SIGKILL should say where
    Incarnation(said.fileno(), life).run()


class Incarnation:
    def __init__(self, said: int, life: Life) -> None:
        self._said = said
        self._life = life
        self._stop = threading.Event()
        self._numbers = itertools.count(life.numbers)
        self._sent: list[tuple[int, int]] = []

    def say(self, word: str, *more: object) -> None:
        os.write(self._said, (" ".join(map(str, (word, *more))).replace("\n", "|")[:_LINE_BYTES] + "\n").encode())

    def run(self) -> None:
        life = self._life
        try:
            self._forget()
            report = verify(life.directory) if (life.directory / "journal" / "journal.json").exists() else None
            if report is not None and not report.ok:
                raise Wrong(f"before the start: {report.problems}")
            built: list[str] = []
            _watch(built)
            failpoint.arm({} if life.failpoint is None else {VARIABLE: life.failpoint})
            settings = Settings(segment_bytes=64 << 10, sidecar_rows=64, disk_low_bytes=0, attributes_allow=("tool",))
            engine = Engine.open(life.directory, queries=life.queries, settings=settings)
            self.say("open", *(built or ["loaded"]))
            acknowledged = life.acknowledged.read_text().splitlines() if life.acknowledged.exists() else []
            self.say("judged", judge(engine, acknowledged, life.base_us, whole=not life.writes))
            self._sent = [_pair(text) for line in acknowledged[-200:] for text in line.split()[2:]]
        except (Wrong, EnrichError) as error:
            self.say("wrong", type(error).__name__, error)
            return
        if life.writes:
            self._write(engine)
        engine.close()
        self.say("closed")

    def _forget(self) -> None:
        for name in self._life.forget:
            path = self._life.directory / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
                path.with_name(name + ".wal").unlink(missing_ok=True)

    def _write(self, engine: Engine) -> None:
        threads = [threading.Thread(target=self._writer, args=(engine, i), daemon=True) for i in range(THREADS)]
        if self._life.saves:
            threads.append(threading.Thread(target=self._saver, args=(engine,), daemon=True))
        for thread in threads:
            thread.start()
        self._stop.wait(self._life.seconds)
        self._stop.set()
        for thread in threads:
            thread.join()

    def _saver(self, engine: Engine) -> None:
        while not self._stop.wait(0.02):
            engine.save_index()

    def _writer(self, engine: Engine, number: int) -> None:
        rng = random.Random(self._life.seed * 1000 + number)
        try:
            while not self._stop.is_set():
                chosen = self._choose(rng)
                events = [event(self._life.base_us, n, v) for n, v in chosen]
                if rng.random() < 0.2:
                    engine.submit(events, lambda result, chosen=chosen: self._answer(chosen, result))  # type: ignore[misc]
                    time.sleep(0.002)
                else:
                    self._answer(chosen, engine.record(events))
        except (EnrichError, Wrong) as error:
            self.say("wrong", "writer", type(error).__name__, error)
            self._stop.set()

    def _choose(self, rng: random.Random) -> list[tuple[int, int]]:
        """Mostly one new event; some sent before, with the same content or another; batches, inline and in files."""
        size = rng.choice((2, 5, 20, 40)) if (kind := rng.random()) < 0.08 else 1
        if kind > 0.994:
            size = rng.choice((64, 64, 100, 150, 300, 600))
        chosen = []
        for _ in range(size):
            if rng.random() < (0.15 if size == 1 else 0.05) and self._sent:
                # the newest ones are still on their way: two writers with one key at the same time
                back = rng.randrange(1, 9) if rng.random() < 0.5 else rng.randrange(1, len(self._sent) + 1)
                n, v = self._sent[-min(back, len(self._sent))]
                chosen.append((n, v ^ (rng.random() < 0.4)))
            else:
                chosen.append((next(self._numbers), int(rng.random() < 0.5)))
        self._sent += chosen[:3]
        return chosen

    def _answer(self, chosen: list[tuple[int, int]], result: RecordResult | EnrichError) -> None:
        if isinstance(result, EnrichError):
            self.say("wrong", "answer", type(result).__name__, result)
            return
        refused = {r.index: r.code for r in result.rejected}
        answered = result.accepted + result.duplicates + len(refused)
        if set(refused.values()) - {"event_conflict"} or answered != len(chosen):
            self.say("wrong", "result", result)
        for word, index in (("ok", [i for i in range(len(chosen)) if i not in refused]), ("no", sorted(refused))):
            for start in range(0, len(index), 200):
                self.say(word, result.seq, *(f"{n}.{v}" for n, v in (chosen[i] for i in index[start : start + 200])))


def _pair(text: str) -> tuple[int, int]:
    n, v = text.split(".")
    return int(n), int(v)


def _watch(built: list[str]) -> None:
    """Note whether this start builds an index from DuckDB."""
    build = startup.index_from_duckdb

    def watched(*args: Any, **kwargs: Any) -> Any:
        built.append("built")
        return build(*args, **kwargs)

    startup.index_from_duckdb = watched
