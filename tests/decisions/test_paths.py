"""The gate covers the data: a decision, everything above it and everything below it."""

from __future__ import annotations

import pytest

from enrich.decisions.paths import DecisionPaths
from enrich.errors import BadRequestError, ConfigError

RULES = frozenset(
    {
        ("gantral", "authority", "decision"),
        ("gantral", "authority", "reasons"),
        ("shop", "allow"),
        ("lib", "history", "fresh"),
    }
)


@pytest.mark.parametrize("path", [("gantral", "authority", "decision"), ("shop", "allow")])
def test_rules_of_the_name_are_decisions(path: tuple[str, ...]) -> None:
    assert DecisionPaths(("decision", "allow"), RULES).gated(path)


@pytest.mark.parametrize(
    "path", [("gantral", "authority", "reasons"), ("lib",), ("lib", "history", "fresh"), ("decision",), ("else", "x")]
)
def test_what_has_nothing_to_do_with_a_decision_passes(path: tuple[str, ...]) -> None:
    assert not DecisionPaths(("decision", "allow"), RULES).gated(path)


@pytest.mark.parametrize(
    ("path", "ask"),
    [
        ((), "/v1/data/gantral/authority/decision"),
        (("gantral",), "/v1/data/gantral/authority/decision"),
        (("gantral", "authority"), "/v1/data/gantral/authority/decision"),
        (("shop",), "/v1/data/shop/allow"),
        (("gantral", "authority", "decision", "decision"), "/v1/data/gantral/authority/decision"),
        (("shop", "allow", "0", "x"), "/v1/data/shop/allow"),
    ],
)
def test_above_and_below_are_refused_and_the_way_shown(path: tuple[str, ...], ask: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        DecisionPaths(("decision", "allow"), RULES).gated(path)
    assert caught.value.error_code == "decision_path_required"
    assert caught.value.detail["hint"] == f"ask for {ask}"


def test_a_whole_path_gates_that_rule_alone() -> None:
    paths = DecisionPaths(("shop.allow",), RULES)
    assert paths.gated(("shop", "allow"))
    assert not paths.gated(("gantral", "authority", "decision"))
    assert not DecisionPaths((), RULES).gated(())


def test_a_path_that_no_rule_has_is_an_error_of_the_settings() -> None:
    with pytest.raises(ConfigError, match=r"`gantral.authority.verdict`"):
        DecisionPaths(("gantral.authority.verdict",), RULES)


def test_a_decision_above_another_is_an_error_of_the_settings() -> None:
    with pytest.raises(ConfigError, match=r"`shop.allow` lies above another"):
        DecisionPaths(("allow", "decision"), {("shop", "allow"), ("shop", "allow", "decision")})
