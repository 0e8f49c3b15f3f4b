"""Pages and frames of events: filters, order, and stability while more is ingested."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from enrich.errors import BadRequestError, HistoryBehindError
from enrich.events.canonical import format_us, parse_rfc3339_us
from enrich.events.model import COLUMNS, INT_COLUMNS
from enrich.history import EventsPage, History

from .data import AT_US, BASE_US, JOURNAL_ID, make_batch, records_of

BATCHES = [make_batch(300, 1, spread_us=700), make_batch(200, 2, spread_us=700)]


@pytest.fixture
def history(tmp_path: Path) -> Any:
    with History.open(tmp_path, journal_id=JOURNAL_ID) as opened:
        opened.apply(records_of(list(BATCHES)))
        yield opened


def expected(**filters: Any) -> list[int]:
    """seqs newest first by (occurred_at, seq), by brute force."""
    rows = [dict(r, seq=i + 1) for i, r in enumerate([*BATCHES[0].rows(), *BATCHES[1].rows()])]
    since, until = filters.pop("since_us", 0), filters.pop("until_us", 2**62)
    kept = [r for r in rows if since <= r["occurred_at"] <= until and all(r.get(k) == v for k, v in filters.items())]
    return [r["seq"] for r in sorted(kept, key=lambda r: (r["occurred_at"], r["seq"]), reverse=True)]


def walk(history: History, limit: int, **filters: Any) -> list[int]:
    seqs: list[int] = []
    cursor = None
    while True:
        page = history.events_page(cursor=cursor, limit=limit, **filters)
        seqs += [e["seq"] for e in page.events]
        cursor = page.next_cursor
        if cursor is None:
            return seqs
        assert len(page.events) == limit


@pytest.mark.parametrize("limit", [1, 7, 100, 500, 1000])
def test_pages_give_every_event_once_newest_first_across_ties(history: History, limit: int) -> None:
    if limit == 1:
        assert walk(history, 1, agent="Größe-π") == expected(agent_id="Größe-π")
    else:
        assert walk(history, limit) == expected()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"agent": "agent-1"}, {"agent_id": "agent-1"}),
        ({"agent": "agent-1", "kind": "step"}, {"agent_id": "agent-1", "kind": "step"}),
        ({"team": "team-2"}, {"team_id": "team-2"}),
        ({"outcome": "failed", "agent": None}, {"outcome": "failed"}),
        ({"since_us": BASE_US + 70, "until_us": BASE_US + 140}, {"since_us": BASE_US + 70, "until_us": BASE_US + 140}),
        ({"agent": "' OR 1=1 --"}, {"agent_id": "nobody"}),
    ],
)  # fmt: skip
def test_filters_are_a_conjunction_and_bounds_inclusive(
    history: History, given: dict[str, Any], meant: dict[str, Any]
) -> None:
    assert walk(history, 13, **given) == expected(**meant)


def test_a_walk_stays_at_its_seq_while_more_is_ingested(history: History) -> None:
    first = history.events_page(limit=50)
    more = records_of([make_batch(100, 3, spread_us=700)], first_seq=501)
    history.apply(more)
    seqs = [e["seq"] for e in first.events]
    page: EventsPage = first
    while page.next_cursor is not None:
        page = history.events_page(limit=50, cursor=page.next_cursor)
        assert page.seq == 500
        seqs += [e["seq"] for e in page.events]
    assert seqs == expected()
    assert history.events_page(limit=1).seq == 600


def test_an_earlier_seq_can_be_asked_for_and_a_later_one_is_behind(history: History) -> None:
    page = history.events_page(at_seq=300, limit=1000)
    assert sorted(e["seq"] for e in page.events) == list(range(1, 301))
    with pytest.raises(HistoryBehindError) as caught:
        history.events_page(at_seq=501)
    assert caught.value.detail == {"applied": 500, "needed": 501}


def test_an_event_is_shown_as_it_was_sent(history: History) -> None:
    rows = {i + 1: r for i, r in enumerate(BATCHES[0].rows())}
    for event in history.events_page(at_seq=300, limit=300).events:
        sent = dict(rows[event["seq"]])
        sent["occurred_at"] = format_us(sent["occurred_at"])
        assert event == {**sent, "seq": event["seq"], "recorded_at": format_us(AT_US + 1)}
        assert parse_rfc3339_us(event["occurred_at"]) == rows[event["seq"]]["occurred_at"]


def encoded(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "", "!", "abc", "é", "A" * 5000,
        encoded(b"[1,2,3,4]"), encoded(b"{}"), encoded(b'[1,2,3,"4",5]'), encoded(b"[1,2,99999999999999999999,4,5]"),
    ],
)  # fmt: skip
def test_a_cursor_that_is_none_is_refused(history: History, cursor: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        history.events_page(cursor=cursor)
    assert caught.value.error_code == "invalid_cursor"


def test_a_cursor_of_other_filters_is_refused(history: History) -> None:
    cursor = history.events_page(limit=5, agent="agent-1").next_cursor
    assert history.events_page(limit=5, agent="agent-1", cursor=cursor).events
    with pytest.raises(BadRequestError, match="other filters"):
        history.events_page(limit=5, agent="agent-2", cursor=cursor)


@pytest.mark.parametrize(("limit", "filters"), [(0, {}), (1001, {}), (5, {"colour": "red"})])
def test_bad_parameters_are_refused(history: History, limit: int, filters: dict[str, str]) -> None:
    with pytest.raises(BadRequestError) as caught:
        history.events_page(limit=limit, **filters)  # type: ignore[arg-type]
    assert caught.value.error_code == "invalid_parameter"


def test_a_frame_has_the_stated_columns_and_dtypes(history: History) -> None:
    frame = history.frame(agent="agent-1")
    time = pl.Datetime("us", "UTC")
    assert frame.columns == [*COLUMNS, "seq", "recorded_at"]
    for name, dtype in frame.schema.items():
        wanted = (
            time if name in ("occurred_at", "recorded_at") else pl.Int64 if name in (*INT_COLUMNS, "seq") else pl.String
        )
        assert dtype == wanted, name
    assert frame["seq"].to_list() == sorted(expected(agent_id="agent-1"))
    assert history.frame(at_seq=10).height == 10
    assert history.frame(agent="nobody").height == 0
