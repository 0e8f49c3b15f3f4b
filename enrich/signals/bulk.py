"""The definitions' own SQL for many entities and moments at once: what DuckDB says, never what the compiler made of it.

One set is one query over all questions and windows: its SELECT, grouped by question, over `events` joined with the
questions. Only three places of the text change, and the compiler has no hand in it: two columns in front of the select
list, a GROUP BY at the end, and `avg(x)` without FILTER as `sum(x) / count(x)`, which DuckDB 2.0 makes of it in a plain
query and not in a grouped one. A question without rows is answered by the unchanged SQL over no rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import duckdb

from enrich.events.model import ENTITY_KEYS
from enrich.events.times import format_us
from enrich.signals.bind import EVENT_TYPES
from enrich.signals.catalog import Catalog
from enrich.signals.definition import SignalSet
from enrich.signals.header import Window
from enrich.signals.library import prelude_sql
from enrich.signals.offline import LIVE_EVENTS
from enrich.signals.scan import scan

__all__ = ["BulkAnswers", "Question", "bulk_answers", "grouped_sql"]

_TIMESTAMPTZ: Final = "TIMESTAMP WITH TIME ZONE"
_INT64: Final = 2**63
#: what a definition may raise over some of the questions; those have no value
_RAISED: Final = (duckdb.OutOfRangeException, duckdb.ConversionException, duckdb.InvalidInputException)


@dataclass(frozen=True, slots=True)
class Question:
    """A moment and the entities asked about, as ids or pairs of ids; an entity that is left out is an unknown one."""

    as_of_us: int
    keys: Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class BulkAnswers:
    """One set's answers for one window, None for a derived set.

    `questions` are indices into the questions asked, ascending: those that name the set's entity. `values` holds a list
    beside it for each signal, settled as a context shows values: not finite and beyond 64 bits is None, -0.0 is 0.0, a
    time is RFC 3339.
    """

    set: SignalSet
    window: Window | None
    questions: list[int]
    values: Mapping[str, list[Any]]


def bulk_answers(
    cursor: duckdb.DuckDBPyConnection,
    catalog: Catalog,
    questions: Sequence[Question],
    *,
    relation: str = LIVE_EVENTS,
    sets: Sequence[SignalSet] | None = None,
) -> Iterator[BulkAnswers]:
    """Every set's answers to all questions that name its entity, derived sets last.

    Args:
        sets: those to answer; None for all of the catalog.
        cursor: on a database in UTC that has `relation`; temporary tables and the library's macros are left on it.
        relation: events with the columns of `EVENT_TYPES` but `as_of` and `window_start`, such as `events_at(s)`.

    Raises:
        duckdb.Error: a definition that can't run at all. Where only a signal's own arithmetic raises, that signal has
            no value.
    """
    cursor.execute(prelude_sql())
    bulk = _Bulk(cursor, catalog, questions, relation)
    chosen = catalog.sets if sets is None else sets
    for s in chosen:
        if not s.derived:
            yield from bulk.windowed(s)
    for s in chosen:
        if s.derived:
            yield bulk.derived(s)


def grouped_sql(cursor: duckdb.DuckDBPyConnection, sql: str) -> str:
    """A set's SELECT with the columns `_k` and `_w` in front, grouped by them."""
    return f"{_front(_divided(cursor, sql), '_k, _w')}\nGROUP BY _k, _w"


def _front(sql: str, columns: str) -> str:
    """The SELECT with more columns at its beginning."""
    tokens = [t for t in scan(sql) if t.kind != "comment"]
    at = next(i for i, t in enumerate(tokens) if t.kind == "name" and t.text.lower() == "select")
    end = tokens[at + 1 if tokens[at + 1].text.lower() == "all" else at].end
    return f"{sql[:end]} {columns}, {sql[end:]}"


def _divided(cursor: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The same with `avg(x)` written out, but not where it has a FILTER."""
    found = (
        (call["query_location"], call["query_location_length"])
        for call in _nodes(cursor, sql)
        if call.get("function_name") == "avg" and "filter" not in call and not call.get("distinct")
    )
    text = sql.encode()
    for start, length in sorted(found, reverse=True):
        call = text[start : start + length].decode()
        operand = call[next(t.start for t in scan(call) if t.text == "(") :].encode()
        text = text[:start] + b"(sum" + operand + b" / count" + operand + b")" + text[start + length :]
    return text.decode()


def _nodes(cursor: duckdb.DuckDBPyConnection, sql: str) -> Iterator[dict[str, Any]]:
    """Everything in the text, as DuckDB parses it."""
    (row,) = cursor.execute("SELECT json_serialize_sql(?, skip_null := true, skip_empty := true)", [sql]).fetchall()
    stack: list[object] = [json.loads(row[0])]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


class _Bulk:
    """The questions as temporary tables, and one more per set asked: `_k` a question's index, `_w` a window's."""

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, catalog: Catalog, questions: Sequence[Question], relation: str
    ) -> None:
        self.cursor, self.catalog, self.questions, self.relation = cursor, catalog, questions, relation
        self._owner = {(s.entity, c.name): s for s in catalog.sets for c in s.signals}
        self._ready: set[str] = set()

    def windowed(self, s: SignalSet) -> Iterator[BulkAnswers]:
        table = self._windows(s)
        for w, window in enumerate(s.header.windows):
            yield self._answers(s, window, f"{table} WHERE _w = {w}")

    def derived(self, s: SignalSet) -> BulkAnswers:
        return self._answers(s, None, self._derived(s))

    def _answers(self, s: SignalSet, window: Window | None, source: str) -> BulkAnswers:
        columns = self.cursor.execute(f"DESCRIBE FROM {source}").fetchall()
        shown = [f'epoch_us("{c}")' if t == _TIMESTAMPTZ else f'"{c}"' for c, t, *_ in columns]
        rows = self.cursor.execute(f"SELECT {', '.join(shown)} FROM {source} ORDER BY _k").fetchall()
        rows = [row for row in rows if s.entity in self.questions[row[0]].keys]
        found: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [[]] * len(columns)
        values = {
            name: [_settled(v, type_ == _TIMESTAMPTZ) for v in found[i]]
            for i, (name, type_, *_) in enumerate(columns)
            if name not in ("_k", "_w")
        }
        return BulkAnswers(s, window, list(found[0]), values)

    # -- what is asked

    def _asked(self, entity: str) -> str:
        """The questions' moments and this entity's ids, null where a question does not name it."""
        table = f'"bulk entity {entity} asked"'
        if table not in self._ready:
            self._ready.add(table)
            names = ENTITY_KEYS[entity]
            ids: list[list[str | None]] = [[] for _ in names]
            for q in self.questions:
                key = q.keys.get(entity)
                own = (None,) * len(names) if key is None else (key,) if isinstance(key, str) else key
                for column, value in zip(ids, own, strict=True):
                    column.append(value)
            unnested = ", ".join(f"unnest(?::VARCHAR[]) AS {n}" for n in names)
            self.cursor.execute(
                f"CREATE OR REPLACE TEMP TABLE {table} AS"
                f" SELECT unnest(range(?))::INTEGER AS _k, unnest(?::BIGINT[]) AS us, {unnested}",
                [len(self.questions), [q.as_of_us for q in self.questions], *ids],
            )
        return table

    def _events(self, entity: str) -> str:
        """The events of all entities asked about, as far back as any window reaches."""
        table = f'"bulk entity {entity} events"'
        if table not in self._ready:
            self._ready.add(table)
            asked = self._asked(entity)
            keys = ", ".join(ENTITY_KEYS[entity])
            longest = max(w.us for w in self.catalog.windows(entity))
            columns = ", ".join(c for c in EVENT_TYPES if c not in ("as_of", "window_start"))
            self.cursor.execute(
                f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT {columns} FROM {self.relation}"
                f" WHERE ({keys}) IN (SELECT ({keys}) FROM {asked})"
                f" AND occurred_at > (SELECT make_timestamptz(min(us) - {longest}) FROM {asked})"
                f" AND occurred_at <= (SELECT make_timestamptz(max(us)) FROM {asked})"
            )
        return table

    # -- sets over events

    def _windows(self, s: SignalSet) -> str:
        """The table of a set's own values: a row for each question and window."""
        table, places = f'"bulk set {s.name}"', f'"bulk set {s.name} asked"'
        if table in self._ready:
            return table
        self._ready.add(table)
        names = ENTITY_KEYS[s.entity]
        widths = [w.us for w in s.header.windows]
        windows = f"SELECT unnest(range({len(widths)}))::INTEGER AS _w, unnest(?::BIGINT[]) AS width"
        self.cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE {places} AS"
            f" SELECT _k, _w, _k * {len(widths)} + _w AS _n, {', '.join(names)},"
            " make_timestamptz(us) AS as_of, make_timestamptz(us - width) AS window_start"
            f" FROM {self._asked(s.entity)}, ({windows})",
            [widths],
        )
        columns = ", ".join(f"e.{c}" for c in EVENT_TYPES if c not in ("as_of", "window_start"))
        mine = " AND ".join(f"e.{n} = a.{n}" for n in names)
        joined = (
            f"SELECT {columns}, a.as_of, a.window_start, a._k, a._w"
            f" FROM {self._events(s.entity)} AS e JOIN {places} AS a"
            f" ON {mine} AND e.occurred_at > a.window_start AND e.occurred_at <= a.as_of"
        )
        grouped = grouped_sql(self.cursor, s.sql)
        count = len(self.questions) * len(widths)
        self._collect(table, count, lambda where: f"WITH events AS ({joined} {where})\n{grouped}")
        nothing = f"WITH events AS (SELECT * EXCLUDE (_k, _w) FROM ({joined}) LIMIT 0)\n{s.sql}"
        self._fill(table, places, nothing)
        return table

    def _fill(self, table: str, places: str, nothing: str) -> None:
        """Rows of the questions that no event answers, from the set's SQL over no rows."""
        missing = (
            f"SELECT _k, _w FROM {places} AS m WHERE NOT EXISTS (FROM {table} AS t WHERE t._k = m._k AND t._w = m._w)"
        )
        insert = f"INSERT INTO {table} BY NAME SELECT m.*, n.* FROM ({missing}) AS m, ({{}}) AS n"
        try:
            self.cursor.execute(insert.format(nothing))
        except _RAISED:
            shown = []
            for name, type_, *_ in self.cursor.execute(f"DESCRIBE {nothing}").fetchall():
                one = f'SELECT "{name}" FROM ({nothing})'
                try:
                    self.cursor.execute(one)
                    shown.append(f'({one}) AS "{name}"')
                except _RAISED:
                    shown.append(f'NULL::{type_} AS "{name}"')
            self.cursor.execute(insert.format(f"SELECT {', '.join(shown)}"))

    # -- sets over signals

    def _derived(self, s: SignalSet) -> str:
        table = f'"bulk set {s.name}"'
        if table in self._ready:
            return table
        self._ready.add(table)
        signals = self._signals(s)
        front = _front(s.sql, "_k")
        self._collect(table, len(self.questions), lambda where: f"WITH signals AS ({signals} {where})\n{front}")
        return table

    def _signals(self, s: SignalSet) -> str:
        """A row for each question: what the set sees as `signals`."""
        joins: dict[str, str] = {}
        fields: dict[str, dict[str, dict[str, str]]] = {}
        for entity, key, name in sorted(self._reads(s)):
            one = self._owner[entity, name]
            alias = f'"{one.name} {key}"'
            if one.derived:
                joins[alias] = f"{self._derived(one)} AS {alias} ON {alias}._k = a._k"
            else:
                w = next(i for i, window in enumerate(one.header.windows) if window.key == key)
                joins[alias] = f"{self._windows(one)} AS {alias} ON {alias}._k = a._k AND {alias}._w = {w}"
            value = f'{alias}."{name}"'
            if next(c for c in one.signals if c.name == name).type.is_double:
                value = f"CASE WHEN isfinite({value}) THEN {value} + 0e0 END"
            fields.setdefault(entity, {}).setdefault(key, {})[name] = value
        columns: list[str] = []
        for entity, windows in fields.items():
            mine: dict[str, str] = dict(windows.get("", {}))
            mine.update({key: _struct(values) for key, values in windows.items() if key})
            if entity == s.entity:
                columns += [f'{value} AS "{name}"' for name, value in mine.items()]
            else:
                columns.append(f'{_struct(mine)} AS "{entity}"')
        source = " JOIN ".join([f"{self._asked(s.entity)} AS a", *joins.values()])
        return f"SELECT {', '.join(columns or ['true AS nothing'])}, a._k, a._k AS _n FROM {source} WHERE true"

    def _reads(self, s: SignalSet) -> set[tuple[str, str, str]]:
        """(entity, window's key or "", signal) of everything that the text names."""
        found = set()
        for node in _nodes(self.cursor, s.sql):
            if node.get("class") == "COLUMN_REF":
                path = tuple(part.lower() for part in node["column_names"])
                entity, *rest = path if path[0] in ENTITY_KEYS and len(path) > 1 else (s.entity, *path)
                key, name = ("", *rest) if len(rest) == 1 else rest
                if self._owner.get((entity, name), s) is not s:
                    found.add((entity, key, name))
        return found

    # -- values that raise

    def _collect(self, table: str, count: int, query: Callable[[str], str]) -> None:
        """Run a query into a table; if it raises, column by column, each over fewer and fewer questions.

        Args:
            count: of what is asked, numbered `_n`.
            query: the query with one more condition on `_n`.
        """
        try:
            self.cursor.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {query('')}")
            return
        except _RAISED:
            pass
        described = [name for name, *_ in self.cursor.execute(f"DESCRIBE {query('')}").fetchall()]
        keys = ", ".join(name for name in described if name in ("_k", "_w"))
        names = [name for name in described if name not in ("_k", "_w")]
        part = query("AND _n >= $1 AND _n < $2")
        for i, name in enumerate(names):
            # a column that nobody asks for is not computed, so that it can't raise either
            one = f'SELECT {keys}, "{name}" FROM'
            self.cursor.execute(f"CREATE OR REPLACE TEMP TABLE bulk_column_{i} AS {one} ({query('')}) LIMIT 0")
            self.cursor.execute(f"PREPARE bulk_part AS INSERT INTO bulk_column_{i} {one} ({part})")
            self._halve(0, count)
        joins = " ".join(f"LEFT JOIN bulk_column_{i} USING ({keys})" for i in range(len(names)))
        shown = ", ".join([keys, *(f'"{n}"' for n in names)])
        self.cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT {shown} FROM (SELECT {keys} FROM ({query('')})) {joins}"
        )

    def _halve(self, start: int, end: int) -> None:
        try:
            self.cursor.execute(f"EXECUTE bulk_part({start}, {end})")
        except _RAISED:
            if end - start > 1:
                middle = (start + end) // 2
                self._halve(start, middle)
                self._halve(middle, end)


def _struct(fields: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"'{n}': {value}" for n, value in fields.items()) + "}"


def _settled(value: Any, is_time: bool) -> Any:
    """DuckDB's value as a context has it: None where it is absent."""
    if value is None or isinstance(value, bool | str):
        return value
    if is_time:
        return format_us(value)
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else None
    number = float(value) if isinstance(value, Decimal) else value
    return number + 0.0 if math.isfinite(number) else None
