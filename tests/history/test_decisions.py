"""Decisions in DuckDB: what each record says in columns, pages at one seq, and the way from a file without."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from enrich.errors import BadRequestError
from enrich.events import format_us
from enrich.history import DecisionFilter, Follower, History
from enrich.history import schema as history_schema
from enrich.history.decisions import KeyedDecision
from enrich.history.records import QueuedRecord
from enrich.journal.bodies import decision_batch
from tests.history.data import AT_US, BASE_US, JOURNAL_ID, MemoryJournal, Rec
from tests.history.test_store import open_history

#: written by the version before decisions: three events of `make_batch(3, 1)`
FORMAT_1 = Path(__file__).with_name("format-1.duckdb.gz")


def body(n: int, **changes: Any) -> dict[str, Any]:
    as_of = format_us(BASE_US + n)
    found = {
        "decision_id": f"d-{n}", "idempotency_key": None, "request_hash": "sha256:" + "0" * 64, "caller": None,
        "entities": {"agent": "a", "team": None, "workflow": "w", "org": None, "approvers": ["eve"]},
        "as_of": as_of, "path": "shop/decision", "input": {"ratio": 1.0, "text": "π"}, "decision": "ALLOW",
        "cause": None, "result": {"decision": "ALLOW"}, "salt": "00",
        "event": {
            "source": "enrich", "event_id": f"d-{n}", "occurred_at": as_of, "kind": "authority", "outcome": "allowed",
            "agent_id": "a",
        },
    }  # fmt: skip
    return found | changes


def record(seq: int, content: dict[str, Any]) -> Rec:
    return Rec(seq, 1, "decision", AT_US + seq, f"{seq:064d}", decision_batch(content, b"key"), None, content)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with open_history(tmp_path) as opened:
        yield opened


def test_a_record_in_columns(history: History) -> None:
    refused = body(
        2, idempotency_key="k", caller="c" * 32, decision="DENY", cause="suspended", result=False, path="shop/allow",
        entities={"agent": "b", "team": "t", "workflow": None, "org": "o", "approvers": []},
    )  # fmt: skip
    assert history.apply([record(1, body(1)), record(2, refused)]) == 2
    with history.cursor() as con:
        columns = ", ".join("epoch_us(as_of)" if c == "as_of" else c for c in history_schema.DECISION_COLUMNS)
        first, second = con.execute(f"SELECT {columns} FROM decisions ORDER BY seq").fetchall()
        events = con.execute("SELECT seq, event_id, kind, outcome FROM events ORDER BY seq").fetchall()
    zeros = "sha256:" + "0" * 64
    assert first[:-2] == (
        1, "d-1", BASE_US + 1, "shop/decision", "ALLOW", None, "a", None, "w", None, None, zeros, None,
    )  # fmt: skip
    assert second[:-2] == (
        2, "d-2", BASE_US + 2, "shop/allow", "DENY", "suspended", "b", "t", None, "o", "k", zeros, "c" * 32,
    )  # fmt: skip
    assert (first[-1], second[-1]) == (None, None)
    assert first[-2].encode() == orjson.dumps(body(1), option=orjson.OPT_SORT_KEYS)
    assert events == [(1, "d-1", "authority", "allowed"), (2, "d-2", "authority", "allowed")]
    whole = history.decision("d-2")
    assert whole == {"seq": 2, **{k: v for k, v in refused.items() if k != "salt"}}
    assert history.decision("d-3") is None
    assert list(history.keyed_decisions(BASE_US)) == [
        KeyedDecision(2, BASE_US + 2, "c" * 32, "shop/allow", "k", zeros, "d-2", "DENY", "suspended", False)
    ]
    assert list(history.keyed_decisions(BASE_US + 2)) == []


@pytest.mark.parametrize(
    "result",
    [
        True, "ALLOW", {"decision": "ALLOW", "": {"\x00\"\\": None}},
        {"decision": "DENY", "n": [1, 1.0, -0.0, 0.1, 1e22, 5e-324, 1.7976931348623157e308, 2**53 + 1, 2**64 - 1]},
    ],
)  # fmt: skip
def test_what_was_answered_under_a_key_is_what_was_recorded(history: History, result: Any) -> None:
    history.apply([record(1, body(1, idempotency_key="k", result=result))])
    [found] = history.keyed_decisions(BASE_US)
    canonical = [orjson.dumps(value, option=orjson.OPT_SORT_KEYS) for value in (found.result, result)]
    assert canonical[0] == canonical[1]


def test_keys_are_read_though_their_records_are_more_than_the_memory(tmp_path: Path) -> None:
    seqs = range(10_000, 25_000)
    with open_history(tmp_path, threads=1) as history, history.cursor() as con:
        con.execute(
            "INSERT INTO decisions (seq, decision_id, as_of, path, decision, idempotency_key, request_hash, body)"
            " SELECT n, n, make_timestamptz(?), 'p', 'ALLOW', 'k-' || n, 'h',"
            f""" '{{"input":"' || repeat(n::VARCHAR, 1000) || '","result":true}}'"""
            f" FROM range({seqs.start}, {seqs.stop}) AS r(n)",
            [BASE_US + 1],
        )
    with open_history(tmp_path, threads=1, memory_limit="48MiB") as history:
        assert [one.seq for one in history.keyed_decisions(BASE_US) if one.result is True] == list(seqs)


def test_what_is_about_to_be_appended_and_what_was_read_are_kept_alike(history: History) -> None:
    content = body(1)
    read = record(1, content)
    fresh = replace(read, body=orjson.dumps(content, option=orjson.OPT_SORT_KEYS))
    assert QueuedRecord.of(fresh, fresh) == QueuedRecord.of(read, read)
    pruned = replace(read, body=None, batch=None)
    history.apply([pruned])
    assert history.position.seq == 1
    assert history.decisions_page(DecisionFilter.of()).decisions == []


def test_pages_hold_at_one_seq_and_follow_their_filters(history: History) -> None:
    history.apply([record(n, body(n, decision=("ALLOW", "DENY")[n % 2])) for n in range(1, 8)])
    wanted = DecisionFilter.of(decision="ALLOW")
    first = history.decisions_page(wanted, limit=2)
    assert ([d["seq"] for d in first.decisions], first.seq) == ([6, 4], 7)
    history.apply([record(n, body(n)) for n in (8, 9)])
    second = history.decisions_page(wanted, cursor=first.next_cursor, limit=2)
    assert ([d["seq"] for d in second.decisions], second.seq, second.next_cursor) == ([2], 7, None)
    assert [d["seq"] for d in history.decisions_page(DecisionFilter.of(BASE_US + 3, BASE_US + 4)).decisions] == [4, 3]
    for name, value, count in (("agent", "a", 9), ("agent", "b", 0), ("workflow", "w", 9), ("path", "shop/allow", 0)):
        assert len(history.decisions_page(DecisionFilter({name: value})).decisions) == count
    for bad in (
        lambda: history.decisions_page(DecisionFilter.of(), cursor=first.next_cursor),
        lambda: history.decisions_page(wanted, cursor="x"),
        lambda: history.events_page(cursor=first.next_cursor),
        lambda: history.decisions_page(wanted, limit=0),
        lambda: DecisionFilter.of(outcome="x"),
    ):
        with pytest.raises(BadRequestError):
            bad()


def test_a_file_of_the_format_before_comes_forward(tmp_path: Path) -> None:
    path = tmp_path / "history.duckdb"
    path.write_bytes(gzip.decompress(FORMAT_1.read_bytes()))
    with duckdb.connect(str(path), read_only=True) as con:
        assert history_schema.read_format(con) == 1
    with open_history(tmp_path) as history:
        assert (history.count(), history.position.seq) == (3, 3)
        assert history.decisions_page(DecisionFilter.of()).decisions == []
        history.apply([record(4, body(4))])
        assert history.decision("d-4") is not None
        with history.cursor() as con:
            assert history_schema.read_format(con) == history_schema.FORMAT
            forward = con.execute("SELECT table_name, sql FROM duckdb_tables() ORDER BY 1").fetchall()
    (tmp_path / "fresh").mkdir()
    with open_history(tmp_path / "fresh") as fresh, fresh.cursor() as con:
        assert con.execute("SELECT table_name, sql FROM duckdb_tables() ORDER BY 1").fetchall() == forward


def test_decisions_of_the_format_without_shadows_come_forward(tmp_path: Path) -> None:
    with open_history(tmp_path) as history:
        history.apply([record(1, body(1)), record(2, body(2))])
    with duckdb.connect(str(tmp_path / "history.duckdb")) as con:
        con.execute("ALTER TABLE decisions DROP COLUMN shadow")
        con.execute("DROP TABLE outcomes")
        con.execute("UPDATE history_meta SET format = 2")
    with open_history(tmp_path) as history:
        shadow = {"decision": "DENY", "result": False, "cause": None}
        history.apply([record(3, body(3, decision="ALLOW", shadow=shadow))])
        assert [d.get("shadow") for d in history.decisions_page(DecisionFilter.of()).decisions] == ["DENY", None, None]
        found = history.decisions_page(DecisionFilter.of(shadow="differs")).decisions
        assert [d["seq"] for d in found] == [3]


def test_bodies_that_wait_count_against_the_bound(history: History) -> None:
    small, large = record(1, body(1)), record(2, body(2, input={"text": "x" * 100_000}))
    assert QueuedRecord.of(small, small).weight < 4
    assert QueuedRecord.of(large, large).weight > 100
    journal = MemoryJournal(records=[])
    follower = Follower(history, journal, max_queued_events=300)
    records = [record(n, body(n, input={"text": "x" * 50_000})) for n in range(1, 11)]
    for one in records:
        follower.submit(one, one)
    assert len(follower._queue) == 3
    journal.records.extend(records)
    journal.sync()
    follower.start()
    assert follower.wait_applied(10, 10)
    follower.stop()
    assert [d["seq"] for d in history.decisions_page(DecisionFilter.of()).decisions] == list(range(10, 0, -1))


def test_a_history_built_again_has_the_same_decisions(tmp_path: Path) -> None:
    records = [record(1, body(1)), record(2, body(2, idempotency_key="k"))]
    rows = []
    for name, parts in (("one", [records]), ("other", [records[:1], records[1:]])):
        (tmp_path / name).mkdir()
        with History.open(tmp_path / name, journal_id=JOURNAL_ID) as history:
            for part in parts:
                history.apply(part)
            with history.cursor() as con:
                rows.append(con.execute("SELECT * EXCLUDE (as_of), epoch_us(as_of) FROM decisions").fetchall())
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2
