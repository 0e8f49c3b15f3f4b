"""Stretching and shifting recorded events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.events import format_us, parse_rfc3339_us
from enrich.sources import load_sample, shift, stretch

END_US = parse_rfc3339_us("2026-11-23T12:00:00Z")
_times = st.lists(st.integers(END_US - 10**12, END_US), min_size=1, max_size=20)


def _us(events: list[dict[str, str]]) -> list[int]:
    return [parse_rfc3339_us(e["occurred_at"]) for e in events]


@given(_times, st.integers(1, 3000))
def test_distances_to_the_last_event_grow_k_fold_exactly(times_us: list[int], k: int) -> None:
    events = [{"occurred_at": format_us(us), "event_id": str(i)} for i, us in enumerate(times_us)]
    stretched = stretch(events, k)
    last = max(times_us)
    assert [last - us for us in _us(stretched)] == [k * (last - us) for us in times_us]
    assert [e["event_id"] for e in stretched] == [e["event_id"] for e in events]


def test_the_end_can_be_put_at_a_moment_and_the_events_given_stay() -> None:
    events = [{"occurred_at": "2026-11-20T10:00:00Z"}, {"occurred_at": "2026-11-20T10:00:01+00:00"}]
    assert _us(stretch(events, 2000, end_us=END_US)) == [END_US - 2_000_000_000, END_US]
    assert _us(shift(events, END_US)) == [END_US - 1_000_000, END_US]
    assert events[0]["occurred_at"] == "2026-11-20T10:00:00Z"


def test_the_sample_s_seven_minutes_become_about_nine_days() -> None:
    times_us = _us(stretch(load_sample().events, 2000))
    days = (max(times_us) - min(times_us)) / 86_400_000_000
    assert 9 < days < 10


def test_no_events_stay_no_events_and_k_is_checked() -> None:
    assert stretch([], 5) == []
    with pytest.raises(ValueError, match="k `0` is below 1"):
        stretch([], 0)
