"""Row expressions in bulk: every distinct expression of every plan, evaluated once by DuckDB, as NumPy columns.

`Expressions` knows the SELECT list; `Columns` collects its result, batch by batch, and hands each plan its view.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from enrich.events.model import INT_COLUMNS, EventBatch
from enrich.signals.plan import EntityPlan, RowExpression, ValueType
from enrich.windows.codes import Int64s, Names, double_codes
from enrich.windows.columns import WITH_CODES
from enrich.windows.layout import magnitudes
from enrich.windows.rows import Int32s, Staged

__all__ = ["Columns", "Evaluator", "Expressions"]

_UTC = pa.timestamp("us", tz="UTC")


class Expressions:
    """The distinct expressions of all plans, and where each plan finds its own."""

    def __init__(self, plans: Mapping[str, EntityPlan]) -> None:
        self.plans = plans
        self.counts: dict[str, int] = {}
        self.ints: dict[str, int] = {}
        self.values: dict[RowExpression, int] = {}
        self.keys: dict[str, int] = {}
        for plan in plans.values():
            for column in plan.key_columns:
                self.keys.setdefault(column, len(self.keys))
            for count in plan.counts:
                self.counts.setdefault(count.sql, len(self.counts))
            for sum_ in plan.sums:
                self.ints.setdefault(sum_.value.sql, len(self.ints))
            for value in plan.values:
                if value.uses & WITH_CODES:
                    self.values.setdefault(value.value, len(self.values))
        self.reads = frozenset().union(*(p.reads for p in plans.values()), self.keys)
        select = [f'"{k}" AS k{i}' for k, i in self.keys.items()]
        select += [f"coalesce(({sql})::BOOLEAN, false)::UTINYINT AS c{i}" for sql, i in self.counts.items()]
        select += [f"coalesce(({sql})::BIGINT, 0::BIGINT) AS s{i}" for sql, i in self.ints.items()]
        for expression, i in self.values.items():
            if expression.type is ValueType.VARCHAR:
                select.append(f"({expression.sql})::VARCHAR AS v{i}")
            elif expression.type is ValueType.DOUBLE:
                select.append(f"coalesce(({expression.sql})::DOUBLE, 0e0) AS v{i}")
            else:
                select.append(f"coalesce(({expression.sql})::BIGINT, 0::BIGINT) AS v{i}")
        self.select = ", ".join(select)


class Columns:
    """Evaluated rows, filled batch by batch up to `capacity`; sums and codes are kept as int32 while they fit."""

    def __init__(self, expressions: Expressions, names: Mapping[str, Names], texts: Names, capacity: int) -> None:
        self._x, self._names, self._texts = expressions, names, texts
        self.n = 0
        self.t = np.empty(capacity, np.int64)
        self.seq = np.empty(capacity, np.int64)
        self.bits = [np.zeros(capacity, np.uint64) for _ in range((len(expressions.counts) + 63) // 64)]
        self.ints = [_Growing(capacity) for _ in expressions.ints]
        self.codes = [_Growing(capacity) for _ in expressions.values]
        self.ents: dict[str, Int32s] = {}
        self._left = set(expressions.plans)
        self._releasing = threading.Lock()
        self._keys = [np.empty(capacity, np.int32) for _ in expressions.keys]
        self._words = [_Words() for _ in expressions.keys]

    def add(self, batch: pa.RecordBatch, t: Int64s, seq: Int64s) -> None:
        """Appends one result batch."""
        a, b = self.n, self.n + batch.num_rows
        self.t[a:b], self.seq[a:b] = t, seq
        for i in range(len(self._x.counts)):
            self.bits[i >> 6][a:b] |= batch.column(f"c{i}").to_numpy().astype(np.uint64) << np.uint64(i & 63)
        for i, column in enumerate(self.ints):
            column.put(a, b, batch.column(f"s{i}").to_numpy())
        for expression, i in self._x.values.items():
            self.codes[i].put(a, b, self._encode(batch.column(f"v{i}"), expression.type))
        for i, words in enumerate(self._words):
            self._keys[i][a:b] = words.numbers(batch.column(f"k{i}"))
        self.n = b

    def _encode(self, column: pa.Array, type_: ValueType) -> Int64s:
        if type_ is ValueType.DOUBLE:
            values = column.to_numpy()
            return double_codes(np.where(np.isfinite(values), values, 0.0))
        if type_ is not ValueType.VARCHAR:
            result: Int64s = column.to_numpy()
            return result
        at, words = _dictionary(column)
        codes = self._texts.numbers([*words.to_pylist(), None])  # -1 finds the last: absent
        coded: Int64s = codes[at].astype(np.int64)
        return coded

    def finish(self) -> None:
        """Numbers the entities, and puts rows in (t, seq) order, so that a plan's order is one sort of plain integers.

        Call it once, after the last `add`.
        """
        for entity, plan in self._x.plans.items():
            names = self._names[entity]
            at = [self._x.keys[k] for k in plan.key_columns]
            words = [self._words[i].known.to_pylist() for i in at]
            if len(at) == 1:
                self.ents[entity] = names.numbers([*words[0], None])[self._keys[at[0]][: self.n]]
            else:
                self.ents[entity] = self._pairs(at[0], at[1], words[0], words[1], names)
        self._keys, self._words = [], []
        self._sort()

    def _pairs(self, a: int, b: int, words_a: list[Any], words_b: list[Any], names: Names) -> Int32s:
        """The entity number of each row's pair of keys, -1 where one is null."""
        width = len(words_b) + 1
        at = self._keys[a][: self.n], self._keys[b][: self.n]
        pair = at[0].astype(np.int64) * width + at[1]
        space = len(words_a) * width
        pair[(at[0] < 0) | (at[1] < 0)] = space
        if space <= 4 * self.n + 65_536:
            seen = np.zeros(space + 1, np.bool_)
            seen[pair] = True
            seen[space] = True
            distinct, inverse = np.flatnonzero(seen), np.cumsum(seen, dtype=np.int32)[pair] - 1
        else:
            distinct, inverse = np.unique(pair, return_inverse=True)
        numbers = names.numbers(
            [None if p == space else (words_a[p // width], words_b[p % width]) for p in distinct.tolist()]
        )
        both: Int32s = numbers[inverse]
        return both

    def _sort(self) -> None:
        t, seq = self.t[: self.n], self.seq[: self.n]
        if bool((t[1:] >= t[:-1]).all()) and bool((seq[1:] > seq[:-1]).all()):
            return
        order = np.argsort(t, kind="stable") if bool((seq[1:] > seq[:-1]).all()) else np.lexsort((seq, t))
        self.t, self.seq = t[order], seq[order]
        self.bits = [words[: self.n][order] for words in self.bits]
        self.ents = {entity: numbers[: self.n][order] for entity, numbers in self.ents.items()}
        for growing in (*self.ints, *self.codes):
            growing.array = growing.array[: self.n][order]

    def staged(self, entity: str) -> Staged:
        """One plan's view; nothing is copied."""
        plan, n = self._x.plans[entity], self.n
        ints = [self.ints[self._x.ints[s.value.sql]].array[:n] for s in plan.sums]
        squared = [s.squared for s in plan.sums]
        none = np.zeros(1, np.int64)
        return Staged(
            self.ents[entity][:n],
            self.t[:n],
            self.seq[:n],
            [w[:n] for w in self.bits],
            [self._x.counts[c.sql] for c in plan.counts],
            [[x] for x in ints],
            squared,
            [
                self.codes[self._x.values[v.value]].array[:n] if v.uses & WITH_CODES else np.broadcast_to(none, n)
                for v in plan.values
            ],
            [_magnitudes(x, sq) for x, sq in zip(ints, squared, strict=True)],
        )

    def release(self, entity: str) -> None:
        """No view of this entity is needed any more: lets go of what no other plan reads."""
        with self._releasing:
            self._left.discard(entity)
            del self.ents[entity]
            plans = [self._x.plans[e] for e in self._left]
            ints = {self._x.ints[s.value.sql] for p in plans for s in p.sums}
            codes = {self._x.values[v.value] for p in plans for v in p.values if v.uses & WITH_CODES}
            for columns, kept in ((self.ints, ints), (self.codes, codes)):
                for i, column in enumerate(columns):
                    if i not in kept:
                        column.array = column.array[:0].copy()


class _Growing:
    """An int32 array that becomes int64 with the first value that needs it."""

    def __init__(self, capacity: int) -> None:
        self.array: npt.NDArray[Any] = np.empty(capacity, np.int32)

    def put(self, a: int, b: int, x: Int64s) -> None:
        small = self.array.dtype == np.int32
        if small and len(x) and (int(x.min()) < -(2**31) or int(x.max()) >= 2**31):
            self.array = self.array.astype(np.int64)
        self.array[a:b] = x


def _magnitudes(x: npt.NDArray[Any], squared: bool, piece: int = 1 << 20) -> tuple[float, int]:
    parts = [magnitudes(x[a : a + piece].astype(np.int64), squared) for a in range(0, len(x), piece)]
    return sum((p[0] for p in parts), 0.0), max((p[1] for p in parts), default=0)


class _Words:
    """Numbers the words of a column, batch by batch, in Arrow: only words never seen before cost anything in Python."""

    def __init__(self) -> None:
        self.known: pa.Array = pa.array([], pa.large_string())

    def numbers(self, column: pa.Array) -> Int32s:
        """The number of each row's word, -1 for null."""
        at, words = _dictionary(column)
        words = words.cast(pa.large_string())
        numbers = pc.index_in(words, self.known)
        if numbers.null_count:
            fresh = words.filter(pc.is_null(numbers))
            self.known = pa.concat_arrays([self.known, fresh])
            numbers = pc.index_in(words, self.known)
        found: Int32s = np.append(numbers.to_numpy(), np.int32(-1))[at]
        return found


def _dictionary(column: pa.Array) -> tuple[Int32s, pa.Array]:
    """(index of each row's value, -1 for null; the distinct values)."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    indices = column.indices
    if indices.null_count:
        indices = pc.fill_null(indices, -1)
    return indices.to_numpy().astype(np.int32), column.dictionary


class Evaluator:
    """Evaluates a batch in a private in-memory DuckDB; safe to call from several threads."""

    def __init__(self, expressions: Expressions) -> None:
        self._x = expressions
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._lock = threading.Lock()
        self._own = threading.local()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._connection is None:
                self._connection = duckdb.connect(":memory:", config={"threads": 1})
                self._connection.execute("SET TimeZone = 'UTC'")
            return self._connection.cursor()

    def _run(self, events: pa.Table) -> pa.Table:
        """The SELECT list over `events`.

        Each thread keeps its cursor and its relation: to make a relation binds the query, which takes as long as a
        thousand rows, and to run one binds it again, to the table that is registered then.
        """
        own = self._own
        if not hasattr(own, "cursor"):
            own.cursor, own.relation = self._cursor(), None
        own.cursor.register("batch_events", events)
        try:
            if own.relation is None:
                source = "batch_events"
                if "attributes" in self._x.reads:
                    source = "(SELECT * REPLACE (attributes::JSON AS attributes) FROM batch_events)"
                own.relation = own.cursor.sql(f"SELECT {self._x.select} FROM {source} AS events")
            result: pa.Table = own.relation.to_arrow_table()
        finally:
            own.cursor.unregister("batch_events")
        return result

    def evaluate(self, batch: EventBatch, names: Mapping[str, Names], texts: Names) -> Columns:
        """The batch's rows with relative seq 0, 1, ..."""
        columns = batch.columns
        arrays: dict[str, pa.Array] = {}
        for name in sorted(self._x.reads | {"kind"}):
            values = columns[name]
            if name == "occurred_at":
                arrays[name] = pa.array(values, _UTC)
            elif name == "attributes":
                texts_ = [None if v is None else orjson.dumps(v).decode() for v in values]
                arrays[name] = pa.array(texts_, pa.string())
            else:
                arrays[name] = pa.array(values, pa.int64() if name in INT_COLUMNS else pa.string())
        result = self._run(pa.table(arrays))
        out = Columns(self._x, names, texts, batch.n)
        t = np.array(columns["occurred_at"], np.int64)
        seq = np.arange(batch.n, dtype=np.int64)
        for part in result.combine_chunks().to_batches():
            at = out.n
            out.add(part, t[at : at + part.num_rows], seq[at : at + part.num_rows])
        out.finish()
        return out
