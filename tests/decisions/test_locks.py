"""One at a time for each entity, no waiting for others, no deadlock, and nothing left behind."""

from __future__ import annotations

import random
import threading
import time

import pytest

from enrich.decisions.locks import EntityLocks
from enrich.errors import BusyError


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


def test_who_shares_an_entity_waits_and_who_shares_none_does_not() -> None:
    locks = EntityLocks(10)
    with locks.hold([("agent", "a"), ("team", "t")], soon()):
        with locks.hold([("agent", "b"), ("team", "u")], soon()):
            pass
        with pytest.raises(BusyError), locks.hold([("agent", "b"), ("team", "t")], soon(0.02)):
            pass
        with locks.hold([("agent", "b")], soon()):  # what was taken before the deadline came was given back
            pass
    with locks.hold([("team", "t"), ("agent", "a"), ("agent", "a")], soon()):
        pass
    assert locks._held == {}


def test_a_queue_that_is_full_refuses_at_once() -> None:
    locks = EntityLocks(1)
    entered, leave = threading.Event(), threading.Event()
    outcomes: list[str] = []

    def first() -> None:
        with locks.hold([("agent", "a")], soon()):
            entered.set()
            leave.wait(10)

    def second() -> None:
        with locks.hold([("agent", "a")], soon()):
            outcomes.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert entered.wait(10)
    threads[1].start()
    while locks.waiting < 1:
        time.sleep(0.001)
    began = time.monotonic()
    with pytest.raises(BusyError), locks.hold([("agent", "a")], soon()):
        pass
    assert time.monotonic() - began < 5
    leave.set()
    for thread in threads:
        thread.join(10)
    assert outcomes == ["second"]
    assert locks._held == {}


def test_many_threads_never_share_an_entity_nor_wait_for_each_other() -> None:
    locks = EntityLocks(100)
    entities = [("agent", str(i)) for i in range(5)] + [("team", str(i)) for i in range(3)]
    inside = dict.fromkeys(entities, 0)
    broken: list[object] = []

    def decide(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(300):
            keys = rng.sample(entities, rng.randint(1, 4))
            with locks.hold(keys, soon()):
                for key in keys:
                    inside[key] += 1
                if any(inside[key] != 1 for key in keys):
                    broken.append(keys)
                for key in keys:
                    inside[key] -= 1

    threads = [threading.Thread(target=decide, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not broken
    assert locks._held == {}
    assert locks.waiting == 0
