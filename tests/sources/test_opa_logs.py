"""Entries of decision logs become events, or are told why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from enrich.events import EventParser
from enrich.sources.opa_logs import MappedLogs, OpaLogMapping, events_from_entries

NOW_US = 1_795_000_000_000_000
MAPPING = OpaLogMapping(
    decides=lambda path: path[-1] == "decision",
    outcome=lambda entry: "allowed" if entry.get("result") == {"decision": "ALLOW"} else "denied",
    ids={"agent": ("identity", "actor_id"), "team": ("team",)},
    instance=("instance_id",),
    materiality=("materiality",),
    history=("history",),
)
INPUT = {"identity": {"actor_id": "a"}, "team": "t", "instance_id": "i", "materiality": "LOW"}


def entry(**fields: Any) -> dict[str, Any]:
    made = {
        "labels": {"id": "x", "version": "1.22.2"},
        "decision_id": "4ca636c1-55e4-417a-b1d8-4aceb67960d1",
        "path": "shop/decision",
        "input": INPUT,
        "result": {"decision": "ALLOW"},
        "timestamp": "2026-11-18T00:00:00.123456789Z",
        "metrics": {"timer_rego_query_eval_ns": 1},
    }
    return {name: value for name, value in (made | fields).items() if value != "absent"}


def mapped(*entries: object, **changes: Any) -> MappedLogs:
    return events_from_entries(entries, replace(MAPPING, **changes))


def test_a_decision_becomes_an_event_that_the_parser_takes() -> None:
    found = mapped(entry())
    assert found.events == [
        {
            "source": "opa",
            "event_id": "4ca636c1-55e4-417a-b1d8-4aceb67960d1",
            "decision_id": "4ca636c1-55e4-417a-b1d8-4aceb67960d1",
            "occurred_at": "2026-11-18T00:00:00.123456Z",
            "kind": "authority",
            "outcome": "allowed",
            "agent_id": "a",
            "team_id": "t",
            "instance_id": "i",
            "materiality": "LOW",
        }
    ]
    parser = EventParser(hash_key=b"k", retention_us=10**14, attribute_keys=None)
    assert parser.parse(found.events, NOW_US).batch.n == 1


@pytest.mark.parametrize("path", ["shop/decision", "/shop/decision", "decision"])
def test_paths_that_are_decisions(path: str) -> None:
    assert len(mapped(entry(path=path)).events) == 1


@pytest.mark.parametrize("path", ["shop", "shop/decision/x", "", None, 5, "absent", "shop/decisions"])
def test_paths_that_are_none_are_ignored(path: object) -> None:
    assert mapped(entry(path=path)) == MappedLogs(fields=mapped().fields, ignored=1)


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"masked": ["/result"]}, "masked_result", "result"),
        ({"erased": ["/result/decision"], "result": {}}, "masked_result", "result"),
        ({"masked": ["/input/identity/actor_id"]}, "masked_id", "input.identity.actor_id"),
        ({"erased": ["/input/identity"], "input": {}}, "masked_id", "input.identity.actor_id"),
        ({"erased": ["/input"], "input": "absent"}, "masked_id", "input.identity.actor_id"),
        ({"masked": ["/input/team"]}, "masked_id", "input.team"),
        ({"input": "absent"}, "missing_agent", "input.identity.actor_id"),
        ({"input": {"identity": {"actor_id": None}}}, "missing_agent", "input.identity.actor_id"),
        ({"input": [1]}, "missing_agent", "input.identity.actor_id"),
    ],
)
def test_what_is_not_shown_is_not_guessed(fields: Mapping[str, Any], code: str, field: str) -> None:
    found = mapped(entry(), entry(**fields), entry())
    assert [(r.index, r.code, r.field) for r in found.rejected] == [(1, code, field)]
    assert found.indices == [0, 2]


def test_masking_elsewhere_is_no_reason() -> None:
    assert len(mapped(entry(masked=["/input/card"], erased=["/result/reasons", 5, "/input/identity~1x"])).events) == 1
    hidden = mapped(entry(masked=["/input/instance_id", "/input/materiality"])).events[0]
    assert "instance_id" not in hidden
    assert "materiality" not in hidden


def test_refusals_of_the_parser_name_the_entry_and_its_fields() -> None:
    found = mapped(
        "no entry", entry(path="x"), entry(decision_id="absent"), entry(timestamp="yesterday"),
        entry(input=INPUT | {"team": 5}), entry(),
    )  # fmt: skip
    parser = EventParser(hash_key=b"k", retention_us=10**14, attribute_keys=None)
    parsed = parser.parse(found.events, NOW_US)
    assert parsed.batch.n == 1
    assert [(r.index, r.code, r.field) for r in found.with_refused(parsed.rejected)] == [
        (0, "not_an_object", None),
        (2, "missing_field", "decision_id"),
        (3, "invalid_time", "timestamp"),
        (4, "wrong_type", "input.team"),
    ]


HISTORY = {"seq": 7, "catalog": "sha256:0", "agent": {}}


@pytest.mark.parametrize(
    ("fields", "own"),
    [
        ({"input": INPUT | {"history": HISTORY}}, True),
        ({"masked": ["/input/history"]}, True),
        ({"erased": ["/input/history/agent"]}, True),
        ({"input": INPUT | {"history": {"mine": 1}}}, False),
        ({}, False),
    ],
)
def test_decisions_that_this_engine_asked_an_opa_for_are_its_own(fields: Mapping[str, Any], own: bool) -> None:
    found = mapped(entry(**fields), asks_opa=True)
    assert (found.own, len(found.events)) == ((1, 0) if own else (0, 1))
    assert len(mapped(entry(**fields)).events) == 1  # it asks none: somebody enriched the input and asked another OPA
