"""Random policies over a small catalog: every way of reaching into the input that people think of, and some more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypothesis import strategies as st

__all__ = ["LIBRARY", "QUERIES", "policy_texts"]

QUERIES: Final = {
    "runs.sql": """\
-- entity: agent
-- windows: 1h, 24h
SELECT count(*) AS n, count(*) FILTER (WHERE outcome = 'failed') AS bad, bad / nullif(n, 0) AS rate FROM events
""",
    "teams.sql": """\
-- entity: team
-- windows: 1h, 24h
SELECT count(*) AS n, count(*) FILTER (WHERE outcome = 'failed') AS bad FROM events
""",
    "people.sql": """\
-- entity: approver
-- windows: 1h
SELECT count(*) AS n FROM events
""",
    "pairs.sql": """\
-- entity: agent_team
-- windows: 24h
SELECT count(*) AS n FROM events
""",
    "worse.sql": """\
-- entity: agent
SELECT last_1h.n > 1 AS busy, last_1h.rate > last_24h.rate AS worse, team.last_24h.bad AS usual FROM signals
""",
}
LIBRARY: Final = """\
package lib

import rego.v1

import input.history as document

all := document

echo(x) := x

n_of(x) := x.n

named(entity, window, name) := document[entity][window][name]

got(at, names) := [value | some name in names; value := object.get(document, array.concat(at, [name]), null)]

fresh if document.status == "fresh"

busy(x) if x.last_1h.n > 1

busy(x) if x.last_24h.n > 2

either := document.agent if input.flag

either := document.team if not input.flag

by_window[w] := x if some w, x in document.agent

bad contains x if some x in [document.agent.last_1h.bad, document.team.last_1h.bad]

tree.left := document.agent
tree.right := document.team
"""
_ENTITIES = ("agent", "team", "agent_team", "approvers")
_WINDOWS = ("last_1h", "last_24h")
_NAMES = ("n", "bad", "rate", "complete", "busy", "worse", "known", "id", "nothing")
#: what ends as the document, an entity, a window or a signal, with what binds its variables before it
_Ref = tuple[list[str], str]


class _Names:
    """Variables that nothing else in the module has."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self) -> str:
        self._count += 1
        return f"v{self._count}"


@st.composite
def _documents(draw: st.DrawFn, name: _Names) -> _Ref:
    x = name()
    return draw(
        st.sampled_from(
            [
                ([], "input.history"),
                ([], "data.lib.all"),
                ([f"{x} := input"], f"{x}.history"),
                ([f"{x} := data.lib.echo(input)"], f"{x}.history"),
                ([f'{x} := object.get(input, "history", {{}})'], x),
                ([f'{x} := object.get(input, ["history"], {{}})'], x),
                ([f'{x} := [input.history, 1]'], f"{x}[0]"),
                ([f'{x} := {{"h": input.history}}'], f"{x}.h"),
                ([f'{x} := {{k: v | some k, v in input}}'], f'{x}.history'),
            ]
        )
    )


@st.composite
def _steps(draw: st.DrawFn, name: _Names, ref: _Ref, keys: tuple[str, ...], asked: str) -> _Ref:
    """One key further."""
    before, at = ref
    key = draw(st.sampled_from(keys))
    others = ", ".join(f'"{k}"' for k in draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3)))
    x, y = name(), name()
    return draw(
        st.sampled_from(
            [
                (before, f"{at}.{key}"),
                (before, f"{at}.{key}"),
                (before, f'{at}["{key}"]'),
                ([*before, f'{x} := "{key}"'], f"{at}[{x}]"),
                ([f"some {x} in [{others}]", *before], f"{at}[{x}]"),
                ([*before, f"some {x}, {y} in {at}", f'{x} != "{key}"'], y),
                ([f"{x} := input.{asked}", *before], f"{at}[{x}]"),
                ([*before, f'{y} := object.get({at}, "{key}", {{}})'], y),
                ([*before, f'{y} := object.get({at}, ["{key}"], {{"n": 1}})'], y),
            ]
        )
    )


@st.composite
def _refs(draw: st.DrawFn, name: _Names) -> _Ref:
    ref = draw(_documents(name))
    for keys, asked in ((_ENTITIES, "entity"), (_WINDOWS, "window"), (_NAMES, "signal"))[: draw(st.integers(0, 3))]:
        ref = draw(_steps(name, ref, keys, asked))
    return ref


@st.composite
def _literals(draw: st.DrawFn, name: _Names) -> list[str]:
    """Some literals of a body that read history somehow."""
    before, ref = draw(_refs(name))
    after, other = draw(_refs(name))
    x, y, z = name(), name(), name()
    number = draw(st.integers(0, 3))
    forms: list[Callable[[], list[str]]] = [
        lambda: [*before, ref],
        lambda: [*before, f"{ref} > {number}"],
        lambda: [*before, f"{ref} == {number}"],
        lambda: [*before, f"{ref} == true"],
        lambda: [*before, f'{ref} != "a"'],
        lambda: [*before, *after, f"{ref} == {other}"],
        lambda: [*before, f"{x} := {ref}", f"{y} := {x}", f"{y}.n > {number}"],
        lambda: [*before, f"{x} := {ref}", f"not {x}.known"],
        lambda: [*before, f"{x} := {ref}", f"not {x}"],
        lambda: [*before, f"count({ref}) > {number}"],
        lambda: [*before, f"is_object({ref})"],
        lambda: [*before, f"walk({ref}, [{x}, {y}])", f"{y} == {number}"],
        lambda: [*before, f"{x} := {ref}", f"data.lib.n_of({x}) > {number}"],
        lambda: [*before, f"{x} := {ref}", f"data.lib.busy({x})"],
        lambda: [*before, f"every {x} in {ref} {{ {x} != {number} }}"],
        lambda: [*before, f"every {x} in {ref} {{ is_object({x}) }}"],
        lambda: [*before, f"{x} := [{y} | {y} := {ref}[_]]", f"count({x}) > {number}"],
        lambda: [*before, f"{x} := {{{y} | {y} := {ref}[_].n}}", f"count({x}) > {number}"],
        lambda: [*before, *after, f"{x} := [1 | some {y} in {{{ref}, {other}}}]", f"count({x}) == 2"],
        lambda: [*before, f"some {x}, {y} in {ref}", f"{y}.n > {number}", f'{x} != "last_1h"'],
        lambda: [*before, f'{x} := {{"k": [{ref}]}}', f"{x}.k[0].n > {number}"],
        lambda: [*before, f"{x} := {ref}", f'{y} := sprintf("%v", [{x}])', f'contains({y}, "{number}")'],
        lambda: [*before, f"{number} in {ref}"],
        lambda: [*before, f'{x} := json.marshal({ref})', f'contains({x}, "{number}")'],
        lambda: [*before, f"{x} := object.keys({ref})", f'"last_1h" in {x}'],
        lambda: [f'data.lib.fresh with input as {{"history": {{"status": "fresh"}}, "x": {number}}}'],
        lambda: [*before, f'{x} := {ref}', f'data.lib.busy(input.history.agent) with input.history.agent as {x}'],
        lambda: [f"data.lib.busy(input.history.team) with input.history.team.last_1h.n as {number}"],
        lambda: [f'{x} := data.lib.named("agent", "last_1h", "n")', f"{x} > {number}"],
        lambda: [f'{x} := data.lib.got(["agent", "last_24h"], ["n", "bad"])', f"{x}[0] > {number}"],
        lambda: [f"data.lib.either.known", f"{number} < 2"],  # noqa: F541
        lambda: [f"data.lib.by_window.last_1h.n > {number}"],
        lambda: [f"count(data.lib.bad) > {number}"],
        lambda: [f"data.lib.tree[input.side].last_1h.n > {number}"],
        lambda: [f"{z} := data.lib", f"{z}.all.agent.last_1h.n > {number}"],
    ]
    made = draw(st.sampled_from(forms))()
    if draw(st.integers(0, 5)) == 0:
        inner = "\n".join(made)
        return [f"count([{x} | {x} := 1\n{inner}]) == {number}"]
    return made


@st.composite
def _rules(draw: st.DrawFn, name: _Names, rule: str) -> str:
    bodies = [
        "\n".join(line for _ in range(draw(st.integers(1, 2))) for line in draw(_literals(name)))
        for _ in range(draw(st.integers(1, 2)))
    ]
    before, ref = draw(_refs(name))
    value = "\n".join([*before, f"found := {ref}"])
    one, two = bodies[0], bodies[-1]
    return draw(
        st.sampled_from(
            [
                f"{rule} if {{ {one} }}",
                f"default {rule} := false\n\n{rule} if {{ {one} }}\n\n{rule} if {{ {two} }}",
                f'{rule} := "ALLOW" if {{ {one} }} else := "DENY" if {{ {two} }}',
                f'{rule} := {{"decision": "ALLOW"}} if {{ {one} }}\n\n{rule} := {{"decision": "DENY"}} if {{ {two} }}',
                f"{rule} := found if {{ {value}\n{one} }}",
                f"{rule} contains found if {{ {value}\n{one} }}",
                f"{rule} if {{ not {rule}_not }}\n\n{rule}_not if {{ {one} }}",
                f"{rule} := found.n if {{ {value} }}",
            ]
        )
    )


@st.composite
def policy_texts(draw: st.DrawFn, rules: int) -> str:
    """A module `p` with rules `r0`, `r1`, ... that import `data.lib`."""
    name = _Names()
    texts = [draw(_rules(name, f"r{i}")) for i in range(rules)]
    return "\n\n".join(["package p", "import rego.v1", "import data.lib", *texts]) + "\n"
