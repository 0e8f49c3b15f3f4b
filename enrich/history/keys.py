"""Idempotency keys out of DuckDB, in bulk, for the store that keeps them in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt

__all__ = ["KeyBlock", "key_blocks"]


@dataclass(frozen=True, slots=True, eq=False)
class KeyBlock:
    """Idempotency keys as arrays of one length: `seq` and `occurred_at_us` int64; `keys` and `contents` uint64 of shape
    (n, 2), the first and the last eight bytes of the 16-byte hashes, read big-endian."""

    seq: npt.NDArray[np.int64]
    occurred_at_us: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]
    contents: npt.NDArray[np.uint64]


def key_blocks(con: duckdb.DuckDBPyConnection, rows_per_block: int, after: int = 0) -> Iterator[KeyBlock]:
    """The rows of `event_keys` with a seq above `after`, in blocks of about `rows_per_block`, from one snapshot; not in
    order."""
    relation = con.sql(
        "SELECT seq, epoch_us(occurred_at) AS occurred_us, key_hi, key_lo, content_hi, content_lo FROM event_keys"
        f" WHERE seq > {after:d}"
    )
    for batch in relation.to_arrow_reader(rows_per_block):
        a = [batch.column(i).to_numpy(zero_copy_only=False) for i in range(6)]
        yield KeyBlock(a[0], a[1], np.column_stack(a[2:4]), np.column_stack(a[4:6]))
