"""DuckDB's own answers to a definition, for many entities and moments at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import duckdb
import orjson

from enrich.events.model import COLUMNS
from enrich.signals import prelude_sql
from enrich.signals.bind import EVENT_TYPES

__all__ = ["Duck", "settled", "variance_of"]

_TYPES = {c: t for c, t in EVENT_TYPES.items() if c not in ("as_of", "window_start")}


def settled(value: Any) -> Any:
    """A value of DuckDB as a context shows it; None where the context has none."""
    if isinstance(value, float):
        return value + 0.0 if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return float(value) + 0.0
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(2**63) <= value < 2**63 else None
    return value


def variance_of(values: Sequence[int | None]) -> Fraction | None:
    """Sample variance, exactly."""
    numbers: list[Fraction] = [Fraction(v) for v in values if v is not None]
    n = len(numbers)
    if n < 2:
        return None
    mean = sum(numbers, Fraction(0)) / n
    return sum(((x - mean) ** 2 for x in numbers), Fraction(0)) / (n - 1)


class Duck:
    """A connection that holds one history, in table `history`, single-threaded."""

    def __init__(self, events: Sequence[Mapping[str, Any]]) -> None:
        self.connection = duckdb.connect(config={"threads": "1"})
        run = self.connection.execute
        run("SET TimeZone = 'UTC'")
        run(prelude_sql())
        columns = ", ".join(f"{c} {t}" for c, t in _TYPES.items())
        run(f"CREATE TABLE history ({columns})")
        rows = [
            {
                **{c: e.get(c) for c in COLUMNS if c not in ("occurred_at", "attributes")},
                "us": e["occurred_at"],
                "attributes": orjson.dumps(e["attributes"], option=orjson.OPT_SORT_KEYS).decode()
                if e.get("attributes") is not None
                else None,
                "seq": seq,
            }
            for seq, e in enumerate(events, 1)
        ]
        names = [c for c in _TYPES if c != "occurred_at"]
        values = [[r["us"] for r in rows], *([r[c] for r in rows] for c in names)]
        unnested = ", ".join(f"unnest(?::{'BIGINT' if c == 'us' else _TYPES[c]}[])" for c in ("us", *names))
        run(
            f"INSERT INTO history SELECT make_timestamptz(us), {', '.join(names)}"
            f" FROM (SELECT {unnested}) AS t(us, {', '.join(names)})",
            values,
        )

    def cases(self, sql: str, cases: Sequence[tuple[str, int]], window_us: int) -> list[tuple[Any, ...]]:
        """A definition's row for each (agent, as_of), by one grouped query and one over nothing for empty windows.

        Raises:
            duckdb.Error: one of the windows makes it raise.
        """
        if "avg(" in sql:
            # grouped and plain avg(BIGINT) differ in DuckDB 2.0 above 2**53; a definition is not grouped
            return [self.case(sql, agent, at, window_us) for agent, at in cases]
        select, _, rest = sql.partition("\nFROM events")
        body = select[select.index("SELECT") + len("SELECT") :]
        run = self.connection.execute
        run(
            "CREATE OR REPLACE TEMP TABLE cases AS SELECT unnest(?::INTEGER[]) AS n, unnest(?::VARCHAR[]) AS agent,"
            " make_timestamptz(unnest(?::BIGINT[])) AS at",
            [list(range(len(cases))), *map(list, zip(*cases, strict=True))],
        )
        interval = f"INTERVAL {window_us} MICROSECOND"
        source = (
            f"WITH events AS (SELECT h.*, c.at AS as_of, c.at - {interval} AS window_start, c.n AS case_number"
            f" FROM cases c JOIN history h ON h.agent_id = c.agent AND h.occurred_at > c.at - {interval}"
            " AND h.occurred_at <= c.at) "
        )
        rows = self._fetch(f"{source} SELECT {body}, case_number FROM events{rest} GROUP BY case_number")
        found = {row[-1]: row[:-1] for row in rows}
        (empty,) = self._fetch(f"{source} SELECT {body} FROM (FROM events WHERE false) AS events{rest}")
        return [found.get(n, empty) for n in range(len(cases))]

    def case(self, sql: str, agent: str, as_of_us: int, window_us: int) -> tuple[Any, ...]:
        """A definition's row for one agent and moment, by the plain query."""
        at = f"make_timestamptz({as_of_us})"
        start = f"make_timestamptz({as_of_us - window_us})"
        (row,) = self._fetch(
            f"WITH events AS (SELECT *, {at} AS as_of, {start} AS window_start FROM history"
            f" WHERE agent_id = '{agent}' AND occurred_at > {start} AND occurred_at <= {at})\n{sql}"
        )
        return row

    def _fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows with times as RFC 3339 text, as a context has them."""
        types = self.connection.execute(f"DESCRIBE {sql}").fetchall()
        columns = (
            f"strftime({name} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ')" if t == "TIMESTAMP WITH TIME ZONE" else name
            for name, t, *_ in types
        )
        return self.connection.execute(f"SELECT {', '.join(columns)} FROM ({sql})").fetchall()
