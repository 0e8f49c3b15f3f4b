"""A window function: running totals at both ends and a probe in, JSON-ready signals out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from enrich.events.times import format_us
from enrich.signals.facts import Known
from enrich.signals.ir import Node
from enrich.signals.layout import arrange, function, needed
from enrich.signals.lower import Ask, PlanTables
from enrich.signals.pieces import Statement, Val, temporaries, worth
from enrich.signals.plan import WindowFunction
from enrich.signals.runtime import NAMES
from enrich.signals.scalar import Scalars
from enrich.signals.texts import TEXT_NAMES

__all__ = ["OUTPUT_NAMES", "outputs", "window_function"]

#: what generated code that writes a context may name
OUTPUT_NAMES: dict[str, Any] = {**NAMES, **TEXT_NAMES, "_time": format_us}


def outputs(
    scalars: Scalars,
    known: Known,
    signals: Mapping[str, Node],
    raw_slots: Mapping[str, int],
    hidden: frozenset[str] = frozenset(),
) -> tuple[list[str], list[str]]:
    """The lines that put signals into the dict `d` and raw values into `raw`.

    Args:
        signals: name to expression.
        raw_slots: name to slot, of the signals that derived sets read.
        hidden: of `signals`, those that only `raw` needs.

    Returns:
        (items of the first dict literal: signals that are always there, the lines after it).
    """
    always: list[str] = []
    finals: list[Statement] = []
    risky: list[str] = []
    for name, node in signals.items():
        facts = known(node)
        value = scalars.final(node)
        shown, tests = _shown(node, value.code, known)
        slot = raw_slots.get(name)
        lines: list[str] = []
        code = value.code
        if (tests or slot is not None) and worth(code):
            lines.append(f"r = {code}")
            code = "r"
            shown, tests = _shown(node, code, known)
        settled = node.type.is_double
        if slot is not None and not settled:
            lines.append(f"raw[{slot}] = {code}")
        puts = [] if name in hidden else [f"d[{name!r}] = {shown}"]
        if slot is not None and settled:
            puts.append(f"raw[{slot}] = {shown}")
        if tests and puts:
            lines.append(f"if {tests}:")
            lines += ["    " + p for p in puts]
        else:
            lines += puts
        if facts.fails:
            guard = f"if {' and '.join(value.guards)}:" if value.guards else "if True:"
            risky += ["try:", f"    {guard}", *("        " + line for line in lines), "except _SqlError:", "    pass"]
        elif not value.guards and not tests and slot is None and not temporaries(shown):
            always.append(f"{name!r}: {shown}")
        elif lines:
            finals.append(Statement(value.guards, "\n".join(lines)))
    return always, [*arrange(needed([*scalars.statements, *finals], risky)), *risky]


def _shown(node: Node, code: str, known: Known) -> tuple[str, str]:
    """(code of the JSON-ready value, test that it has one)."""
    facts = known(node)
    if node.type.is_double:
        shown = f"{code} + 0.0" if facts.minus_zero else code
        return shown, "" if facts.finite else f"{code} - {code} == 0.0"
    if node.type.is_decimal:
        return f"{code} / {10**node.type.scale}", ""
    if node.type.id == "HUGEINT" and (facts.low < -(2**63) or facts.high >= 2**63):
        low = f"-{2**63} <= " if facts.low < -(2**63) else ""
        high = f" <= {2**63 - 1}" if facts.high >= 2**63 else ""
        return code, f"{low}{code}{high}"
    if node.type.id == "TIMESTAMP WITH TIME ZONE":
        return f"_time({code})", ""
    return code, ""


class _Leaves:
    """Code of the leaves: each count and sum is one subtraction, each question one call."""

    def __init__(self, tables: PlanTables) -> None:
        self.tables = tables
        self.loads: dict[str, str] = {}
        self.scalars: Scalars | None = None

    def __call__(self, node: Node) -> Val:
        if node.op == "as_of":
            return Val("as_of")
        if node.op in ("count", "sum"):
            index = int(node.value) + (len(self.tables.counts) if node.op == "sum" else 0)  # type: ignore[call-overload]
            name = f"c{index}"
            self.loads[name] = f"{name} = e[{index}] - s[{index}]"
            return Val(name)
        return self._probe(node)

    def _count(self, node: Node, index: int) -> str:
        return self(Node("count", node.type, value=index)).code

    def _probe(self, node: Node) -> Val:
        ask = node.value
        assert isinstance(ask, Ask)  # INVARIANT: lowering makes every probe node with an Ask
        assert self.scalars is not None  # INVARIANT: set before anything is emitted
        v = ask.v
        # a short window of a quiet entity holds no row or one: then the counts, which are at hand, are the answer
        n = rows = self._count(node, self.tables.values[v].count)
        if ask.kind in ("since_break", "burst"):
            n = ""
        code = {
            "minimum": f"p.minimum(w, {v})",
            "maximum": f"p.maximum(w, {v})",
            "distinct": f"(p.distinct(w, {v}) if {rows} > 1 else 1)",
            "last": f"p.last(w, {v})[0]",
            "last_at": f"p.last(w, {v})[1]",
            "burst": f"(p.burst(w, {v}) if {rows} > 1 else {rows})",
            "quantile_cont": f"_quantile_cont(p, w, {v}, {n}, {ask.extra!r})",
        }.get(ask.kind, "")
        if ask.kind == "since_break":
            matches = self._count(node, ask.extra)
            code = f"(p.since_break(w, {ask.extra}, {v}) if {rows} else {matches})"
        if ask.kind == "quantile_disc" and isinstance(ask.extra, float):
            code = f"_quantile_disc_double(p, w, {v}, {n}, {ask.extra!r})"
        elif ask.kind == "quantile_disc":
            code = f"_quantile_disc(p, w, {v}, {n}, {ask.extra.numerator}, {ask.extra.denominator})"
        if node.type.is_bool:
            code = f"bool({code})"
        guards = (n,) if n else ()
        return Val(self.scalars.define(code, guards), guards)


def window_function(
    tables: PlanTables,
    known: Known,
    signals: Mapping[str, Node],
    raw_slots: Mapping[str, int],
    hidden: frozenset[str] = frozenset(),
) -> WindowFunction:
    """Compile the signals of one window into one function."""
    leaves = _Leaves(tables)
    scalars = Scalars(signals.values(), known, leaves)
    leaves.scalars = scalars
    always, lines = outputs(scalars, known, signals, raw_slots, hidden)
    loads: Sequence[str] = [leaves.loads[n] for n in sorted(leaves.loads, key=lambda n: int(n[1:]))]
    body = [*loads, *_with_dict(always, lines), "return d"]
    made: WindowFunction = function("window", "e, s, as_of, p, w, raw", body, OUTPUT_NAMES)
    return made


def _with_dict(always: Sequence[str], lines: Sequence[str]) -> list[str]:
    return [f"d = {{{', '.join(always)}}}", *lines]
