from __future__ import annotations

import os
from pathlib import Path

import pytest

from enrich.history import History


def threads(history: History) -> int:
    with history.cursor() as con:
        return int(con.execute("SELECT current_setting('threads')").fetchall()[0][0])


def test_all_cores_are_used_for_a_while_only(tmp_path: Path) -> None:
    with History.open(tmp_path, journal_id="j", threads=1) as history:
        with history.all_cores():
            assert threads(history) == os.cpu_count()
        assert threads(history) == 1
        with pytest.raises(ZeroDivisionError), history.all_cores():
            raise ZeroDivisionError
        assert threads(history) == 1
