"""DuckDB as the judge of what a definition means: its parsed form, its bound plan, its binder's errors.

The connection is private, in memory, without access to files or the network; it holds empty relations of the right
types and the library's macros, and never runs a definition.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import duckdb

from enrich.events.model import INT_COLUMNS, STRING_COLUMNS
from enrich.signals.library import LIBRARY, MARKERS, prelude_sql

#: DuckDB writes a folded nan in its own way
_NAN: Final = re.compile(r'("value":)-?NAN\b')

__all__ = ["EVENT_TYPES", "Binder", "BoundError"]

#: the columns of `events` as a definition sees them, with their types
EVENT_TYPES: Mapping[str, str] = {
    "occurred_at": "TIMESTAMPTZ",
    **dict.fromkeys(STRING_COLUMNS, "VARCHAR"),
    **dict.fromkeys(INT_COLUMNS, "BIGINT"),
    "attributes": "JSON",
    "seq": "BIGINT",
    "as_of": "TIMESTAMPTZ",
    "window_start": "TIMESTAMPTZ",
}


@dataclass(frozen=True, slots=True)
class BoundError(Exception):
    """What DuckDB says against a text: its message, and where in bytes, if it says so."""

    kind: str
    message: str
    position: int | None
    candidates: tuple[str, ...] = ()
    name: str | None = None


class Binder:
    """Parses and binds definitions; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection = duckdb.connect(
            ":memory:",
            config={"threads": "1", "enable_external_access": "false", "autoinstall_known_extensions": "false"},
        )
        run = self._connection.execute
        run("SET TimeZone = 'UTC'")
        columns = ", ".join(f"{name} {type_}" for name, type_ in EVENT_TYPES.items())
        run(f"CREATE TABLE events ({columns})")
        run(prelude_sql({**LIBRARY, **MARKERS}))

    def define_signals(self, columns: Mapping[str, str]) -> None:
        """Make the relation `signals` one with these columns (SQL types, STRUCTs allowed)."""
        inner = ", ".join(f'"{name}" {type_}' for name, type_ in columns.items())
        with self._lock:
            self._connection.execute(f"CREATE OR REPLACE TABLE signals ({inner})")

    def parse(self, sql: str) -> list[dict[str, Any]]:
        """The statements as DuckDB parses them.

        Raises:
            BoundError: a syntax error, or something that is no SELECT.
        """
        answer = self._ask("json_serialize_sql(?, skip_null := true, skip_empty := true, skip_default := true)", sql)
        statements: list[dict[str, Any]] = answer["statements"]
        return statements

    def plan(self, sql: str) -> dict[str, Any]:
        """The bound, unoptimised plan of a statement.

        Raises:
            BoundError: an unknown name, a wrong type, an aggregate where none may stand.
        """
        answer = self._ask("json_serialize_plan(?, optimize := false, skip_null := true, skip_empty := true)", sql)
        plan: dict[str, Any] = answer["plans"][0]
        return plan

    def _ask(self, call: str, sql: str) -> dict[str, Any]:
        with self._lock:
            row = self._connection.execute(f"SELECT {call}", [sql]).fetchone()
        if row is None or not row[0]:  # what DuckDB has no JSON for, such as a constant of type BIGNUM
            raise BoundError("unsupported", "a constant of a type that no signal has", None)
        try:
            answer: dict[str, Any] = json.loads(_NAN.sub(r"\1NaN", row[0]))
        except RecursionError:
            raise BoundError("unsupported", "expressions nested too deeply", None) from None
        if answer.get("error"):
            position = answer.get("position")
            raise BoundError(
                str(answer.get("error_type", "")),
                str(answer.get("error_message", "")).split("\nLINE ")[0],
                None if position is None else int(position),
                tuple(str(answer.get("candidates", "")).split(",")) if answer.get("candidates") else (),
                answer.get("name"),
            )
        return answer

    def close(self) -> None:
        self._connection.close()
