"""What a rule can't read may go: its value stays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from enrich.context import canonical_json
from enrich.decisions import EmbeddedEvaluator, Prepared, policy_set
from enrich.decisions.backtest.pruned import Pruner
from enrich.decisions.reads import Reads

from ..test_reads import CASES, LIB, P

_HISTORY: dict[str, Any] = {
    "status": "fresh",
    "agent": {"known": True, "n": 4, "raised": False, "last_1h": {"n": 2, "a": 1, "b": 2}, "last_24h": {"n": 5}},
    "team": {"known": False, "n": 1, "last_1h": {"n": 7}, "x": 3},
    "approvers": {"ann": {"known": True, "last_1h": {"decisions": 12}}, "bob": {"last_24h": {"streak": 1}}},
}
DOCUMENTS: list[dict[str, Any]] = [
    {"history": _HISTORY, "x": True, "y": False, "k": "a", "at": ["n"], "window": "last_24h", "other": [1, {"z": 2}]},
    {"history": {**_HISTORY, "status": None, "agent": _HISTORY["team"]}, "y": 1, "k": "b", "at": "n", "window": 3},
    {"history": {"agent": "a", "team": [], "approvers": []}, "x": {}, "window": "last_1h"},
    {"history": [_HISTORY, {"known": True}]},
    {},
]


@pytest.fixture(scope="module")
def prepared() -> Iterator[Prepared]:
    modules = {f"{name}.rego": P.replace("package p", f"package p_{name}") + CASES[name][0] + "\n" for name in CASES}
    modules = {n: t if "lib." in t.split("import data.lib\n")[1] else t.replace("import data.lib\n", "")
               for n, t in modules.items()}  # fmt: skip
    made = EmbeddedEvaluator().prepare(policy_set({**modules, "lib.rego": LIB}))
    yield made
    made.close()


@pytest.mark.parametrize("name", CASES)
def test_a_rule_has_the_same_value_on_what_is_left(prepared: Prepared, name: str) -> None:
    path = (f"p_{name}", "r")
    reads = prepared.reads(path)
    assert reads is not None
    pruner = Pruner([reads])
    for document in DOCUMENTS:
        left = pruner.prune(document)
        assert prepared.evaluate(path, canonical_json(left)) == prepared.evaluate(path, canonical_json(document)), left


def test_what_is_left_is_what_is_read() -> None:
    reads = Reads(
        frozenset([("history", "agent", "n"), ("history", "approvers", None, "last_1h")]),
        frozenset([("history",), ("history", "team"), ("x",), ("other", None, "z")]),
        frozenset(),
        {},
    )
    assert Pruner([reads]).prune(DOCUMENTS[0]) == {
        "history": {
            "agent": {"n": 4},
            "team": {},
            "approvers": {"ann": {"last_1h": {"decisions": 12}}, "bob": {}},
        },
        "x": True,
        "other": [1, {"z": 2}],
    }
    assert Pruner([]).prune(DOCUMENTS[0]) == {}
    assert Pruner([Reads(frozenset([()]), frozenset(), frozenset(), {})]).prune(DOCUMENTS[0]) == DOCUMENTS[0]
