"""Batches to Arrow and back."""

from __future__ import annotations

import dataclasses

import duckdb
import pyarrow as pa

from enrich.events import ARROW_SCHEMA, HASHED_SCHEMA, from_arrow, to_arrow
from enrich.events.model import COLUMNS

from .data import EVENT, HASH_KEY, NOW_US, event, parser

EVENTS = [EVENT, event(event_id="b", attributes=None, agent_id="支払い"), event(event_id="c", cost_microusd=2**63 - 1)]


def test_a_table_has_the_columns_of_an_event_its_seq_and_when_it_was_recorded() -> None:
    table = to_arrow(parser().parse(EVENTS, NOW_US).batch, 41, NOW_US)
    assert table.schema == ARROW_SCHEMA
    assert table.column_names == [*COLUMNS, "seq", "recorded_at"]
    assert table.column("seq").to_pylist() == [41, 42, 43]
    assert table.column("recorded_at").cast(pa.int64()).to_pylist() == [NOW_US] * 3
    text = '{"final":true,"model":"m","retries":2}'
    assert table.column("attributes").to_pylist() == [text, None, text]


def test_a_batch_comes_back_from_its_table() -> None:
    batch = parser().parse(EVENTS, NOW_US).batch
    hashed = to_arrow(batch, 1, NOW_US, hashes=True)
    assert hashed.schema == HASHED_SCHEMA
    assert from_arrow(hashed) == dataclasses.replace(batch, canonical=None)
    assert from_arrow(to_arrow(batch, 1, NOW_US), hash_key=HASH_KEY) == batch
    bare = from_arrow(to_arrow(batch, 1, NOW_US))
    assert (bare.columns, bare.keys, bare.contents) == (batch.columns, [], [])


def test_contents_of_the_table_stay_those_of_the_whole_event() -> None:
    batch = parser(attribute_keys=frozenset()).parse(EVENTS, NOW_US).batch
    assert from_arrow(to_arrow(batch, 1, NOW_US, hashes=True)).contents == batch.contents
    assert batch.contents == parser().parse(EVENTS, NOW_US).batch.contents


def test_an_empty_batch_is_an_empty_table() -> None:
    table = to_arrow(parser().parse([], NOW_US).batch, 1, NOW_US)
    assert (table.num_rows, table.schema) == (0, ARROW_SCHEMA)


def test_duckdb_reads_the_table_as_it_is() -> None:
    events_table = to_arrow(parser().parse(EVENTS, NOW_US).batch, 1, NOW_US)
    connection = duckdb.connect()
    connection.register("events_table", events_table)
    row = connection.execute(
        "SELECT epoch_us(occurred_at), attributes ->> 'model', duration_ms FROM events_table WHERE seq = 1"
    ).fetchone()
    connection.close()
    assert row == (1795424400500000, "m", 1200)
