"""docs/reference/functions.md names every function of the library, and its examples are DuckDB's answers."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from enrich.signals.library import LIBRARY, prelude_sql

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "functions.md").read_text()
EXAMPLES = re.findall(r"```sql\n(.*?)\n-- (\S+)\n```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("query", "expected"), EXAMPLES, ids=lambda v: v.split("(")[0].removeprefix("SELECT "))
def test_an_example_is_what_duckdb_answers(query: str, expected: str) -> None:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(prelude_sql())
    (row,) = connection.execute(query).fetchall()
    if expected in ("true", "false"):
        assert row == (expected == "true",)
    else:
        assert row[0] == pytest.approx(float(expected), rel=1e-13, abs=0)


def test_every_function_of_the_library_has_a_heading_and_an_example() -> None:
    for name in LIBRARY:
        assert re.search(rf"^### .*`{name}\(", PAGE, re.MULTILINE), name
        assert any(f"{name}(" in query for query, _ in EXAMPLES), name
