"""The native ways into DuckDB (canonical JSON, Parquet) keep every value that an event can have."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.events.model import COLUMNS, INT_COLUMNS, STRING_COLUMNS, EventBatch
from enrich.history import History

from .data import JOURNAL_ID, records_of, to_sidecar

#: what validation lets through: no control characters, no surrogates
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=12)
NASTY = st.sampled_from(
    [
        "null", "NaN", "true", "1e5", "\\", "\\n", '"', "'", "/", "\u2028\u2029", "\ufeff", "\uffff", "😀", "é",
        "e\u0301", "$.a", "a.b", "*", "{}", "[1]", "%", "x" * 200,
    ]
)  # fmt: skip
STRINGS = TEXT | NASTY
INTS = st.none() | st.sampled_from([0, 1, 2**31, 2**53 + 1, 2**63 - 1]) | st.integers(0, 2**63 - 1)
VALUES = STRINGS | st.just("") | st.booleans() | st.integers(-(2**63), 2**63 - 1)
ATTRIBUTES = st.none() | st.dictionaries(STRINGS, VALUES, max_size=4)
TIMES = st.integers(946_684_800_000_000, 4_102_444_800_000_000)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    row: dict[str, Any] = {"occurred_at": draw(TIMES)}
    for c in STRING_COLUMNS:
        row[c] = draw(STRINGS if c in ("source", "event_id", "kind", "outcome") else st.none() | STRINGS)
    for c in INT_COLUMNS:
        row[c] = draw(INTS)
    row["attributes"] = draw(ATTRIBUTES)
    return row


def batch_of(events: list[dict[str, Any]]) -> EventBatch:
    digests = [hashlib.sha256(orjson.dumps(e, option=orjson.OPT_SORT_KEYS)).digest() for e in events]
    columns = {c: [e[c] for e in events] for c in COLUMNS}
    return EventBatch(len(events), columns, [d[:16] for d in digests], [d[16:] for d in digests])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(rows(), min_size=1, max_size=6))
def test_every_value_comes_back_by_either_way(tmp_path_factory: Any, events: list[dict[str, Any]]) -> None:
    directory: Path = tmp_path_factory.mktemp("history")
    batch = batch_of(events)
    with History.open(directory, journal_id=JOURNAL_ID) as history:
        history.apply(records_of([batch, to_sidecar(directory, batch)], [batch.n, batch.n]))
        with history.cursor() as con:
            got = con.execute(
                f"SELECT epoch_us(occurred_at), {', '.join(COLUMNS[1:])} FROM events ORDER BY seq"
            ).fetchall()
            keys = con.execute(
                "SELECT epoch_us(occurred_at), key_hi, key_lo, content_hi, content_lo FROM event_keys ORDER BY seq"
            ).fetchall()
    expected = []
    for event in events:
        attributes = event["attributes"]
        text = None if attributes is None else orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS).decode()
        expected.append(tuple({**event, "attributes": text}[c] for c in COLUMNS))
    assert got == expected * 2
    assert (
        keys
        == [
            (
                event["occurred_at"],
                *(int.from_bytes(h[i : i + 8], "big") for h in (key, content) for i in (0, 8)),
            )
            for event, key, content in zip(events, batch.keys, batch.contents, strict=True)
        ]
        * 2
    )
