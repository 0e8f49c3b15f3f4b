"""Where a history stands is told without opening it for good."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from enrich.errors import DataDirError, NewerFormatError
from enrich.history import FILE_NAME, History, stored_position
from enrich.journal.format import Position, genesis_hash


def test_a_history_says_which_journal_it_follows_and_up_to_where(tmp_path: Path) -> None:
    assert stored_position(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    with History.open(tmp_path, journal_id="j"):
        pass
    before = (tmp_path / FILE_NAME).read_bytes()
    assert stored_position(tmp_path) == ("j", Position(0, genesis_hash("j")))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {FILE_NAME: before}


def test_a_file_without_tables_says_nothing(tmp_path: Path) -> None:
    duckdb.connect(tmp_path / FILE_NAME).close()
    assert stored_position(tmp_path) is None


def test_what_can_not_be_asked_is_an_error(tmp_path: Path) -> None:
    with History.open(tmp_path, journal_id="j"):
        pass
    with duckdb.connect(tmp_path / FILE_NAME) as other:
        other.execute("UPDATE history_meta SET format = 99")
    with pytest.raises(NewerFormatError):
        stored_position(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(DataDirError):
        stored_position(tmp_path)
