"""From DuckDB's bound plan to the compiler's form: whitelisted node by node, the rest refused with its rewrite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from enrich.errors import DefinitionError, show
from enrich.signals.ir import Node, Span, constant, input_of
from enrich.signals.refusals import FUNCTION_HINTS, TYPE_HINTS
from enrich.signals.shape import Shape, span
from enrich.signals.source import Source
from enrich.signals.types import BOOLEAN, INT_RANGES, SqlType

__all__ = ["Aggregate", "BoundSet", "Expressions", "read_plan", "scanned_columns"]

#: DuckDB's scalar functions by name, with how many arguments they may have
_SCALARS: Final[Mapping[str, tuple[int, ...]]] = {
    "+": (1, 2), "-": (1, 2), "*": (2,), "/": (2,), "//": (2,), "%": (2,),
    "abs": (1,), "ln": (1,), "exp": (1,), "sqrt": (1,), "pow": (2,), "power": (2,), "round": (1, 2),
    "greatest": (), "least": (), "isfinite": (1,), "epoch": (1,), "->>": (2,), "struct_extract": (2,),
    "to_days": (1,), "to_hours": (1,), "to_minutes": (1,), "to_seconds": (1,), "to_milliseconds": (1,),
    "to_microseconds": (1,), "to_weeks": (1,), "struct_pack": (), "row": (),
}  # fmt: skip
_COMPARISONS: Final[Mapping[str, str]] = {
    "COMPARE_EQUAL": "eq",
    "COMPARE_NOTEQUAL": "ne",
    "COMPARE_LESSTHAN": "lt",
    "COMPARE_LESSTHANOREQUALTO": "le",
    "COMPARE_GREATERTHAN": "gt",
    "COMPARE_GREATERTHANOREQUALTO": "ge",
    "COMPARE_DISTINCT_FROM": "distinct_from",
    "COMPARE_NOT_DISTINCT_FROM": "not_distinct_from",
}
_OPERATORS: Final[Mapping[str, str]] = {
    "OPERATOR_IS_NULL": "is_null",
    "OPERATOR_IS_NOT_NULL": "is_not_null",
    "OPERATOR_NOT": "not",
    "OPERATOR_COALESCE": "coalesce",
    "OPERATOR_TRY": "try",
    "COMPARE_IN": "in",
    "COMPARE_NOT_IN": "not_in",
}
_TYPES: Final = frozenset({*INT_RANGES, "BOOLEAN", "DOUBLE", "DECIMAL", "VARCHAR", "TIMESTAMP WITH TIME ZONE"})
#: types that only stand inside a few functions
_INNER_TYPES: Final = frozenset({"INTERVAL", "STRUCT", "TUPLE", "NULL"})


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One aggregate of a set, over row expressions."""

    name: str
    type: SqlType
    args: tuple[Node, ...]
    filter: Node | None
    distinct: bool
    quantile: tuple[SqlType, Any] | None
    at: Span | None


@dataclass(frozen=True, slots=True)
class BoundSet:
    """A definition as bound: one expression per column, over `aggregate` leaves or, in derived sets, `input` leaves."""

    columns: tuple[Node, ...]
    aggregates: tuple[Aggregate, ...]
    where: tuple[Node, ...]


class Expressions:
    """Turns bound expressions into nodes.

    Args:
        places: where expressions of the text begin; a position outside it comes from a macro's body and is replaced by
            `fallback`.
    """

    def __init__(self, source: Source, places: frozenset[int], fallback: Span | None = None) -> None:
        self.source = source
        self.places = places
        self.fallback = fallback

    def at(self, e: Mapping[str, Any]) -> Span | None:
        found = span(e)
        return found if found is not None and found[0] in self.places else self.fallback

    def refuse(self, message: str, at: Span | None, hint: str | None = None) -> DefinitionError:
        return self.source.error_at(message, at, code="unsupported", hint=hint)

    def type(self, t: Mapping[str, Any] | None, at: Span | None) -> SqlType:
        if t is None:
            return BOOLEAN  # conjunctions carry no type of their own
        name = str(t["id"])
        info = t.get("type_info") or {}
        if name == "DECIMAL":
            return SqlType(name, int(info["width"]), int(info.get("scale", 0)))
        if name in _TYPES or name in _INNER_TYPES:
            return SqlType(name)
        raise self.refuse(f"the type {show(name)}", at, TYPE_HINTS.get(name, TYPE_HINTS["*"]))

    def read(self, e: Mapping[str, Any], leaf: Callable[[int, SqlType, Span | None], Node]) -> Node:
        """One expression; `leaf(index, type, at)` answers the references into the plan node below."""
        at = self.at(e)
        kind = e["expression_class"]
        if kind == "BOUND_REF":
            own = span(e)
            return leaf(int(e["index"]), self.type(e["return_type"], at), own if own == at else None)
        if kind == "BOUND_CONSTANT":
            return self._constant(e["value"], at)
        if kind == "BOUND_CASE":
            args: list[Node] = []
            for check in e["case_checks"]:
                args += [self.read(check["when_expr"], leaf), self.read(check["then_expr"], leaf)]
            args.append(self.read(e["else_expr"], leaf))
            return Node("case", self.type(e["return_type"], at), tuple(args), at=at)
        children = tuple(self.read(c, leaf) for c in e.get("children", ()))
        if kind == "BOUND_CONJUNCTION":
            op = {"CONJUNCTION_AND": "and", "CONJUNCTION_OR": "or"}[e["type"]]
            return Node(op, BOOLEAN, children, at=at)
        if kind == "BOUND_OPERATOR" and e["type"] in _OPERATORS:
            op = _OPERATORS[e["type"]]
            if op == "not_in":
                return Node("not", BOOLEAN, (Node("in", BOOLEAN, children, at=at),), at=at)
            if op == "is_not_null":
                return Node("not", BOOLEAN, (Node("is_null", BOOLEAN, children, at=at),), at=at)
            return Node(op, self.type(e["return_type"], at), children, at=at)
        if kind == "BOUND_FUNCTION":
            return self._function(e, children, at)
        raise self.refuse(f"{show(e.get('type', kind))} is no part of a definition", at)

    def _function(self, e: Mapping[str, Any], children: tuple[Node, ...], at: Span | None) -> Node:
        type_ = self.type(e["return_type"], at)
        if e["type"] in _COMPARISONS:
            return Node(_COMPARISONS[e["type"]], BOOLEAN, children, at=at)
        if e["type"] == "OPERATOR_CAST":
            op = "try_cast" if e["function_data"]["try_cast"] else "cast"
            return _folded(op, children[0], type_, at)
        name = str(e["qname"]["path"][-1])
        counts = _SCALARS.get(name)
        if e["type"] != "BOUND_FUNCTION" or counts is None or (counts and len(children) not in counts):
            raise self.refuse(
                f"the function {show(name)} with {len(children)} argument(s)"
                if counts
                else f"the function {show(name)}",
                at,
                FUNCTION_HINTS.get(name, FUNCTION_HINTS["*"]),
            )
        if name in ("+", "-") and len(children) == 1:
            return children[0] if name == "+" else Node("neg", type_, children, at=at)
        if name == "struct_pack":
            return Node("struct", type_, children, tuple(e.get("named_arguments", ())), at=at)
        if name == "struct_extract" and children[0].op == "input" and children[1].op == "const":
            path = (*children[0].value, str(children[1].value))  # type: ignore[misc]
            return input_of(type_, path, at)
        if name.startswith("to_"):
            return self._interval(name, children[0], at)
        return Node({"power": "pow", "->>": "text_of"}.get(name, name), type_, children, at=at)

    def _interval(self, name: str, count: Node, at: Span | None) -> Node:
        units = {
            "to_weeks": 604_800_000_000, "to_days": 86_400_000_000, "to_hours": 3_600_000_000, "to_minutes": 60_000_000,
            "to_seconds": 1_000_000, "to_milliseconds": 1_000, "to_microseconds": 1,
        }  # fmt: skip
        value = count.value
        us = value * units[name] if count.op == "const" and isinstance(value, (int, float)) else None
        if us is None or us != int(us) or us <= 0:
            raise self.refuse(
                "an interval that is no constant number of microseconds",
                at,
                "write INTERVAL 5 MINUTE, INTERVAL 24 HOUR",
            )
        return constant(SqlType("INTERVAL"), int(us), at)

    def _microseconds(self, value: Any, at: Span | None) -> int:
        if not isinstance(value, Mapping) or value.get("months"):
            raise self.refuse(
                "an interval that is no number of microseconds", at, "write INTERVAL 5 MINUTE, INTERVAL 24 HOUR"
            )
        return int(value.get("days", 0)) * 86_400_000_000 + int(value.get("micros", 0))

    def _constant(self, v: Mapping[str, Any], at: Span | None) -> Node:
        type_ = self.type(v["type"], at)
        if v.get("is_null") or type_.id == "NULL":
            return constant(type_, None, at)
        value = v["value"]
        if type_.is_exact:
            value = wide(value)
        elif type_.is_double:
            value = float(value)
        elif type_.id == "INTERVAL":
            value = self._microseconds(value, at)
        elif not isinstance(value, (bool, str)):
            raise self.refuse(f"a constant of type {show(str(type_))}", at)
        return constant(type_, value, at)


def wide(value: Any) -> int:
    """An integer of the plan; 128-bit ones come in two halves."""
    if isinstance(value, Mapping):
        return (int(value["upper"]) << 64) + int(value["lower"])
    return int(value)


def _folded(op: str, child: Node, type_: SqlType, at: Span | None) -> Node:
    """A cast; one that changes nothing, and one of a plain integer constant to another integer, is left out."""
    if child.type == type_:
        return child
    if child.op == "const":
        if child.value is None:
            return constant(type_, None, at)
        if child.type.is_int and type_.is_int and isinstance(child.value, int):
            low, high = type_.range
            if low <= child.value <= high:
                return constant(type_, child.value, at)
        if child.type.is_int and type_.is_double and isinstance(child.value, int) and abs(child.value) <= 2**53:
            return constant(type_, float(child.value), at)
    return Node(op, type_, (child,), at=at)


def scanned_columns(get: Mapping[str, Any]) -> list[str]:
    """Names of the columns that a LOGICAL_GET reads, in its order.

    Where none is needed, as for a bare count(*), DuckDB reads one that is no column, with an index beyond all names.
    """
    names = get["names"]
    return [names[i] if (i := c["index"]) < len(names) else "" for c in get.get("column_indexes", ())]


def read_plan(source: Source, shape: Shape, plan: Mapping[str, Any]) -> BoundSet:
    """The bound plan of a definition whose outer shape was found good.

    Raises:
        DefinitionError: a plan node, function, type or literal that has no exact compiled form.
    """
    chain: list[Mapping[str, Any]] = []
    node: Mapping[str, Any] | None = plan
    while node is not None:
        chain.append(node)
        children = node.get("children", ())
        node = children[0] if len(children) == 1 else None
    names = [n["type"] for n in chain]
    get = chain[-1]
    if names[0] != "LOGICAL_PROJECTION" or names[-1] != "LOGICAL_GET":
        raise source.error("a definition that is more than one SELECT over one relation", 0, code="unsupported")
    columns = scanned_columns(get)
    if shape.relation == "signals":
        if names != ["LOGICAL_PROJECTION", "LOGICAL_GET"]:
            raise source.error_at(
                "a derived set is one row: no aggregates and no WHERE",
                shape.items[0].at,
                code="unsupported",
                hint="aggregates belong into a set over events; a condition is CASE WHEN condition THEN value END",
            )
        return BoundSet(_projection(source, shape, chain[0], lambda i, t, at: input_of(t, (columns[i],), at)), (), ())
    middle = names[1:-1]
    if not middle or middle[0] != "LOGICAL_AGGREGATE_AND_GROUP_BY" or set(middle[1:]) - {"LOGICAL_FILTER"}:
        raise source.error_at(
            "a set without an aggregate" if not middle else f"the plan has {show(' '.join(middle))}",
            shape.items[0].at,
            code="unsupported",
            hint="a signal is one value per window: count(*), max(duration_ms), arg_max(x, (occurred_at, seq))",
        )

    def column(index: int, type_: SqlType, at: Span | None) -> Node:
        return Node("column", type_, value=columns[index], at=at)

    def aggregate(index: int, type_: SqlType, at: Span | None) -> Node:
        return Node("aggregate", type_, value=index, at=at)

    used = _first_uses(shape, chain[0]["expressions"])
    rows = Expressions(source, shape.places, shape.items[0].at)
    where = tuple(rows.read(e, column) for n in chain[2:-1] for e in n.get("expressions", ()))
    aggregates = tuple(
        _aggregate(Expressions(source, shape.places, used.get(i)), e, column)
        for i, e in enumerate(chain[1].get("expressions", ()))
    )
    return BoundSet(_projection(source, shape, chain[0], aggregate), aggregates, where)


def _first_uses(shape: Shape, columns: list[Any]) -> dict[int, Span]:
    """Aggregates have no place of their own: that of the first column that uses one stands for it."""
    used: dict[int, Span] = {}
    for item, column in zip(shape.items, columns, strict=True):
        stack: list[Any] = [column]
        while stack:
            value = stack.pop()
            if isinstance(value, dict):
                if value.get("expression_class") == "BOUND_REF":
                    used.setdefault(int(value["index"]), item.at)
                stack.extend(value.values())
            elif isinstance(value, list):
                stack.extend(value)
    return used


def _projection(
    source: Source, shape: Shape, node: Mapping[str, Any], leaf: Callable[[int, SqlType, Span | None], Node]
) -> tuple[Node, ...]:
    found = []
    for item, e in zip(shape.items, node["expressions"], strict=True):
        reader = Expressions(source, shape.places, item.at)
        expression = reader.read(e, leaf)
        if expression.type.id not in _TYPES:
            raise reader.refuse(
                f"a signal of type {show(str(expression.type))}", item.at, TYPE_HINTS.get(expression.type.id)
            )
        found.append(expression)
    return tuple(found)


def _aggregate(
    rows: Expressions, e: Mapping[str, Any], column: Callable[[int, SqlType, Span | None], Node]
) -> Aggregate:
    at = rows.at(e)
    name = str(e.get("qname", {}).get("path", [e.get("type", "?")])[-1])
    if e["expression_class"] != "BOUND_AGGREGATE":
        raise rows.refuse(f"{show(name)} is no aggregate of a definition", at)
    if name not in AGGREGATES:
        raise rows.refuse(f"the aggregate {show(name)}", at, FUNCTION_HINTS.get(name, FUNCTION_HINTS["*aggregate"]))
    if e.get("order_bys"):
        raise rows.refuse(f"ORDER BY inside {show(name)}", at, "leave it out, or write arg_max(x, (occurred_at, seq))")
    data = e.get("function_data") or {}
    quantile = None
    if "quantiles" in data:
        if len(data["quantiles"]) != 1 or data.get("desc"):
            raise rows.refuse(f"{show(name)} with a list or descending", at, "one quantile a column, between 0 and 1")
        value = rows._constant(data["quantiles"][0], at)
        quantile = (value.type, value.value)
    return Aggregate(
        name,
        rows.type(e["return_type"], at),
        tuple(rows.read(c, column) for c in e.get("children", ())),
        rows.read(e["filter"], column) if "filter" in e else None,
        e.get("aggregate_type") == "DISTINCT",
        quantile,
        at,
    )


AGGREGATES: Final = frozenset({
    "count", "count_star", "sum", "avg", "min", "max", "bool_and", "bool_or", "var_samp", "stddev_samp",
    "quantile_cont", "quantile_disc", "median", "arg_max",
})  # fmt: skip
