"""docs/reference/history.md names every table, column and type, and every error of the room."""

from __future__ import annotations

import re
from pathlib import Path

from enrich.history import History
from enrich.history.query import FILTERS

from .data import JOURNAL_ID

PAGE = (Path(__file__).parents[2] / "docs/reference/history.md").read_text()


def test_every_column_stands_in_the_page_with_its_type(tmp_path: Path) -> None:
    documented: dict[str, str] = {}
    for names, type_ in re.findall(r"^\| (`.*?`) \| ([A-Z]+) \|", PAGE, re.MULTILINE):
        documented |= dict.fromkeys(re.findall(r"`(\w+)`", names), type_)
    with History.open(tmp_path, journal_id=JOURNAL_ID) as history, history.cursor() as con:
        columns = con.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
    names = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}
    assert documented == {c: names.get(t, t) for table, c, t in columns if table in ("events", "decisions")}
    for table, column, _ in columns:
        assert f"`{table}`" in PAGE
        assert f"`{column}`" in PAGE


def test_filters_and_errors_stand_in_the_page() -> None:
    for name in (*FILTERS, "journal_behind", "history_gap", "newer_format", "busy", "invalid_cursor"):
        assert f"`{name}`" in PAGE
