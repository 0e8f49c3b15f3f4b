"""The smallest history and definition that still show a difference, as text to paste."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import duckdb
import orjson

from enrich.errors import EnrichError
from enrich.signals import Catalog, SignalSet, load_catalog
from enrich.signals.bulk import Question
from tests.exactness.compare import Difference
from tests.exactness.overflow import items_of
from tests.exactness.scenario import Splits, build, contexts, duckdb_of, expected_of

__all__ = ["reproduction"]

_SECONDS: Final = 20.0


def reproduction(catalog: Catalog, events: Sequence[dict[str, Any]], difference: Difference) -> str:
    """The difference, a definition of only the columns it needs, and as few events as still show it in one batch."""
    s = catalog.set_named(difference.set)
    lines = [f"{difference}"]
    if s is None or s.derived:
        return "\n".join([*lines, s.sql if s else ""])
    sql = _needed(s, difference.signal)
    question = Question(difference.question.as_of_us, {s.entity: difference.question.keys[s.entity]})
    kept = list(events)
    if not _differs(sql, kept, question):
        return "\n".join([*lines, "only with these splits into batches:", sql, *_shown(kept)])
    deadline = time.monotonic() + _SECONDS
    for start in range(len(kept) - 1, -1, -1):
        if time.monotonic() > deadline:
            break
        fewer = kept[:start] + kept[start + 1 :]
        if _differs(sql, fewer, question):
            kept = fewer
    for i, event in enumerate(kept):
        for name in [n for n in event if n not in ("occurred_at", "kind", "outcome", "agent_id", "workflow_id")]:
            if time.monotonic() > deadline:
                break
            less = {k: v for k, v in kept[i].items() if k != name}
            if _differs(sql, [*kept[:i], less, *kept[i + 1 :]], question):
                kept[i] = less
    return "\n".join([*lines, sql, *_shown(kept)])


def _shown(events: Sequence[Mapping[str, Any]]) -> list[str]:
    return [orjson.dumps(e).decode() for e in events]


def _needed(s: SignalSet, column: str) -> str:
    """The definition with only `column` and what it is made of."""
    items = items_of(s)
    wanted = [column]
    for name in wanted:
        wanted += [n for n in items if n not in wanted and re.search(rf"\b{n}\b", items[name])]
    head, rest = s.text[: s.text.index("SELECT")], s.sql[s.sql.index("\nFROM ") :]
    return f"{head}SELECT\n" + ",\n".join(f"    {t} AS {n}" for n, t in items.items() if n in wanted) + rest


def _differs(sql: str, events: Sequence[dict[str, Any]], question: Question) -> bool:
    try:
        catalog = load_catalog({"one": sql})
        connection = duckdb_of(events)
        expected = expected_of(connection, catalog, [question])
        connection.close()
        splits = Splits(random.Random(0), sizes=(400,))
        (answer,) = contexts(catalog, build(catalog, events, splits), [question])
        return any(expected.differences(0, answer))
    except (EnrichError, duckdb.Error, ArithmeticError):
        return True
