"""Where a part of an expression overflows, DuckDB may still have a value: because it has skipped the part.

`7 = x * 2` is false once the optimizer has moved the 2, and `NULL / (- x)` is null without a look at x; whether DuckDB
looks depends on its vectors. The compiled form has no value wherever a part overflows, and says so (`may_fail`): never
one that DuckDB does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import duckdb

from enrich.signals import Catalog, SignalSet
from enrich.signals.bulk import bulk_answers
from tests.exactness.compare import Difference

__all__ = ["a_part_overflows", "items_of"]


def items_of(s: SignalSet) -> dict[str, str]:
    """The columns of a set that is written a line each: name to SQL."""
    return {name: text for text, name in re.findall(r"^    (.*) AS (\w+),?$", s.sql, re.MULTILINE)}


def a_part_overflows(connection: duckdb.DuckDBPyConnection, catalog: Catalog, difference: Difference) -> bool:
    """Whether the compiled form has no value because a part of the expression, by itself, raises in DuckDB."""
    s = catalog.set_named(difference.set)
    if difference.compiled is not None or s is None:
        return False
    if not next(c for c in s.signals if c.name == difference.signal).may_fail:
        return False
    source = s.sql[s.sql.index("\nFROM ") :]
    for part in dict.fromkeys(_parts(_inlined(items_of(s), difference.signal))):
        # a question that has no answer at all is one where it raised
        asked = replace(s, name="part", sql=f"SELECT ({part}) IS NULL AS p{source}")
        try:
            for answers in bulk_answers(connection, catalog, [difference.question], relation="history", sets=[asked]):
                window = None if answers.window is None else answers.window.key
                if window == difference.window and answers.values["p"] == [None]:
                    return True
        except (duckdb.BinderException, duckdb.ParserException):
            continue  # no expression by itself: a list of arguments, or about one row
    return False


def _inlined(items: dict[str, str], name: str) -> str:
    def written_out(found: re.Match[str]) -> str:
        return f"({_inlined(items, found.group())})" if found.group() in items else found.group()

    return re.sub(r"(?<![\w.])[a-z]+_?\d+\b", written_out, items[name])


def _parts(text: str) -> Iterator[str]:
    """Everything between a pair of parentheses, with a function's name before it and without."""
    opened: list[int] = []
    quoted = False
    for i, letter in enumerate(text):
        quoted ^= letter == "'"
        if quoted:
            continue
        if letter == "(":
            opened.append(i)
        elif letter == ")":
            start = opened.pop()
            yield text[start : i + 1]
            name = re.search(r"\w+$", text[:start])
            if name is not None:
                yield text[name.start() : i + 1]
    yield text
