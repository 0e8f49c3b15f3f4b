from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from enrich import Engine
from enrich.context import canonical_json
from enrich.errors import BadRequestError, EnrichError, HistoryForgedError, InvalidEntityIdError, NotFoundError
from enrich.events import format_us
from tests.engine.support import DAY_US, HOUR_US, QUERIES, event, events, now_us, open_engine

APPROVERS = """
-- entity: approver
-- windows: 1h, 30d
-- owner: tests
-- description: What a human decided.
SELECT count(*) AS decided -- decisions
FROM events
WHERE kind = 'authority'
"""
PAIR = """
-- entity: agent_workflow
-- windows: 1h, 30d
-- owner: tests
-- description: An agent in one workflow.
SELECT count(*) AS pair_runs -- runs of that agent in that workflow
FROM events
"""
DERIVED = """
-- entity: agent
-- owner: tests
-- description: Across windows and entities.
SELECT
    last_1h.runs - last_30d.runs AS fewer, -- always <= 0
    last_30d.failure_rate > team.last_30d.team_runs AS odd, -- agent against team
    agent_workflow.last_30d.pair_runs AS here -- in this workflow
FROM signals
"""
OF_PAIR = """\
-- entity: agent_workflow
-- owner: tests
-- description: Against the agent as a whole.
SELECT
    last_30d.pair_runs - agent.last_30d.runs AS elsewhere -- the negative of what it did in other workflows
FROM signals
"""
ALL = {
    **QUERIES, "approvers.sql": APPROVERS, "pair.sql": PAIR, "derived.sql": DERIVED, "of_pair.sql": OF_PAIR
}  # fmt: skip
AT = now_us() - 60_000_000


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with open_engine(tmp_path_factory.mktemp("context"), ALL) as engine:
        for n in range(10):
            engine.record([event(n, at_us=AT - n * DAY_US, workflow_id="w" if n % 2 else "v")])
        engine.record(
            [
                event(100 + i, at_us=AT, kind="authority", outcome="approved", actor_id="jo", agent_id="b", team_id="u")
                for i in range(3)
            ]
        )
        yield engine


def test_any_moment_of_the_past(engine: Engine) -> None:
    for as_of in (AT - 3 * DAY_US, format_us(AT - 3 * DAY_US)):
        history = engine.context({"agent": "a"}, as_of=as_of)
        assert history["as_of"] == format_us(AT - 3 * DAY_US)
        assert history["agent"]["last_30d"]["runs"] == 7
        assert history["agent"]["last_1h"]["runs"] == 1
        assert history["seq"] == engine.seq
    aware = datetime.fromtimestamp((AT - 3 * DAY_US) // 1_000_000, UTC)
    assert engine.context({"agent": "a"}, as_of=aware)["agent"]["last_30d"]["runs"] == 6 + (AT % 1_000_000 == 0)
    before = engine.context({"agent": "a"}, as_of=AT - 50 * DAY_US)
    assert (before["agent"]["known"], before["agent"]["last_30d"]["runs"]) == (False, 0)


_BEYOND = ["1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", -1, 253_370_764_800_000_000]


@pytest.mark.parametrize("as_of", ["1970-01-01T00:00:00Z", "9998-12-31T23:59:59.999999Z"])
def test_the_first_and_the_last_moment_are_answered(engine: Engine, as_of: str) -> None:
    assert engine.context({"agent": "a"}, as_of=as_of)["agent"]["last_30d"]["runs"] == 0
    assert as_of[:10] in engine.sql("runs", ["a"], "30d", as_of=as_of)


@pytest.mark.parametrize("as_of", ["2026-01-01T00:00:00", "yesterday", "", True, datetime(2026, 1, 1), 2**70, *_BEYOND])
def test_a_moment_that_is_none_is_refused(engine: Engine, as_of: Any) -> None:
    with pytest.raises(BadRequestError) as caught:
        engine.context({"agent": "a"}, as_of=as_of)
    assert caught.value.error_code == "invalid_time"


def test_windows_are_open_at_their_start_and_closed_at_their_end(engine: Engine) -> None:
    for as_of, expected in ((AT, 1), (AT - 1, 0), (AT + HOUR_US - 1, 1), (AT + HOUR_US, 0)):
        assert engine.context({"agent": "a"}, as_of=as_of)["agent"]["last_1h"]["runs"] == expected


def test_a_signal_without_a_value_is_absent_and_counts_are_there(engine: Engine) -> None:
    agent = engine.context({"agent": "nobody"})["agent"]
    assert agent["id"] == "nobody"
    assert agent["known"] is False
    assert agent["last_1h"] == {"complete": True, "runs": 0, "failures": 0}
    missing = engine.context({"agent": None})["agent"]
    assert missing["id"] is None
    assert missing["known"] is False
    assert missing["last_1h"]["runs"] == 0


def test_only_what_is_selected_is_there(engine: Engine) -> None:
    history = engine.context({"agent": "a", "team": "t"}, select=["agent.last_30d.runs"])
    assert history["agent"]["last_30d"] == {"complete": False, "runs": 10}
    assert "last_1h" not in history["agent"]
    assert "team" not in history
    both = engine.context({"agent": "a", "team": "t"}, select=["agent.last_1h.*", "team.*"])
    assert set(both["agent"]["last_1h"]) == {"complete", "runs", "failures", "failure_rate", "ms"}
    assert both["team"]["last_30d"]["team_runs"] == 10
    with pytest.raises(BadRequestError) as caught:
        engine.context({"agent": "a"}, select=["agent.last_30d.rums"])
    assert caught.value.error_code == "unknown_signal"
    assert "runs" in caught.value.detail["hint"]


def test_derived_sets_read_windows_and_entities_of_one_request(engine: Engine) -> None:
    history = engine.context({"agent": "a", "team": "t", "workflow": "w"})
    agent = history["agent"]
    assert agent["fewer"] == agent["last_1h"]["runs"] - agent["last_30d"]["runs"] == -9
    assert agent["odd"] is False
    assert agent["here"] == history["agent_workflow"]["last_30d"]["pair_runs"] == 5
    assert engine.context({"agent": "a", "workflow": "v"})["agent"]["here"] == 5
    assert engine.context({"agent": "a"})["agent"].get("here", 0) == 0  # another entity is that of nobody
    assert engine.check().differences == ()


def test_approvers_are_several(engine: Engine) -> None:
    history = engine.context({"approvers": ["jo", "sam", "jo"]})
    assert {k: v["last_1h"]["decided"] for k, v in history["approvers"].items()} == {"jo": 3, "sam": 0}
    assert engine.entity("approver", ["jo"])["last_1h"]["decided"] == 3


def test_one_entity_alone(engine: Engine) -> None:
    body = engine.entity("agent", ["a"])
    assert body["last_30d"]["runs"] == 10
    assert body["seq"] == engine.seq
    assert engine.entity("agent_workflow", ["a", "w"])["last_30d"]["pair_runs"] == 5
    assert engine.entity("agent", ["a"], as_of=AT - 3 * DAY_US)["last_30d"]["runs"] == 7
    with pytest.raises(NotFoundError) as caught:
        engine.entity("org", ["o"])
    assert caught.value.error_code == "unknown_entity"
    with pytest.raises(NotFoundError):
        engine.context({"planet": "mars"})
    with pytest.raises(InvalidEntityIdError):
        engine.entity("agent_workflow", ["a"])


def test_one_entity_with_a_selection_is_the_same_as_without(engine: Engine) -> None:
    whole = engine.entity("agent_workflow", ["a", "w"], as_of=AT)
    assert whole["elsewhere"] == -5
    assert engine.entity("agent_workflow", ["a", "w"], as_of=AT, select=["agent_workflow.*"]) == whole
    assert engine.entity("approver", ["jo"], select=["approvers.last_1h.*"])["last_1h"]["decided"] == 3
    with pytest.raises(NotFoundError):
        engine.entity("org", ["o"], select=["agent.*"])
    with pytest.raises(InvalidEntityIdError):
        engine.entity("approver", ["jo", "sam"], select=["approver.*"])
    for select in (["team.*"], []):
        with pytest.raises(BadRequestError) as caught:
            engine.entity("agent", ["a"], select=select)
        assert caught.value.error_code == "invalid_select"


@pytest.mark.parametrize("id_", [7, "", " a", "a\n", "x" * 201, ["a"], {"id": "a"}, True])
def test_an_id_that_is_none_is_refused(engine: Engine, id_: Any) -> None:
    with pytest.raises(InvalidEntityIdError):
        engine.context({"agent": id_})
    with pytest.raises(InvalidEntityIdError):
        engine.enrich({"identity": {"actor_id": id_}})


INPUT: dict[str, Any] = {
    "identity": {"actor_id": "a"},
    "instance": {"owning_team_id": "t", "workflow_id": "w"},
    "approval": {"candidate_ids": ["jo"]},
    "amount": 400,
}


def test_an_input_is_enriched_and_the_callers_own_is_not_changed(engine: Engine) -> None:
    given = json.loads(json.dumps(INPUT))
    enriched = engine.enrich(given)
    assert given == INPUT
    assert {k: v for k, v in enriched.items() if k != "history"} == INPUT
    history = enriched["history"]
    assert history["agent"]["last_30d"]["runs"] == 10
    assert history["agent"]["here"] == 5
    assert history["approvers"]["jo"]["last_30d"]["decided"] == 3
    assert (history["suspended"], history["suspensions"], history["status"]) == (False, [], "fresh")
    direct = engine.context({"agent": "a", "team": "t", "workflow": "w", "org": None, "approvers": ["jo"]})
    assert direct["agent"] == history["agent"]
    assert canonical_json(enriched) == canonical_json(json.loads(canonical_json(enriched)))


@pytest.mark.parametrize("forged", [{}, None, {"agent": {"last_24h": {"failures": 0}}}, "none"])
def test_a_callers_own_history_is_refused(engine: Engine, forged: Any) -> None:
    with pytest.raises(HistoryForgedError):
        engine.enrich({**INPUT, "history": forged})


@pytest.mark.parametrize("document", [None, [], "text", 7])
def test_an_input_that_is_no_object_is_refused(engine: Engine, document: Any) -> None:
    with pytest.raises(BadRequestError):
        engine.enrich(document)


def test_ids_are_read_and_history_is_put_where_the_settings_say(tmp_path: Path) -> None:
    with open_engine(tmp_path, input_agent="who.agent", input_team="who.team", input_history="context.past") as engine:
        engine.record(events(0, 3))
        enriched = engine.enrich({"who": {"agent": "a", "team": "t"}})
        assert enriched["context"]["past"]["agent"]["last_1h"]["runs"] == 3
        assert enriched["context"]["past"]["team"]["last_1h"]["team_runs"] == 3
        assert engine.enrich({"context": {"more": 1}})["context"]["more"] == 1
        forged: dict[str, Any]
        for forged in ({"context": {"past": {}}}, {"history": {}}):
            with pytest.raises(HistoryForgedError):
                engine.enrich(forged)


def test_the_simplest_catalog_there_is(tmp_path: Path) -> None:
    simplest = (
        "-- entity: org\n-- windows: 1h\n-- owner: o\n-- description: d\nSELECT count(*) AS n -- all\nFROM events\n"
    )
    with open_engine(tmp_path, {"simplest.sql": simplest}) as engine:
        engine.record([event(1, org_id="o"), event(2)])
        assert engine.context({"org": "o"})["org"]["last_1h"]["n"] == 1
        assert engine.check().differences == ()


def test_without_a_catalog_there_is_still_a_history(tmp_path: Path) -> None:
    try:
        engine = open_engine(tmp_path, {})
    except EnrichError:
        return  # refused is fine too: what must not happen is something else
    with engine:
        engine.record([event(1)])
        assert engine.context({"agent": "a"})["seq"] == engine.seq


def test_events_behind_the_numbers(engine: Engine) -> None:
    page = engine.events(agent="a", limit=4)
    assert len(page.events) == 4
    rest = engine.events(agent="a", limit=100, cursor=page.next_cursor)
    assert len(rest.events) == 6
    assert engine.events(agent="a", since=AT - DAY_US, until=AT).events == page.events[:2]


def test_queries_are_pasteable(engine: Engine) -> None:
    text = engine.sql("runs", ["a"], "30d", as_of=AT)
    engine.caught_up(10)
    with engine.history.cursor() as cursor:
        row = cursor.execute(text).fetchall()[0]
    expected = engine.context({"agent": "a"}, as_of=AT)["agent"]["last_30d"]
    assert row[0] == expected["runs"]


def test_the_schema_has_the_history_where_the_input_has_it(tmp_path: Path) -> None:
    with open_engine(tmp_path, input_history="context.past") as engine:
        schema = engine.schema()
        enriched = engine.enrich({"context": {"domain": "x"}})
    assert schema["required"] == ["context"]
    past = schema["properties"]["context"]["properties"]["past"]
    assert past == {name: v for name, v in engine.catalog.json_schema().items() if name != "$schema"}
    assert set(past["required"]) <= set(enriched["context"]["past"])
