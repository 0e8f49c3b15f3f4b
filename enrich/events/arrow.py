"""Batches as Arrow tables: the columns of DuckDB's `events` and of Parquet sidecars."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from enrich.events.canonical import canonical_events
from enrich.events.hashing import HASH_BYTES, content_hashes, key_hashes
from enrich.events.model import COLUMNS, INT_COLUMNS, STRING_COLUMNS, EventBatch

__all__ = ["ARROW_SCHEMA", "HASHED_SCHEMA", "from_arrow", "to_arrow", "with_hashes"]

_TIME: Final = pa.timestamp("us", "UTC")
_TYPES: Final = {
    "occurred_at": _TIME,
    **dict.fromkeys(STRING_COLUMNS, pa.string()),
    **dict.fromkeys(INT_COLUMNS, pa.int64()),
    "attributes": pa.string(),
}
#: `COLUMNS`, then `seq` int64 and `recorded_at`; times are timestamp[us, UTC], attributes canonical JSON text or null
ARROW_SCHEMA: Final = pa.schema(
    [pa.field(c, _TYPES[c]) for c in COLUMNS] + [pa.field("seq", pa.int64()), pa.field("recorded_at", _TIME)]
)
#: `ARROW_SCHEMA` and the 16-byte hashes `key` and `content`
HASHED_SCHEMA: Final = pa.schema(
    [*ARROW_SCHEMA, pa.field("key", pa.binary(HASH_BYTES)), pa.field("content", pa.binary(HASH_BYTES))]
)


def to_arrow(batch: EventBatch, first_seq: int, recorded_at_us: int, *, hashes: bool = False) -> pa.Table:
    """A batch as a table of `ARROW_SCHEMA` (`HASHED_SCHEMA` with `hashes`): event i has seq `first_seq` + i."""
    arrays = [pa.array(_arrow_values(c, batch.columns[c]), _TYPES[c]) for c in COLUMNS]
    arrays.append(pa.array(np.arange(first_seq, first_seq + batch.n, dtype=np.int64)))
    arrays.append(pa.array([recorded_at_us] * batch.n, _TIME))
    if not hashes:
        return pa.Table.from_arrays(arrays, schema=ARROW_SCHEMA)
    arrays += [pa.array(h, pa.binary(HASH_BYTES)) for h in (batch.keys, batch.contents)]
    return pa.Table.from_arrays(arrays, schema=HASHED_SCHEMA)


def _arrow_values(column: str, values: list[Any]) -> list[Any]:
    if column != "attributes":
        return values
    return [None if v is None else orjson.dumps(v, option=orjson.OPT_SORT_KEYS).decode() for v in values]


def from_arrow(table: pa.Table, *, hash_key: bytes | None = None) -> EventBatch:
    """A table that `to_arrow` made as a batch again; nothing is validated, seq and recorded_at are left to the caller.

    `keys` and `contents` come from the columns `key` and `content`; without them they are computed with `hash_key`
    (`contents` of the attributes as they were kept), or empty when there is none.
    """
    columns: dict[str, list[Any]] = {}
    for c in COLUMNS:
        column = table.column(c)
        columns[c] = (column.cast(pa.int64()) if c == "occurred_at" else column).to_pylist()
    columns["attributes"] = [None if v is None else orjson.loads(v) for v in columns["attributes"]]
    if "key" in table.column_names:
        keys, contents = table.column("key").to_pylist(), table.column("content").to_pylist()
        return EventBatch(table.num_rows, columns, keys, contents)
    batch = EventBatch(table.num_rows, columns, [], [])
    return batch if hash_key is None else with_hashes(batch, hash_key)


def with_hashes(batch: EventBatch, hash_key: bytes) -> EventBatch:
    """The batch with `keys`, `contents` and `canonical` computed from its columns, attributes as they were kept."""
    canonical = canonical_events(batch)
    keys = key_hashes(batch.columns["source"], batch.columns["event_id"], hash_key)
    return EventBatch(batch.n, batch.columns, keys, content_hashes(canonical, hash_key), canonical)
