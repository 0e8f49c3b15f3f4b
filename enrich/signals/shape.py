"""The outer shape of a definition: one plain SELECT over `events` or `signals`, every item named."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from enrich.errors import DefinitionError, show
from enrich.signals.bind import Binder, BoundError
from enrich.signals.ir import Span
from enrich.signals.nesting import MAX_LEVELS, MAX_PARTS, measure
from enrich.signals.source import Source
from enrich.signals.types import INT_RANGES

__all__ = ["Item", "Shape", "bound_error", "read_shape"]

_NONE: Final = 2**64 - 1
#: a list of every overload helps nobody
_LONG_HINT: Final = 200
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_RESERVED: Final = re.compile(r"id|known|complete|in_flight|last_\w+")

#: part of a SELECT to what to do without it
_PARTS: Final[Mapping[str, tuple[str, str]]] = {
    "group_expressions": ("GROUP BY", "a set is one row per entity and window: count with FILTER (WHERE ...) instead"),
    "group_sets": ("GROUP BY", "a set is one row per entity and window: count with FILTER (WHERE ...) instead"),
    "having": ("HAVING", "write the condition as a signal, or CASE WHEN condition THEN value END"),
    "qualify": ("QUALIFY", "what depends on order is written arg_max(x, (occurred_at, seq))"),
    "sample": ("TABLESAMPLE", "signals are exact: leave it out"),
    "cte_map": ("WITH", "name intermediate values as columns: a later column can use an earlier one's name"),
    "ORDER_MODIFIER": (
        "ORDER BY",
        "a set is one row: leave it out; for the last value use arg_max(x, (occurred_at, seq))",
    ),
    "LIMIT_MODIFIER": ("LIMIT", "a set is one row: leave it out"),
    "LIMIT_PERCENT_MODIFIER": ("LIMIT", "a set is one row: leave it out"),
    "DISTINCT_MODIFIER": ("DISTINCT", "write count(DISTINCT x)"),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One select item: its name and where its expression stands (bytes of the SQL)."""

    name: str
    at: Span


@dataclass(frozen=True, slots=True)
class Shape:
    relation: str
    items: tuple[Item, ...]
    from_at: int
    places: frozenset[int]  # where expressions of this text begin
    columns: tuple[tuple[tuple[str, ...], Span], ...]  # every column reference: its parts and place


def bound_error(source: Source, error: BoundError) -> DefinitionError:
    """DuckDB's own complaint as a refusal at its place."""
    if error.kind == "not implemented":
        return source.error("a definition is one plain SELECT", 0, code="duckdb_error")
    first, _, rest = error.message.partition("\n")
    hint = " ".join(rest.split())
    hint = "" if len(hint) > _LONG_HINT else hint
    name = error.name
    if outside := re.match(r'column "(\w+)" must appear in the GROUP BY clause', first):
        name = outside[1]
        first = f"{show(name)} outside of an aggregate"
        hint = "a signal is one value per window: max(x), arg_max(x, (occurred_at, seq)), max(as_of)"
    if error.position is not None:
        at = (error.position, len((name or "x").encode()))
        return source.error_at(first, at, code="duckdb_error", hint=hint or None)
    # DuckDB gives no place: that of the name it complains about
    quoted = re.search(r'"(\w+)"', first)
    for token in source.tokens:
        if quoted is not None and token.kind == "name" and token.text == quoted[1]:
            return source.error(first, token.start, len(token.text), code="duckdb_error", hint=hint or None)
    return source.error_at(first, None, code="duckdb_error", hint=hint or None)


def span(node: Mapping[str, Any]) -> Span | None:
    start = node.get("query_location", _NONE)
    return None if start == _NONE else (int(start), int(node.get("query_location_length", 1)))


def read_shape(source: Source, binder: Binder) -> Shape:
    """Parse the definition and refuse everything around its expressions that has no place in one.

    Raises:
        DefinitionError: a syntax error, or not `SELECT named expressions FROM events|signals [WHERE]`.
    """
    try:
        statements = binder.parse(source.sql)
    except BoundError as error:
        raise bound_error(source, error) from None
    if len(statements) != 1:
        raise source.error(f"a definition is one SELECT, not {len(statements)} statements", 0)
    _check_words(source)
    node = statements[0]["node"]
    if node["type"] != "SELECT_NODE":
        raise source.error(
            f"a definition is one plain SELECT, not {show(node['type'])}", 0, hint="no UNION, VALUES or recursion"
        )
    for modifier in node.get("modifiers", ()):
        _refuse_part(source, modifier["type"], modifier)
    for part in ("group_expressions", "group_sets", "having", "qualify", "sample", "cte_map"):
        if node.get(part) and node[part] != {"map": []}:
            _refuse_part(source, part, node[part])
    if node.get("aggregate_handling") != "STANDARD_HANDLING":
        _refuse_part(source, "group_expressions", node)
    table = node.get("from_table") or {}
    relation = str(table.get("table_name", ""))
    if table.get("sample"):
        _refuse_part(source, "sample", table)
    path = (table.get("qualified_name") or {}).get("path", [])
    plain = table.get("type") == "BASE_TABLE" and len(path) == 1 and not table.get("alias")
    if not plain or relation.lower() not in ("events", "signals"):
        raise source.error_at(
            f"FROM {show(relation or table.get('type', 'nothing'))}: a set reads `events`, a derived set `signals`",
            span(table),
            hint="no joins, subqueries, table functions, files, other tables or aliases",
        )
    places: set[int] = set()
    columns: list[tuple[tuple[str, ...], Span]] = []
    for expression in _expressions(node.get("select_list", []), node.get("where_clause")):
        at = span(expression)
        if at is not None:
            places.add(at[0])
        _check(source, expression, at)
        if expression["class"] == "COLUMN_REF" and at is not None:
            columns.append((tuple(expression["column_names"]), at))
    items = tuple(_item(source, item) for item in node["select_list"])
    _unique(source, items)
    _check_size(source, items, node)
    from_at = span(table)
    return Shape(relation.lower(), items, from_at[0] if from_at else 0, frozenset(places), tuple(columns))


def _check_words(source: Source) -> None:
    """Refuse what DuckDB's parsed form does not show: parentheses around the SELECT, and a WINDOW clause."""
    code = [t for t in source.tokens if t.kind != "comment"]
    if code[0].text == "(":
        raise source.error("parentheses around the SELECT", code[0].start, hint="leave them out")
    for before, token in itertools.pairwise(code):
        if token.kind == "name" and token.text.lower() == "window" and before.text.lower() not in ("as", "."):
            raise source.error(
                "WINDOW has no place in a definition",
                token.start,
                len(token.text),
                hint="the window is the set's own: leave it out",
            )


def _expressions(*roots: object) -> Iterator[dict[str, Any]]:
    """Every parsed expression below `roots`."""
    stack = list(reversed(roots))
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if "class" in value and "type" in value:
                yield value
            stack.extend(reversed(list(value.values())))
        elif isinstance(value, list):
            stack.extend(reversed(value))


def _check(source: Source, node: Mapping[str, Any], at: Span | None) -> None:
    kind = node["class"]
    if kind == "SUBQUERY":
        raise source.error_at(
            "a subquery", at, hint="a set reads one entity's events once; compare two windows in a derived set"
        )
    if kind == "WINDOW":
        raise source.error_at(
            "OVER", at, hint="the window is the set's own; the last value is arg_max(x, (occurred_at, seq))"
        )
    if kind == "CONSTANT" and node.get("literal", {}).get("kind") == "INTEGER":
        low, high = INT_RANGES["HUGEINT"]
        if not low <= int(node["literal"]["text"].replace("_", "")) <= high:
            raise source.error_at("an integer beyond 128 bits", at, hint="write a DOUBLE: 1e40")
    if kind == "STAR":
        raise source.error_at("`*` as a column", at, hint="name each signal: count(*) AS runs")
    if kind == "FUNCTION" and at is not None and (node.get("schema") or source.sql_before(at[0]).endswith(".")):
        name = str(node.get("function_name"))
        raise source.error_at(
            f"{show(name)} called with a dot", at, hint=f"write the call with its arguments: {name}(x)"
        )
    if kind == "FUNCTION" and node.get("function_name") == "struct_extract":
        raise source.error_at("struct_extract", at, hint="write the signal's path: last_24h.failure_rate")
    if kind == "FUNCTION" and node.get("is_operator") and node.get("function_name") in ("^", "**"):
        raise source.error_at(
            f"the operator {show(node['function_name'])}",
            at,
            hint="write pow(x, y): -2^2 is 4 in SQL, which few expect",
        )


def _item(source: Source, node: Mapping[str, Any]) -> Item:
    at = span(node) or (0, 1)
    name = str(node.get("alias") or (node["column_names"][-1] if node["class"] == "COLUMN_REF" else ""))
    if not name:
        raise source.error_at("a column without a name", at, hint="write `expression AS name`")
    if _NAME.fullmatch(name) is None:
        raise source.error_at(
            f"a signal's name is {show(name)}", at, hint="lower case letters, digits and _, at most 63"
        )
    if _RESERVED.fullmatch(name):
        raise source.error_at(f"the name {show(name)} is reserved in a context", at, hint="choose another name")
    return Item(name, at)


def _check_size(source: Source, items: tuple[Item, ...], node: Mapping[str, Any]) -> None:
    named: dict[str, tuple[int, int]] = {}
    where = [(Item("", span(node["where_clause"]) or (0, 1)), node["where_clause"])] if "where_clause" in node else []
    for item, expression in [*zip(items, node["select_list"], strict=True), *where]:
        levels, parts = named[item.name] = measure(expression, named)
        if levels > MAX_LEVELS or parts > MAX_PARTS:
            raise source.error_at(
                f"more than {MAX_LEVELS} operations one inside the other"
                if levels > MAX_LEVELS
                else f"more than {MAX_PARTS} operations, with the names in it written out",
                item.at,
                code="unsupported",
                hint="an earlier column's name stands for its whole expression: split the column, or make it flatter",
            )


def _unique(source: Source, items: tuple[Item, ...]) -> None:
    seen: set[str] = set()
    for item in items:
        if item.name in seen:
            raise source.error_at(f"column {show(item.name)} stands twice", item.at)
        seen.add(item.name)


def _refuse_part(source: Source, part: str, where: object) -> None:
    name, hint = _PARTS.get(part, (part, ""))
    at = next((s for s in map(span, _expressions(where)) if s is not None), None)
    if at is None:
        select = next((t for t in source.tokens if t.text.lower() == "select"), None)
        raise source.error(f"{name} has no place in a definition", select.start if select else 0, 6, hint=hint)
    raise source.error_at(f"{name} has no place in a definition", at, hint=hint)
