"""All sets of one entity together: its plan for the index, and its functions for one selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from enrich.errors import DefinitionError, show
from enrich.events.model import ENTITY_KEYS
from enrich.signals.bind import Binder
from enrich.signals.definition import SignalSet
from enrich.signals.facts import Known
from enrich.signals.header import Window
from enrich.signals.ir import Node
from enrich.signals.lower import PlanTables
from enrich.signals.plan import EntityPlan, WindowFunction
from enrich.signals.read import Expressions, scanned_columns
from enrich.signals.rows import row_columns, rows_function
from enrich.signals.rules import normalise
from enrich.signals.source import Source
from enrich.signals.sqltext import text
from enrich.signals.window import window_function

__all__ = ["EntitySets", "entity_plan"]


def entity_plan(entity: str, tables: PlanTables, binder: Binder) -> EntityPlan:
    """What the index keeps for an entity.

    Raises:
        DefinitionError: the SQL written for a row expression does not mean what the definition said; a mistake of the
            compiler, never of the definition.
    """
    _check_text(entity, tables, binder)
    counts, sums, values, reads = row_columns(tables)
    return EntityPlan(entity, ENTITY_KEYS[entity], counts, sums, values, reads, rows_function(tables))


def _check_text(entity: str, tables: PlanTables, binder: Binder) -> None:
    """INVARIANT: a row expression's SQL, bound again, is the expression it was written from."""
    nodes = [*tables.counts, *(n for n, _ in tables.sums), *(v.value for v in tables.values)]
    if not nodes:
        return
    source = Source(f"{entity} rows", f"SELECT {', '.join(text(n) for n in nodes)} FROM events")
    plan = binder.plan(source.sql)
    get = plan["children"][0]
    columns = scanned_columns(get)
    reader = Expressions(source, frozenset())

    def refuse(message: str, at: object, hint: str | None) -> DefinitionError:
        return source.error(message, 0, hint=hint)

    for node, e in zip(nodes, plan["expressions"], strict=True):
        again = normalise(reader.read(e, lambda i, t, at: Node("column", t, value=columns[i], at=at)), refuse)
        if _flat(again) != _flat(node):
            raise source.error(
                f"the row expression {show(text(node))} reads back as {show(repr(again))}", 0, code="compiler_mistake"
            )


def _flat(node: Node) -> Node:
    """Without `assume`, and with nested AND and OR as one: what may differ between a text and its expression."""

    def change(n: Node) -> Node | None:
        if n.op == "assume":
            return n.args[0]
        if n.op in ("and", "or") and any(a.op == n.op for a in n.args):
            return n.with_args(tuple(b for a in n.args for b in (a.args if a.op == n.op else (a,))))
        return None

    return node.replace(change)


class EntitySets:
    """The compiled sets over events of one entity."""

    def __init__(self, entity: str, tables: PlanTables, sets: Sequence[SignalSet], plan: EntityPlan) -> None:
        self.entity = entity
        self.plan = plan
        self.known = Known(tables.leaf_facts)
        self._tables = tables
        windows: dict[str, Window] = {}
        #: window's key in a context -> signal's name -> expression
        self.signals: dict[str, dict[str, Node]] = {}
        for one in sets:
            for window in one.header.windows:
                windows[window.key] = window
                self.signals.setdefault(window.key, {}).update({s.name: s.node for s in one.signals})
        self.windows = tuple(sorted(windows.values()))

    def roots(self) -> list[Node]:
        """All row expressions."""
        tables = self._tables
        return [*tables.counts, *(n for n, _ in tables.sums), *(v.value for v in tables.values)]

    def function(self, selected: Sequence[str], window: Window, slots: Mapping[str, int]) -> WindowFunction:
        """The function of one window: `selected` are shown, those in `slots` are written into `raw`."""
        known = self.signals[window.key]
        names = [n for n in known if n in selected or n in slots]
        hidden = frozenset(n for n in names if n not in selected)
        return window_function(self._tables, self.known, {n: known[n] for n in names}, slots, hidden)
