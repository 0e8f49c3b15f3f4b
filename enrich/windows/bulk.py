"""Building the whole index from DuckDB: one scan that evaluates every expression once, then one block per kind."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from enrich.windows.block import Block, build_block
from enrich.windows.evaluate import Columns
from enrich.windows.memory import give_back
from enrich.windows.rows import sorted_order

if TYPE_CHECKING:
    from enrich.windows.index import Index

__all__ = ["load"]

_BATCH = 122_880  # rows per Arrow batch: one DuckDB row group
_AHEAD = "64MiB"  # result that DuckDB computes while earlier batches are taken in; its default lets it wait every time
_BUILDERS = 2  # kinds built at a time: NumPy gives up the GIL, each needs memory of its own


def load(
    index: Index, cursor: Any, relation: str, progress: Callable[[int], None] | None, oldest_us: int | None
) -> None:
    """Fills an empty index; nothing is visible until all kinds are built."""
    where = "void_seq IS NULL"
    if oldest_us is not None:
        where += f" AND occurred_at >= make_timestamptz({int(oldest_us)})"
    built = _build(index, _scan(index, cursor, f"FROM {relation} AS events WHERE {where}", progress))
    give_back()
    with index.lock:
        for entity, block in built.items():
            if block.n:
                index.kinds[entity].blocks = (*index.kinds[entity].blocks, block)


def _scan(index: Index, cursor: Any, source: str, progress: Callable[[int], None] | None) -> Columns:
    [(capacity,)] = cursor.execute(f"SELECT count(*) {source}").fetchall()
    cursor.execute(f"SET streaming_buffer_size = '{_AHEAD}'")
    columns = Columns(index.expressions, index.names, index.texts, capacity)
    query = f"SELECT epoch_us(occurred_at) AS t_us, seq AS t_seq, {index.expressions.select} {source}"
    for batch in cursor.sql(query).to_arrow_reader(_BATCH):
        columns.add(batch, batch.column("t_us").to_numpy(), batch.column("t_seq").to_numpy().astype(np.int64))
        if progress is not None:
            progress(columns.n)
    columns.finish()
    return columns


def _build(index: Index, columns: Columns) -> dict[str, Block]:
    give_back()

    def build(entity: str) -> Block:
        kind, source = index.kinds[entity], columns.staged(entity)
        order = sorted_order(source.ent, source.t, source.seq)
        block = build_block(kind.plan, source, order, len(kind.names))
        del source
        columns.release(entity)
        return block

    # the widest first: what only they read is let go before the others grow
    widest = sorted(index.kinds, key=lambda e: -index.kinds[e].width)
    with ThreadPoolExecutor(_BUILDERS, "index-build") as pool:
        return dict(zip(widest, pool.map(build, widest), strict=True))
