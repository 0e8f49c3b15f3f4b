"""What the compiler hands to the window index: which numbers to keep per row, and how to turn them into signals.

A *row record* of an entity holds running totals up to and including a row: first `counts` (how many rows had the
predicate TRUE), then `sums`. Rows are ordered by (occurred_at, seq). A window's totals are the record at its end minus
the record at its start. What is no difference of totals is asked of a `Probe`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

__all__ = [
    "DerivedFunction",
    "EntityFunctions",
    "EntityPlan",
    "Probe",
    "RowExpression",
    "SumColumn",
    "ValueColumn",
    "ValueType",
    "WindowFunction",
]


class ValueType(Enum):
    """What a row expression yields; the Python value is int, float, str or None for null."""

    BOOL = "bool"  # 0, 1
    INT = "int"  # int64
    DOUBLE = "double"  # finite float, -0.0 as 0.0; what is not finite is null
    VARCHAR = "varchar"
    TIMESTAMPTZ = "timestamptz"  # int64 microseconds


@dataclass(frozen=True, slots=True)
class RowExpression:
    """One expression over the columns of `events`, as DuckDB SQL that yields exactly `type` (BOOLEAN, BIGINT, DOUBLE,
    VARCHAR; a TIMESTAMPTZ is already epoch_us(...)), or null. It cannot raise."""

    sql: str
    type: ValueType


@dataclass(frozen=True, slots=True)
class SumColumn:
    """Running sum of an int64 expression, null rows adding nothing; `squared` sums the squares instead.

    Totals are exact at any magnitude: a window function sees Python ints.
    """

    value: RowExpression
    squared: bool = False


@dataclass(frozen=True, slots=True)
class ValueColumn:
    """The values of the rows whose predicate (an index into `EntityPlan.counts`) is TRUE and whose value is not null.

    The predicate already includes "value is not null". `uses` says which questions the probe will be asked:
    "order" (order statistics), "extreme" (min, max), "distinct", "last" (value and place of the last row),
    "break" (the place of the last row only, value is the constant TRUE), "burst" (see `burst_us`).
    """

    count: int
    value: RowExpression
    uses: frozenset[str]
    burst_us: int | None = None


class Probe(Protocol):
    """Answers about the window `w` (index into the list of windows asked for) of the entity at hand.

    `v` is an index into `EntityPlan.values`. Values come back in the type of the value column.
    """

    def order(self, w: int, v: int, k: int) -> Any:
        """The k-th smallest value (0-based); the caller guarantees 0 <= k < count."""

    def order2(self, w: int, v: int, k: int) -> tuple[Any, Any]:
        """The k-th and the (k+1)-th smallest; the caller guarantees both exist."""

    def minimum(self, w: int, v: int) -> Any: ...

    def maximum(self, w: int, v: int) -> Any: ...

    def distinct(self, w: int, v: int) -> int: ...

    def last(self, w: int, v: int) -> tuple[Any, int] | None:
        """(value, occurred_at in microseconds) of the last row by (occurred_at, seq); None when there is none."""

    def since_break(self, w: int, c: int, v: int) -> int:
        """How many rows with predicate `c` (index into counts) stand after the last row of value column `v`; all of the
        window's when there is none."""

    def burst(self, w: int, v: int) -> int:
        """The most rows of value column `v` within any [t, t + burst_us) inside the window (0 when none)."""


#: (record at the window's end, record at its start, as_of in microseconds, probe, window index, raw) -> JSON-ready
#: signals; values that derived sets read are also written into `raw` (a list), null as None
WindowFunction = Callable[[Sequence[int], Sequence[int], int, Probe, int, list[Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class EntityPlan:
    """Everything the index keeps for one kind of entity.

    `rows(columns, n)` evaluates all row expressions for `n` events given as columns (`EventBatch.columns`), in compiled
    Python: one tuple a row, counts as 0 or 1, then sums as ints (null as 0; squared already squared), then values (None
    when absent). The columns it reads are `reads`. The same in bulk is `sql` of each expression.

    INVARIANT: an entity has fewer than 2**31 rows; the compiler takes it for granted that no product of two counts
    overflows 64 bits.
    """

    entity: str
    key_columns: tuple[str, ...]
    counts: tuple[RowExpression, ...]
    sums: tuple[SumColumn, ...]
    values: tuple[ValueColumn, ...]
    reads: frozenset[str]
    rows: Callable[[Mapping[str, Sequence[Any]], int], Iterable[tuple[Any, ...]]]


#: raw values of every entity of the request (entity -> its `raw` list) -> JSON-ready signals of one entity
DerivedFunction = Callable[[Mapping[str, list[Any]]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class EntityFunctions:
    """What is computed for one entity of a request, for one selection: made once, cached by the catalog.

    `windows`: (name in the context such as "last_24h", length in microseconds, function), ascending by length; only
    windows of which something is selected or read by a derived set that is. A window that is only read stands in
    `hidden` (its function still fills `raw`, its dict is thrown away). `raw` is one list of `raw_size` per entity,
    filled by its window functions. `derived` is called after the windows of all entities in `derived_reads`.
    `selected` is False when the entity is only computed because another one's derived set reads it.
    """

    entity: str
    windows: tuple[tuple[str, int, WindowFunction], ...]
    hidden: frozenset[str]
    derived: DerivedFunction | None
    derived_reads: frozenset[str]
    raw_size: int
    selected: bool = True
