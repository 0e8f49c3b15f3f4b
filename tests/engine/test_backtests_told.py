"""Backtests on decisions that are known only as `authority` events, as imported history has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enrich import Engine
from enrich.context import canonical_json
from enrich.decisions import EmbeddedEvaluator, load_policies, verdict
from enrich.events import format_us, parse_rfc3339_us
from enrich.signals.offline import query_for

from .gated import AT_MOST, PATH, open_gated
from .support import DAY_US, now_us

OUTCOMES = ("allowed", "denied", "required_human", "approved", "rejected")
#: of the outcomes, those that a policy decided
DECIDED = {"allowed": "ALLOW", "denied": "DENY", "required_human": "REQUIRE_HUMAN"}
HIGH = """\
package shop

default decision := {"decision": "DENY"}

decision := {"decision": "REQUIRE_HUMAN"} if input.instance.materiality == "HIGH"

decision := {"decision": "ALLOW"} if {
    input.instance.materiality != "HIGH"
    input.history.agent.last_1h.allowed < 2
}
"""
SHOP = 'package shop\n\ndecision := "ALLOW" if input.context.action == "refund"\n'


def told(n: int, at_us: int, **changes: Any) -> dict[str, Any]:
    made = {
        "source": "elsewhere",
        "event_id": f"told-{n}",
        "occurred_at": format_us(at_us),
        "kind": "authority",
        "outcome": OUTCOMES[n % len(OUTCOMES)],
        "agent_id": "ab"[n % 2],
        "team_id": "t",
        "materiality": ("LOW", "HIGH")[n % 3 == 0],
        "action": "refund",
    }
    return {name: value for name, value in (made | changes).items() if value is not None}


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Events of three days ago, not in the order of their times, several of them at one moment."""
    where = tmp_path_factory.mktemp("imported")
    start = now_us() - 3 * DAY_US
    events = [told(n, start + (n // 2) * 300_000_000) for n in range(60)]
    events.append(told(100, start, agent_id=None))
    events.append(told(101, start, materiality=None))  # denied
    events.append(told(102, start, outcome="allowed", decision_id="d-elsewhere", agent_id="c", team_id=None))
    with open_gated(where, AT_MOST.format(agent=3, team=100)) as engine:
        assert engine.record(events[::-1]).accepted == len(events)
        yield engine


def _write(directory: Path, policy: str) -> Path:
    directory.mkdir()
    (directory / "shop.rego").write_text(policy)
    return directory


def _events(engine: Engine) -> list[dict[str, Any]]:
    engine.caught_up(20)
    return [dict(e) for e in engine.events(limit=1000).events]


def _asked_one_by_one(engine: Engine, policies: Path) -> dict[int, tuple[str, str]]:
    """Seq to (before, after), each asked on the agent's own SQL in the microsecond before its event."""
    flips: dict[int, tuple[str, str]] = {}
    prepared = EmbeddedEvaluator().prepare(load_policies(policies))
    head = engine.seq
    with engine.history.cursor() as con:
        for one in _events(engine):
            if one["outcome"] not in DECIDED or "agent_id" not in one or "materiality" not in one:
                continue
            before_us = parse_rfc3339_us(one["occurred_at"]) - 1
            relation = f"(FROM events_at({head}) WHERE seq <> {one['seq']})"
            sql = query_for(engine.catalog, "agent", (one["agent_id"],), "1h", before_us, relation=relation)
            allowed = con.execute(sql).fetchall()[0][0]
            document = {
                "instance": {"materiality": one["materiality"]},
                "history": {"agent": {"last_1h": {"allowed": allowed}}},
            }
            after = verdict.judge(prepared.evaluate(PATH, canonical_json(document)), boolean=False).decision
            if after != DECIDED[one["outcome"]]:
                flips[one["seq"]] = (DECIDED[one["outcome"]], after)
    prepared.close()
    return flips


def test_each_is_tested_on_what_was_before_it(imported: Engine, tmp_path: Path) -> None:
    """INVARIANT: neither the event itself nor what happened at its time or later is seen."""
    policies = _write(tmp_path / "new", HIGH)
    found = imported.backtests.run(policies=policies)
    expected = _asked_one_by_one(imported, policies)
    assert {row["seq"]: (row["before"], row["after"]) for row in found.frame.iter_rows(named=True)} == expected
    assert {after for _, after in expected.values()} == {"ALLOW", "DENY", "REQUIRE_HUMAN"}
    assert set(found.frame["basis"]) == {"event_time"}
    assert set(found.frame["input"]) == {"synthesised"}
    assert dict(found.not_testable.select("reason", "decisions").iter_rows()) == {
        "the event names no agent": 1,
        "the event has no materiality, and the policy reads input.instance.materiality": 1,
    }


def test_the_report_says_what_it_rests_on(imported: Engine, tmp_path: Path) -> None:
    found = imported.backtests.run(policies=_write(tmp_path / "new", HIGH))
    [open_loop, basis] = found.notes
    assert open_loop.startswith("open-loop")
    assert "by event time" in basis
    assert "materiality -> input.instance.materiality" in basis


def test_held_against_the_live_policies_only_their_differences_flip(imported: Engine, tmp_path: Path) -> None:
    same = _write(tmp_path / "same", AT_MOST.format(agent=3, team=100) + "\n# the same\n")
    assert imported.backtests.run(policies=same, against="live", path="shop/decision").frame.is_empty()
    assert not imported.backtests.run(policies=same, path="shop/decision").frame.is_empty()
    stricter = _write(tmp_path / "stricter", AT_MOST.format(agent=1, team=100))
    found = imported.backtests.run(policies=stricter, against="live", path="shop/decision")
    assert set(found.flips()["kind"]) == {"allow-to-deny"}
    assert found.frame["rules"].list.len().min() == 1


def test_changed_signals_are_held_against_the_live_ones(imported: Engine) -> None:
    queries = {n: t.replace("outcome = 'allowed'", "outcome IN ('allowed', 'denied')") for n, t in
               imported.catalog.sources.items()}  # fmt: skip
    found = imported.backtests.run(queries=queries, against="live", path="shop/decision")
    assert set(found.flips()["kind"]) == {"allow-to-deny"}
    assert "agent.last_1h.allowed" in found.flips("signal")["signal"].to_list()


def test_a_policy_that_reads_more_is_not_testable(imported: Engine, tmp_path: Path) -> None:
    policies = _write(tmp_path / "new", SHOP)
    found = imported.backtests.run(policies=policies)
    assert found.tested == 0
    [(path, reason, count)] = found.not_testable.rows()
    assert (path, count) == ("shop/decision", 39)
    assert reason == "the policy reads input.context.action, which no event tells"
    mapped = imported.backtests.run(policies=policies, mapping={"action": "context.action"})
    assert mapped.tested == 38
    assert set(mapped.frame["after"]) == {"ALLOW"}


@pytest.mark.parametrize(
    "policy",
    [
        'package shop\n\ndecision := "ALLOW" if count(input) > 1\n',
        'package shop\n\ndecision := "ALLOW" if { some k, _ in input.instance; k == "materiality" }\n',
        'package shop\n\ndecision := "ALLOW" if { some part in input; part.materiality == "LOW" }\n',
        'package shop\n\ndecision := "ALLOW" if input.instance\n',
        'package shop\n\ndecision := "ALLOW" if input.history.agent.in_flight.count > 1\n',
        'package shop\n\ndecision := "ALLOW" if input.instance[input.identity.actor_id] == 1\n',
    ],
)
def test_what_an_event_can_not_tell_is_not_guessed(imported: Engine, tmp_path: Path, policy: str) -> None:
    found = imported.backtests.run(policies=_write(tmp_path / "new", policy))
    assert found.tested == 0
    assert "which no event tells" in found.not_testable["reason"][0]


def test_an_entity_whose_history_is_read_has_to_be_named(imported: Engine, tmp_path: Path) -> None:
    policy = 'package shop\n\ndecision := "ALLOW" if input.history.team.last_1h.team_allowed < 3\n'
    found = imported.backtests.run(policies=_write(tmp_path / "new", policy))
    assert ("the event has no team_id, and the policy reads input.history.team", 1) in list(
        found.not_testable.select("reason", "decisions").iter_rows()
    )


def test_filters_choose_events(imported: Engine, tmp_path: Path) -> None:
    policies = _write(tmp_path / "new", HIGH)
    assert set(imported.backtests.run(policies=policies, agent="a").frame["agent"]) == {"a"}
    assert set(imported.backtests.run(policies=policies, decision="ALLOW").frame["before"]) == {"ALLOW"}
    assert imported.backtests.run(policies=policies, path="shop/other").untested == 39
    two = _write(tmp_path / "two", HIGH + "\ndefault allow := false\n")
    found = imported.backtests.run(policies=two)
    assert found.not_testable["reason"].to_list() == ["no decision path is named for them"]
    assert imported.backtests.run(policies=two, path="shop/decision").tested == 37
