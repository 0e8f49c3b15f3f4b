"""Canonical bytes and times."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.errors import EventError
from enrich.events import canonical_event, canonical_events, event_from_canonical, format_us, parse_rfc3339_us
from enrich.events._struct import STRUCT_COLUMNS, EventStruct
from enrich.events.model import COLUMNS
from enrich.events.times import canonical_times_us, format_many_us

from .data import EVENT, NOW_US, event, parser

_us = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)


@given(_us)
def test_a_time_survives_its_text(us: int) -> None:
    assert parse_rfc3339_us(format_us(us)) == us


@settings(max_examples=50)
@given(st.lists(_us, min_size=1, max_size=120))
def test_times_in_bulk_equal_times_one_by_one(times_us: list[int]) -> None:
    texts = format_many_us(times_us)
    assert texts == [format_us(us) for us in times_us]
    assert canonical_times_us(texts) in (times_us, None)
    assert (canonical_times_us(texts) is None) == (len(texts) < 48)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.000001z", 1),
        ("1970-01-01T01:00:00.1+01:00", 100_000),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("1970-01-01T00:00:00.1234560000Z", 123_456),
        ("1970-01-01T00:00:00-00:00", 0),
    ],
)
def test_rfc3339_is_read_exactly(text: str, us: int) -> None:
    assert parse_rfc3339_us(text) == us


@pytest.mark.parametrize(
    "text", ["", "now", "1970-01-01T00:00:00", "1970-01-01T00:00:00.0000001Z", "1970-13-01T00:00:00Z"]
)
def test_other_texts_are_no_time(text: str) -> None:
    with pytest.raises(EventError) as error:
        parse_rfc3339_us(text)
    assert error.value.error_code == "invalid_time"
    assert f"`{text}`" in error.value.message


def test_one_time_that_is_not_canonical_leaves_all_to_the_precise_way() -> None:
    good = ["2026-11-23T10:00:00.000000Z"] * 60
    assert canonical_times_us(good) is not None
    for odd in ["2026-11-23T10:00:00Z", "2026-11-31T10:00:00.000000Z", "2026-11-23T10:00:00.00000\ud800", None, 5]:
        assert canonical_times_us([*good, odd]) is None


_changed = st.lists(
    st.tuples(st.integers(0, 26), st.sampled_from("0123456789 -+:.,TZtz\u0660")), min_size=1, max_size=2
)


@settings(max_examples=400)
@given(_changed)
def test_in_bulk_no_text_is_a_time_that_is_none_one_by_one(changes: list[tuple[int, str]]) -> None:
    good = "2026-11-23T10:00:00.123456Z"
    characters = list(good)
    for at, character in changes:
        characters[at] = character
    text = "".join(characters)
    in_bulk = canonical_times_us([good] * 60 + [text])
    # Arrow knows a year 0; it lies before 2000, so that the precise check refuses it.
    assert in_bulk is None or text.startswith("0000") or in_bulk[-1] == parse_rfc3339_us(text)


def test_the_struct_has_the_columns_in_code_point_order() -> None:
    assert EventStruct.__struct_fields__ == STRUCT_COLUMNS == tuple(sorted(COLUMNS))


def test_canonical_in_bulk_equals_canonical_one_by_one() -> None:
    events = [event(event_id=f"e{i}", action='quoted "x" \\ 支', attributes={"z": 1, "a": "é"}) for i in range(70)]
    batch = parser().parse(events, NOW_US).batch
    expected = [canonical_event(row) for row in batch.rows()]
    bare = dataclasses.replace(batch, canonical=None)
    assert canonical_events(batch) == canonical_events(bare) == expected
    assert canonical_events(batch, 60) == canonical_events(bare, 60) == expected[60:]


def test_a_canonical_event_is_read_back_as_its_row() -> None:
    batch = parser().parse([EVENT], NOW_US).batch
    assert event_from_canonical(json.loads(canonical_events(batch)[0])) == next(batch.rows())


def test_an_event_of_another_version_is_not_read_as_if_it_were_ours() -> None:
    with pytest.raises(EventError) as error:
        event_from_canonical({"occurred_at": "2026-11-23T10:00:00.000000Z", "colour": "red"})
    assert (error.value.error_code, error.value.detail["field"]) == ("unknown_field", "colour")


def test_taking_rows_takes_their_canonical_bytes_along() -> None:
    batch = parser().parse([event(event_id="a"), event(event_id="b")], NOW_US).batch
    taken = batch.take([1])
    assert taken == parser().parse([event(event_id="b")], NOW_US).batch
