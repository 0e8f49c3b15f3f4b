"""Changed definitions on decisions of the past, against an evaluator that is asked on the signals' own SQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from enrich import Engine
from enrich.context import canonical_json
from enrich.decisions import EmbeddedEvaluator, load_policies, verdict
from enrich.decisions.backtest import FLIPS, Backtest
from enrich.engine import backtests
from enrich.errors import BadRequestError, EnrichError, NotFoundError, PayloadTooLargeError, PolicyError
from enrich.events import parse_rfc3339_us
from enrich.signals import Catalog, DefinitionErrors, load_catalog
from enrich.signals.offline import query_for

from .gated import AT_MOST, PATH, decide, open_gated, request
from .support import event, now_us

LATE = 8
#: what a human approved counts with what was allowed
BOTH = ("outcome = 'allowed'", "outcome IN ('allowed', 'approved')")
OTHER = """\
package shop

default decision := {"decision": "DENY"}

decision := {"decision": "REQUIRE_HUMAN"} if busy

decision := {"decision": "ALLOW"} if not busy

busy if input.history.agent.last_1h.allowed >= data.limits.agent

busy if input.history.team.last_1h.team_allowed >= data.limits.team
"""


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Decisions about three agents of two teams, and events that were learned long after they occurred."""
    where = tmp_path_factory.mktemp("past")
    with open_gated(where, AT_MOST.format(agent=5, team=12)) as engine:
        for n in range(48):
            agent = "abc"[n % 3]
            decide(engine, request(agent, "t" if agent != "c" else "u"))
            if n == 20:
                # before every decision by their times, after twenty of them by what was known
                late: dict[str, Any] = {"kind": "authority", "outcome": "approved", "duration_ms": None}
                late |= {"agent_id": "c", "team_id": "u", "ago_us": 600_000_000}
                engine.record([event(i, **late) for i in range(LATE)])
        engine.break_glass.suspend("agent", "b", reason="tests")
        for _ in range(3):
            decide(engine, request("b"))
        yield engine


def _write(directory: Path, policy: str, data: str | None = None) -> Path:
    directory.mkdir()
    (directory / "shop.rego").write_text(policy)
    if data is not None:
        (directory / "data.json").write_text(data)
    return directory


def _changed(engine: Engine, old: str, new: str) -> dict[str, str]:
    texts = {name: text.replace(old, new) for name, text in engine.catalog.sources.items()}
    assert texts != engine.catalog.sources
    return texts


def _records(engine: Engine) -> list[dict[str, Any]]:
    engine.caught_up(20)
    page = engine.decisions(limit=1000).decisions
    return [engine.decision(one["decision_id"]) for one in reversed(page)]


def _own_sql(engine: Engine, catalog: Catalog, record: dict[str, Any]) -> dict[str, Any]:
    """The counts of the record's agent and team at its (as_of, seq), by the sets' own SQL."""
    found: dict[str, Any] = {}
    as_of_us = parse_rfc3339_us(record["as_of"])
    with engine.history.cursor() as con:
        for s in catalog.sets:
            id_ = record["entities"][s.entity]
            for window in s.header.windows:
                relation = f"events_at({record['context_seq']})"
                sql = query_for(catalog, s.name, (id_,), window.name, as_of_us, relation=relation)
                row = con.execute(sql).fetchall()[0]
                names = [c.name for c in s.signals]
                found.setdefault(s.entity, {})[window.key] = dict(zip(names, row, strict=True))
    return found


def _asked_one_by_one(engine: Engine, catalog: Catalog, policies: Path) -> dict[str, tuple[str, str]]:
    """Decision id to (before, after) of every decision that the policies make another one."""
    flips: dict[str, tuple[str, str]] = {}
    prepared = EmbeddedEvaluator().prepare(load_policies(policies))
    try:
        for record in _records(engine):
            if record["cause"] is not None:
                continue
            document = {**record["input"], "history": _own_sql(engine, catalog, record)}
            after = verdict.judge(prepared.evaluate(PATH, canonical_json(document)), boolean=False).decision
            if after != record["decision"]:
                flips[record["decision_id"]] = (record["decision"], after)
    finally:
        prepared.close()
    return flips


def _flips(found: Backtest) -> dict[str, tuple[str, str]]:
    return {row["decision_id"]: (row["before"], row["after"]) for row in found.frame.iter_rows(named=True)}


def test_what_does_not_change_flips_nothing(past: Engine) -> None:
    found = past.backtests.run()
    assert found.frame.is_empty()
    assert (found.tested, found.untested, found.changed_results, found.changes) == (51, 0, 0, [])
    # all signals computed anew, by a catalog that differs in nothing but a name that nobody reads
    renamed = past.backtests.run(queries=_changed(past, "AS asked", "AS put"))
    assert renamed.frame.is_empty()
    assert renamed.tested == 51


def test_a_stricter_policy_flips_what_an_evaluator_says_one_by_one(past: Engine, tmp_path: Path) -> None:
    policies = _write(tmp_path / "new", OTHER, '{"limits": {"agent": 3, "team": 7}}')
    found = past.backtests.run(policies=policies)
    expected = _asked_one_by_one(past, past.catalog, policies)
    assert len(expected) > 20
    assert _flips(found) == expected
    assert set(found.frame["kind"]) == {"allow-to-require-human", "deny-to-require-human"}
    assert found.frame["moved"].list.len().sum() == 0
    assert set(found.frame["basis"]) == {"as_recorded"}
    by_rule = found.flips("rule")
    assert "shop.busy" in by_rule["rule"].to_list()
    assert found.changes == [
        "policy shop.rego: changed", "data.limits.agent: absent -> 3", "data.limits.team: absent -> 7",
    ]  # fmt: skip


def test_changed_signals_are_computed_at_each_decisions_own_moment(past: Engine, tmp_path: Path) -> None:
    """INVARIANT: what was learned later is not seen, however early it occurred."""
    queries = _changed(past, *BOTH)
    policies = _write(tmp_path / "new", AT_MOST.format(agent=12, team=20))
    found = past.backtests.run(policies=policies, queries=queries)
    expected = _asked_one_by_one(past, load_catalog(queries), policies)
    assert len(expected) > 5
    assert _flips(found) == expected
    for row in found.frame.iter_rows(named=True):
        record = past.decision(row["decision_id"])
        own = _own_sql(past, load_catalog(queries), record)
        for change in row["moved"]:
            entity, window, name = change["name"].split(".")
            assert int(change["after"]) == own[entity][window][name]
            assert int(change["before"]) == record["input"]["history"][entity][window][name]


def test_processes_find_what_one_finds(past: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backtests, "_ALONE", 0)
    policies = _write(tmp_path / "new", AT_MOST.format(agent=2, team=3))
    queries = _changed(past, *BOTH)
    alone = past.backtests.run(policies=policies, queries=queries, processes=0)
    seen: list[tuple[int, int]] = []
    beside = past.backtests.run(
        policies=policies, queries=queries, processes=1, progress=lambda done, total: seen.append((done, total))
    )
    assert alone.frame.height > 5
    assert beside.frame.equals(alone.frame)
    assert beside.counts.equals(alone.counts)
    assert seen[-1] == (51, 51)


def test_what_was_suspended_stays_denied(past: Engine, tmp_path: Path) -> None:
    found = past.backtests.run(policies=_write(tmp_path / "new", 'package shop\n\ndecision := "ALLOW"\n'))
    suspended = found.counts.filter(pl.col("cause_after") == "suspended")
    assert suspended.select("before", "after", "decisions").rows() == [("DENY", "DENY", 3)]
    assert set(found.frame["after"]) == {"ALLOW"}


def test_a_rule_that_is_gone_is_a_refusal(past: Engine, tmp_path: Path) -> None:
    found = past.backtests.run(policies=_write(tmp_path / "new", "package other\n\ndecision := true\n"))
    assert set(found.frame["cause_after"]) == {"evaluation_undefined"}
    assert set(found.frame["kind"]) == {"allow-to-deny"}


def test_filters_choose_decisions(past: Engine, tmp_path: Path) -> None:
    policies = _write(tmp_path / "new", AT_MOST.format(agent=0, team=0))
    assert set(past.backtests.run(policies=policies, agent="a").frame["agent"]) == {"a"}
    assert past.backtests.run(policies=policies, since=now_us() + 60_000_000).tested == 0
    assert past.backtests.run(policies=policies, decision="DENY").frame.is_empty()
    with pytest.raises(BadRequestError) as refused:
        past.backtests.run(colour="red")
    assert refused.value.error_code == "invalid_parameter"


def test_the_frame_has_its_columns(past: Engine, tmp_path: Path) -> None:
    for limit in (0, 100):
        policies = _write(tmp_path / f"at-most-{limit}", AT_MOST.format(agent=limit, team=limit))
        found = past.backtests.run(policies=policies)
        assert dict(found.frame.schema) == dict(FLIPS)
        assert found.frame["seq"].is_sorted()
    body = found.body(rows=1)
    assert body["flipped"] == found.frame.height
    assert len(body["flips"]) == 1
    assert body["flips"][0]["result_after"] == {"decision": "ALLOW"}


def test_what_fails(past: Engine, tmp_path: Path) -> None:
    found = past.backtests.run(policies=_write(tmp_path / "new", AT_MOST.format(agent=2, team=20)))
    flips = found.frame.height
    assert found.flips().rows() == [("allow-to-deny", flips)]
    assert found.failures() == found.failures(["deny-to-allow"], max_slowdown=1000) == []
    assert found.failures(["allow-to-deny"]) == [f"{flips} allow-to-deny"]
    assert "times as long" in found.failures(max_slowdown=1e-9)[0]
    nothing = past.backtests.run(agent="nobody")
    assert nothing.failures(["allow-to-deny"], max_slowdown=2) == [
        "no decision was tested", "the slowdown was not measured",
    ]  # fmt: skip
    with pytest.raises(BadRequestError) as refused:
        found.failures(["allow-to-nothing"])
    assert refused.value.error_code == "invalid_parameter"


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        ({"policies": "broken"}, PolicyError, "rego_parse_error"),
        ({"policies": "nowhere"}, PolicyError, "not_found"),
        ({"queries": {"agent": "SELECT nonsense"}}, DefinitionErrors, "invalid_definitions"),
        ({"limit": 50}, PayloadTooLargeError, "too_many_decisions"),
        ({"against": "yesterday"}, BadRequestError, "invalid_parameter"),
        ({"mapping": {"colour": "context.colour"}}, BadRequestError, "invalid_mapping"),
        ({"mapping": {"action": "history.action"}}, BadRequestError, "invalid_mapping"),
        ({"mapping": {"action": "identity"}}, BadRequestError, "invalid_mapping"),
    ],
)
def test_what_can_not_be_tried_is_refused(
    past: Engine, tmp_path: Path, options: dict[str, Any], error: type[EnrichError], code: str
) -> None:
    _write(tmp_path / "broken", "package shop\n\ndecision := {")
    if "policies" in options:
        options = {"policies": tmp_path / options["policies"]}
    with pytest.raises(error) as refused:
        past.backtests.run(**options)
    assert refused.value.error_code == code


def test_signals_on_attributes_that_were_thrown_away_are_refused(past: Engine) -> None:
    queries = _changed(past, "kind = 'authority'", "kind = 'authority' AND attributes ->> 'colour' = 'red'")
    with pytest.raises(BadRequestError) as refused:
        past.backtests.run(queries=queries)
    assert refused.value.error_code == "attributes_not_kept"


def test_signals_are_not_recomputed_on_what_was_pruned(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        for _ in range(3):
            decide(engine)
        engine.caught_up(20)
        engine.history.prune(now_us())
        found = engine.backtests.run(queries=_changed(engine, *BOTH))
        assert found.tested == 0
        assert found.not_testable.rows() == [("shop/decision", "events of that time were pruned", 3)]
        assert engine.backtests.run().tested == 3  # the frozen input is still there


def test_without_policies_there_is_nothing_to_try(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        engine._state.policies = None
        with pytest.raises(NotFoundError) as refused:
            engine.backtests.run()
        assert refused.value.error_code == "no_policies"
        policies = _write(tmp_path / "new", AT_MOST.format(agent=1, team=1))
        assert engine.backtests.run(policies=policies).tested == 0
        with pytest.raises(NotFoundError) as refused:
            engine.backtests.run(policies=policies, against="live")
        assert refused.value.error_code == "no_policies"
