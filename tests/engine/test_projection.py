"""What a policy is given of history is enough: it decides as on the whole."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, assume, given
from hypothesis import settings as examples

from enrich import Engine
from enrich.context import canonical_json
from enrich.decisions import reads_of
from enrich.decisions._pool import Worker
from enrich.decisions.projection import EVERYTHING, projection
from enrich.engine import made_up_events
from enrich.settings import Settings
from tests.decisions.opa_server import ask, serve_opa
from tests.decisions.plans import embedded_plan, opa_plan

from .random_policies import LIBRARY, QUERIES, policy_texts
from .support import HOUR_US, event, now_us, open_engine

RULES = 6


class World(NamedTuple):
    """An engine with a history, requests about it, one moment, and a process that evaluates."""

    engine: Engine
    requests: list[dict[str, Any]]
    at_us: int
    worker: Worker
    #: how many comparisons there were, and how many of them of a value
    compared: Counter[str]

    def document(self, request: Mapping[str, Any], select: tuple[str, ...] | None) -> bytes:
        entities = {
            "agent": request["agent"],
            "team": request["team"],
            "workflow": "w",
            "approvers": request["approvers"],
        }
        history = self.engine.context(entities, as_of=self.at_us, select=select)
        return canonical_json({**request, "history": history})

    def ask(self, rule: str, document: bytes) -> dict[str, Any]:
        return self.worker.ask({"ask": rule, "text": False, "strict": False, "input": True}, document, 20)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    rng = random.Random(7)
    at_us = now_us()
    with open_engine(tmp_path_factory.mktemp("world"), QUERIES) as engine:
        engine.record(
            [
                event(
                    n,
                    at_us=at_us - rng.randrange(1, 26 * HOUR_US),
                    agent_id=f"a{n % 4}",
                    team_id=f"t{n % 3}",
                    outcome=rng.choice(["failed", "succeeded"]),
                    actor_id=rng.choice(["eve", "bob", None]),
                )
                for n in range(40)
            ]
        )
        requests = [
            {
                "agent": rng.choice(["a0", "a1", "a2", "a3", "nobody", None]),
                "team": rng.choice(["t0", "t1", "t2", None]),
                "approvers": rng.choice([[], ["eve"], ["eve", "bob", "ann"]]),
                "entity": rng.choice(["agent", "team", "approvers", "status"]),
                "window": rng.choice(["last_1h", "last_24h", "eve"]),
                "signal": rng.choice(["n", "bad", "rate", "last_1h", "complete"]),
                "side": rng.choice(["left", "right"]),
                **({"flag": True} if rng.random() < 0.5 else {}),
            }
            for _ in range(6)
        ]
        worker = Worker()
        try:
            yield World(engine, requests, at_us, worker, Counter())
        finally:
            worker.end()


def build(worker: Worker, modules: Mapping[str, str]) -> dict[str, Any]:
    entries = [f"p/r{i}" for i in range(RULES)]
    reply = worker.ask({"build": {"modules": modules, "data": {}, "entries": entries}}, None, 60)
    assume("plan" in reply)  # the interpreter does not take all that OPA takes
    plan: dict[str, Any] = reply["plan"]
    return plan


@given(text=policy_texts(RULES))
@examples(max_examples=16, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_a_policy_says_the_same_on_what_it_can_read_as_on_everything(world: World, text: str) -> None:
    plan = build(world.worker, {"p.rego": text, "lib.rego": LIBRARY})
    reads = reads_of(plan, embedded=True)
    for i in range(RULES):
        select = projection(reads.get(("p", f"r{i}")), world.engine.catalog, ("history",)).select
        if select is None:
            continue
        for request in world.requests:
            whole = world.ask(f"p/r{i}", world.document(request, None))
            part = world.ask(f"p/r{i}", world.document(request, select))
            assert part == whole, (select, request)
            world.compared.update(whole.keys())


def test_what_was_compared_was_worth_it(world: World) -> None:
    assert world.compared["value"] > 50
    assert world.compared["undefined"] > 50


FIXED = {
    "get": 'r if object.get(input, ["history", "agent", "last_1h", "n"], 0) > 0',
    "walk": "r if { walk(input.history.agent.last_1h, [_, value]); value == 1 }",
    "alias": "r := n if { x := input.history; y := x.agent; n := y.last_24h.n }",
    "passed": "r := n if n := pick(input)\npick(x) := x.history.team.last_24h.n",
    "window": "r contains n if { some w in [\"last_1h\", \"last_24h\"]; n := input.history.agent[w].n }",
    "variable": "r := input.history.agent[input.window].n",
    "negation": "r if not input.history.agent.worse",
    "with": 'r if q with input.history.agent.last_1h.n as 7\nq if input.history.agent.last_1h.n == 7',
    "people": "r contains id if some id, x in input.history.approvers\n",
    "keys": "r := [k | some k, _ in input.history.agent]",
}


#: where two values are compared, in the open or without a word: what was left out could make them equal
SUBTLE = {
    "compared": "r if input.history.agent.last_1h == input.history.agent.last_24h",
    "unequal": "r if input.history.agent.last_1h != input.history.agent.last_24h",
    "set": "r := count(xs) if xs := {x | x := input.history.agent[_]; is_object(x)}",
    "turns": "r := [1 | some _ in {input.history.agent.last_1h, input.history.agent.last_24h}]",
    "twice": "d := input.history.agent.last_1h if input.x != 1\nd := input.history.agent.last_24h if input.y != 1\n"
    "default r := 1\nr := 2 if is_object(d)",
    "loop": "d := x if { some w in [\"last_1h\", \"last_24h\"]; x := input.history.agent[w] }\nr := 2 if is_object(d)",
    "values": "o[\"k\"] := x if some x in [input.history.agent.last_1h, input.history.agent.last_24h]\n"
    "r if o.k.complete",
    "passed": "same(x, y) if x == y\nr if same(input.history.agent.last_1h, input.history.agent.last_24h)",
    "member": "r if input.history.agent.last_1h in [input.history.agent.last_24h]",
    "length": "r := n if n := count(input.history.agent.last_1h)",
    "text": "r := n if n := sprintf(\"%v\", [input.history.agent.last_1h])",
}


def test_what_may_be_compared_is_there_as_a_whole(world: World) -> None:
    requests = [{**request, "x": 0, "y": 0} for request in world.requests]
    different = 0
    for name, text in SUBTLE.items():
        world.worker.ask(
            {"build": {"modules": {"p.rego": f"package p\n\n{text}\n"}, "data": {}, "entries": ["p/r"]}}, None, 60
        )
        plan = embedded_plan({"p.rego": f"package p\n\n{text}\n"})
        select = projection(reads_of(plan, embedded=True)[("p", "r")], world.engine.catalog, ("history",)).select
        assert select is not None
        for request in requests:
            whole = world.ask("p/r", world.document(request, None))
            assert world.ask("p/r", world.document(request, select)) == whole, name
            # and what stands around the windows alone would not have been enough
            windows = ("agent.last_1h.complete", "agent.last_24h.complete")
            different += world.ask("p/r", world.document(request, windows)) != whole
    assert different >= len(SUBTLE)


def test_so_it_does_by_opa(world: World, tmp_path: Path) -> None:
    """The same of rules that OPA planned, asked of OPA."""
    modules = {f"{name}.rego": f"package p_{name}\n\nimport rego.v1\n\n{text}\n" for name, text in FIXED.items()}
    reads = reads_of(opa_plan(tmp_path, modules, [f"p_{name}/r" for name in FIXED]))
    served = tmp_path / "policies"
    served.mkdir()
    for name, text in modules.items():
        (served / name).write_text(text)
    with serve_opa(served) as port:
        for name in FIXED:
            select = projection(reads[(f"p_{name}", "r")], world.engine.catalog, ("history",)).select
            assert select is not None
            for request in world.requests:
                answers = []
                for chosen in (None, select):
                    body = b'{"input":' + world.document(request, chosen) + b"}"
                    answers.append(ask(port, "POST", f"/v1/data/p_{name}/r", body)[2].get("result", "undefined"))
                assert answers[0] == answers[1], (name, select, request)


def test_the_least_selection(world: World) -> None:
    texts = {
        "one": "r if input.history.agent.last_1h.n > 3",
        "window": "r if input.history.agent.last_1h",
        "whole": "r := input.history.agent.last_1h",
        "entity": "r := input.history.agent",
        "known": "r if input.history.agent.known",
        "derived": "r if input.history.agent.usual > 3",
        "pair": "r if input.history.agent_team.last_24h.n > 3",
        "person": "r if input.history.approvers[input.signal].last_1h.n > 3",
        "around": 'r if { input.history.status == "fresh"; not input.history.suspended }',
        "nothing": "r if input.flag",
        "keys": "r if count(input.history.agent) > 3",
        "all": "r if count(input.history) > 3",
        "input": "r := input",
    }
    modules = {f"{name}.rego": f"package p_{name}\n\nimport rego.v1\n\n{text}\n" for name, text in texts.items()}
    reads = reads_of(embedded_plan(modules), embedded=True)
    found = {name: projection(reads[(f"p_{name}", "r")], world.engine.catalog, ("history",)) for name in texts}
    assert {name: list(p.select) for name, p in found.items() if p.select is not None} == {
        "one": ["agent.last_1h.n"],
        "window": ["agent.last_1h.complete"],
        "whole": ["agent.last_1h.*"],
        "entity": ["agent.*"],
        "known": ["agent.known"],
        "derived": ["agent.usual"],
        "pair": ["agent_team.last_24h.n"],
        "person": ["approvers.last_1h.n"],
        "around": [],
        "nothing": [],
        "keys": ["agent.*"],
    }
    assert found["all"] == found["input"] == EVERYTHING
    assert {name: set(found[name].read) for name in ("one", "derived", "pair", "person", "nothing")} == {
        "one": {"agent"},
        "derived": {"agent", "team"},  # of which it is made
        "pair": {"agent"},
        "person": {"approver"},
        "nothing": set(),
    }
    off = projection(reads[("p_one", "r")], world.engine.catalog, ("history",), project=False)
    assert off.select is None
    assert off.read == {"agent"}
    assert projection(None, world.engine.catalog, ("history",)) == EVERYTHING
    elsewhere = projection(reads[("p_one", "r")], world.engine.catalog, ("context", "history"))
    assert elsewhere.select == ()


def test_what_is_selected_keeps_what_stands_around_it(world: World) -> None:
    entities = {"agent": "a0", "team": "t0", "workflow": "w", "approvers": ["eve"]}
    whole = world.engine.context(entities, as_of=world.at_us)
    part = world.engine.context(
        entities, as_of=world.at_us, select=["agent.last_1h.n", "team.last_24h.complete", "approvers.known"]
    )
    assert part["agent"] == {
        "id": "a0",
        "known": True,
        "last_1h": {name: whole["agent"]["last_1h"][name] for name in ("complete", "n")},
    }
    assert part["team"] == {
        "id": "t0", "known": True, "last_24h": {"complete": whole["team"]["last_24h"]["complete"]},
    }  # fmt: skip
    assert part["approvers"] == {"eve": {"id": "eve", "known": whole["approvers"]["eve"]["known"]}}
    entity_names = {"agent", "team", "agent_team", "approvers"}
    assert part.keys() - entity_names == whole.keys() - entity_names
    assert "agent_team" not in part


FIVE = """\
package p

import rego.v1

r if {
    input.history.agent.last_24h.failures < 3
    input.history.agent.last_24h.failure_rate < 0.1
    input.history.agent.last_1h.requests < 60
    input.history.agent.last_7d.rejections < 5
    input.history.team.last_24h.failures < 90
}
"""


def test_five_signals_of_the_shipped_catalog_are_a_small_part_of_it(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "data", queries="queries", settings=Settings(disk_low_bytes=0)) as engine:
        engine.record(made_up_events(engine.journal.now_us(), 40 * 24 * HOUR_US, engine.catalog.attribute_keys))
        reads = reads_of(embedded_plan({"p.rego": FIVE}), embedded=True)[("p", "r")]
        select = projection(reads, engine.catalog, ("history",)).select
        assert select is not None
        assert len(select) == 5
        entities = {"agent": "agent-1", "team": "team-1", "workflow": "workflow-1", "approvers": ["eve", "bob"]}
        whole, part = (canonical_json(engine.context(entities, select=chosen)) for chosen in (None, select))
        assert len(part) <= 0.15 * len(whole)
