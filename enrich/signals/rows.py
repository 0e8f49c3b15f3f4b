"""Row expressions in compiled Python: the counts, sums and values that their SQL gives, for a few events at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from enrich.signals.ir import Node
from enrich.signals.layout import arrange, function
from enrich.signals.lower import PlanTables
from enrich.signals.pieces import Val
from enrich.signals.plan import RowExpression, SumColumn, ValueColumn, ValueType
from enrich.signals.runtime import NAMES
from enrich.signals.scalar import Scalars
from enrich.signals.sqltext import column_sql, text
from enrich.signals.texts import TEXT_NAMES

__all__ = ["row_columns", "rows_function"]

_TYPES = {
    "BOOLEAN": ValueType.BOOL,
    "DOUBLE": ValueType.DOUBLE,
    "VARCHAR": ValueType.VARCHAR,
    "TIMESTAMP WITH TIME ZONE": ValueType.TIMESTAMPTZ,
}


def _expression(node: Node) -> RowExpression:
    return RowExpression(column_sql(node), _TYPES.get(node.type.id, ValueType.INT))


def row_columns(
    tables: PlanTables,
) -> tuple[tuple[RowExpression, ...], tuple[SumColumn, ...], tuple[ValueColumn, ...], frozenset[str]]:
    """What the index keeps, with its SQL; and the columns of events that are read."""
    counts = tuple(RowExpression(text(node), ValueType.BOOL) for node in tables.counts)
    sums = tuple(SumColumn(_expression(node), squared) for node, squared in tables.sums)
    values = tuple(
        ValueColumn(entry.count, _expression(entry.value), frozenset(entry.uses), entry.burst_us)
        for entry in tables.values
    )
    reads: set[str] = set()
    for root in (*tables.counts, *(s for s, _ in tables.sums), *(v.value for v in tables.values)):
        for node in root.walk():
            if node.op == "column":
                reads.add(str(node.value))
            elif node.op == "attribute":
                reads.add("attributes")
    return counts, sums, values, frozenset(reads)


def rows_function(
    tables: PlanTables,
) -> Callable[[Mapping[str, Sequence[Any]], int], Iterable[tuple[Any, ...]]]:
    """`EntityPlan.rows`: all row expressions of an entity, event by event."""
    columns: dict[str, str] = {}
    attributes: dict[str, str] = {}

    def leaf(node: Node) -> Val:
        if node.op == "attribute":
            key = str(node.value)
            name = attributes.setdefault(key, f"a{len(attributes)}")
            columns.setdefault("attributes", "v_attributes")
        else:
            key = str(node.value)
            name = columns.setdefault(key, f"v_{key}")
        return Val(name, (f"{name} is not None",) if tables.rows(node).nullable else ())

    roots = [*tables.counts, *(s for s, _ in tables.sums), *(v.value for v in tables.values)]
    scalars = Scalars(roots, tables.rows, leaf)
    parts = [f"1 if {scalars.true(node)} else 0" for node in tables.counts]
    counts = [scalars.define(part, ()) for part in parts]
    cells = list(counts)
    for node, squared in tables.sums:
        value = scalars.final(node)
        if squared:
            name = value.code if value.code.isidentifier() else scalars.define(value.code, value.guards)
            value = Val(f"{name} * {name}", value.guards)
        cells.append(f"({value.code} if {' and '.join(value.guards)} else 0)" if value.guards else value.code)
    for entry in tables.values:
        value = scalars.final(entry.value)
        code = f"({value.code} + 0.0)" if entry.value.type.is_double else value.code
        code = f"int({code})" if entry.value.type.is_bool and code != "True" else "1" if code == "True" else code
        cells.append(f"({code} if {counts[entry.count]} else None)")
    read = [f"{a} = _text(v_attributes.get({key!r})) if v_attributes else None" for key, a in attributes.items()]
    names = list(columns.values())
    loop = f"for {', '.join(names)} in zip({', '.join(f'columns[{c!r}]' for c in columns)}):"
    if len(names) == 1:
        (column,) = columns
        loop = f"for {names[0]} in columns[{column!r}]:"
    if not names:
        loop = "for _ in range(n):"
    row = f"append(({', '.join(cells)}{',' if len(cells) == 1 else ''}))"
    body = [
        "out = []",
        "append = out.append",
        loop,
        *("    " + line for line in (*read, *arrange(scalars.statements), row)),
        "return out",
    ]
    return function("rows", "columns, n", body, {**NAMES, **TEXT_NAMES})
