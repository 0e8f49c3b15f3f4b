"""Values that policies see and records do not keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enrich import Engine
from enrich.decisions.redaction import Redaction
from enrich.engine.results import Decision
from enrich.errors import ConflictError
from enrich.settings import Settings

from .gated import open_gated, request

SECRET = "eve@example.org"
POLICY = """\
package shop

import rego.v1

decision := {"decision": "ALLOW"} if endswith(input.customer.email, "@example.org")

allow if input.history.agent.last_1h.allowed < 5
"""
READING, BLIND = ("shop", "decision"), ("shop", "allow")


def opened(where: Path) -> Engine:
    return open_gated(where, POLICY, journal_redact=("customer.email", "customer.cards.iban"))


def asked(email: str = SECRET) -> dict[str, Any]:
    return request() | {"customer": {"email": email, "tier": 3, "cards": [{"iban": "DE1"}, {"iban": "DE2", "n": 1}]}}


def decided(engine: Engine, document: dict[str, Any], path: tuple[str, ...] = READING, **options: Any) -> Decision:
    decision = engine.decide(path, document, **options)
    assert isinstance(decision, Decision)
    return decision


def test_the_policy_sees_the_value_and_nothing_keeps_it(tmp_path: Path) -> None:
    with opened(tmp_path) as engine:
        decision = decided(engine, asked())
        assert (decision.decision, decision.cause) == ("ALLOW", None)
        assert decided(engine, asked("eve@elsewhere.org")).decision == "DENY"
        engine.caught_up(10)
        record = engine.decision(decision.decision_id)
        redaction = record["redaction"]
        assert redaction["paths"] == ["customer.cards.iban", "customer.email"]
        hash_of = Redaction([], engine.journal.hash_key).hash_of
        salt = bytes.fromhex(redaction["salt"])
        assert record["input"]["customer"] == {
            "email": {"redacted": hash_of(SECRET, salt)},
            "tier": 3,
            "cards": [
                {"iban": {"redacted": hash_of("DE1", salt)}},
                {"iban": {"redacted": hash_of("DE2", salt)}, "n": 1},
            ],
        }
        plain = decided(engine, request(), BLIND)
        assert engine.caught_up(10)
        assert engine.decision(plain.decision_id)["redaction"] is None
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert SECRET.encode() not in data, path
            assert b"elsewhere.org" not in data, path


def test_the_same_request_is_known_again_without_the_value(tmp_path: Path) -> None:
    with opened(tmp_path) as engine:
        first = decided(engine, asked(), idempotency_key="k")
        assert decided(engine, asked(), idempotency_key="k").decision_id == first.decision_id
    with opened(tmp_path) as engine:
        assert decided(engine, asked(), idempotency_key="k").decision_id == first.decision_id
        with pytest.raises(ConflictError):
            decided(engine, asked("adam@example.org"), idempotency_key="k")


def test_replay_and_backtest_say_what_they_can_not_know(tmp_path: Path) -> None:
    with opened(tmp_path) as engine:
        reading, blind = decided(engine, asked()), decided(engine, asked(), BLIND)
        engine.caught_up(10)
        replayed = engine.replays.one(reading.decision_id)
        assert (replayed.verdict, [r.code for r in replayed.reasons]) == ("INCONCLUSIVE", ["input_redacted"])
        assert engine.replays.one(blind.decision_id).verdict == "VALID"
        tried = engine.backtests.run(processes=0)
        assert tried.tested == 1
        assert [(path, reason) for path, reason, _ in tried.not_testable.iter_rows()] == [
            ("shop/decision", "the policy reads customer.email, which is redacted")
        ]


@pytest.mark.parametrize("path", ["identity", "identity.actor_id.x", "history.agent", "context.attributes.currency"])
def test_what_an_event_is_made_of_is_not_redacted(path: str) -> None:
    with pytest.raises(ValueError, match="journal_redact"):
        Settings(journal_redact=(path,))
