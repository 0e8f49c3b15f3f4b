"""Break-glass through the engine: in force from its record on, across restarts, and when the disk fails."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from enrich import Engine
from enrich.errors import EnrichError, InvalidEntityIdError, JournalFullError, NotDurableError, NotFoundError
from enrich.events import format_us
from enrich.journal import verify
from tests.engine.support import FaultyDisk, event, now_us, open_engine

INPUT: dict[str, Any] = {
    "identity": {"actor_id": "a"},
    "instance": {"owning_team_id": "t", "workflow_id": "w", "org_id": "o"},
}


def covering(engine: Engine, document: dict[str, Any] = INPUT) -> list[tuple[str, str, str]]:
    history = engine.enrich(document)["history"]
    found = [(s["scope"], s.get("id", ""), s["match"]) for s in history["suspensions"]]
    assert history["suspended"] == bool(found)
    return found


def test_a_suspension_is_in_every_context_from_its_record_on(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        before = engine.context({"agent": "a"})
        assert (before["suspended"], before["suspensions"]) == (False, [])
        made = engine.break_glass.suspend("agent", "a", reason="it misbehaves", by="oncall")
        assert made.seq == before["seq"] + 1
        history = engine.context({"agent": "a"})
        assert history["suspended"]
        assert history["seq"] == made.seq
        assert history["suspensions"] == [
            {
                "scope": "agent", "id": "a", "reason": "it misbehaves", "since": format_us(made.since_us),
                "by": "oncall", "seq": made.seq, "match": "id",
            }
        ]  # fmt: skip
        assert made.seq is not None
        assert engine.durable_seq >= made.seq
        assert not engine.context({"agent": "b"})["suspended"]
        assert not engine.context({"team": "t"})["suspended"]
        lifted = engine.break_glass.lift("agent", "a")
        assert lifted == made
        assert covering(engine) == []
        with pytest.raises(NotFoundError) as caught:
            engine.break_glass.lift("agent", "a")
        assert caught.value.error_code == "not_suspended"


def test_no_context_has_the_seq_of_a_suspension_and_not_the_suspension(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        seen: list[tuple[int, bool]] = []
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                history = engine.context({"agent": "a"})
                seen.append((history["seq"], history["suspended"]))

        reader = threading.Thread(target=read)
        reader.start()
        spans = []
        for n in range(40):
            engine.record([event(n)])
            begun = engine.break_glass.suspend("agent", "a", reason="r").seq
            engine.record([event(1000 + n)])
            engine.break_glass.lift("agent", "a")
            spans.append((begun, engine.seq))
        stop.set()
        reader.join()
        assert len(seen) > 40
        for seq, suspended in seen:
            assert suspended == any(begun is not None and begun <= seq < lifted for begun, lifted in spans)


def test_what_an_agents_events_name_counts_also_what_came_before_a_restart(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        engine.record([event(1, team_id="payments", org_id="acme")])
    with open_engine(tmp_path) as engine:
        engine.record([event(2, team_id="refunds")])
        for team in ("payments", "refunds"):
            engine.break_glass.suspend("team", team, reason="r")
        engine.break_glass.suspend("org", "acme", reason="r")
        assert covering(engine) == [
            ("team", "payments", "known"), ("team", "refunds", "known"), ("org", "acme", "known")
        ]  # fmt: skip
        stranger = {**INPUT, "identity": {"actor_id": "nobody"}}
        assert covering(engine, stranger) == []
        assert covering(engine, {"identity": {"actor_id": "nobody"}}) == [
            ("team", "payments", "unknown"), ("team", "refunds", "unknown"), ("org", "acme", "unknown")
        ]  # fmt: skip


@pytest.mark.parametrize("forget", ["nothing", "saved", "damaged", "all but the journal"])
def test_suspensions_survive_a_restart_whatever_is_lost_beside_the_journal(tmp_path: Path, forget: str) -> None:
    end = now_us() + 3_600_000_000
    with open_engine(tmp_path) as engine:
        engine.record([event(1)])
        engine.break_glass.suspend("agent", "a", reason="first")
        engine.break_glass.suspend("team", "t", reason="for an hour", until=format_us(end))
        engine.break_glass.suspend("workflow", "w", reason="a mistake")
        engine.save_index()
        engine.break_glass.suspend("all", reason="after the save", by="oncall")
        engine.break_glass.lift("workflow", "w")
        held, _, _ = engine.break_glass.in_force()
    data = tmp_path / "data"
    saved = data / "suspensions.json"
    assert saved.exists()
    if forget == "saved":
        saved.unlink()
    elif forget == "damaged":
        saved.write_bytes(saved.read_bytes().replace(b"first", b"third"))
    elif forget == "all but the journal":
        for path in data.iterdir():
            if path.name != "journal":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    with open_engine(tmp_path) as engine:
        assert engine.break_glass.in_force()[0] == held
        assert covering(engine) == [("agent", "a", "id"), ("team", "t", "id"), ("all", "", "all")]
    assert verify(data).ok


def test_one_that_the_journal_can_not_take_acts_in_memory_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyDisk.put_in(monkeypatch)
    with open_engine(tmp_path) as engine:
        disk.full = True
        with pytest.raises(NotDurableError) as caught:
            engine.break_glass.suspend("agent", "a", reason="now")
        assert (caught.value.error_code, caught.value.status) == ("not_durable", 503)
        assert covering(engine) == [("agent", "a", "id")]
        assert "seq" not in engine.enrich(INPUT)["history"]["suspensions"][0]
        disk.full = False
    with open_engine(tmp_path) as engine:
        assert covering(engine) == []


def test_a_renewal_that_the_journal_can_not_take_leaves_what_it_has_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyDisk.put_in(monkeypatch)
    with open_engine(tmp_path) as engine:
        engine.break_glass.suspend("agent", "a", reason="first")
        disk.full = True
        until = now_us() + 300_000
        with pytest.raises(NotDurableError):
            engine.break_glass.suspend("agent", "a", reason="not for long", until=format_us(until))
        assert engine.enrich(INPUT)["history"]["suspensions"][0]["reason"] == "not for long"
        while engine.journal.now_us() < until:
            time.sleep(0.01)
        assert engine.enrich(INPUT)["history"]["suspensions"][0]["reason"] == "first"
        with pytest.raises(NotDurableError):
            engine.break_glass.suspend("agent", "a", reason="again")
        assert len(covering(engine)) == 1
        disk.full = False
    with open_engine(tmp_path) as engine:
        assert engine.enrich(INPUT)["history"]["suspensions"][0]["reason"] == "first"
        engine.break_glass.lift("agent", "a")
        assert covering(engine) == []


def test_one_whose_fsync_fails_acts_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FaultyDisk.put_in(monkeypatch)
    engine = open_engine(tmp_path)
    disk.broken = True
    with pytest.raises(NotDurableError):
        engine.break_glass.suspend("all", reason="now")
    assert covering(engine) == [("all", "", "all")]
    with pytest.raises(NotDurableError):
        engine.break_glass.suspend("team", "t", reason="later")
    assert covering(engine) == [("all", "", "all"), ("team", "t", "id")]
    with pytest.raises(EnrichError):
        engine.close()


def test_it_is_taken_while_the_disk_is_low_and_events_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_engine(tmp_path) as engine:
        monkeypatch.setattr(type(engine.journal._reserve), "low", property(lambda _: True))
        with pytest.raises(JournalFullError):
            engine.record([event(1)])
        engine.break_glass.suspend("agent", "a", reason="r")
        assert covering(engine) == [("agent", "a", "id")]


@pytest.mark.parametrize("bad", ["", " a", "a" * 201, "a\n"])
def test_a_bad_id_is_refused(tmp_path: Path, bad: str) -> None:
    with open_engine(tmp_path) as engine, pytest.raises(InvalidEntityIdError):
        engine.break_glass.suspend("agent", bad, reason="r")
