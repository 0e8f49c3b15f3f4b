"""What is in flight, and what is reported of it: through the gate, across restarts, and with many at once."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from enrich import Engine
from enrich.engine.results import Decision
from enrich.errors import EnrichError
from enrich.events import format_us, parse_rfc3339_us
from enrich.in_flight import InFlightQuestion, in_flight_at
from enrich.journal import verify
from enrich.settings import Settings

from .gated import decide, hold, open_gated, request, write_policy
from .support import HOUR_US, event, now_us

SPEND = """\
-- entity: agent
-- windows: 24h
-- owner: tests
-- description: What was moved.
SELECT coalesce(sum(amount_minor) FILTER (WHERE currency = 'EUR'), 0) AS spent, -- cents
    count(*) AS ended -- runs
FROM events
WHERE kind = 'execution'
"""
#: settled, in flight and asked for, together
LIMIT = """\
package shop

default decision := {"decision": "DENY"}

decision := {"decision": "ALLOW"} if {
    asked := input.context.attributes
    asked.currency == "EUR"
    flying := object.get(input.history.agent.in_flight.declared_amount_minor_by_currency, "EUR", 0)
    input.history.agent.last_24h.spent + flying + asked.amount_minor <= 1000
}
"""


def asking(amount: Any = 100, currency: Any = "EUR", agent: str = "a", **more: Any) -> dict[str, Any]:
    attributes = {"amount_minor": amount, "currency": currency, **more}
    return request(agent) | {"context": {"attributes": {k: v for k, v in attributes.items() if v is not None}}}


def open_spending(where: Path, **settings: Any) -> Engine:
    (where / "queries").mkdir(parents=True, exist_ok=True)
    (where / "queries" / "spend.sql").write_text(SPEND)
    write_policy(where, LIMIT)
    return open_gated(where, **settings)


def allowing(where: Path, **settings: Any) -> Engine:
    """An engine that allows everything, at once."""
    engine = open_gated(where, **settings)
    hold(engine, {"decision": "ALLOW"})
    return engine


def flying(engine: Engine, entity: str = "agent", id_: str = "a") -> dict[str, Any]:
    """What is in flight, which is what DuckDB says of the same moment."""
    history = engine.context({entity: id_}, select=[f"{entity}.in_flight"])
    assert set(history[entity]) == {"id", "known", "in_flight"}
    found: dict[str, Any] = history[entity]["in_flight"]
    engine.durable(history["seq"])
    engine.caught_up(20)
    asked = InFlightQuestion(
        entity, id_, parse_rfc3339_us(history["as_of"]), history["seq"], engine.settings.lease_us
    )
    with engine.history.cursor() as cursor:
        assert in_flight_at(cursor, asked) == found
    return found


def refused(call: Callable[[], object]) -> tuple[str, int]:
    with pytest.raises(EnrichError) as caught:
        call()
    return caught.value.error_code, caught.value.status


def spent(engine: Engine) -> tuple[int, int]:
    last = engine.context({"agent": "a"}, select=["agent.last_24h.*"])["agent"]["last_24h"]
    return last["spent"], last["ended"]


def test_a_decision_is_in_flight_for_the_next_one_until_its_outcome_is_reported(tmp_path: Path) -> None:
    with open_spending(tmp_path) as engine:
        first = decide(engine, asking(600, cost_microusd=7, action="refund", environment="prod"))
        assert flying(engine) == {
            "count": 1,
            "declared_amount_minor": 600,
            "declared_amount_minor_by_currency": {"EUR": 600},
            "declared_cost_microusd": 7,
        }
        assert [flying(engine, e, i)["count"] for e, i in (("team", "t"), ("agent", "b"))] == [1, 0]
        assert decide(engine, asking(401)).decision == "DENY"
        second = decide(engine, asking(400))
        assert (second.decision, decide(engine, asking(1)).decision) == ("ALLOW", "DENY")
        assert flying(engine)["declared_amount_minor"] == 1000
        settled = engine.outcomes.report(first.decision_id, "succeeded", amount_minor=550, cost_microusd=9)
        assert (flying(engine)["declared_amount_minor"], spent(engine)) == (400, (550, 1))
        engine.outcomes.report(second.decision_id, "cancelled")
        assert (flying(engine)["count"], spent(engine)) == (0, (550, 2))
        assert decide(engine, asking(450)).decision == "ALLOW"
        record = engine.decision(first.decision_id)
        assert record["lease"] == 3600
        assert {record["event"][c] for c in ("action", "environment", "currency")} == {"refund", "prod", "EUR"}
        assert record["outcome"] == {
            "seq": settled.seq, "occurred_at": settled.occurred_at, "outcome": "succeeded", "amount_minor": 550,
            "cost_microusd": 9, "caller": None,
        }  # fmt: skip
        [run] = engine.events(kind="execution", outcome="succeeded").events
        assert run == {
            "seq": settled.seq, "source": "enrich", "event_id": f"outcome:{first.decision_id}", "kind": "execution",
            "decision_id": first.decision_id, "outcome": "succeeded", "occurred_at": settled.occurred_at,
            "recorded_at": run["recorded_at"], "agent_id": "a", "team_id": "t", "workflow_id": "w", "action": "refund",
            "environment": "prod", "currency": "EUR", "amount_minor": 550, "cost_microusd": 9,
        }  # fmt: skip
    assert verify(tmp_path / "data").ok


def test_a_spend_limit_holds_with_many_at_once_while_outcomes_come_in(tmp_path: Path) -> None:
    with open_spending(tmp_path, fsync=False) as engine:
        ready = threading.Barrier(64)

        def ask(n: int) -> Decision:
            ready.wait()
            made = decide(engine, asking(30))
            if made.decision == "ALLOW" and n % 2:  # what is settled moves from one sum to the other
                engine.outcomes.report(made.decision_id, "succeeded", amount_minor=30)
            return made

        with ThreadPoolExecutor(64) as pool:
            made = list(pool.map(ask, range(64)))
        assert [m.decision for m in made].count("ALLOW") == 33
        assert flying(engine)["declared_amount_minor"] + spent(engine)[0] == 990
    with open_spending(tmp_path) as engine:
        assert flying(engine)["declared_amount_minor"] + spent(engine)[0] == 990
        assert decide(engine, asking(11)).decision == "DENY"
        assert decide(engine, asking(10)).decision == "ALLOW"


def test_a_report_is_answered_the_same_again_and_another_one_refused(tmp_path: Path) -> None:
    with allowing(tmp_path) as engine:
        made = decide(engine, asking())
        report = engine.outcomes.report
        first = report(made.decision_id, "failed", amount_minor=1, error_type="timeout", caller="one")
        assert report(made.decision_id, "failed", error_type="timeout", amount_minor=1, currency=None) == first
        others: list[dict[str, Any]] = [{}, {"amount_minor": 2, "error_type": "timeout"}]
        for other in others:
            assert refused(lambda: report(made.decision_id, "failed", **other)) == ("already_settled", 409)  # noqa: B023
        at = format_us(now_us() - 1_000_000)
        later = decide(engine, asking())
        timed = report(later.decision_id, "succeeded", occurred_at=at)
        assert timed.occurred_at == at
        assert report(later.decision_id, "succeeded", occurred_at=at.replace("Z", "+00:00")) == timed
        head = engine.journal.head
    for forget in ((), ("history.duckdb", "keys", "index")):
        for name in forget:
            path = tmp_path / "data" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        with allowing(tmp_path) as engine:
            report = engine.outcomes.report
            assert report(made.decision_id, "failed", amount_minor=1, error_type="timeout") == first
            assert report(later.decision_id, "succeeded", occurred_at=at) == timed
            assert refused(lambda: report(made.decision_id, "failed")) == ("already_settled", 409)  # noqa: B023
            assert engine.journal.head.seq >= head.seq
            assert (len(engine.keys), flying(engine)["count"]) == (4, 0)


def test_a_report_long_after_its_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with allowing(tmp_path) as engine:
        made, denied = decide(engine, asking()), decide(engine, asking())
        settled, ended = decide(engine, asking()), decide(engine, asking())
        first = engine.outcomes.report(settled.decision_id, "succeeded")
        engine.record([event(1, decision_id=ended.decision_id)])
        hold(engine, {"decision": "DENY"})
        denied = decide(engine, asking())
        clock = engine.journal._clock
        monkeypatch.setattr(engine.journal, "_clock", lambda: clock() + 20 * 24 * HOUR_US)
        while engine.merge_step():
            pass
        assert engine._state.in_flight.stats()["decisions"] == 0
        report = engine.outcomes.report
        assert flying(engine)["count"] == 0  # the lease is over; what happened is taken all the same
        late = report(made.decision_id, "succeeded", amount_minor=5)
        assert report(made.decision_id, "succeeded", amount_minor=5) == late
        assert report(settled.decision_id, "succeeded") == first
        assert refused(lambda: report(settled.decision_id, "failed")) == ("already_settled", 409)
        assert refused(lambda: report(ended.decision_id, "succeeded")) == ("already_ended", 409)
        assert refused(lambda: report(denied.decision_id, "succeeded")) == ("not_allowed", 409)
        run = engine.events(kind="execution", limit=1).events[0]
        assert (run["agent_id"], run["currency"], run["amount_minor"]) == ("a", "EUR", 5)


def test_what_can_not_be_reported(tmp_path: Path) -> None:
    with allowing(tmp_path) as engine:
        made = decide(engine, asking())
        head, id_, report = engine.journal.head, made.decision_id, engine.outcomes.report
        early, ahead = format_us(now_us() - 120_000_000), format_us(now_us() + 120_000_000)
        bad: list[tuple[str, Any, dict[str, Any]]] = [
            ("invalid_outcome", "allowed", {}),
            ("invalid_string", "", {}),
            ("wrong_type", 1, {}),
            ("missing_field", None, {}),
            ("unknown_field", "succeeded", {"amount": 1}),
            ("unknown_field", "succeeded", {"agent_id": "b"}),
            ("wrong_type", "succeeded", {"amount_minor": 1.0}),
            ("wrong_type", "succeeded", {"amount_minor": True}),
            ("out_of_range", "succeeded", {"amount_minor": -1}),
            ("out_of_range", "succeeded", {"cost_microusd": 2**63}),
            ("invalid_string", "succeeded", {"currency": " EUR"}),
            ("cancelled_with_amount", "cancelled", {"amount_minor": 1}),
            ("cancelled_with_amount", "cancelled", {"cost_microusd": 1}),
            ("invalid_time", "succeeded", {"occurred_at": "2026-01-01T00:00:00"}),
            ("invalid_time", "succeeded", {"occurred_at": early}),
            ("in_future", "succeeded", {"occurred_at": ahead}),
            ("too_old", "succeeded", {"occurred_at": "2001-01-01T00:00:00Z"}),
        ]
        for code, outcome, actual in bad:
            assert refused(lambda: report(id_, outcome, **actual)) == (code, 400), actual  # noqa: B023
        assert refused(lambda: report("nobody", "succeeded")) == ("unknown_decision", 404)
        assert engine.journal.head == head
        assert flying(engine)["count"] == 1
        assert report(id_, "cancelled", amount_minor=0).outcome == "cancelled"


def test_whose_action_a_report_is_about(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        hold(engine, {"decision": "REQUIRE_HUMAN"})
        asked, silent = decide(engine, asking(300)), decide(engine, asking(1))
        hold(engine, {"decision": "DENY"})
        denied = decide(engine, asking(50))
        assert flying(engine)["count"] == 0
        approval: dict[str, Any] = {
            "kind": "authority", "outcome": "approved", "actor_id": "eve", "decision_id": asked.decision_id,
            "duration_ms": None, "agent_id": None, "ago_us": 0,
        }  # fmt: skip
        engine.record([event(1, **approval)])
        assert flying(engine)["declared_amount_minor"] == 300  # of the request, though the approval names none
        engine.outcomes.report(asked.decision_id, "succeeded", amount_minor=300)
        engine.outcomes.report(silent.decision_id, "succeeded")  # nobody said that a human approved it: it did happen
        assert refused(lambda: engine.outcomes.report(denied.decision_id, "succeeded")) == ("not_allowed", 409)
        engine.record([event(2, **approval | {"outcome": "overridden", "decision_id": denied.decision_id})])
        assert flying(engine)["declared_amount_minor"] == 50
        engine.outcomes.report(denied.decision_id, "succeeded")
        assert flying(engine)["count"] == 0


def test_events_end_an_action_and_only_of_its_own_agent(tmp_path: Path) -> None:
    with allowing(tmp_path) as engine:
        made = [decide(engine, asking() | {"instance": {"instance_id": f"i{n}"}}) for n in range(3)]
        engine.record([event(1, agent_id="b", decision_id=made[0].decision_id, ago_us=0)])
        engine.record([event(2, agent_id="b", instance_id="i1", ago_us=0)])
        assert flying(engine)["count"] == 3
        engine.record([event(3, decision_id=made[0].decision_id), event(4, instance_id="i1", ago_us=0)])
        assert flying(engine)["count"] == 1
        head = engine.journal.head
        assert refused(lambda: engine.outcomes.report(made[0].decision_id, "succeeded")) == ("already_ended", 409)
        assert engine.journal.head == head
        assert engine.outcomes.report(made[1].decision_id, "succeeded").outcome == "succeeded"


def test_a_lease_ends_what_nobody_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with allowing(tmp_path, lease_seconds=60) as engine:
        made = decide(engine, asking())
        assert engine.decision(made.decision_id)["lease"] == 60
        as_of = parse_rfc3339_us(engine.decision(made.decision_id)["as_of"])
        clock = engine.journal._clock

        def counts(*moments: int) -> list[int | None]:
            found = [engine.context({"agent": "a"}, as_of=at)["agent"].get("in_flight") for at in moments]
            return [None if one is None else one["count"] for one in found]

        assert counts(as_of - 1, as_of, as_of + 59_999_999, as_of + 60_000_000) == [0, 1, 1, 0]
        assert counts(as_of - 30 * 24 * HOUR_US) == [None]  # nobody can say any more
        monkeypatch.setattr(engine.journal, "_clock", lambda: clock() + 60_000_000)
        assert flying(engine)["count"] == 0
        assert counts(as_of + 30_000_000) == [1]
        engine.record([event(1, decision_id=made.decision_id, at_us=as_of)])
        assert counts(as_of + 30_000_000) == [0]


@pytest.mark.parametrize(
    ("attributes", "field"),
    [
        ({"amount_minor": "100"}, "amount_minor"),
        ({"amount_minor": 100.0}, "amount_minor"),
        ({"amount_minor": -1}, "amount_minor"),
        ({"amount_minor": True}, "amount_minor"),
        ({"amount_minor": 2**63}, "amount_minor"),
        ({"amount_minor": {}}, "amount_minor"),
        ({"cost_microusd": 0.5}, "cost_microusd"),
        ({"amount_minor": 1, "currency": "EUR "}, "currency"),
        ({"amount_minor": 1, "currency": 978}, "currency"),
    ],
)
def test_what_can_not_be_counted_is_not_decided(tmp_path: Path, attributes: dict[str, Any], field: str) -> None:
    with allowing(tmp_path) as engine:
        head = engine.journal.head
        with pytest.raises(EnrichError) as caught:
            decide(engine, request() | {"context": {"attributes": attributes}})
        assert (caught.value.error_code, caught.value.status) == ("invalid_declaration", 400)
        assert caught.value.detail["field"] == f"context.attributes.{field}"
        assert engine.journal.head == head


def test_what_is_not_declared_is_not_counted(tmp_path: Path) -> None:
    with allowing(tmp_path, input_action="do.what", input_declared_amount="do.amount") as engine:
        for document in ({"context": "none"}, {"do": "refund"}, {"do": {"what": ["refund"], "amount": None}}):
            decide(engine, request() | document)
        assert flying(engine) == {
            "count": 3, "declared_amount_minor": 0, "declared_amount_minor_by_currency": {},
            "declared_cost_microusd": 0,
        }  # fmt: skip
        decide(engine, request() | {"do": {"amount": 5}})
        decide(engine, request() | {"do": {"amount": 6}} | {"context": {"attributes": {"currency": "EUR"}}})
        assert flying(engine) == {
            "count": 5, "declared_amount_minor_by_currency": {"": 5, "EUR": 6}, "declared_cost_microusd": 0,
        }  # fmt: skip


def test_selection(tmp_path: Path) -> None:
    with allowing(tmp_path) as engine:
        ids = {"agent": "a", "team": "t", "workflow": "w"}
        for select, agent, team in [
            (None, True, True),
            (["agent"], True, False),
            (["agent.*"], True, False),
            (["agent.in_flight", "team.last_1h.*"], True, False),
            (["agent.last_1h.allowed", "team.in_flight"], False, True),
        ]:
            found = engine.context(ids, select=select)
            assert "workflow" not in found  # no signals are kept for it
            assert ("in_flight" in found["agent"], "in_flight" in found.get("team", {})) == (agent, team)
        assert engine.context({"agent": None})["agent"]["in_flight"]["count"] == 0
        assert engine.entity("team", ["t"], select=["team.in_flight"])["in_flight"]["count"] == 0
        for unknown in ("agent.in_flights", "workflow.in_flight", "approver.in_flight"):
            assert refused(lambda: engine.context(ids, select=[unknown])) == ("unknown_signal", 400)  # noqa: B023
        schema = engine.catalog.json_schema()["properties"]
        assert schema["agent"]["properties"]["in_flight"]["required"] == ["count"]


def test_what_history_lets_go_of_is_not_in_flight(tmp_path: Path) -> None:
    with allowing(tmp_path, retention_days=1, lease_seconds=86_400) as engine:
        old: dict[str, Any] = {
            "kind": "authority", "outcome": "required_human", "decision_id": "d", "declared_amount_minor": 9,
        }  # fmt: skip
        engine.record([event(1, ago_us=23 * HOUR_US, duration_ms=None, **old)])
        engine.record([event(2, ago_us=0, duration_ms=None, **old | {"outcome": "approved"} | NO_AMOUNT)])
        assert flying(engine)["declared_amount_minor"] == 9
        clock = engine.journal._clock
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine.journal, "_clock", lambda: clock() + 2 * HOUR_US)
            engine.prune()
            assert flying(engine) == {
                "count": 1, "declared_amount_minor": 0, "declared_amount_minor_by_currency": {},
                "declared_cost_microusd": 0,
            }  # fmt: skip
    with pytest.raises(ValueError, match="longer than retention_days"):
        Settings(retention_days=1, lease_seconds=86_401)


NO_AMOUNT = {"declared_amount_minor": None}


def test_a_flipped_byte_in_an_outcome_is_found(tmp_path: Path) -> None:
    with allowing(tmp_path) as engine:
        made = decide(engine, asking())
        settled = engine.outcomes.report(made.decision_id, "succeeded", amount_minor=123)
    path = next(p for p in (tmp_path / "data/journal").glob("*.ndjson") if made.decision_id in p.read_text())
    text = path.read_bytes()
    for before, after in ((b'"amount_minor":123', b'"amount_minor":124'), (b'"type":"outcome"', b'"type":"outcomf"')):
        path.write_bytes(text.replace(before, after))
        assert [p.seq for p in verify(tmp_path / "data").problems] == [settled.seq]
    path.write_bytes(text.replace(b'"amount_minor":123', b'"amount_minor":124'))
    (tmp_path / "data" / "history.duckdb").rename(tmp_path / "aside")  # what it has was verified when it took it
    assert refused(lambda: allowing(tmp_path)) == ("journal_corrupt", 500)
    (tmp_path / "aside").rename(tmp_path / "data" / "history.duckdb")
    path.write_bytes(text)
    with allowing(tmp_path) as engine:
        assert flying(engine)["count"] == 0
