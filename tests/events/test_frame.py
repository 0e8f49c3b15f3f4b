"""A frame gets the very answers that its rows get as objects."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.errors import EnrichError
from enrich.events import strict_loads, to_arrow
from enrich.events.model import COLUMNS, INT_COLUMNS, STRING_COLUMNS

from .data import DAY_US, EVENT, NOW_US, event, integers, parser, texts

COLUMN_TYPES = [pa.string(), pa.large_string(), pa.int64(), pa.int8(), pa.uint64(), pa.float64(), pa.bool_(), pa.null()]
FOREIGN = [pa.binary(), pa.date32(), pa.timestamp("us"), pa.decimal128(10, 2), pa.duration("ns"), pa.list_(pa.int64())]


def _assert_same(table: pa.Table, rows: list[dict[str, Any]] | None = None, **changes: Any) -> None:
    subject = parser(**changes)
    frame = subject.parse_frame(table, NOW_US)
    objects = subject.parse(rows if rows is not None else table.to_pylist(), NOW_US)
    assert frame.batch == objects.batch
    assert frame.indices == objects.indices
    assert frame.dropped_attributes == objects.dropped_attributes
    assert [(r.index, r.code, r.field) for r in frame.rejected] == [
        (r.index, r.code, r.field) for r in objects.rejected
    ]


def _valid_rows(n: int) -> list[dict[str, Any]]:
    when = datetime.fromisoformat("2026-11-23T10:00:00.123456+00:00")
    return [event(event_id=f"e{i}", occurred_at=when - timedelta(seconds=i)) for i in range(n)]


def test_a_table_of_the_engine_s_own_columns_is_read_back() -> None:
    batch = parser().parse(_valid_rows(1100), NOW_US).batch
    table = to_arrow(batch, 1, NOW_US).select(list(COLUMNS))
    parsed = parser().parse_frame(table, NOW_US)
    assert parsed.batch == batch
    assert parsed.indices == list(range(1100))


def test_polars_frames_with_struct_attributes_and_categories() -> None:
    rows = _valid_rows(3)
    rows[1]["attributes"] = {"model": "m"}
    frame = pl.DataFrame(rows).with_columns(pl.col("kind").cast(pl.Categorical), pl.col("duration_ms").cast(pl.UInt16))
    parsed = parser().parse_frame(frame, NOW_US)
    assert parsed.batch == parser().parse(rows, NOW_US).batch


def test_map_attributes_and_a_duplicate_key_in_them() -> None:
    kind = pa.map_(pa.string(), pa.int64())
    rows = _valid_rows(2)
    columns = {c: [r[c] for r in rows] for c in EVENT}
    columns["attributes"] = pa.array([[("a", 1), ("b", 2)], [("a", 1), ("a", 2)]], kind)
    parsed = parser().parse_frame(pa.table(columns), NOW_US)
    assert parsed.batch.columns["attributes"] == [{"a": 1, "b": 2}]
    assert [(r.index, r.code) for r in parsed.rejected] == [(1, "invalid_attributes")]


@pytest.mark.parametrize(
    "attributes",
    [
        pa.array([["ab", "cd"]]),
        pa.array([[["a", "b"]]]),
        pa.array([[]], pa.list_(pa.string())),
        pa.array([["ab"]], pa.large_list(pa.string())),
        pa.array([["ab"]], pa.list_(pa.string(), 1)),
        pa.array([[("a", None)]], pa.map_(pa.string(), pa.string())),
    ],
    ids=["texts of two characters", "pairs", "empty", "large", "fixed size", "map to null"],
)
def test_lists_and_maps_to_null_are_no_attributes(attributes: pa.Array) -> None:
    rows = [{k: v for k, v in r.items() if k != "attributes"} for r in _valid_rows(1)]
    parsed = parser().parse_frame(pa.Table.from_pylist(rows).append_column("attributes", attributes), NOW_US)
    assert [(r.code, r.field) for r in parsed.rejected] == [("invalid_attributes", "attributes")]
    as_object = dict(attributes[0].as_py()) if pa.types.is_map(attributes.type) else attributes[0].as_py()
    assert parser().parse([rows[0] | {"attributes": as_object}], NOW_US).rejected[0].code == "invalid_attributes"


def test_a_column_that_events_do_not_have_refuses_every_row() -> None:
    rows = [r | {"colour": None} for r in _valid_rows(3)]
    table = pa.Table.from_pylist(rows)
    _assert_same(table, rows)
    assert {r.code for r in parser().parse_frame(table, NOW_US).rejected} == {"unknown_field"}


def test_a_column_that_stands_twice_refuses_every_row() -> None:
    table = pa.Table.from_pylist(_valid_rows(2)).append_column("agent_id", pa.array(["x", None]))
    assert [r.code for r in parser().parse_frame(table, NOW_US).rejected] == ["unknown_field"] * 2


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_any_unit_and_zone(unit: str) -> None:
    rows = [r | {"occurred_at": r["occurred_at"].replace(microsecond=0)} for r in _valid_rows(2)]
    table = pa.Table.from_pylist(rows)
    at = table.schema.get_field_index("occurred_at")
    cast = table.column("occurred_at").cast(pa.timestamp(unit, "America/New_York"))
    assert (
        parser().parse_frame(table.set_column(at, "occurred_at", cast), NOW_US).batch
        == parser().parse(rows, NOW_US).batch
    )


def test_times_finer_than_a_microsecond_naive_or_absurd_are_refused() -> None:
    table = pa.Table.from_pylist(_valid_rows(1))
    at = table.schema.get_field_index("occurred_at")
    cases = [
        (pa.array([NOW_US * 1000 + 1], pa.timestamp("ns", "UTC")), "2026-11-23T12:00:00.000000001Z"),
        (pa.array([NOW_US], pa.timestamp("us")), "2026-11-23T12:00:00.000000"),
        (pa.array([2**62], pa.timestamp("s", "UTC")), f"{2**62} time units since 1970"),
        (pa.array([-(2**63)], pa.timestamp("ns", "UTC")), "1677-09-21T00:12:43.145224192Z"),
    ]
    for column, value in cases:
        (rejection,) = parser().parse_frame(table.set_column(at, "occurred_at", column), NOW_US).rejected
        assert (rejection.code, rejection.value) == ("invalid_time", value)


def test_text_that_is_not_utf8_is_refused_not_raised() -> None:
    buffers = pa.array(["good-agent", "\x00\x00-agent"], pa.string()).buffers()
    data = buffers[2].to_pybytes().replace(b"\x00\x00", b"\xff\xfe")
    broken = pa.StringArray.from_buffers(2, buffers[1], pa.py_buffer(data))
    table = pa.Table.from_pylist(_valid_rows(2))
    table = table.set_column(table.schema.get_field_index("agent_id"), "agent_id", broken)
    parsed = parser().parse_frame(table, NOW_US)
    assert parsed.indices == [0]
    assert [(r.index, r.code, r.field) for r in parsed.rejected] == [(1, "invalid_id", "agent_id")]


def test_what_is_no_frame_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="not a list"):
        parser().parse_frame([EVENT], NOW_US)


def test_an_empty_frame_is_an_empty_batch() -> None:
    assert parser().parse_frame(pa.table({}), NOW_US).batch.n == 0
    assert parser().parse_frame(pa.Table.from_pylist([], pa.schema([("source", pa.string())])), NOW_US).batch.n == 0


_values: dict[Any, st.SearchStrategy[Any]] = {
    pa.string(): texts.filter(lambda t: t.isascii() or not any("\ud800" <= c <= "\udfff" for c in t)),
    pa.int64(): integers.filter(lambda i: -(2**63) <= i < 2**63).map(int),
    pa.int8(): st.integers(-3, 127),
    pa.uint64(): st.integers(2**63 - 2, 2**64 - 1),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.null(): st.none(),
    pa.binary(): st.binary(max_size=2),
    pa.date32(): st.just(date(2026, 1, 1)),
    pa.timestamp("us"): st.just(datetime(2026, 1, 1)),
    pa.decimal128(10, 2): st.just(Decimal("1.25")),
    pa.duration("ns"): st.just(timedelta(1)),
    pa.list_(pa.int64()): st.just([1]),
}
_values[pa.large_string()] = _values[pa.string()]
_aware = st.integers(NOW_US - 100 * DAY_US, NOW_US + DAY_US)
_json_texts = st.one_of(
    st.sampled_from(
        ['{"a":1}', '{"b":1,"a":"x"}', '{"a":1,"a":2}', "{}", "null", "[1]", "{", '{"a":1.5}', '{"a":{"b":1}}', "7",
         '{"a":null}', '{ "a" : "\\u00e9" }', '{"a":"\\ud800"}', '{"a":18446744073709551616}', '{"":1}',
         '{"a":"\\n"}', '{"a":true}']
    ),
    st.none(),
)  # fmt: skip


@st.composite
def _tables(draw: st.DrawFn) -> tuple[pa.Table, list[dict[str, Any]]]:
    """A table of a few rows with a few columns of any type, and its rows as objects."""
    n = draw(st.integers(1, 5))
    table = pa.Table.from_pylist(_valid_rows(n)).drop_columns("attributes")
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from([*STRING_COLUMNS, *INT_COLUMNS, *STRING_COLUMNS, "occurred_at", "colour"]))
        kind = draw(st.sampled_from([*COLUMN_TYPES, *FOREIGN]))
        if name in STRING_COLUMNS and draw(st.booleans()):
            kind = pa.string()
        column = pa.array(draw(st.lists(st.one_of(st.none(), _values[kind]), min_size=n, max_size=n)), kind)
        if kind == pa.string() and draw(st.booleans()):
            column = column.dictionary_encode()
        if name == "occurred_at" and draw(st.booleans()):
            times = draw(st.lists(st.one_of(st.none(), _aware), min_size=n, max_size=n))
            column = pa.array(times, pa.timestamp("us", draw(st.sampled_from(["UTC", "Europe/Berlin", "+05:30"]))))
        at = table.schema.get_field_index(name)
        table = table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
    rows: list[dict[str, Any]] = table.to_pylist()
    if draw(st.booleans()):
        given_texts = draw(st.lists(_json_texts, min_size=n, max_size=n))
        table = table.append_column("attributes", pa.array(given_texts, pa.string()))
        for row, text in zip(rows, given_texts, strict=True):
            row["attributes"] = _decoded(text)
    return table, rows


def _decoded(text: str | None) -> Any:
    try:
        return None if text is None else strict_loads(text.encode(), max_bytes=1000)
    except EnrichError:
        return text


@settings(max_examples=500, deadline=None)
@given(_tables())
def test_any_frame_gets_the_answers_of_its_rows(case: tuple[pa.Table, list[dict[str, Any]]]) -> None:
    table, rows = case
    _assert_same(table, rows, attribute_keys=frozenset({"a"}))
