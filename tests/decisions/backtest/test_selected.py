"""Whether a record holds what a changed policy reads."""

from __future__ import annotations

import pytest

from enrich.decisions.backtest.selected import holds
from enrich.decisions.reads import InputPath, Reads

SELECTION = ["agent.last_24h.failures", "agent.last_1h.*", "agent.raised", "team.known", "approvers.last_1h.decisions"]


def path(text: str) -> InputPath:
    return tuple(None if key == "*" else key for key in text.split(".")) if text else ()


def reads(whole: str = "", touched: str = "") -> Reads:
    return Reads(frozenset(map(path, whole.split())), frozenset(map(path, touched.split())), frozenset(), {})


@pytest.mark.parametrize(
    ("whole", "touched", "held"),
    [
        ("history.agent.last_24h.failures", "history history.agent history.agent.last_24h", True),
        ("history.agent.last_24h.attempts", "", False),
        ("history.agent.last_1h.anything", "", True),
        ("history.agent.last_1h", "", True),
        ("history.agent.last_24h", "", False),
        ("history.agent", "", False),
        ("", "history.agent.known history.agent.last_24h.complete history.team.known history.team", True),
        ("", "history.agent.last_7d history.team.last_1h", False),
        ("", "history.agent.last_7d.complete", False),
        ("", "history.agent.raised", True),
        ("", "history.agent.cleared", False),
        ("", "history.workflow", False),
        ("history.approvers.*.last_1h.decisions", "history.approvers history.approvers.*", True),
        ("history.approvers.*.last_24h.decisions", "", False),
        ("history.agent.*.failures", "", False),
        ("history.*.last_1h.requests", "", False),
        ("history.suspensions history.as_of", "history.status", True),
        ("history", "", False),
        ("instance instance.materiality", "context.*", True),
        ("history.agent.in_flight.count", "", False),
        ("", "history.agent.in_flight", False),
    ],
)
def test_what_is_read_is_there_or_is_not_sure(whole: str, touched: str, held: bool) -> None:
    assert holds(SELECTION, reads(whole, touched), ("history",)) is held
    assert holds(None, reads(whole, touched), ("history",))


def test_the_whole_input_is_held_by_everything_alone() -> None:
    everything = Reads(frozenset([()]), frozenset(), frozenset(), {})
    assert not holds(SELECTION, everything, ("history",))
    assert holds(None, everything, ("history",))
    assert not holds(SELECTION, None, ("history",))
    assert holds(None, None, ("history",))
    assert not holds(["agent.known"], reads("team"), ("team", "of"))  # the history stands below it
    assert holds(["agent.known"], reads("team.x"), ("team", "of"))
