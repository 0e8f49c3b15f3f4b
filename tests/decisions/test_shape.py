"""Which rules are never anything but true or false: asked there, a refusal has to be `false`."""

from __future__ import annotations

import pytest

from enrich.decisions import EmbeddedEvaluator, policy_set

MODULE = """\
package p

default fallback := false
fallback if input.a == 1
fallback if { input.b; input.c > 2 }

plain if input.a
compared := input.a < 3
chained := false if { input.a } else := true if { input.b }
bound := x if { x := count(input.l) == 0 }
called := small(input.a)
small(n) if n < 3
other := fallback
negated if not plain
prefix := startswith(input.a, "x")

passed := input.a
object := {"decision": "ALLOW"}
text := "ALLOW" if input.a
default mixed := false
mixed := {"decision": "ALLOW"} if input.a
half := true if { input.a } else := "DENY"
counted := count(input.l)
members contains x if some x in input.l
through := echo(input.a)
echo(x) := x
some_of := {x: true | some x in input.l}
"""
BOOLEAN = {"fallback", "plain", "compared", "chained", "bound", "called", "other", "negated", "prefix"}


@pytest.fixture(scope="module")
def booleans() -> frozenset[tuple[str, ...]]:
    prepared = EmbeddedEvaluator().prepare(policy_set({"p.rego": MODULE, "q.rego": "package q\n\nx if data.p.plain\n"}))
    try:
        assert prepared.booleans <= prepared.rules
        return prepared.booleans
    finally:
        prepared.close()


def test_constants_comparisons_and_what_is_made_of_them_are_seen(booleans: frozenset[tuple[str, ...]]) -> None:
    assert booleans == {("p", name) for name in BOOLEAN} | {("q", "x")}
