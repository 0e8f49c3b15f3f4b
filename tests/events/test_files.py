"""Files of events: NDJSON, gzip, Parquet; bounded, and a bad line is one rejected entry."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.errors import BadRequestError
from enrich.events import decode_ndjson, read_events, to_arrow
from enrich.events.files import MAX_LINE_BYTES
from enrich.events.model import COLUMNS
from enrich.events.refusals import REFUSAL_CODES

from .data import EVENT, NOW_US, event, parser


def _lines(n: int) -> bytes:
    return b"".join(json.dumps(event(event_id=f"e{i}")).encode() + b"\n" for i in range(n))


def _parse(path: Path, **options: Any) -> tuple[list[str], list[tuple[int, str]]]:
    """Ids of accepted events, and (place, code) of refused ones."""
    ids: list[str] = []
    refused = []
    for part in read_events(path, **options):
        frame = isinstance(part.events, pa.Table)
        subject = parser()
        parsed = subject.parse_frame(part.events, NOW_US) if frame else subject.parse(part.events, NOW_US)
        ids += parsed.batch.columns["event_id"]
        refused += [(part.places[r.index], r.code) for r in parsed.rejected]
    return ids, refused


@pytest.mark.parametrize("name", ["events.ndjson", "events.ndjson.gz", "oddly-named"])
def test_ndjson_is_read_in_bounded_batches(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(_lines(25)) if name.endswith(".gz") else _lines(25))
    parts = list(read_events(path, batch_rows=10))
    assert [len(p.events) for p in parts] == [10, 10, 5]
    assert [p.places[0] for p in parts] == [1, 11, 21]
    assert [p.total_bytes for p in parts] == [path.stat().st_size] * 3
    assert parts[-1].read_bytes == path.stat().st_size
    assert _parse(path) == ([f"e{i}" for i in range(25)], [])


def test_a_batch_ends_with_the_line_that_passes_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    path.write_bytes(_lines(9))
    assert [len(p.events) for p in read_events(path, batch_bytes=len(_lines(3)))] == [3, 3, 3]


def test_a_bad_line_is_one_refused_entry_with_its_line_number(tmp_path: Path) -> None:
    bad = [b"nonsense", b'{"a":1,"a":2}', b"[]", b'"\xff"', b"[NaN]", b"[" * 20 + b"]" * 20, b"[1e999]", b"[" * 5000]
    path = tmp_path / "events.ndjson"
    path.write_bytes(_lines(1) + b"\r\n \n" + b"\n".join(bad) + b"\n" + _lines(2) + json.dumps(EVENT).encode())
    ids, refused = _parse(path)
    assert ids == ["e0", "e0", "e1", "run-1"]
    codes = ["invalid_json", "duplicate_key", "not_an_object", "invalid_utf8", "number_not_finite", "too_deep"]
    assert refused == list(zip(range(4, 12), [*codes, "number_not_exact", "too_deep"], strict=True))
    assert {code for _, code in refused} <= set(REFUSAL_CODES)


@pytest.mark.parametrize("over", [0, 1, 2, 3, 2 << 20])
def test_a_line_too_long_is_skipped_not_held(tmp_path: Path, over: int) -> None:
    line = b'"' + b"x" * (MAX_LINE_BYTES - 2 + over) + b'"\n'
    path = tmp_path / "events.ndjson"
    path.write_bytes(line + _lines(1))
    assert _parse(path) == (["e0"], [(1, "line_too_long" if over else "not_an_object")])


def test_parquet_is_read_in_bounded_batches(tmp_path: Path) -> None:
    rows = parser().parse([event(event_id=f"e{i}") for i in range(25)] + [event(event_id="bad", action="x")], NOW_US)
    table = to_arrow(rows.batch, 1, NOW_US).select(list(COLUMNS))
    table = table.set_column(table.schema.get_field_index("action"), "action", pa.array([None] * 25 + [" padded"]))
    path = tmp_path / "events.parquet"
    pq.write_table(table, path)
    parts = list(read_events(path, batch_rows=10))
    assert [(p.places[0], len(p.events)) for p in parts] == [(1, 10), (11, 10), (21, 6)]
    assert _parse(path, batch_rows=10) == ([f"e{i}" for i in range(25)], [(26, "invalid_string")])


@pytest.mark.parametrize("content", [None, b"PAR1 not really", gzip.compress(_lines(2000))[:-20], b"\x1f\x8b damaged"])
def test_a_file_that_cannot_be_read_says_which(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "events.data"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadRequestError) as error:
        list(read_events(path))
    assert error.value.error_code == "unreadable_file"
    assert error.value.detail["file"] == str(path)


def test_an_empty_file_has_no_events(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"")
    assert list(read_events(path)) == []


def test_a_body_of_ndjson_is_one_entry_a_line() -> None:
    entries = decode_ndjson(_lines(2) + b"\n \r\n" + b"{\n" + b'{"a":1}\r\n')
    parsed = parser().parse(entries, NOW_US)
    assert parsed.indices == [0, 1]
    assert [(r.index, r.code) for r in parsed.rejected] == [(2, "invalid_json"), (3, "unknown_field")]


def test_lines_are_never_read_as_one_document() -> None:
    entries = decode_ndjson(b'{"a":1\n"b":2},3\n')
    assert [type(e).__name__ for e in entries] == ["Unreadable", "Unreadable"]
