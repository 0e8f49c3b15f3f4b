"""The same SQL outside the engine: prelude, a view of one entity's window, and the definition as it was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from enrich.errors import BadRequestError, NotFoundError, show
from enrich.events.model import ENTITY_KEYS
from enrich.events.times import format_us
from enrich.signals.bind import EVENT_TYPES
from enrich.signals.catalog import Catalog
from enrich.signals.definition import SignalSet
from enrich.signals.header import Window
from enrich.signals.library import prelude_sql
from enrich.signals.types import SqlType

__all__ = ["LIVE_EVENTS", "query_for", "sql_for"]

#: the events that count, in the engine's DuckDB file
LIVE_EVENTS = "(FROM events WHERE void_seq IS NULL)"


def sql_for(
    catalog: Catalog,
    set_name: str,
    ids: Sequence[str],
    window: str | None,
    as_of_us: int,
    *,
    others: Mapping[str, Sequence[str]] | None = None,
    relation: str = LIVE_EVENTS,
) -> str:
    """SQL to paste into DuckDB, with the engine's file open: the library's macros, then the set for one entity and
    moment.

    Args:
        ids: the entity's id, or both ids of a pair.
        window: the window's name such as `24h`; None for a derived set.
        others: ids of other entities that a derived set reads; one that is missing has no events.
        relation: where events come from; `events_at(s)` for the state at sequence number s.

    Raises:
        NotFoundError: `unknown_set`; BadRequestError: `unknown_window`, or a window with a derived set.
    """
    query = query_for(catalog, set_name, ids, window, as_of_us, others=others, relation=relation)
    return f"SET TimeZone = 'UTC';\n{prelude_sql()}\n{query};\n"


def query_for(
    catalog: Catalog,
    set_name: str,
    ids: Sequence[str],
    window: str | None,
    as_of_us: int,
    *,
    others: Mapping[str, Sequence[str]] | None = None,
    relation: str = LIVE_EVENTS,
) -> str:
    """`sql_for` without the prelude: one SELECT that gives one row."""
    found = catalog.set_named(set_name)
    if found is None:
        raise NotFoundError(
            f"no signal set is named {show(set_name)}",
            code="unknown_set",
            hint=f"sets: {', '.join(s.name for s in catalog.sets)}",
        )
    own = tuple(ids)
    if len(own) != len(ENTITY_KEYS[found.entity]):
        raise BadRequestError(
            f"entity {show(found.entity)} has {len(ENTITY_KEYS[found.entity])} id(s), {len(own)} given",
            code="invalid_entity_id",
        )
    keys: dict[str, tuple[str, ...]] = {e: tuple(k) for e, k in (others or {}).items()}
    keys[found.entity] = own
    if not found.derived:
        for w in found.header.windows:
            if window in (w.name, w.key):
                return _windowed(found, own, w, as_of_us, relation)
        raise BadRequestError(
            f"set {show(set_name)} has no window {show(window)}",
            code="unknown_window",
            hint=f"windows: {', '.join(w.name for w in found.header.windows)}",
        )
    if window is not None:
        raise BadRequestError(f"set {show(set_name)} is derived: it has no window", code="unknown_window")
    return _Derived(catalog, keys, as_of_us, relation).query(found)


def _windowed(s: SignalSet, ids: Sequence[str], window: Window, as_of_us: int, relation: str) -> str:
    columns = ", ".join(c for c in EVENT_TYPES if c not in ("as_of", "window_start"))
    end, start = (f"TIMESTAMPTZ '{format_us(us)}'" for us in (as_of_us, as_of_us - window.us))
    mine = " AND ".join(
        f"{column} = '{value.replace(chr(39), chr(39) * 2)}'"
        for column, value in zip(ENTITY_KEYS[s.entity], ids, strict=True)
    )
    return (
        f"WITH events AS (\n    SELECT {columns}, {end} AS as_of, {start} AS window_start\n    FROM {relation}\n"
        f"    WHERE {mine or 'false'} AND occurred_at > {start} AND occurred_at <= {end}\n)\n{s.sql}"
    )


def _settled(column: str, type_: SqlType) -> str:
    """A value as a context shows it: a DOUBLE is finite and not -0.0, or null."""
    return f"CASE WHEN isfinite({column}) THEN {column} + 0e0 END" if type_.is_double else column


class _Derived:
    """Builds the common table expressions that a derived set needs, each once."""

    def __init__(self, catalog: Catalog, keys: Mapping[str, tuple[str, ...]], as_of_us: int, relation: str) -> None:
        self.catalog = catalog
        self.keys = keys
        self.as_of_us = as_of_us
        self.relation = relation
        self.parts: dict[str, str] = {}
        self.types = {(s.entity, c.name): c.type for s in catalog.sets for c in s.signals}

    def query(self, s: SignalSet) -> str:
        self.parts["signals"] = ""  # keeps its place at the end
        signals = self.signals(s)
        del self.parts["signals"]
        self.parts["signals"] = signals
        inner = ",\n".join(f'"{name}" AS (\n{text}\n)' for name, text in self.parts.items())
        return f"WITH {inner}\n{s.sql}"

    def signals(self, s: SignalSet) -> str:
        """The SELECT whose row is what the set sees as `signals`."""
        tables: dict[str, None] = {}
        fields: dict[str, dict[str, dict[str, str]]] = {}
        for entity, window, name in sorted(s.reads):
            if window:
                table = self.window(entity, window, name)
            else:
                table = self.derived(entity, name)
            tables[table] = None
            value = _settled(f'"{table}"."{name}"', self.types[entity, name])
            fields.setdefault(entity, {}).setdefault(window, {})[name] = value
        columns: list[str] = []
        for entity, windows in fields.items():
            mine: dict[str, str] = dict(windows.get("", {}))
            mine.update({w: _struct(values) for w, values in windows.items() if w})
            if entity == s.entity:
                columns += [f'{value} AS "{name}"' for name, value in mine.items()]
            else:
                columns.append(f'{_struct(mine)} AS "{entity}"')
        source = ", ".join(f'"{t}"' for t in tables)
        return f"    SELECT {', '.join(columns) or 'true AS nothing'}" + (f"\n    FROM {source}" if source else "")

    def window(self, entity: str, key: str, name: str) -> str:
        one = next(
            s
            for s in self.catalog.sets
            if s.entity == entity and not s.derived and any(c.name == name for c in s.signals)
        )
        window = next(w for w in one.header.windows if w.key == key)
        table = f"{entity}.{one.name}.{window.name}"
        if table not in self.parts:
            ids = self.keys.get(entity, ())
            if ids:
                self.parts[table] = _windowed(one, ids, window, self.as_of_us, self.relation)
            else:
                nobody = ("",) * len(ENTITY_KEYS[entity])
                self.parts[table] = _windowed(one, nobody, window, self.as_of_us, self.relation)
        return table

    def derived(self, entity: str, name: str) -> str:
        one = next(
            s for s in self.catalog.sets if s.entity == entity and s.derived and any(c.name == name for c in s.signals)
        )
        table = f"{entity}.{one.name}"
        if table not in self.parts:
            signals = self.signals(one)
            self.parts[table] = f"WITH signals AS (\n{signals}\n)\n{one.sql}"
        return table


def _struct(fields: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"'{n}': {value}" for n, value in fields.items()) + "}"
