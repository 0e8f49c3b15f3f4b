"""The cost of an answer grows with the logarithm of what an entity has done, and merging never holds others up."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable

import pytest

from enrich.windows import Index
from enrich.windows.steps import StepCounter
from tests.windows.model import BREAK, BURST, DISTINCT, ORDER_DOUBLE, ORDER_INT, PLANS, batch, random_event

SPAN_US = 10**9


def _index(*rows: int, seed: int = 5) -> Index:
    """One agent with so many events of wide-spread values in each block."""
    rng = random.Random(seed)
    plans = {"agent": PLANS["agent"]}
    index = Index(plans, retention_us=SPAN_US)
    seq = 1
    for n in rows:
        events = []
        for _ in range(n):
            event = random_event(rng, SPAN_US, 1) | {"agent_id": "a0"}
            events.append(event | {"cost_microusd": rng.randrange(2**22), "amount_minor": rng.randrange(2**30)})
        index.link(index.prepare(batch(events)), seq)
        seq += n
    return index


def _steps(index: Index, question: str) -> int:
    """The most steps of any of 30 windows of very different lengths and ends."""
    counter, rng, worst = StepCounter(index), random.Random(1), 0
    for i in range(30):
        before = counter.steps
        found = index.locate("agent", "a0", SPAN_US - rng.randrange(SPAN_US // 2), [SPAN_US // 2 ** (i % 8)])
        assert found is not None
        n = found.end_record[2] - found.start_records[0][2]
        k = rng.randrange(max(1, n - 1))
        if question == "order":
            found.order(0, ORDER_INT, k)
        elif question == "order of doubles":
            found.order2(0, ORDER_DOUBLE, k)
        elif question == "distinct":
            found.distinct(0, ORDER_INT)
            found.distinct(0, DISTINCT)
        elif question == "extreme":
            found.minimum(0, ORDER_INT)
        elif question == "streak":
            found.since_break(0, 0, BREAK)
            found.last(0, DISTINCT)
        elif question == "burst":
            found.burst(0, BURST)
        worst = max(worst, counter.steps - before)
    return worst


@pytest.mark.parametrize(
    ("question", "c"),
    [
        ("sums", 4), ("order", 9), ("order of doubles", 22), ("distinct", 12), ("extreme", 7), ("streak", 7),
        ("burst", 9),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rows", [500, 5_000, 40_000])
def test_steps_are_at_most_c_log2_n(question: str, c: int, rows: int) -> None:
    assert _steps(_index(rows), question) <= c * math.log2(rows)


def test_a_second_large_source_of_a_burst_is_not_walked_in_python() -> None:
    assert _steps(_index(40_000, 10_000), "burst") <= 9 * math.log2(50_000)


def test_readers_see_whole_batches_while_batches_are_linked_and_merged() -> None:
    index = Index(PLANS, retention_us=SPAN_US, block_rows=40, duckdb_rows=10**9)
    rng = random.Random(7)
    linked, failures, stop = [0], [], threading.Event()
    value = {"agent_id": "a0", "kind": "execution", "cost_microusd": 1}

    def write() -> None:
        seq = 1
        for i in range(400):
            n = 50 if i % 3 == 0 else 5
            prepared = index.prepare(batch([random_event(rng, 10**6, 1) | value for _ in range(n)]))
            with index.lock:
                index.link(prepared, seq)
                seq += n
                linked[0] = seq - 1
        stop.set()

    def maintain() -> None:
        while not stop.is_set():
            index.merge_step()

    def read() -> None:
        while not stop.is_set():
            with index.lock:
                found = index.locate("agent", "a0", 10**6, [10**6 + 1])
                seen = 0 if found is None else found.end_record[0] - found.start_records[0][0]
                median = 1 if found is None else found.order(0, ORDER_INT, seen // 2)
                if seen != linked[0] or median != 1:
                    failures.append((seen, linked[0], median))
            time.sleep(0)

    threads = [threading.Thread(target=f) for f in (write, maintain, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    while index.merge_step():
        pass
    assert index.stats()["agent"]["blocks"] <= 4
    while index.merge_step(idle=True):
        pass
    assert index.stats()["agent"]["blocks"] <= 2


def _waits(index: Index, work: Callable[[], object]) -> float:
    """The 99th percentile, in seconds, of what a thread waits for the GIL and the index's lock while `work` runs."""
    waits, stop = [], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            before = time.perf_counter()
            time.sleep(0.0002)
            with index.lock:
                pass
            waits.append(time.perf_counter() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    work()
    stop.set()
    thread.join()
    return sorted(waits)[len(waits) * 99 // 100]


@pytest.mark.slow
def test_merging_pauses_nobody() -> None:
    """Beside a merge of 200 000 rows a thread waits at most 5 ms longer than beside a sleeping one."""
    index = _index(100_000)
    seq = 100_001
    for rows in (100_000, 300, 300, 300, 300):
        events = [random_event(random.Random(seq + i), SPAN_US, 50) for i in range(rows)]
        index.link(index.prepare(batch(events)), seq)
        seq += rows
    quiet = _waits(index, lambda: time.sleep(0.5))
    assert _waits(index, index.merge_step) < quiet + 0.005
    assert index.stats()["agent"]["blocks"] == 1
