"""What stands in the journal about a decision, computed again from what a reader has."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson

from enrich import Engine
from enrich.context import canonical_json
from enrich.events import parse_rfc3339_us
from enrich.journal import verify

from .gated import decide, hold, open_gated, request

FIELDS = {
    "decision_id", "idempotency_key", "request_hash", "caller", "entities", "as_of", "context_seq", "path", "input",
    "input_hash", "context_hash", "selection", "catalog", "policy_hash", "settings_hash", "evaluator", "result",
    "repeatable", "strict_builtin_errors", "decision", "cause", "shadow", "event", "lease", "redaction", "suspensions",
    "salt",
}  # fmt: skip


def sha256(value: Any) -> str:
    return "sha256:" + hashlib.sha256(canonical_json(value)).hexdigest()


def bodies(engine: Engine) -> list[dict[str, Any]]:
    return [dict(r.body or {}) for r in engine.journal.read() if r.type == "decision"]


def test_every_field_and_hash(tmp_path: Path) -> None:
    document = request(
        org_id="o",
        instance_id="i-1",
        materiality="HIGH",
        amount=1.0,
        text="Größe \u2028 π",
        nested=[{"b": 1, "a": None}],
    )
    document["approval"] = {"candidate_ids": ["eve", "bob"]}
    with open_gated(tmp_path) as engine:
        held = hold(engine)
        before = engine.journal.head.seq
        decision = decide(engine, document, idempotency_key="k-1", caller="enforcement")
        [record] = [r for r in engine.journal.read() if r.type == "decision"]
        [body] = bodies(engine)
        assert set(body) == FIELDS
        assert (record.seq, record.count) == (decision.seq, 1)
        assert (body["decision_id"], body["decision"], body["cause"]) == (decision.decision_id, "ALLOW", None)
        assert body["result"] == decision.outcome.value == {"decision": "ALLOW"}
        assert body["context_seq"] == before == body["input"]["history"]["seq"]
        assert body["as_of"] == body["input"]["history"]["as_of"]
        assert parse_rfc3339_us(body["as_of"]) <= record.at_us
        assert canonical_json(body["input"]) == held.seen[0]
        history = dict(body["input"])
        assert body["context_hash"] == sha256(history.pop("history"))
        assert history == document
        assert body["input_hash"] == sha256(body["input"])
        assert body["request_hash"] == sha256({"input": document, "path": "shop/decision"})
        assert body["path"] == "shop/decision"
        assert body["catalog"] == engine.catalog.version
        assert engine.live_policies is not None
        assert body["policy_hash"] == engine.live_policies.version
        assert body["settings_hash"] == sha256(engine.settings.shaping())
        assert body["strict_builtin_errors"] is False
        assert body["evaluator"] == engine.live_policies.evaluator
        assert body["selection"] == ["agent.last_1h.allowed", "team.last_1h.team_allowed"]
        assert body["repeatable"] is True
        assert (body["shadow"], body["lease"], body["suspensions"]) == (None, 3600, [])
        assert body["idempotency_key"] == "k-1"
        assert "enforcement" not in orjson.dumps(body).decode()
        assert body["entities"] == {
            "agent": "a", "team": "t", "workflow": "w", "org": "o", "approvers": ["eve", "bob"],
        }  # fmt: skip
        assert body["event"] == {
            "source": "enrich", "event_id": decision.decision_id, "decision_id": decision.decision_id,
            "occurred_at": body["as_of"], "kind": "authority", "outcome": "allowed", "agent_id": "a", "team_id": "t",
            "workflow_id": "w", "org_id": "o", "instance_id": "i-1", "materiality": "HIGH",
        }  # fmt: skip
        engine.caught_up(10)
        [shown] = engine.events(agent="a").events
        assert {k: v for k, v in shown.items() if k not in ("seq", "recorded_at")} == body["event"]
        assert shown["seq"] == record.seq
    report = verify(tmp_path / "data")
    assert (report.ok, report.problems) == (True, [])


def test_what_is_no_instance_or_materiality_is_left_out_of_the_event(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        decide(engine, request(team=None, instance_id=" padded", materiality="SOME"))
        decide(engine, request(instance_id=7, materiality=["HIGH"]))
        first, second = (b["event"] for b in bodies(engine))
        assert not {"instance_id", "materiality"} & (first.keys() | second.keys())
        assert "team_id" not in first


def test_the_paths_of_instance_and_materiality_are_settings(tmp_path: Path) -> None:
    with open_gated(tmp_path, input_instance="run.id", input_materiality="risk") as engine:
        decide(engine, {**request(), "run": {"id": "r-7"}, "risk": "LOW"})
        [body] = bodies(engine)
        assert (body["event"]["instance_id"], body["event"]["materiality"]) == ("r-7", "LOW")
