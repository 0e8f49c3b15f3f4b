"""From aggregates to what the index keeps: counts of predicates, sums of integers, columns of values to be asked.

One `PlanTables` serves all sets of one entity, so that equal predicates and values are kept once. Every aggregate
becomes an expression over `count`, `sum` and `probe` leaves; an aggregate that would need to look at each row of a
window has no such form and is refused, which is what bounds the cost of an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final

from enrich.errors import show
from enrich.events.model import INT64_MAX, INT_COLUMNS
from enrich.signals.facts import Facts, Known, exact_range
from enrich.signals.ir import (
    FALSE,
    TRUE,
    Node,
    all_of,
    as_of,
    constant,
    count_of,
    is_null,
    negation,
    sum_of,
    when,
)
from enrich.signals.read import Aggregate
from enrich.signals.rules import Refuse
from enrich.signals.types import BIGINT, BOOLEAN, DOUBLE, HUGEINT, TIMESTAMPTZ

__all__ = ["MAX_ROWS", "Ask", "PlanTables", "ValueEntry", "row_facts"]

#: INVARIANT: an entity has fewer rows than this: the index counts them as int32
MAX_ROWS: Final = 2**31 - 1
_NOT_NULL: Final = frozenset({"occurred_at", "source", "event_id", "kind", "outcome"})
_INT64: Final = (-(2**63), INT64_MAX)


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to the probe about value column `v`; `q` is a quantile as an exact fraction."""

    kind: str  # minimum maximum distinct last last_at since_break burst quantile_cont quantile_disc
    v: int
    extra: Any = None


@dataclass(slots=True)
class ValueEntry:
    count: int
    value: Node
    uses: set[str] = field(default_factory=set)
    burst_us: int | None = None


def row_facts(node: Node) -> Facts:
    """Facts of a column or an attribute of one event."""
    if node.op == "column" and node.value in INT_COLUMNS:
        return Facts(nullable=True, low=0, high=INT64_MAX)
    if node.op == "column" and node.value == "occurred_at":
        return Facts()
    return replace(exact_range(node.type), nullable=node.value not in _NOT_NULL)


class PlanTables:
    """The counts, sums and values of one entity, deduplicated; lowers aggregates into them."""

    def __init__(self) -> None:
        self.counts: list[Node] = []
        self.sums: list[tuple[Node, bool]] = []
        self.values: list[ValueEntry] = []
        self.rows = Known(row_facts)
        self._count_index: dict[frozenset[Node], int] = {}
        self._sum_index: dict[tuple[Node, bool], int] = {}
        self._value_index: dict[tuple[int, Node, int | None], int] = {}

    # -- tables

    def count(self, predicate: Node) -> int:
        parts = frozenset(predicate.args if predicate.op == "and" else (predicate,))
        index = self._count_index.get(parts)
        if index is None:
            index = self._count_index[parts] = len(self.counts)
            self.counts.append(predicate)
        return index

    def counted(self, predicate: Node) -> Node:
        """How many rows satisfy a predicate."""
        if predicate == FALSE:
            return constant(BIGINT, 0)
        return count_of(self.count(predicate))

    def total(self, value: Node, squared: bool = False) -> Node:
        index = self._sum_index.get((value, squared))
        if index is None:
            index = self._sum_index[value, squared] = len(self.sums)
            self.sums.append((value, squared))
        return sum_of(index)

    def column(self, predicate: Node, value: Node, use: str, burst_us: int | None = None) -> int:
        count = self.count(predicate)
        key = (count, value, burst_us)
        index = self._value_index.get(key)
        if index is None:
            index = self._value_index[key] = len(self.values)
            self.values.append(ValueEntry(count, value, burst_us=burst_us))
        self.values[index].uses.add(use)
        return index

    def leaf_facts(self, node: Node) -> Facts:
        """Facts of the leaves of a set's columns."""
        if node.op == "count":
            return Facts(low=0, high=MAX_ROWS)
        if node.op == "sum":
            value, squared = self.sums[node.value]  # type: ignore[call-overload]
            facts = self.rows(value)
            low, high = min(0, facts.low), max(0, facts.high)
            if squared:
                low, high = 0, max(low * low, high * high)
            return Facts(low=low * MAX_ROWS, high=high * MAX_ROWS)
        if node.op == "probe":
            return self._probe_facts(node)
        return exact_range(node.type)

    def _probe_facts(self, node: Node) -> Facts:
        ask = node.value
        assert isinstance(ask, Ask)  # INVARIANT: only this module makes probe nodes
        if ask.kind in ("distinct", "since_break", "burst"):
            return Facts(low=0, high=MAX_ROWS)
        if ask.kind == "last_at" or node.type == TIMESTAMPTZ:
            return Facts()
        facts = self.rows(self.values[ask.v].value)
        if ask.kind == "quantile_cont":
            slack = max(abs(facts.low), abs(facts.high)) * 1e-9
            return Facts(low=float(facts.low) - slack if facts.low < 0 else 0.0, high=float(facts.high) + slack)
        return Facts(low=facts.low, high=facts.high)

    def compact(self, roots: list[Node]) -> dict[Node, Node]:
        """Drop what no expression of `roots` asks for; answers what the leaves that stay are called from now on."""
        leaves = {n for root in roots for n in root.walk() if n.op in ("count", "sum", "probe")}
        asks = {n: n.value for n in leaves if isinstance(n.value, Ask)}
        values = sorted({ask.v for ask in asks.values()})
        counts = {int(n.value) for n in leaves if n.op == "count"}  # type: ignore[call-overload]
        counts |= {self.values[v].count for v in values}
        counts |= {ask.extra for ask in asks.values() if ask.kind == "since_break"}
        sums = sorted({int(n.value) for n in leaves if n.op == "sum"})  # type: ignore[call-overload]
        count_at = {old: new for new, old in enumerate(sorted(counts))}
        sum_at = {old: new for new, old in enumerate(sums)}
        value_at = {old: new for new, old in enumerate(values)}
        self.counts = [self.counts[i] for i in count_at]
        self.sums = [self.sums[i] for i in sum_at]
        self.values = [self.values[v] for v in value_at]
        for entry in self.values:
            entry.count = count_at[entry.count]
        names: dict[Node, Node] = {}
        for leaf in leaves:
            if leaf.op == "count":
                names[leaf] = count_of(count_at[leaf.value])
            elif leaf.op == "sum":
                names[leaf] = sum_of(sum_at[leaf.value], leaf.type)
        for leaf, ask in asks.items():
            extra = count_at[ask.extra] if ask.kind == "since_break" else ask.extra
            names[leaf] = Node("probe", leaf.type, value=Ask(ask.kind, value_at[ask.v], extra))
        return names

    # -- aggregates

    def lower(self, aggregate: Aggregate, where: Node, refuse: Refuse) -> Node:
        """An aggregate as an expression over this entity's counts, sums and values.

        Raises:
            DefinitionError: through `refuse`; it has no bounded or no exact form.
        """
        name, args = aggregate.name, aggregate.args
        predicate = all_of([where, *([aggregate.filter] if aggregate.filter is not None else [])])
        if _never(predicate):
            predicate = FALSE
        context = _Lowering(self, aggregate, predicate, refuse)
        if aggregate.distinct and not (name == "count" and args):
            raise refuse(f"{name}(DISTINCT ...)", aggregate.at, "DISTINCT stands in count(DISTINCT x) only")
        rule: Callable[[], Node] = getattr(context, name)
        return rule()


def _never(predicate: Node) -> bool:
    return predicate == FALSE or (predicate.op == "and" and FALSE in predicate.args)


class _Lowering:
    """One aggregate on its way into the tables."""

    def __init__(self, tables: PlanTables, aggregate: Aggregate, predicate: Node, refuse: Refuse) -> None:
        self.tables = tables
        self.aggregate = aggregate
        self.predicate = predicate
        self.refuse = refuse

    @property
    def x(self) -> Node:
        return self.aggregate.args[0]

    def present(self, value: Node | None = None) -> Node:
        """The predicate together with "the value is not null"."""
        value = self.x if value is None else value
        if value.op == "const":
            return FALSE if value.value is None else self.predicate
        if not self.tables.rows(value).nullable:
            return self.predicate
        return all_of([self.predicate, negation(is_null(value))])

    def bad(self, message: str, hint: str | None = None) -> Exception:
        return self.refuse(message, self.aggregate.at, hint)

    def n(self, value: Node | None = None) -> Node:
        return self.tables.counted(self.present(value))

    def some(self, n: Node, result: Node) -> Node:
        """`result` where there is a row, else null."""
        if n.op == "const":
            return constant(result.type, None)
        return when(Node("gt", BOOLEAN, (n, constant(BIGINT, 0))), result)

    def int_value(self, what: str) -> Node:
        """The operand as an int64 expression, null where the predicate is not TRUE."""
        x = self.x
        if not x.type.is_int:
            raise self.bad(
                f"{what} of {show(str(x.type))} rows",
                "sums are exact over integers only: keep integers (milliseconds, minor units) and scale the result, "
                "such as sum(duration_ms) / 1e3",
            )
        facts = self.tables.rows(x)
        if facts.low < _INT64[0] or facts.high > _INT64[1]:
            raise self.bad(f"{what} of values beyond 64 bits", "write TRY_CAST(x AS BIGINT)")
        if self.predicate == TRUE:
            return x
        return Node("case", x.type, (self.predicate, x, constant(x.type, None)), at=x.at)

    def value_column(self, use: str, value: Node | None = None) -> tuple[int, Node]:
        """(value column, its number of rows)."""
        value = self.x if value is None else value
        facts = self.tables.rows(value)
        if value.type.is_double and not facts.finite:
            raise self.bad(
                f"{self.aggregate.name} of a DOUBLE that may be inf or nan",
                "keep it finite: divide by nullif(x, 0); of text: CASE WHEN isfinite(v) THEN v END",
            )
        if value.type.is_decimal:
            raise self.bad(
                f"{self.aggregate.name} of {show(str(value.type))} rows", "cast the rows: x::DOUBLE, or keep integers"
            )
        if value.type.is_int and (facts.low < _INT64[0] or facts.high > _INT64[1]):
            raise self.bad(f"{self.aggregate.name} of values beyond 64 bits", "write TRY_CAST(x AS BIGINT)")
        present = self.present(value)
        if present == FALSE:
            return -1, constant(BIGINT, 0)
        return self.tables.column(present, value, use), self.tables.counted(present)

    def asked(self, kind: str, use: str, value: Node | None = None, extra: Any = None) -> Node:
        v, n = self.value_column(use, value)
        type_ = self.aggregate.type
        return self.some(n, Node("probe", type_, value=Ask(kind, v, extra)))

    # one method per aggregate

    def count_star(self) -> Node:
        return self.tables.counted(self.predicate)

    def count(self) -> Node:
        if self.x.op == "struct":
            return self.marker()
        if not self.aggregate.distinct:
            return self.n()
        v, n = self.value_column("distinct")
        if n.op == "const":
            return n
        asked = Node("probe", BIGINT, value=Ask("distinct", v))
        return Node("coalesce", BIGINT, (self.some(n, asked), constant(BIGINT, 0)))

    def sum(self) -> Node:
        if self.x.type.is_bool:
            true = self.tables.counted(all_of([self.predicate, self.x]))
            return self.some(self.n(), Node("cast", HUGEINT, (true,)))
        if self.x.op == "const" and self.x.value is None:
            return constant(HUGEINT, None)
        return self.some(self.n(), self.tables.total(self.int_value("sum")))

    def avg(self) -> Node:
        total = self.tables.total(self.int_value("avg"))
        n = self.n()
        if self.aggregate.filter is not None:
            return self.some(n, Node("average", DOUBLE, (total, n)))
        as_double = [Node("cast", DOUBLE, (part,)) for part in (total, n)]
        return self.some(n, Node("/", DOUBLE, tuple(as_double)))

    def _extreme(self, kind: str) -> Node:
        x = self.x
        if x.op == "column" and x.value == "as_of":
            return self.some(self.tables.counted(self.predicate), as_of())
        if x.op == "column" and x.value == "occurred_at" and kind == "maximum":
            return self.asked("last_at", "last", constant(BOOLEAN, True))
        if not (x.type.is_exact or x.type.is_double or x.type == TIMESTAMPTZ):
            raise self.bad(
                f"{self.aggregate.name} of {show(str(x.type))}",
                "of conditions: bool_and, bool_or; of texts: arg_max(x, (occurred_at, seq))",
            )
        return self.asked(kind, "extreme")

    def min(self) -> Node:
        return self._extreme("minimum")

    def max(self) -> Node:
        return self._extreme("maximum")

    def bool_or(self) -> Node:
        true = self.tables.counted(all_of([self.predicate, self.x]))
        return self.some(self.n(), Node("gt", BOOLEAN, (true, constant(BIGINT, 0))))

    def bool_and(self) -> Node:
        true = self.tables.counted(all_of([self.predicate, self.x]))
        n = self.n()
        return self.some(n, Node("eq", BOOLEAN, (true, n)))

    def _variance(self, op: str) -> Node:
        value = self.int_value(self.aggregate.name)
        n = self.n()
        parts = (n, self.tables.total(value), self.tables.total(value, squared=True))
        variance: Node = Node("variance", DOUBLE, parts)
        if op == "stddev":
            variance = Node("sqrt", DOUBLE, (variance,))
        return when(Node("gt", BOOLEAN, (n, constant(BIGINT, 1))), variance)

    def var_samp(self) -> Node:
        return self._variance("variance")

    def stddev_samp(self) -> Node:
        return self._variance("stddev")

    def _quantile(self, kind: str) -> Node:
        quantile = self.aggregate.quantile
        if quantile is None or quantile[1] is None:
            raise self.bad(f"{self.aggregate.name} without a constant share", "write quantile_cont(x, 0.95)")
        type_, raw = quantile
        share: Fraction | float = Fraction(raw) / 10**type_.scale if type_.is_exact else float(raw)
        if not 0 <= share <= 1:
            raise self.bad(f"the share {show(str(float(share)))} of {self.aggregate.name}", "between 0 and 1")
        if not (self.x.type.is_int or self.x.type.is_double):
            raise self.bad(f"{self.aggregate.name} of {show(str(self.x.type))} rows", "of integers or DOUBLE")
        v, n = self.value_column("order")
        extra = float(raw / 10**type_.scale if type_.is_exact else raw) if kind == "quantile_cont" else share
        node = Node("probe", self.aggregate.type, value=Ask(kind, v, extra))
        return self.some(n, node)

    def quantile_cont(self) -> Node:
        return self._quantile("quantile_cont")

    def median(self) -> Node:
        return self._quantile("quantile_cont")

    def quantile_disc(self) -> Node:
        return self._quantile("quantile_disc")

    def arg_max(self) -> Node:
        hint = "write arg_max(x, (occurred_at, seq)): a time alone leaves ties to chance"
        if len(self.aggregate.args) != 2 or self.aggregate.args[1].op != "row":
            raise self.bad("arg_max by something else than (occurred_at, seq)", hint)
        if [(a.op, a.value) for a in self.aggregate.args[1].args] != [("column", "occurred_at"), ("column", "seq")]:
            raise self.bad("arg_max by something else than (occurred_at, seq)", hint)
        if self.x.op == "column" and self.x.value == "occurred_at":
            return self.asked("last_at", "last", constant(BOOLEAN, True))
        return self.asked("last", "last")

    # the library's own

    def marker(self) -> Node:
        fields = self.x.value
        parts = self.x.args
        name = str(fields[0]).removeprefix("lib_") if isinstance(fields, tuple) and fields else ""
        if name not in ("current_streak", "burst") or not str(fields[0]).startswith("lib_"):  # type: ignore[index]
            raise self.bad("a struct", "a signal is one value; (occurred_at, seq) stands in arg_max only")
        condition = parts[0]
        if not condition.type.is_bool:
            raise self.bad(f"{name} of {show(str(condition.type))}", f"the first argument of {name} is a condition")
        if (parts[1].op, parts[1].value) != ("column", "occurred_at"):
            raise self.bad(
                f"{name} along something else than occurred_at", f"write {name}(condition, occurred_at, ...)"
            )
        if name == "current_streak":
            return self._streak(condition, parts[2])
        return self._burst(condition, parts[2])

    def _streak(self, condition: Node, order: Node) -> Node:
        if (order.op, order.value) != ("column", "seq"):
            raise self.bad("current_streak without seq", "write current_streak(condition, occurred_at, seq)")
        rows = self.tables.counted(self.predicate)
        if rows.op == "const":
            return rows
        holds = Node("coalesce", BOOLEAN, (condition, FALSE)) if self.tables.rows(condition).nullable else condition
        broken = all_of([self.predicate, negation(holds)])
        v = self.tables.column(broken, TRUE, "break")
        return Node("probe", BIGINT, value=Ask("since_break", v, rows.value))

    def _burst(self, condition: Node, interval: Node) -> Node:
        if interval.op != "const" or not isinstance(interval.value, int):
            raise self.bad(
                "burst over an interval that is no constant", "write burst(condition, occurred_at, INTERVAL 5 MINUTE)"
            )
        predicate = all_of([self.predicate, condition])
        if _never(predicate):
            return constant(BIGINT, 0)
        v = self.tables.column(predicate, TRUE, "burst", interval.value)
        return Node("probe", BIGINT, value=Ask("burst", v))
