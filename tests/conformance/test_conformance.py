"""A fixed sample of OPA's own cases, and all that are known to go wrong, as `make conformance` found them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.__main__ import EVALUATORS, OUTCOMES, PAGE
from tests.conformance.batch import run_all
from tests.conformance.cases import Case, cases_directory, load_cases
from tests.conformance.page import page

#: one case in so many; a refusal takes a start of the evaluator each, an `opa eval` a process
STEP = {"opa": 151, "wasm": 71, "embedded": 151}
REFUSED_STEP = 73


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return load_cases(cases_directory())


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(OUTCOMES.read_text())
    return found


@pytest.mark.parametrize("name", sorted(EVALUATORS))
def test_no_case_of_the_sample_changes_sides(name: str, cases: list[Case], told: dict[str, Any]) -> None:
    listed = told[name]["cases"]
    right = [case for case in cases if case.name not in listed]
    refused = [case for case in cases if listed.get(case.name, [""])[0] == "refused"]
    other = [case for case in cases if listed.get(case.name, ["refused"])[0] != "refused"]
    # what fails is asked one by one: the wrong ones all, of the rest a few
    other = [c for c in other if listed[c.name][0] == "wrong"][:12] + other[:: max(1, len(other) // 6)]
    sample = [*right[:: STEP[name]], *refused[::REFUSED_STEP], *other]
    assert sample
    went = {case.name: outcome for case, outcome in run_all(EVALUATORS[name](), sample)}
    changed = {
        n: (o.kind, o.reason, listed.get(n, ["right"])[0])
        for n, o in went.items()
        if o.kind != listed.get(n, ["right"])[0]
    }
    assert changed == {}


def test_every_listed_case_is_there(cases: list[Case], told: dict[str, Any]) -> None:
    names = {case.name for case in cases}
    assert len(names) == len(cases)
    for name in EVALUATORS:
        assert told[name]["cases"].keys() <= names
        assert sum(told[name]["counted"].values()) == len(cases)


def test_opa_itself_is_right_in_all(told: dict[str, Any]) -> None:
    assert told["opa"]["cases"] == {}


def test_the_page_is_made_from_the_outcomes(told: dict[str, Any]) -> None:
    assert PAGE.read_text() == page(told)
