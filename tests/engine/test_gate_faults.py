"""Faults around the gate: disks that fill, clocks that jump, policies that do not end, a DuckDB that does not follow.

Never an ALLOW that is not durable, and what goes on stays exact.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest

from enrich import Engine
from enrich.decisions.embedded import EmbeddedPolicies
from enrich.engine.results import Decision
from enrich.errors import EnrichError, HistoryBehindError, JournalFullError
from enrich.history import store
from enrich.journal import verify
from enrich.settings import Settings

from .gated import AT_MOST, decide, event_counts, open_gated, request
from .support import FaultyDisk

HOUR_US = 3_600_000_000
LOOPS = """\
package shop

default decision := {"decision": "DENY"}

decision := {"decision": "ALLOW"} if not input.instance.loops

decision := {"decision": "ALLOW"} if {
    input.instance.loops
    count([1 | some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); some k in [i, j]]) > 0
}
"""


def until(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def allowed_in_journal(engine: Engine) -> set[str]:
    bodies = (r.body or {} for r in engine.journal.read() if r.type == "decision")
    return {b["decision_id"] for b in bodies if b["decision"] == "ALLOW"}


def test_policies_that_do_not_end_are_refused_counted_and_make_the_engine_not_ready(tmp_path: Path) -> None:
    with open_gated(tmp_path, LOOPS) as engine:
        live = engine.live_policies
        assert live is not None
        assert isinstance(live.prepared, EmbeddedPolicies)
        live.prepared._limit_seconds = 0.3
        for n in range(4):
            assert engine.health().ready
            late = decide(engine, request(loops=True))
            assert (late.decision, late.cause) == ("DENY", "evaluation_timeout")
            assert engine.stats()["evaluator"]["abandoned_total"] == n + 1
        health = engine.health()
        assert not health.ready
        assert "abandoned" in health.reasons[0]
        assert engine.stats()["evaluator"] == {"ready": 0, "circuit": 0, "replaced_total": 4, "abandoned_total": 4}
        live.prepared._limit_seconds = 20
        assert decide(engine).decision == "ALLOW"  # others go on being answered
        assert event_counts(engine) == {"allowed": 1, "denied": 4, "asked": 0}


def test_a_full_disk_refuses_decisions_and_every_allow_is_in_the_journal(small_disk: Path, tmp_path: Path) -> None:
    open_gated(tmp_path, AT_MOST.format(agent=10_000, team=10_000)).close()
    filler, answered = small_disk / "filler", set()

    def opened() -> Engine:
        return Engine.open(
            small_disk / "data",
            queries=tmp_path / "queries",
            policies=tmp_path / "policies",
            settings=Settings(segment_bytes=64 << 10, disk_low_bytes=0, deadline_ms=20_000),
        )

    def ask(engine: Engine, n: int) -> bool:
        try:
            decision = engine.decide(("shop", "decision"), request(f"agent-{n % 8}", f"team-{n % 8}"))
        except JournalFullError:
            return False
        assert isinstance(decision, Decision)
        if decision.decision == "ALLOW":
            answered.add(decision.decision_id)
        return True

    with opened() as engine, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda n: ask(engine, n), range(20)))
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            except OSError:
                pass
        taken = list(pool.map(lambda n: ask(engine, n), range(200)))
        assert taken.count(False) > 0
        assert allowed_in_journal(engine) == answered
        filler.unlink()
        until(lambda: ask(engine, 1))
        assert allowed_in_journal(engine) == answered
        assert engine.context({"agent": "agent-1"})["agent"]["last_1h"]["allowed"] > 0
    assert verify(small_disk / "data").ok
    with opened() as engine:
        assert allowed_in_journal(engine) == answered


def test_a_disk_that_is_nearly_full_refuses_decisions_and_takes_suspensions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_gated(tmp_path, disk_low_bytes=1 << 20) as engine:
        assert decide(engine).decision == "ALLOW"
        free, disk = 0, engine.journal._disk
        monkeypatch.setattr(disk, "free_bytes", lambda directory: free)
        until(lambda: engine.journal.disk_low)
        head = engine.journal.head
        with pytest.raises(JournalFullError) as caught:
            decide(engine)
        assert (caught.value.error_code, caught.value.status) == ("journal_full", 503)
        assert engine.journal.head == head
        engine.break_glass.suspend("agent", "a", reason="stop")
        assert engine.journal.head.seq == head.seq + 1
        free = 1 << 40
        until(lambda: not engine.journal.disk_low)
        assert (decide(engine).decision, decide(engine).cause) == ("DENY", "suspended")


def test_a_clock_that_jumps_ahead_and_back_never_allows_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_gated(tmp_path, AT_MOST.format(agent=2, team=1000)) as engine:
        clock, shift_us = engine.journal._clock, 0
        monkeypatch.setattr(engine.journal, "_clock", lambda: clock() + shift_us)
        assert [decide(engine).decision for _ in range(3)] == ["ALLOW", "ALLOW", "DENY"]
        shift_us = 30 * 60_000_000  # half an hour ahead: the two still count
        assert decide(engine).decision == "DENY"
        shift_us = 0  # and back: what the last hour is can't be told
        behind = decide(engine)
        assert (behind.decision, behind.cause) == ("DENY", "history_unavailable")
        assert not engine.health().ready
        shift_us = 31 * 60_000_000
        assert engine.health().ready
        assert (decide(engine).decision, decide(engine).cause) == ("DENY", None)
        shift_us = HOUR_US + 31 * 60_000_000  # the two are past: the policy's own hour has gone by
        assert [decide(engine).decision for _ in range(3)] == ["ALLOW", "ALLOW", "DENY"]
        moments = [(r.body or {})["as_of"] for r in engine.journal.read() if r.type == "decision"]
        assert moments == sorted(moments)


def test_decisions_go_on_exactly_while_duckdb_does_not_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = store.insert_records  # type: ignore[attr-defined]

    def fails(*_: object) -> int:
        raise duckdb.IOException("read-only file system")

    with open_gated(tmp_path, AT_MOST.format(agent=5, team=1000)) as engine:
        monkeypatch.setattr(store, "insert_records", fails)
        with ThreadPoolExecutor(8) as pool:
            decisions = list(pool.map(lambda _: decide(engine).decision, range(24)))
        assert decisions.count("ALLOW") == 5
        assert event_counts(engine) == {"allowed": 5, "denied": 19, "asked": 0}
        until(lambda: engine.health().warnings)
        assert engine.health().ready
        assert "read-only file system" in engine.health().warnings[0]
        assert engine.stats()["lag_events"] > 0
        with pytest.raises(HistoryBehindError):
            engine.decisions()
        monkeypatch.setattr(store, "insert_records", insert)
        until(lambda: engine.stats()["lag_events"] == 0)
        assert len(engine.decisions(agent="a").decisions) == 24
        assert engine.check().differences == ()


def test_a_journal_that_fails_in_the_middle_of_many_decisions_gives_none_that_is_not_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyDisk.put_in(monkeypatch)
    engine = open_gated(tmp_path, AT_MOST.format(agent=1000, team=1000))
    answered: list[Decision] = []
    refused: list[tuple[str, int]] = []

    def ask(n: int) -> None:
        try:
            answered.append(decide(engine, request(f"agent-{n}", f"team-{n}")))
        except EnrichError as error:
            refused.append((error.error_code, error.status))
        if len(answered) >= 10:
            disk.broken = True

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(60)))
    assert len(answered) >= 10
    assert set(refused) == {("journal_failed", 503)}
    durable = engine.durable_seq
    assert all(decision.seq <= durable for decision in answered)
    assert not engine.health().ready
    with pytest.raises(EnrichError):
        engine.close()
    disk.broken = False
    with open_gated(tmp_path) as engine:
        assert {d.decision_id for d in answered} <= allowed_in_journal(engine)
    assert verify(tmp_path / "data").ok
