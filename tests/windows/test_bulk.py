"""Parts of the bulk build: words numbered batch by batch, rows put in order, columns let go of."""

from __future__ import annotations

import random

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from enrich.windows import Index, bulk
from enrich.windows.evaluate import Columns, _Words
from enrich.windows.rows import sorted_order
from tests.windows.model import PLANS


def test_words_keep_their_numbers_from_batch_to_batch() -> None:
    rng, words = random.Random(1), _Words()
    expected: dict[str, int] = {}
    for size in (0, 1, 50, 400, 0, 400):
        column = [rng.choice([None, *(f"w{i}" for i in range(60)), "", "ü"]) for _ in range(size)]
        found = words.numbers(pa.array(column, pa.string())).tolist()
        for word, number in zip(column, found, strict=True):
            assert number == (-1 if word is None else expected.setdefault(word, number))
    assert len(set(expected.values())) == len(expected)
    assert {w: i for i, w in enumerate(words.known.to_pylist())} == expected


def test_a_column_of_nulls_has_no_words() -> None:
    words = _Words()
    assert words.numbers(pa.array([None, None], pa.string())).tolist() == [-1, -1]
    assert words.numbers(pa.array(["a", None, "a"], pa.string())).tolist() == [0, -1, 0]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("moments", [3, 100_000])
@pytest.mark.parametrize("ordered", ["t_seq", "t", "no"])
def test_rows_come_by_entity_time_and_seq_whatever_order_they_stand_in(seed: int, moments: int, ordered: str) -> None:
    rng = np.random.default_rng(seed)
    n = 500
    ent = rng.integers(-1, 9, n).astype(np.int32)
    t = rng.integers(-moments, moments, n)
    seq = rng.permutation(n).astype(np.int64)
    if ordered != "no":
        at = np.lexsort((seq, t)) if ordered == "t_seq" else np.argsort(t, kind="stable")
        t, seq = t[at], seq[at]
    expected = [i for i in np.lexsort((seq, t, ent)).tolist() if ent[i] >= 0]
    assert sorted_order(ent, t, seq).tolist() == expected
    kept = [i for i in expected if t[i] >= 1]
    assert sorted_order(ent, t, seq, 1).tolist() == kept


def test_what_only_a_finished_plan_reads_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    release = Columns.release

    def releasing(columns: Columns, entity: str) -> None:
        release(columns, entity)
        left.append(sum(len(c.array) for c in (*columns.ints, *columns.codes)))

    monkeypatch.setattr(Columns, "release", releasing)
    monkeypatch.setattr(bulk, "_BUILDERS", 1)
    index = Index(PLANS, retention_us=500)
    columns = ", ".join(
        f"{1 if c.endswith('_ms') else 'NULL'} AS {c}" for c in sorted(index.expressions.reads - {"occurred_at"})
    )
    with duckdb.connect(":memory:") as connection:
        connection.execute(
            "CREATE TABLE events AS SELECT make_timestamptz(i) AS occurred_at, i AS seq, NULL::BIGINT AS void_seq,"
            f" {columns} FROM range(10) r(i)"
        )
        index.load_from_duckdb(connection)
    assert left == sorted(left, reverse=True)
    assert len(left) == len(PLANS)
    assert left[-1] == 0
