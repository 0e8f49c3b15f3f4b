"""One at a time for each entity, side by side where it is shared, no deadlock, and nothing left behind."""

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


def test_those_who_share_are_in_together_and_never_beside_one_who_is_alone() -> None:
    locks = EntityLocks(10)
    team = [("team", "t")]
    with locks.hold([("agent", "a")], soon(), shared=team), locks.hold([("agent", "b")], soon(), shared=team):
        with pytest.raises(BusyError), locks.hold(team, soon(0.02)):
            pass
        with locks.hold([("agent", "c")], soon(), shared=team):  # nothing is left of who gave up
            pass
    with locks.hold(team, soon()), pytest.raises(BusyError), locks.hold([], soon(0.02), shared=team):
        pass
    # alone and shared is alone
    with locks.hold(team, soon(), shared=team), pytest.raises(BusyError), locks.hold([], soon(0.02), shared=team):
        pass
    assert locks._held == {}
    assert locks.waiting == 0


def test_who_is_to_be_alone_is_not_passed_by_those_who_share() -> None:
    locks = EntityLocks(10)
    team = [("team", "t")]
    order: list[str] = []

    def alone() -> None:
        with locks.hold(team, soon()):
            order.append("alone")

    def shared() -> None:
        with locks.hold([], soon(), shared=team):
            order.append("shared")

    threads = [threading.Thread(target=alone), threading.Thread(target=shared)]
    with locks.hold([], soon(), shared=team):
        for waiting, thread in enumerate(threads, 1):
            thread.start()
            while locks.waiting < waiting:
                time.sleep(0.001)
        assert order == []
    for thread in threads:
        thread.join(20)
    assert order == ["alone", "shared"]
    assert locks._held == {}


def test_many_threads_are_alone_where_they_are_to_be() -> None:
    locks = EntityLocks(100)
    entities = [("agent", str(i)) for i in range(5)] + [("team", str(i)) for i in range(3)]
    inside = dict.fromkeys(entities, 0)
    broken: list[object] = []
    guard = threading.Lock()

    def decide(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(300):
            keys = rng.sample(entities, rng.randint(1, 4))
            shared = [key for key in keys if rng.random() < 0.4]
            keys = [key for key in keys if key not in shared]
            with locks.hold(keys, soon(), shared=shared):
                with guard:
                    for key in keys:
                        inside[key] += 1000
                    for key in shared:
                        inside[key] += 1
                    if any(inside[key] != 1000 for key in keys) or any(inside[key] >= 1000 for key in shared):
                        broken.append(keys)
                time.sleep(0)
                with guard:
                    for key in keys:
                        inside[key] -= 1000
                    for key in shared:
                        inside[key] -= 1

    threads = [threading.Thread(target=decide, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not broken
    assert locks._held == {}
    assert locks.waiting == 0
