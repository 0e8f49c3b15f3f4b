from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from enrich.errors import NotFoundError
from enrich.journal import Journal, verify
from enrich.settings import Settings
from tests.engine.gated import decide, open_gated, request
from tests.engine.support import DAY_US, event, fates, now_us, open_engine, runs


class Clock:
    def __init__(self) -> None:
        self.us = now_us()

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Every journal opened in the test goes by this."""
    made, open_journal = Clock(), Journal.open
    monkeypatch.setattr(Journal, "open", lambda *args, **kwargs: open_journal(*args, **kwargs, clock=made))
    return made


def test_events_leave_duckdb_keys_and_windows_and_are_too_old_then(tmp_path: Path, clock: Clock) -> None:
    start = clock.us
    with open_engine(tmp_path, retention_days=30) as engine:
        engine.record([event(1, at_us=start - 29 * DAY_US), event(2, at_us=start - DAY_US), event(3, at_us=start)])
        assert runs(engine) == 3
        assert fates(engine.record([event(9, at_us=start - 30 * DAY_US - 1)])) == (0, 0, ["too_old"])
        clock.us = start + 2 * DAY_US
        assert runs(engine) == 2  # out of the window, whether pruned or not
        engine.caught_up(10)
        engine.prune()
        assert engine.history.count() == 2
        while engine.merge_step():
            pass
        assert fates(engine.record([event(1, at_us=start - 29 * DAY_US)])) == (0, 0, ["too_old"])
        assert fates(engine.record([event(2, at_us=start - DAY_US)])) == (0, 1, [])
        assert engine.check().differences == ()
    for _ in range(2):
        with open_engine(tmp_path, retention_days=30) as engine:
            assert (runs(engine), engine.history.count()) == (2, 2)
            assert engine.check().differences == ()


def test_a_window_that_reaches_back_before_what_is_held_is_not_complete(tmp_path: Path, clock: Clock) -> None:
    start = clock.us
    with open_engine(tmp_path, retention_days=30) as engine:
        engine.record([event(n, at_us=start - n * DAY_US) for n in range(29)])
        windows = engine.context({"agent": "a"})["agent"]
        assert (windows["last_1h"]["complete"], windows["last_30d"]["complete"]) == (True, False)
        clock.us = start + 5 * DAY_US
        assert engine.context({"agent": "a"})["agent"]["last_30d"]["complete"] is True
        engine.caught_up(10)
        engine.prune()
        now = engine.context({"agent": "a"})["agent"]["last_30d"]
        assert (now["complete"], now["runs"]) == (True, 25)
        assert engine.context({"agent": "a"}, as_of=start)["agent"]["last_30d"]["complete"] is False
    with open_engine(tmp_path, retention_days=30) as engine:
        now = engine.context({"agent": "a"})["agent"]["last_30d"]
        assert (now["complete"], now["runs"]) == (True, 25)
        assert engine.context({"agent": "a"}, as_of=start)["agent"]["last_30d"]["complete"] is False


def test_an_agent_without_an_event_in_retention_is_not_known(tmp_path: Path, clock: Clock) -> None:
    start = clock.us
    with open_engine(tmp_path, retention_days=30) as engine:
        engine.record([event(1, at_us=start)])
        clock.us = start + 29 * DAY_US
        assert engine.context({"agent": "a"})["agent"]["known"] is True
        clock.us = start + 31 * DAY_US
        agent = engine.context({"agent": "a"})["agent"]
        assert (agent["known"], agent["last_30d"]["runs"]) == (False, 0)


def test_retention_made_longer_does_not_take_pruned_events_twice(tmp_path: Path, clock: Clock) -> None:
    """What was pruned is forgotten by the keys: taken again, it would stand in the journal twice."""
    start = clock.us
    with open_engine(tmp_path, retention_days=30) as engine:
        engine.record([event(1, at_us=start)])
        clock.us = start + 40 * DAY_US
        engine.caught_up(10)
        engine.prune()
    with open_engine(tmp_path, retention_days=90) as engine:
        assert fates(engine.record([event(1, at_us=start)])) == (0, 0, ["too_old"])
        assert engine.context({"agent": "a"}, as_of=start + DAY_US)["agent"]["last_30d"]["complete"] is False
    (tmp_path / "data/history.duckdb").unlink()
    with open_engine(tmp_path, retention_days=90) as engine:
        assert engine.check().differences == ()
        assert fates(engine.record([event(1, at_us=start)])) == (0, 0, ["too_old"])


def test_what_was_observed_once_stays_observed_across_restarts(tmp_path: Path, clock: Clock) -> None:
    start = clock.us
    with open_engine(tmp_path, retention_days=30) as engine:
        engine.record([event(1, at_us=start - 20 * DAY_US), event(2, at_us=start)])
        clock.us = start + 29 * DAY_US
        engine.prune()
        before = engine.context({"agent": "a"})
        assert before["agent"]["last_1h"]["complete"] is True
    for delete in (False, True):
        if delete:
            (tmp_path / "data/history.duckdb").unlink()
        with open_engine(tmp_path, retention_days=30) as engine:
            after = engine.context({"agent": "a"})
            assert after["agent"] == before["agent"]
            assert after["observed_since"] == before["observed_since"]


def test_nothing_is_journaled_when_there_is_nothing_to_prune(tmp_path: Path, clock: Clock) -> None:
    with open_engine(tmp_path, retention_days=30) as engine:
        engine.prune()
        engine.record([event(1, at_us=clock.us)])
        seq = engine.seq
        engine.prune()
        assert engine.seq == seq


def test_a_deleted_history_comes_back_from_the_journal_as_pruned_as_it_was(tmp_path: Path, clock: Clock) -> None:
    start = clock.us
    with open_engine(tmp_path, retention_days=30) as engine:
        engine.record([event(1, at_us=start - 20 * DAY_US), event(2, at_us=start)])
        clock.us = start + 20 * DAY_US
        engine.caught_up(10)
        engine.prune()
        assert engine.history.count() == 1
    (tmp_path / "data/history.duckdb").unlink()
    with open_engine(tmp_path, retention_days=30) as engine:
        assert engine.history.count() == 1
        assert runs(engine) == 1
        assert engine.check().differences == ()


def test_a_clock_that_stepped_back_makes_history_unavailable_until_it_has_caught_up(
    tmp_path: Path, clock: Clock
) -> None:
    start = clock.us
    skew_us = 60_000_000
    with open_engine(tmp_path) as engine:
        engine.record([event(1, at_us=start - 1)])
        as_of = engine.context({"agent": "a"})["as_of"]
        for back, status in ((1, "fresh"), (skew_us, "fresh"), (skew_us + 1, "unavailable")):
            clock.us = start - back
            history = engine.context({"agent": "a"})
            assert (history["status"], history["as_of"]) == (status, as_of)
            assert engine.entity("agent", ["a"])["status"] == status
            assert engine.health().ready == (status == "fresh")
        assert "60 s behind" in engine.health().reasons[0]
    with open_engine(tmp_path) as engine:  # the journal remembers
        assert engine.context({"agent": "a"})["status"] == "unavailable"
        assert engine.record([event(2, at_us=start - 2)]).accepted == 1
        clock.us = start
        assert engine.context({"agent": "a"})["status"] == "fresh"
        assert engine.health().ready


@pytest.mark.parametrize("forget", [(), ("history.duckdb", "index", "keys")], ids=["restart", "rebuilt"])
def test_bodies_leave_the_journal_when_their_keep_time_is_over(
    tmp_path: Path, clock: Clock, forget: tuple[str, ...]
) -> None:
    start = clock.us
    kept: dict[str, Any] = {"retention_days": 30, "keep_events_days": 40, "keep_decisions_days": 60}
    kept["segment_bytes"] = 8192
    with open_gated(tmp_path, **kept) as engine:
        old = [decide(engine, request(agent)).decision_id for agent in "abcdefgh" for _ in range(2)]
        for n in range(40):
            engine.record([event(n, at_us=start - DAY_US)])
        engine.break_glass.suspend("team", "other", reason="stays")
        definitions = [r.seq for r in engine.journal.read() if r.type in ("definitions", "suspension")]

        def bodies(type_: str) -> tuple[int, int]:
            """How many are there, and how many were made."""
            found = [r.body is not None for r in engine.journal.read() if r.type == type_]
            return sum(found), len(found)

        def pruned_after(days: int) -> tuple[tuple[int, int], tuple[int, int]]:
            clock.us = start + days * DAY_US
            engine.record([event(1000 + days, at_us=clock.us)])
            engine.caught_up(10)
            engine.prune()
            return bodies("events"), bodies("decision")

        assert pruned_after(35) == ((41, 41), (16, 16))
        events, decisions = pruned_after(45)
        assert events[0] < 20 < events[1] == 42
        assert decisions == (16, 16)
        assert engine.decision(old[0])["decision_id"] == old[0]
        decisions = pruned_after(65)[1]
        assert decisions[0] < decisions[1] == 16
        assert verify(tmp_path / "data").ok
        left = [d["decision_id"] for d in engine.decisions().decisions]
        assert len(left) == decisions[0]
        with pytest.raises(NotFoundError):
            engine.decision(old[0])
        assert all(r.body is not None for r in engine.journal.read() if r.seq in definitions)
        assert engine.break_glass.in_force()[0]
        before = engine.context({"agent": "a", "team": "other"}, as_of=clock.us)
    for name in forget:
        path = tmp_path / "data" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with open_gated(tmp_path, **kept) as engine:
        assert engine.context({"agent": "a", "team": "other"}, as_of=clock.us) == before | {"seq": engine.seq}
        assert [d["decision_id"] for d in engine.decisions().decisions] == left
        assert engine.check().differences == ()
        assert verify(tmp_path / "data").ok
        seq = engine.seq
        engine.prune()
        assert engine.seq == seq  # there is nothing more


def test_nothing_is_kept_for_less_than_it_counts() -> None:
    with pytest.raises(ValueError, match="keep_events_days"):
        Settings(retention_days=30, keep_events_days=29)
