"""What follows from what a policy can read: its context, who waits for whom, and what does not load."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from enrich import Engine
from enrich.decisions import Defined
from enrich.engine.results import Evaluation
from enrich.errors import PolicyError

from .gated import PATH, decide, hold, open_gated, request, write_policy

AGENT = """\
package shop

default decision := {"decision": "DENY"}

decision := {"decision": "ALLOW"} if input.history.agent.last_1h.allowed < 100
"""
TEAM = AGENT.replace("agent.last_1h.allowed", "team.last_1h.team_allowed")
NOTHING = AGENT.replace("input.history.agent.last_1h.allowed < 100", "input.instance.workflow_id")
WHOLE = AGENT.replace("input.history.agent.last_1h.allowed < 100", "count(input.history) > 0")


def last_record(engine: Engine) -> dict[str, Any]:
    return dict([r for r in engine.journal.read() if r.type == "decision"][-1].body or {})


def test_a_decision_is_given_what_its_policy_reads(tmp_path: Path) -> None:
    with open_gated(tmp_path, AGENT) as engine:
        held = hold(engine)
        assert decide(engine).decision == "ALLOW"
        history = orjson.loads(held.seen[0])["history"]
        assert set(history["agent"]) == {"id", "known", "last_1h"}
        assert set(history["agent"]["last_1h"]) == {"complete", "allowed"}
        assert not {"team", "workflow", "approvers"} & history.keys()
        assert {"suspended", "suspensions", "as_of", "seq", "status", "lag_seconds", "catalog"} <= history.keys()
        record = last_record(engine)
        assert record["selection"] == ["agent.last_1h.allowed"]
        assert record["input"]["history"] == history
        # with what was recorded, anybody gets the same again
        again = engine.context({"agent": "a", "team": "t"}, as_of=record["as_of"], select=record["selection"])
        assert again["agent"]["last_1h"].keys() == history["agent"]["last_1h"].keys()
        assert decide(engine, dry_run=True).decision == "ALLOW"
        assert set(orjson.loads(held.seen[-1])["history"]["agent"]) == {"id", "known", "last_1h"}


def test_a_policy_that_reads_all_of_history_is_given_all(tmp_path: Path) -> None:
    with open_gated(tmp_path, WHOLE) as engine:
        assert decide(engine).decision == "ALLOW"
        record = last_record(engine)
        assert record["selection"] is None
        assert {"agent", "team"} <= record["input"]["history"].keys()


def test_projection_can_be_turned_off(tmp_path: Path) -> None:
    with open_gated(tmp_path, AGENT, projection=False) as engine:
        decide(engine)
        record = last_record(engine)
        assert record["selection"] is None
        assert {"agent", "team"} <= record["input"]["history"].keys()


def test_what_is_no_decision_is_given_everything(tmp_path: Path) -> None:
    with open_gated(tmp_path, AGENT + "\nseen := object.keys(input.history)\n\nnone := 1\n") as engine:
        asked = engine.decide(("shop", "none"), request())
        assert isinstance(asked, Evaluation)
        assert asked.input is not None
        assert {"agent", "team"} <= asked.input["history"].keys()


def _both_inside(engine: Engine, first: Any, second: Any) -> bool:
    """Whether the second decision comes to its policy while the first is still with its own."""
    held = hold(engine, {"decision": "ALLOW"})
    held.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(partial(decide, engine, first))
        assert held.arrived.acquire(timeout=20)
        two = pool.submit(partial(decide, engine, second))
        both = False
        while not both and not engine.gate.waiting:
            both = held.arrived.acquire(timeout=0.01)
        held.gate.set()
        assert {one.result().decision, two.result().decision} == {"ALLOW"}
    return both


@pytest.mark.parametrize(
    ("policy", "second", "beside"),
    [
        (AGENT, request("b", "t"), True),
        (AGENT, request("a", "u"), False),
        (TEAM, request("b", "t"), False),
        (TEAM, request("b", "u"), True),
        (NOTHING, request("a", "t"), True),
        (WHOLE, request("b", "t"), False),
    ],
)
def test_who_waits_for_whom(tmp_path: Path, policy: str, second: dict[str, Any], beside: bool) -> None:
    with open_gated(tmp_path, policy) as engine:
        assert _both_inside(engine, request("a", "t"), second) is beside


def test_one_that_reads_the_team_waits_for_those_that_add_to_it(tmp_path: Path) -> None:
    """Or two decisions, one limited by agent and one by team, could each have left the other out."""
    policy = AGENT + "\ndefault allow := false\n\nallow if input.history.team.last_1h.team_allowed < 100\n"
    with open_gated(tmp_path, policy) as engine:
        held = hold(engine, _answer)
        held.gate.clear()
        with ThreadPoolExecutor(2) as pool:
            one = pool.submit(partial(decide, engine, request("a", "t")))
            assert held.arrived.acquire(timeout=20)
            two = pool.submit(partial(decide, engine, request("b", "t"), path=("shop", "allow")))
            while not engine.gate.waiting:
                assert not held.arrived.acquire(timeout=0.005)
            held.gate.set()
            assert one.result().seq < two.result().seq
        team = last_record(engine)["input"]["history"]["team"]["last_1h"]
        assert team["team_allowed"] == 1


def _answer(asked: Any) -> Defined:
    return Defined({"decision": "ALLOW"} if "agent" in asked["history"] else True)


def test_the_locks_are_those_of_the_policies_that_are_asked(tmp_path: Path) -> None:
    """A decision that waits for its locks while others go live starts again with the new ones' locks."""
    with open_gated(tmp_path, AGENT) as engine:
        held = hold(engine)
        held.gate.clear()
        with ThreadPoolExecutor(2) as pool:
            one = pool.submit(partial(decide, engine, request("a", "t")))
            assert held.arrived.acquire(timeout=20)
            two = pool.submit(partial(decide, engine, request("a", "u")))
            while not engine.gate.waiting:
                pass
            write_policy(tmp_path, TEAM)
            assert engine.reload().changed
            held.gate.set()
            one.result()
            assert two.result().decision == "ALLOW"
        records = [dict(r.body or {}) for r in engine.journal.read() if r.type == "decision"]
        assert [r["selection"] for r in records] == [["agent.last_1h.allowed"], ["team.last_1h.team_allowed"]]
        assert engine.live_policies is not None
        assert [r["policy_hash"] == engine.live_policies.version for r in records] == [False, True]


def refused(where: Path, policy: str, **settings: Any) -> PolicyError:
    with pytest.raises(PolicyError) as caught, open_gated(where, policy, **settings):
        pass
    return caught.value


@pytest.mark.parametrize(
    ("read", "path", "near"),
    [
        ("input.history.agent.last_1h.alowed", "history.agent.last_1h.alowed", "allowed"),
        ("input.history.agent.last_2h.allowed", "history.agent.last_2h", "last_1h"),
        ("input.history.agnet.last_1h.allowed", "history.agnet", "agent"),
        ("input.history.statu", "history.statu", "status"),
        ("input.history.team.last_1h.allowed", "history.team.last_1h.allowed", "team_allowed"),
        ("input.history.agent.known.really", "history.agent.known.really", None),
        ("input.history.agent[_].alowed", "history.agent.*.alowed", "allowed"),
        ('object.get(input, ["history", "agent", "last_1h", "alowed"], 0)', "history.agent.last_1h.alowed", "allowed"),
    ],
)
def test_a_path_that_no_catalog_has_does_not_load(tmp_path: Path, read: str, path: str, near: str | None) -> None:
    error = refused(tmp_path, f"{AGENT}\n\nother if {read} == 3\n")
    assert error.error_code == "unknown_history_path"
    assert error.detail["path"] == path.split(".")
    assert (error.detail["file"], error.detail["line"]) == ("shop.rego", 8)
    assert f"`input.{path}`" in error.message
    if near is not None:
        assert error.detail["hint"] == f"did you mean `{near}`?"


@pytest.mark.parametrize(
    "read", ["input.history.agent.last_1h.allowed", "history.status", 'object.get(input, "history", 3)']
)
def test_where_history_is_not_nothing_is_read(tmp_path: Path, read: str) -> None:
    """Callers may not send `input.history` either: `not` in front of it would always let in."""
    policy = f"package shop\n\nimport input.history\n\nallow if not {read} == 3\n"
    error = refused(tmp_path, policy, input_history="context.past")
    assert (error.error_code, error.detail["path"]) == ("unknown_history_path", ["history"])
    assert error.detail["hint"] == "did you mean `input.context.past`?"
    there = policy.replace("input.history", "input.context.past").replace('input, "history"', 'input.context, "past"')
    with open_gated(
        tmp_path,
        there.replace("import input.context.past", "import input.context.past as history"),
        input_history="context.past",
    ):
        pass


def test_where_the_name_was_given_is_where_it_is_wrong(tmp_path: Path) -> None:
    text = AGENT + (
        "\nof(entity, window, name) := input.history[entity][window][name]\n"
        '\ngood if of("agent", "last_1h", "allowed") > 3\n'
        '\nwrong if of("agent", "last_1h", "alowed") > 3\n'
    )
    error = refused(tmp_path, text)
    assert (error.error_code, error.detail["line"], error.detail["column"]) == ("unknown_history_path", 11, 10)


@pytest.mark.parametrize(
    "read",
    [
        "input.history[input.x].last_1h.allowed",
        "input.history.suspensions[0].scope",
        "input.history.agent.id",
        "input.history.agent.last_1h.complete",
        "input.hist.agent",
        'object.get(input.x, "nothing", 3)',
    ],
)
def test_a_path_that_may_be_there_loads(tmp_path: Path, read: str) -> None:
    with open_gated(tmp_path, f"{AGENT}\n\nother if {read} == 3\n") as engine:
        assert engine.live_policies is not None


def test_one_of_several_has_to_be_there(tmp_path: Path) -> None:
    some = '\nother if { some w in [%s]; input.history.agent[w].allowed == 3 }\n'
    error = refused(tmp_path, AGENT + some % '"last_2h", "last_9h"')
    assert error.error_code == "unknown_history_path"
    with open_gated(tmp_path, AGENT + some % '"last_1h", "last_9h"'):
        pass


def test_a_catalog_without_what_live_policies_read_does_not_go_live(tmp_path: Path) -> None:
    with open_gated(tmp_path, AGENT) as engine:
        path = tmp_path / "queries" / "agent.sql"
        before = engine.catalog.version
        path.write_text(path.read_text().replace("AS allowed,", "AS permitted,"))
        report = engine.reload()
        assert not report.changed
        assert "`input.history.agent.last_1h.allowed` is nowhere in the catalog" in report.problems[0]
        assert engine.catalog.version == before
        assert decide(engine).decision == "ALLOW"
        write_policy(tmp_path, AGENT.replace(".allowed", ".permitted"))
        assert engine.reload().changed
        assert decide(engine).decision == "ALLOW"
        assert last_record(engine)["selection"] == ["agent.last_1h.permitted"]


CLOCK = AGENT + "\nlate if time.now_ns() > 3\n\ndecision := {\"decision\": \"ALLOW\"} if later(1)\n\nlater(x) if late\n"


def test_a_decision_that_reads_the_clock_does_not_load(tmp_path: Path) -> None:
    error = refused(tmp_path, CLOCK)
    assert (error.error_code, error.detail["function"]) == ("not_repeatable", "time.now_ns")
    assert (error.detail["file"], error.detail["line"]) == ("shop.rego", 7)
    assert error.detail["path"] == list(PATH)
    assert "as_of" in error.detail["hint"]


def test_unless_the_settings_allow_it_and_then_its_record_says_so(tmp_path: Path) -> None:
    with open_gated(tmp_path, CLOCK + "\ndefault allow := false\n", allow_unrepeatable=True) as engine:
        decide(engine)
        assert last_record(engine)["repeatable"] is False
        decide(engine, path=("shop", "allow"))
        assert last_record(engine)["repeatable"] is True


def test_what_is_no_decision_may_read_the_clock(tmp_path: Path) -> None:
    with open_gated(tmp_path, AGENT + "\nlate if time.now_ns() > 3\n") as engine:
        assert engine.decide(("shop", "late"), request()).outcome == Defined(True)
