"""The shipped signal sets in plain DuckDB: what a person who pastes them gets, without the compiler."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from enrich.events.model import COLUMNS, ENTITY_KEYS, INT_COLUMNS
from enrich.signals import load_catalog
from enrich.signals.library import prelude_sql

ROOT = Path(__file__).parents[2]
QUERIES = sorted((ROOT / "queries").glob("*.sql"))
CASES = sorted(Path(__file__).parent.glob("cases/*.json"))
AS_OF = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

#: the library's functions written down once more, from their formulas, so that a mistake there is not repeated here
REFERENCE = """
CREATE MACRO wilson_lower(k, n, z := 1.959963984540054e0) AS
    CASE WHEN n > 0 THEN greatest(0e0, (k / n + z * z / (2e0 * n)
        - z * sqrt((k / n) * (1e0 - k / n) / n + z * z / (4e0 * n * n))) / (1e0 + z * z / n)) END;
CREATE MACRO two_proportion_z(k1, n1, k2, n2) AS
    CASE WHEN n1 > 0 AND n2 > 0 AND k1 + k2 > 0 AND k1 + k2 < n1 + n2
         THEN (k1 / n1 - k2 / n2)
              / sqrt(((k1 + k2) / (n1 + n2)) * (1e0 - (k1 + k2) / (n1 + n2)) * (1e0 / n1 + 1e0 / n2)) END;
CREATE MACRO current_streak(c, t, s) AS
    coalesce(list_position(list(coalesce(c, false) ORDER BY t DESC, s DESC), false) - 1, count(*));
CREATE MACRO seconds_since_last(c, t, now_at) AS epoch(max(now_at) - max(t) FILTER (WHERE c));
CREATE MACRO burst(c, t, iv) AS coalesce(list_max(list_transform(
    list(t) FILTER (WHERE c),
    lambda x: len(list_filter(list(t) FILTER (WHERE c), lambda y: y > x - iv AND y <= x)))), 0);
"""


@dataclass(frozen=True)
class SignalFile:
    name: str
    header: Mapping[str, str]
    params: Mapping[str, str]
    body: str
    columns: Mapping[str, str]  # name to comment


def read(path: Path) -> SignalFile:
    header: dict[str, str] = {}
    params: dict[str, str] = {}
    body: list[str] = []
    for line in path.read_text().splitlines():
        if not body and (found := re.fullmatch(r"-- (param )?(\w+): (.*)", line)):
            (params if found[1] else header)[found[2]] = found[3]
        else:
            body.append(line)
    text = "\n".join(body)
    select = text[: text.index("\nFROM ")]
    columns = dict(re.findall(r" AS (\w+),?\s+--\s+(\S.*)$", select, re.MULTILINE))
    return SignalFile(path.stem, header, params, text, columns)


FILES = {p.stem: read(p) for p in QUERIES}


def micros(window: str) -> timedelta:
    return timedelta(**{{"h": "hours", "d": "days"}[window[-1]]: int(window[:-1])})


def connect(rows: Sequence[Mapping[str, Any]], prelude: str = REFERENCE) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET threads = 1")
    connection.execute(prelude)
    types = dict.fromkeys(INT_COLUMNS, "BIGINT") | {"occurred_at": "TIMESTAMPTZ", "attributes": "JSON"}
    columns = ", ".join(f"{c} {types.get(c, 'VARCHAR')}" for c in COLUMNS)
    connection.execute(f"CREATE TABLE all_events ({columns}, seq BIGINT)")
    for seq, row in enumerate(rows, 1):
        values = {**row, "seq": seq}
        names = ", ".join(values)
        connection.execute(
            f"INSERT INTO all_events ({names}) VALUES ({', '.join('?' * len(values))})", list(values.values())
        )
    return connection


def run_window(connection: duckdb.DuckDBPyConnection, file: SignalFile, key: str, window: str) -> dict[str, Any]:
    column = ENTITY_KEYS[file.header["entity"]][0]
    relation = connection.execute(
        f"""WITH events AS (
                SELECT *, ?::TIMESTAMPTZ AS as_of, ?::TIMESTAMPTZ AS window_start FROM all_events
                WHERE {column} = ? AND occurred_at > ? AND occurred_at <= ?)
            {file.body}""",
        [AS_OF, AS_OF - micros(window), key, AS_OF - micros(window), AS_OF],
    )
    names = [d[0] for d in relation.description]
    (row,) = relation.fetchall()
    return dict(zip(names, row, strict=True))


def run(connection: duckdb.DuckDBPyConnection, name: str, key: str, window: str | None) -> dict[str, Any]:
    """One set for one entity. Without a window it is a derived set, over the other sets of its entity."""
    file = FILES[name]
    if window is not None:
        return run_window(connection, file, key, window)
    windows: dict[str, dict[str, Any]] = {}
    for other in FILES.values():
        if other.header["entity"] == file.header["entity"] and "windows" in other.header:
            for w in other.header["windows"].split(", "):
                windows.setdefault(f"last_{w}", {}).update(run_window(connection, other, key, w))
    structs = ", ".join("{" + ", ".join(f"'{n}': ?" for n in values) + f"}} AS {w}" for w, values in windows.items())
    constants = ", ".join(f"{v} AS {p}" for p, v in file.params.items())
    relation = connection.execute(
        f"WITH signals AS (SELECT {structs}, {constants}) {file.body}",
        [v for values in windows.values() for v in values.values()],
    )
    names = [d[0] for d in relation.description]
    (row,) = relation.fetchall()
    return dict(zip(names, row, strict=True))


def expand(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A case's rows: each group is `times` equal events, the first `ago_s` ago, each next `every_s` before it."""
    rows: list[dict[str, Any]] = []
    for group in groups:
        fields = {k: v for k, v in group.items() if k not in ("times", "ago_s", "every_s")}
        for i in range(group.get("times", 1)):
            at = AS_OF - timedelta(seconds=group["ago_s"] + i * group.get("every_s", 60))
            rows.append({"occurred_at": at, "source": "case", "event_id": f"e{len(rows)}", **fields})
    return rows


@pytest.mark.parametrize("prelude", [REFERENCE, prelude_sql()], ids=["formulas", "library"])
@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_a_golden_history_gives_the_expected_signals(path: Path, prelude: str) -> None:
    case = json.loads(path.read_text())
    assert set(case) == {"reason", "events", "expected"}, "unknown keys in the case"
    connection = connect(expand(case["events"]), prelude)
    for question, expected in case["expected"].items():
        name, key, window = question.split(" ")
        got = run(connection, name, key, None if window == "-" else window)
        for signal, value in expected.items():
            assert got[signal] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), (
                f"{question} {signal}: {case['reason']}"
            )


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_set_runs_over_an_empty_history_and_keeps_its_counts(name: str) -> None:
    file = FILES[name]
    for window in file.header.get("windows", "").split(", "):
        got = run(connect([]), name, "nobody", window or None)
        for column, value in got.items():
            if re.fullmatch(r"(executions|attempts|failures|requests|decisions|\w+_(sum|decisions|attempts))", column):
                assert value == 0, column
            if column.startswith("enough_"):
                assert value is False
            if column.endswith("_significantly") or column.endswith("_rate"):
                assert value is None, "no value without runs: absent in a context, never `false`"


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_header_is_complete_and_every_column_has_a_comment(name: str) -> None:
    file = FILES[name]
    derived = "\nFROM signals" in file.body
    assert {"entity", "owner", "description"} <= set(file.header)
    assert ("windows" in file.header) is not derived
    assert file.header["entity"] in ENTITY_KEYS
    result = run(connect([]), name, "nobody", None if derived else file.header["windows"].split(", ")[0])
    assert list(result) == list(file.columns)


def test_a_column_name_is_used_once_per_entity() -> None:
    seen: dict[tuple[str, str], str] = {}
    for file in FILES.values():
        for column in file.columns:
            assert column not in COLUMNS, "an alias may not hide a column of events"
            assert seen.setdefault((file.header["entity"], column), file.name) == file.name


def test_the_shipped_sets_compile_and_say_what_is_always_there() -> None:
    catalog = load_catalog(ROOT / "queries")
    assert {s.name for s in catalog.sets} == set(FILES)
    always = {(s.name, c.name): c.always for s in catalog.sets for c in s.signals}
    for name, companion in (("failed_significantly", "enough_runs"), ("rejected_significantly", "enough_decisions")):
        assert always[name, companion]
        assert not always[name, name], "a question without enough runs has no value"
