"""The circuit breaker: when it opens, how long it stays open, and what closes it."""

from __future__ import annotations

from enrich.decisions._breaker import Breaker


def circuit(breaker: Breaker) -> str:
    """Read anew each time."""
    return breaker.circuit


def test_five_failures_in_a_row_open_it_and_a_success_between_starts_the_count_anew() -> None:
    breaker = Breaker(lambda: 0.0)
    for _ in range(4):
        breaker.failed()
    breaker.succeeded()
    for _ in range(4):
        breaker.failed()
    assert circuit(breaker) == "closed"
    breaker.failed()
    assert circuit(breaker) == "open"
    breaker.succeeded()  # of a call that had begun before
    assert circuit(breaker) == "open"


def test_each_pause_is_twice_the_one_before_until_something_succeeds() -> None:
    now = 100.0
    breaker = Breaker(lambda: now)
    assert breaker.pause_left() == 0
    pauses = []
    for _ in range(7):
        breaker.trip()
        pauses.append(breaker.pause_left())
        now += pauses[-1]
        assert breaker.pause_left() == 0
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    breaker.probed()
    assert circuit(breaker) == "half_open"
    breaker.failed()  # one is enough now
    assert (circuit(breaker), breaker.pause_left()) == ("open", 5.0)
    breaker.probed()
    breaker.succeeded()
    assert circuit(breaker) == "closed"
    breaker.trip()
    assert breaker.pause_left() == 0.25
