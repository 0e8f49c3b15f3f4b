"""What rules are said to read, from the plans of both planners: as little as it can be, and never less than is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from enrich.decisions import load_policies
from enrich.decisions.reads import InputPath, Reads, reads_of

from .plans import embedded_plan, opa_plan

P = "package p\n\nimport rego.v1\n\nimport data.lib\n\n"
LIB = """\
package lib

import rego.v1

import input.history as document

all := document

of(entity, window, name) := value if {
    value := document[entity][window][name]
    is_number(value)
}

got(at, names) := [value | some name in names; value := object.get(document, array.concat(at, [name]), null)]

tired(id) if document.approvers[id].last_1h.decisions > 9
tired(id) if document.approvers[id].last_24h.streak > 9

echo(x) := x

fresh if document.status == "fresh"
"""
#: the rule's text, what it reads whole, what it touches besides what lies above that
CASES: dict[str, tuple[str, set[str], set[str]]] = {
    "dot": ("r if input.history.agent.last_1h.n < 3", {"history.agent.last_1h.n"}, set()),
    "bare": ("r if input.history.agent.last_1h", set(), {"history.agent.last_1h"}),
    "text": ('r if input.history.status == "fresh"', set(), {"history.status"}),
    "negation": ("r if not input.history.agent.raised", set(), {"history.agent.raised"}),
    "alias": ("r if { x := input.history; y := x.agent; y.last_1h.n < 3 }", {"history.agent.last_1h.n"}, set()),
    "rule": ("r if lib.all.agent.last_1h.n < 3", {"history.agent.last_1h.n"}, set()),
    "whole": ("r := input.history.agent.last_1h", {"history.agent.last_1h"}, set()),
    "all": ("r if count(input) > 0", {""}, set()),
    "walk": ("r if { walk(input.history.team, [path, value]); value == 3; count(path) == 2 }", {"history.team"}, set()),
    "get": (
        'r if object.get(input, ["history", "team", "last_1h", "n"], 0) < 3',
        {"history.team.last_1h.n"},
        set(),
    ),
    "get_one": ('r if object.get(input.history.team, "known", false) == true', set(), {"history.team.known"}),
    "get_default": (
        'r if object.get(input.history, "team", input.history.agent).known == true',
        set(),
        {"history.team.known", "history.agent.known"},
    ),
    "get_unknown": ('r if object.get(input.history.agent, input.at, 0) == 1', {"history.agent", "at"}, set()),
    "windows": (
        'r if { some w in ["last_1h", "last_24h"]; input.history.agent[w].n < 3 }',
        {"history.agent.last_1h.n", "history.agent.last_24h.n"},
        set(),
    ),
    "variable": (
        "r if input.history.agent[input.window].n < 3",
        {"history.agent.*.n", "window"},
        {"history.agent.*"},
    ),
    "every_key": ("r if { some k; input.history[k].known == true }", set(), {"history.*.known"}),
    "argument": ('r if lib.of("agent", "last_1h", "n") < 3', {"history.agent.last_1h.n"}, set()),
    "array": (
        'r if count(lib.got(["agent", "last_1h"], ["a", "b"])) == 2',
        {"history.agent.last_1h.a", "history.agent.last_1h.b"},
        set(),
    ),
    "bodies": (
        "r if { some id, _ in input.history.approvers; lib.tired(id) }",
        {"history.approvers.*.last_1h.decisions", "history.approvers.*.last_24h.streak"},
        {"history.approvers.*"},
    ),
    "passed": ("r if lib.echo(input).history.agent.known == true", set(), {"history.agent.known"}),
    "put_in": ("r if { x := {\"h\": [input.history]}; x.h[0].agent.n > 3 }", {"history.agent.n"}, set()),
    "compared": ("r if input.history.agent == input.history.team", {"history.agent", "history.team"}, set()),
    "in_set": (
        "r if count([1 | some _ in {input.history.agent, input.history.team}]) == 2",
        {"history.agent", "history.team"},
        set(),
    ),
    "with_input": ('r if lib.fresh with input as {"history": input.history.team}', set(), {"history.team.status"}),
    "with_part": (
        'r if lib.fresh with input.history.status as "fresh"', set(), {"history.status"},
    ),
    "keys": (
        'r if { some k, _ in input.history.agent; startswith(k, "last_") }',
        set(),
        {"history.agent", "history.agent.*"},
    ),
    "kind": ("r if is_object(input.history.agent.last_1h)", set(), {"history.agent.last_1h"}),
    "quoted": ('r if input["history"]["agent"]["n"] > 3', {"history.agent.n"}, set()),
    "every": (
        "r if { every v in input.history.approvers { v.known == true } }",
        set(),
        {"history.approvers.*.known"},
    ),
    "two_values": (
        "d := input.history.agent if input.x\nd := input.history.team if input.y\nr if d.known == true",
        {"history.agent", "history.team"},
        {"x", "y"},
    ),
    "else": (
        "d := input.history.agent if { input.x } else := input.history.team\nr if d.known == true",
        set(),
        {"history.agent.known", "history.team.known", "x"},
    ),
    "partial_set": ("s contains input.history.agent\nr if count(s) == 1", {"history.agent"}, set()),
    "partial_object": (
        'o[k] := v if some k, v in {"a": input.history.agent}\nr if o.a.n == 1', {"history.agent"}, set(),
    ),
    "nested": (
        'o.q[x].r := input.history.agent if some x in ["a"]\nr if o.q.a.r.n == 1', {"history.agent"}, set(),
    ),
    "dynamic": (
        "m.a := input.history.agent\nm.b := input.history.team\nr if m[input.k].n == 1",
        {"history.agent.n", "history.team.n", "k"},
        set(),
    ),
    "set_comprehension": (
        "r if count({n | n := input.history.agent[_].n}) > 1", {"history.agent.*.n"}, {"history.agent.*"},
    ),
}


def _name(path: InputPath) -> str:
    return ".".join("*" if key is None else key for key in path)


def _path(name: str) -> InputPath:
    return tuple(None if key == "*" else key for key in name.split(".")) if name else ()


def _covered(path: InputPath, found: Collection[InputPath]) -> bool:
    """Whether a path is one of those, or lies below one."""
    return any(len(p) <= len(path) and _one(path[: len(p)], p) for p in found)


def _one(path: InputPath, found: InputPath) -> bool:
    return all(theirs is None or theirs == mine for mine, theirs in zip(path, found, strict=True))


@pytest.fixture(scope="module", params=["embedded", "opa"])
def plans(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Reads]:
    """The reads of every case, by its name."""
    modules = {f"{name}.rego": P.replace("package p", f"package p_{name}") + CASES[name][0] + "\n" for name in CASES}
    # `data.lib` is imported for all, used by some: not every planner minds
    modules = {n: t if "lib." in t.split("import data.lib\n")[1] else t.replace("import data.lib\n", "")
               for n, t in modules.items()}  # fmt: skip
    modules["lib.rego"] = LIB
    if request.param == "embedded":
        found = reads_of(embedded_plan(modules), embedded=True)
    else:
        entries = [f"p_{name}/r" for name in CASES]
        found = reads_of(opa_plan(tmp_path_factory.mktemp("plan"), modules, entries))
    return {name: found[(f"p_{name}", "r")] for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_what_a_rule_reads(plans: Mapping[str, Reads], name: str) -> None:
    found = plans[name]
    _, whole, touched = CASES[name]
    assert all(_covered(path, found.whole) for path in map(_path, whole))
    assert all(_covered(path, found.whole | found.touched) for path in map(_path, touched))
    above = {p[:n] for p in map(_path, whole | touched) for n in range(1, len(p) + 1)}
    assert {_name(p) for p in found.whole} <= whole
    assert {_name(p) for p in found.touched} <= {_name(p) for p in above}


def test_both_planners_tell_the_same_of_the_shipped_policy(tmp_path: Path) -> None:
    policies = load_policies(Path("policies"))
    path = ("gantral", "authority", "decision")
    mine = reads_of(embedded_plan(policies.modules, policies.data), embedded=True)[path]
    modules = {name.replace("/", "_"): text for name, text in policies.modules.items()}
    theirs = reads_of(opa_plan(tmp_path, modules, ["gantral/authority/decision"]))[path]
    assert (mine.whole, mine.touched) == (theirs.whole, theirs.touched)
    assert "last_1h.requests_burst_5m" in {_name(p[2:]) for p in mine.whole}
    assert not any(len(p) < 4 and p[0] == "history" and p[1] != "status" for p in mine.whole)
    assert set(mine.builtins) == set(theirs.builtins)


def test_built_ins_are_found_through_all_that_is_called(plans: Mapping[str, Reads]) -> None:
    assert {"object.get", "array.concat", "count"} <= set(plans["array"].builtins)
    position = plans["walk"].builtins["walk"]
    assert position is not None
    assert (position.file, position.line) == ("walk.rego", 6)
    assert not plans["text"].builtins


def test_where_a_path_stands_is_the_policy_that_names_it(plans: Mapping[str, Reads]) -> None:
    last = {_name(next(iter(a.paths))): a.position for a in plans["argument"].asked if len(a.paths) == 1}
    position = last["history.agent.last_1h.n"]
    assert position is not None
    assert (position.file, position.line) == ("argument.rego", 7)
    position = {_name(p): a.position for a in plans["dot"].asked for p in a.paths}["history.agent.last_1h.n"]
    assert position is not None
    assert (position.file, position.line) == ("dot.rego", 6)


def test_what_is_not_understood_is_left_out() -> None:
    plan: dict[str, Any] = embedded_plan({"p.rego": "package p\n\nr if input.a\n\ns if r\n\nt if input.b\n"})
    assert set(reads_of(plan, embedded=True)) >= {("p", "r"), ("p", "s"), ("p", "t")}
    function = next(f for f in plan["funcs"]["funcs"] if f["path"][-1] == "r")
    function["blocks"][0]["stmts"].append({"type": "NewStmt", "stmt": {}})
    found = reads_of(plan, embedded=True)
    assert ("p", "t") in found
    assert not {("p", "r"), ("p", "s")} & found.keys()


def test_a_path_without_an_end_is_read_whole_from_some_key_on() -> None:
    deep = ".".join(["a"] * 40)
    found = reads_of(embedded_plan({"p.rego": f"package p\n\nr if input.{deep} == 1\n"}), embedded=True)
    [path] = found[("p", "r")].whole
    assert path == ("a",) * 16
