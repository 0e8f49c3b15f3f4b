"""Gantral's rows as events, held against what the data taught."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from enrich.errors import BadRequestError, ConfigError
from enrich.events import EventParser, parse_rfc3339_us
from enrich.sources import GantralMapping, Mapped, events_from_directory, events_from_rows, load_sample

NOW_US = parse_rfc3339_us("2026-11-23T12:00:00Z")
INSTANCE: dict[str, Any] = {
    "id": "inst-1",
    "workflow_id": "refund-approval",
    "trigger_context": {"agent_id": "a", "owning_team_id": "t", "environment": "prod", "amount_cents": 5, "model": "m"},
    "policy_context": {"reason": "Execution paused: Materiality=HIGH, RequiresApproval=false"},
    "policy_version_id": "pol-1",
}
TIMEOUT: dict[str, Any] = {
    "id": "dec-1",
    "type": "REJECT",
    "actor_id": "SYSTEM",
    "role": "SYSTEM",
    "justification": "Approval Timeout (5s) Exceeded",
}
DECIDED: dict[str, Any] = {
    "id": "evt-1",
    "instance_id": "inst-1",
    "event_type": "DECISION_RECORDED",
    "payload": {"decision_id": "dec-1", "decision_type": "REJECT", "actor_id": "SYSTEM"},
    "timestamp": "2026-11-23T10:51:37.747250+00:00",
}
CREATED: dict[str, Any] = DECIDED | {
    "event_type": "INSTANCE_CREATED",
    "payload": {"state": "RUNNING", "workflow_id": "w"},
}


@functools.cache
def _sample() -> Mapped:
    return load_sample()


def _one(instance: dict[str, Any], mapping: GantralMapping | None = None, decision: dict[str, Any] = TIMEOUT) -> Mapped:
    return events_from_rows([instance], [decision], [DECIDED], mapping)


def test_the_sample_has_the_counts_of_its_readme() -> None:
    events = _sample().events
    outcomes = Counter(e["outcome"] for e in events)
    assert outcomes == {
        "allowed": 2_039, "required_human": 1_961, "approved": 1_432, "rejected": 247, "timed_out": 132,
        "overridden": 93,
    }  # fmt: skip
    assert len({e["instance_id"] for e in events}) == 4_000
    assert len({e["event_id"] for e in events}) == len(events) == 5_904
    assert sum(e["outcome"] == "required_human" for e in events) - sum("decision_id" in e for e in events) == 57


def test_every_event_of_the_sample_is_accepted() -> None:
    subject = EventParser(hash_key=b"k", retention_us=90 * 86_400_000_000, attribute_keys=None)
    parsed = subject.parse(_sample().events, NOW_US)
    assert parsed.rejected == []
    assert parsed.batch.n == 5_904


def test_what_cannot_be_an_agent_is_reported_and_counted() -> None:
    summary = _sample().summary()
    assert summary == {
        ("agent_id", "absent"): 460, ("agent_id", "is longer than 200 characters"): 18, ("agent_id", "no string"): 14,
        ("agent_id", "is empty"): 7, ("team_id", "absent"): 105,
    }  # fmt: skip
    without_agent = sum("agent_id" not in e for e in _sample().events)
    assert without_agent == 460 + 18 + 14 + 7
    assert {e["agent_id"] for e in _sample().events if "agent_id" in e} >= {"支払い-返金-03", "équipe-réfund-🤖"}


def test_a_declared_fallback_stands_for_every_agent_that_is_missing() -> None:
    mapped = load_sample(GantralMapping(agent_fallback="unknown"))
    assert sum(e["agent_id"] == "unknown" for e in mapped.events) == 499
    assert mapped.summary()["agent_id", "absent"] == 460


def test_paused_rows_say_how_material_they_are() -> None:
    paused = [e for e in _sample().events if e["outcome"] == "required_human"]
    assert {e.get("materiality") for e in paused} == {"HIGH", "MEDIUM"}
    assert {e.get("materiality") for e in _sample().events if e["outcome"] == "allowed"} == {None}


def test_a_decision_names_its_approver_and_a_creation_nobody() -> None:
    for e in _sample().events:
        assert ("actor_id" in e) == ("decision_id" in e) == (e["outcome"] not in ("allowed", "required_human"))


def test_what_gantral_does_not_hold_is_left_out() -> None:
    names = {name for e in _sample().events for name in e}
    assert not names & {"wait_ms", "duration_ms", "cost_microusd", "amount_minor", "currency", "org_id", "error_type"}


def test_one_row_is_mapped_field_by_field() -> None:
    assert _one(INSTANCE).events == [
        {
            "source": "gantral", "event_id": "evt-1", "occurred_at": DECIDED["timestamp"], "kind": "authority",
            "outcome": "timed_out", "instance_id": "inst-1", "workflow_id": "refund-approval", "decision_id": "dec-1",
            "actor_id": "SYSTEM", "agent_id": "a", "team_id": "t", "environment": "prod", "materiality": "HIGH",
            "declared_amount_minor": 5, "attributes": {"model": "m", "role": "SYSTEM", "policy_version_id": "pol-1"},
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change", [{"actor_id": "mallory"}, {"role": "user"}, {"justification": "too slow"}, {"justification": None}]
)
def test_a_time_out_matches_on_all_three_or_is_a_rejection(change: dict[str, Any]) -> None:
    assert _one(INSTANCE, decision=TIMEOUT | change).events[0]["outcome"] == "rejected"


@pytest.mark.parametrize("trigger", [None, {}, [], "text", {"agent_id": None}, {"agent_id": {"x": 1}}, {"agent_id": 7}])
def test_junk_in_the_trigger_context_costs_the_agent_only(trigger: Any) -> None:
    mapped = _one(INSTANCE | {"trigger_context": trigger})
    assert "agent_id" not in mapped.events[0]
    assert mapped.events[0]["workflow_id"] == "refund-approval"
    assert {d.field for d in mapped.doubts} == {"agent_id", "team_id"}


def test_the_agent_is_read_at_a_configured_path() -> None:
    trigger = {"identity": {"agent": "deep"}, "owning_team_id": "t"}
    mapping = GantralMapping(agent_path=("identity", "agent"), source="gantral-eu")
    event = _one(INSTANCE | {"trigger_context": trigger}, mapping).events[0]
    assert (event["agent_id"], event["source"]) == ("deep", "gantral-eu")


@pytest.mark.parametrize("amount", [-1, 1.5, True, "5", 2**63])
def test_an_amount_that_is_no_amount_is_reported(amount: Any) -> None:
    mapped = _one(INSTANCE | {"trigger_context": {"agent_id": "a", "owning_team_id": "t", "amount_cents": amount}})
    assert "declared_amount_minor" not in mapped.events[0]
    assert [d.field for d in mapped.doubts] == ["declared_amount_minor"]


def test_rows_that_make_no_event_are_reported() -> None:
    odd = [
        CREATED | {"payload": {"state": "LOST"}},
        CREATED | {"payload": {"state": ["RUNNING"]}},
        CREATED | {"payload": None},
        CREATED | {"event_type": "POLICY_CHANGED"},
    ]
    mapped = events_from_rows([INSTANCE], [], odd)
    assert mapped.events == []
    assert [d.field for d in mapped.doubts] == ["outcome", "outcome", "outcome", "event_type"]


def test_a_missing_instance_or_decision_row_is_reported_and_the_audit_row_still_counts() -> None:
    mapped = events_from_rows([], [], [CREATED, DECIDED])
    assert [e["outcome"] for e in mapped.events] == ["allowed", "rejected"]
    assert [e.get("workflow_id") for e in mapped.events] == ["w", None]
    reasons = mapped.summary()
    assert reasons["instance_id", "no such instance row"] == 2
    assert reasons["decision_id", "no such decision row"] == 1


def test_a_directory_without_the_tables_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no instances\.ndjson\.gz"):
        events_from_directory(tmp_path)
    (tmp_path / "instances.ndjson").write_text("[1]\n")
    with pytest.raises(BadRequestError, match="is no row"):
        events_from_directory(tmp_path)
