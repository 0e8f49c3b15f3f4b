"""Random definitions from the supported grammar, and random histories that meet its hard places.

Used by every property test that holds the compiled form against DuckDB: `Grammar(rng).definition()` is the SQL of a
set, `events(rng, ...)` a history with ties, nulls, int64 extremes and texts that are almost numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from enrich.events.model import INT64_MAX, INT_COLUMNS

__all__ = ["ATTRIBUTE_KEYS", "Definition", "Grammar", "events"]

_T = TypeVar("_T")

ATTRIBUTE_KEYS: Final = ("num", "real", "flag", "tool")
_BIG: Final = ("duration_ms", "cost_microusd", "amount_minor", "wait_ms")
_TEXTS: Final = ("action", "currency", "error_type", "outcome")
_WORDS: Final = ("a", "b", "EUR", "it's", "ä")
_OUTCOMES: Final = ("succeeded", "failed", "timed_out", "cancelled")
_NUMBERS: Final = (
    "12", "-3", "0", "-0", "1.5", "2.5", "-1.5", "1e3", "0x10", "1_000", " 12 ", "", "abc", "inf", "nan", "1e400",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "0.1", "1e-320", "+7", ".5", "5.", "true",
    "9007199254740993", "1e18", "99999999999999999999", "--1", "1 2", "0b11", "1__0",
)  # fmt: skip
_EXTREMES: Final = (
    0, 1, 2, 7, 10, 1000, 2**31 - 1, 2**31, 2**53 - 1, 2**53, 2**53 + 1, 2**62, INT64_MAX - 1, INT64_MAX,
)  # fmt: skip


def events(rng: random.Random, n: int, agents: int, span_us: int = 4_000_000_000) -> list[dict[str, Any]]:
    """`n` events of up to `agents` agents as sparse dicts; occurred_at in microseconds from 1.7e15 on, in no order."""
    columns = [rng.choice(("small", "mixed", "extreme", "equal")) for _ in INT_COLUMNS]
    rows: list[dict[str, Any]] = []
    for i in range(n):
        row: dict[str, Any] = {
            "source": "test",
            "event_id": f"e{i}",
            "occurred_at": 1_700_000_000_000_000
            + rng.randrange(40) * (span_us // 40)
            + rng.choice((0, 0, 0, 1, 500_001)),
            "kind": rng.choice(("execution", "step")),
            "outcome": rng.choice(_OUTCOMES),
            "agent_id": f"agent-{min(rng.randrange(agents), rng.randrange(agents))}",
            "workflow_id": rng.choice((None, "w1", "w2")),
        }
        for name, style in zip(INT_COLUMNS, columns, strict=True):
            if rng.random() < 0.2:
                continue
            row[name] = _integer(rng, style)
        for name in ("action", "currency", "error_type"):
            if rng.random() < 0.75:
                row[name] = rng.choice(_WORDS)
        if rng.random() < 0.8:
            row["attributes"] = {k: _attribute(rng, k) for k in ATTRIBUTE_KEYS if rng.random() < 0.7}
        rows.append(row)
    return rows


def _integer(rng: random.Random, style: str) -> int:
    if style == "small" or (style == "mixed" and rng.random() < 0.5):
        return rng.randrange(8)
    if style == "equal":
        return 5
    if style == "extreme":
        return rng.choice(_EXTREMES)
    return rng.randrange(10 ** rng.randrange(1, 16))


def _attribute(rng: random.Random, key: str) -> Any:
    if key == "flag":
        return rng.random() < 0.5
    if key == "tool":
        return rng.choice(_WORDS)
    if key == "num" and rng.random() < 0.5:
        return rng.choice((0, 5, -5, 2**63 - 1, -(2**63), 12345))
    return rng.choice(_NUMBERS)


@dataclass
class Definition:
    """SQL of a set, and which of its columns are compared how: "exact", or "variance" with the operand's SQL."""

    sql: str
    columns: dict[str, str] = field(default_factory=dict)
    operands: dict[str, str] = field(default_factory=dict)
    where: str = ""


class Grammar:
    """Draws expressions; every method answers SQL of the type that its name says."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._scope: dict[str, list[str]] = {}

    def _pick(self, *options: Callable[[], _T]) -> _T:
        return self.rng.choice(options)()

    # -- rows

    def row_int(self, depth: int) -> str:
        """An integer of a row that cannot raise."""
        r = self.rng
        if depth <= 0:
            return r.choice((*_BIG, *_BIG, *INT_COLUMNS, "input_tokens", str(r.choice((0, 1, 3, 7, -2, 2**53 + 1)))))

        def a() -> str:
            return self.row_int(depth - 1)

        def b() -> str:
            return self.row_bool(depth - 1)

        return self._pick(
            lambda: r.choice(_BIG),
            lambda: r.choice(_BIG),
            lambda: f"(amount_minor - {r.choice(INT_COLUMNS)})",
            lambda: f"TRY({a()} {r.choice('+-*')} {a()})",
            lambda: f"coalesce({r.choice(_BIG)}, {r.choice((0, 5))})",
            lambda: f"CASE WHEN {b()} THEN {a()} ELSE {a()} END",
            lambda: f"CASE WHEN {b()} THEN {a()} END",
            lambda: "TRY_CAST(attributes ->> 'num' AS BIGINT)",
            lambda: f"TRY_CAST(attributes ->> '{r.choice(('num', 'real'))}' AS BIGINT)",
            lambda: f"greatest({r.choice(_BIG)}, {r.choice((1, 1000))})",
            lambda: f"least({r.choice(_BIG)}, {r.choice(_BIG)})",
            lambda: f"({r.choice(_BIG)} // {r.choice((1, 2, 7, 1000))})",
            lambda: f"({r.choice(_BIG)} % {r.choice((2, 10, 1000))})",
            lambda: f"({r.choice(_BIG)} // nullif({r.choice(_BIG)}, 0))",
            lambda: f"abs(amount_minor - {r.choice(_BIG)})",
            lambda: f"TRY_CAST(round({self.row_double(depth - 1)}) AS BIGINT)",
            lambda: f"TRY({self.row_double(depth - 1)}::BIGINT)",
            lambda: f"nullif({r.choice(_BIG)}, {r.choice((0, 5))})",
            lambda: f"TRY(({r.choice(_BIG)} * {r.choice(('1.5', '0.01'))})::BIGINT)",
        )

    def row_double(self, depth: int) -> str:
        """A finite DOUBLE of a row."""
        r = self.rng

        def big() -> str:
            return r.choice(_BIG)

        return self._pick(
            lambda: f"({big()} / {r.choice((3, 1000, 7))})",
            lambda: f"({big()} / nullif({big()}, 0))",
            lambda: f"round({big()} / 1000, {r.choice((0, 1, 2, 3))})",
            lambda: f"({big()} * 0.1e0)",
            lambda: f"sqrt({big()})",
            lambda: f"ln(1e0 + {big()})",
            lambda: f"({big()}::DOUBLE - {big()})",
            lambda: f"CASE WHEN isfinite({(t := self._text_double())}) THEN {t} END",
            lambda: f"({big()} * 0.25)::DOUBLE",
            lambda: f"CASE WHEN {self.row_bool(depth - 1)} THEN {big()} / 8 END",
            lambda: f"greatest({big()} / 2, 3e0)",
        )

    def _text_double(self) -> str:
        return f"TRY_CAST(attributes ->> '{self.rng.choice(('num', 'real'))}' AS DOUBLE)"

    def row_text(self) -> str:
        r = self.rng
        return r.choice((*_TEXTS, *_TEXTS, "attributes ->> 'tool'", "(attributes ->> 'flag')"))

    def row_bool(self, depth: int) -> str:
        """A condition on a row."""
        r = self.rng
        if depth <= 0:
            return self._simple_bool()

        def b() -> str:
            return self.row_bool(depth - 1)

        return self._pick(
            self._simple_bool,
            self._simple_bool,
            lambda: f"({b()} AND {b()})",
            lambda: f"({b()} OR {b()})",
            lambda: f"(NOT {b()})",
            lambda: f"({self.row_int(depth - 1)} {self._compare()} {self.row_int(depth - 1)})",
            lambda: (
                f"({self.row_double(depth - 1)} {self._compare()} {r.choice(('1.5', '0.5e0', '3', 'duration_ms'))})"
            ),
            lambda: f"({r.choice(_BIG)} {self._compare()} {r.choice(('1.5', '2.5', '1000.25'))})",
            lambda: f"({self.row_int(0)} BETWEEN {r.choice((0, 1))} AND {r.choice((5, 1000))})",
            lambda: f"coalesce({b()}, {r.choice(('true', 'false'))})",
            lambda: f"({self.row_int(depth - 1)} IS {r.choice(('', 'NOT '))}DISTINCT FROM {self.row_int(0)})",
            lambda: f"(CASE WHEN {b()} THEN {b()} ELSE {b()} END)",
        )

    def _compare(self) -> str:
        return self.rng.choice(("=", "<>", "<", "<=", ">", ">="))

    def _word(self) -> str:
        return "'" + self.rng.choice((*_WORDS, *_OUTCOMES)).replace("'", "''") + "'"

    def _simple_bool(self) -> str:
        r = self.rng
        return self._pick(
            lambda: f"outcome = '{r.choice(_OUTCOMES)}'",
            lambda: f"outcome IN ('failed', '{r.choice(_OUTCOMES)}')",
            lambda: f"{self.row_text()} {r.choice(('=', '<>', '<', '>='))} {self._word()}",
            lambda: f"{self.row_text()} {r.choice(('', 'NOT '))}IN ({self._word()}, {self._word()})",
            lambda: f"{self.row_text()} IN ({self._word()}, NULL)",
            lambda: f"{r.choice((*_BIG, *_TEXTS))} IS {r.choice(('', 'NOT '))}NULL",
            lambda: f"{r.choice(_BIG)} {self._compare()} {r.choice((0, 3, 5, 1000))}",
            lambda: f"{r.choice(_BIG)} {self._compare()} {r.choice(_BIG)}",
            lambda: f"{r.choice(_BIG)} IN (0, 1, 5)",
            lambda: "kind = 'execution'",
            lambda: "attributes ->> 'flag' = 'true'",
            lambda: r.choice(_TEXTS) + " = " + r.choice(_TEXTS),
        )

    # -- aggregates

    def filter(self) -> str:
        return f" FILTER (WHERE {self.row_bool(self.rng.randrange(3))})" if self.rng.random() < 0.5 else ""

    def aggregate(self) -> tuple[str, str]:
        """(SQL, type): int, huge, double, bool, text, time."""
        r = self.rng
        d = r.randrange(3)
        q = r.choice(("0.5", "0.95", "0.9e0", "0", "1", "0.25", "0.333", "0.99", "0.1"))
        kind, sql = self._pick(
            lambda: ("int", "count(*)"),
            lambda: ("int", "count(*)"),
            lambda: ("int", f"count({r.choice((self.row_int(d), self.row_text(), self.row_bool(1)))})"),
            lambda: ("huge", f"sum({self.row_int(d)})"),
            lambda: ("huge", f"sum({self.row_int(0)})"),
            lambda: ("huge", f"sum({self.row_bool(1)})"),
            lambda: ("double", f"avg({self.row_int(d)})"),
            lambda: ("int", f"{r.choice(('min', 'max'))}({self.row_int(d)})"),
            lambda: ("double", f"{r.choice(('min', 'max'))}({self.row_double(d)})"),
            lambda: ("time", f"{r.choice(('min', 'max'))}(occurred_at)"),
            lambda: ("bool", f"{r.choice(('bool_and', 'bool_or'))}({self.row_bool(d)})"),
            lambda: ("double", f"quantile_cont({r.choice((self.row_int(d), self.row_double(d)))}, {q})"),
            lambda: ("double", f"median({r.choice((self.row_int(d), self.row_double(d)))})"),
            lambda: ("int", f"quantile_disc({self.row_int(d)}, {q})"),
            lambda: ("double", f"quantile_disc({self.row_double(d)}, {q})"),
            lambda: ("int", f"count(DISTINCT {r.choice((self.row_int(d), self.row_text()))})"),
            lambda: ("int", f"arg_max({self.row_int(d)}, (occurred_at, seq))"),
            lambda: ("text", f"arg_max({self.row_text()}, (occurred_at, seq))"),
            lambda: ("double", f"arg_max({self.row_double(d)}, (occurred_at, seq))"),
            lambda: ("bool", f"arg_max({self.row_bool(1)}, (occurred_at, seq))"),
        )
        return sql + self.filter(), kind

    def library(self) -> tuple[str, str]:
        r = self.rng
        c = self.row_bool(r.randrange(2))
        minutes = r.choice((1, 5, 20))
        k, n = (f"count(*) FILTER (WHERE {self.row_bool(0)})" for _ in range(2))
        return r.choice(
            (
                (f"current_streak({c}, occurred_at, seq)", "int"),
                (f"seconds_since_last({c}, occurred_at, as_of)", "double"),
                (f"burst({c}, occurred_at, INTERVAL {minutes} MINUTE)", "int"),
                (f"wilson_lower({k}, count(*))", "double"),
                (f"wilson_upper({k}, count(*), z := {r.choice(('3', '2.5', '1.0e0'))})", "double"),
                (f"two_proportion_z({k}, count(*), {n}, count(action))", "double"),
            )
        )

    # -- scalars over earlier columns

    def name(self, kind: str) -> str | None:
        names = self._scope.get(kind)
        return self.rng.choice(names) if names else None

    def number(self, depth: int) -> str:
        """Any number: an int, a HUGEINT, a DOUBLE or a DECIMAL."""
        r = self.rng
        if depth <= 0:
            found = [n for k in ("int", "huge", "double", "decimal") if (n := self.name(k))]
            return r.choice((*found, *found, "2", "0", "1.5", "-3", "0.1e0", "7"))
        return r.choice((self.double, self.integer, self.decimal, lambda d: self.number(0)))(depth)

    def integer(self, depth: int) -> str:
        r = self.rng
        i = self.name("int") or "3"
        h = self.name("huge") or i
        if depth <= 0:
            return r.choice((i, h))
        return self._pick(
            lambda: f"({i} {r.choice('+-')} {r.choice((i, h, '1', '7'))})",
            lambda: f"({self.integer(depth - 1)} // {r.choice(('2', '-3', f'nullif({i}, 0)'))})",
            lambda: f"({self.integer(depth - 1)} % {r.choice(('2', '5', f'nullif({i}, 0)'))})",
            lambda: f"abs({self.integer(depth - 1)})",
            lambda: f"(- {self.integer(depth - 1)})",
            lambda: f"coalesce({self.integer(depth - 1)}, {r.choice(('0', i))})",
            lambda: f"nullif({self.integer(depth - 1)}, {r.choice(('0', '1', i))})",
            lambda: f"{r.choice(('greatest', 'least'))}({self.integer(depth - 1)}, {r.choice((i, h, '3'))})",
            lambda: f"CASE WHEN {self.boolean(depth - 1)} THEN {i} ELSE {h} END",
            lambda: f"TRY_CAST({self.number(depth - 1)} AS {r.choice(('BIGINT', 'INTEGER', 'HUGEINT', 'SMALLINT'))})",
            lambda: f"CAST({self.number(depth - 1)} AS {r.choice(('BIGINT', 'HUGEINT'))})",
            lambda: f"({i} * {r.choice(('2', '3', i))})",
            lambda: f"round({h})",
        )

    def decimal(self, depth: int) -> str:
        r = self.rng
        i = self.name("int") or "3"
        return self._pick(
            lambda: f"({i} * 0.25)",
            lambda: f"(100.0 * {i})",
            lambda: f"({i} + {r.choice(('0.5', '1.25'))})",
            lambda: f"({i} - 1.5)",
            lambda: f"round({i} * 0.125, {r.choice((0, 1, 2, 5))})",
            lambda: f"CAST({i} * 1.005 AS DECIMAL(30, {r.choice((0, 1, 2))}))",
            lambda: f"TRY_CAST({self.number(depth - 1)} AS DECIMAL(18, 3))",
            lambda: f"abs({i} * -0.5)",
            lambda: f"(- ({i} * 1.5))",
            lambda: f"CASE WHEN {self.boolean(depth - 1)} THEN 1 ELSE 2.5 END",
            lambda: f"greatest({i}, 2.5)",
            lambda: f"coalesce({self.name('decimal') or '0.5'}, 0.25)",
        )

    def double(self, depth: int) -> str:
        r = self.rng

        def n() -> str:
            return self.number(depth - 1)

        return self._pick(
            lambda: f"({n()} / {n()})",
            lambda: f"({n()} / nullif({n()}, 0))",
            lambda: f"({self.name('double') or '0.5e0'} {r.choice('+-*')} {n()})",
            lambda: f"ln({n()})",
            lambda: f"exp({n()})",
            lambda: f"sqrt({n()})",
            lambda: f"pow({n()}, {r.choice(('2', '0.5', '-1', n()))})",
            lambda: f"round({n()} / 3, {r.choice((0, 1, 2, 3, 10))})",
            lambda: f"abs({self.name('double') or '1e0'})",
            lambda: f"CAST({n()} AS DOUBLE)",
            lambda: f"CASE WHEN {self.boolean(depth - 1)} THEN {n()} / 2 ELSE {n()} / 3 END",
            lambda: f"coalesce({n()} / nullif({n()}, 0), {r.choice(('0', '-1', '0.5e0'))})",
            lambda: f"{r.choice(('greatest', 'least'))}({n()} / 7, {self.name('double') or '1e0'}, {n()})",
            lambda: f"(- ({n()} / 3))",
            lambda: f"nullif({n()} / 2, 0)",
            lambda: f"wilson_lower({self.name('int') or 1}, {self.name('int') or 2})",
        )

    def boolean(self, depth: int) -> str:
        r = self.rng
        if depth <= 0:
            return r.choice((self.name("bool") or "true", f"({self.number(0)} {self._compare()} {self.number(0)})"))

        def b() -> str:
            return self.boolean(depth - 1)

        return self._pick(
            lambda: f"({self.number(depth - 1)} {self._compare()} {self.number(depth - 1)})",
            lambda: f"({self.number(depth - 1)} {self._compare()} {self.number(depth - 1)})",
            lambda: f"({b()} AND {b()})",
            lambda: f"({b()} OR {b()})",
            lambda: f"(NOT {b()})",
            lambda: f"({self.number(depth - 1)} IS {r.choice(('', 'NOT '))}NULL)",
            lambda: f"({self.number(0)} BETWEEN {self.number(0)} AND {self.number(0)})",
            lambda: f"({self.number(depth - 1)} IN ({self.number(0)}, 2, {r.choice(('NULL', '5'))}))",
            lambda: f"({self.name('text') or chr(39) + 'a' + chr(39)} {r.choice(('=', '<>', '<'))} {self._word()})",
            lambda: f"({self.number(0)} IS {r.choice(('', 'NOT '))}DISTINCT FROM {self.number(0)})",
            lambda: f"coalesce({b()}, {r.choice(('true', 'false'))})",
            lambda: f"isfinite({self.double(depth - 1)})",
            lambda: f"({self.name('time') or 'max(as_of)'} {self._compare()} max(as_of))",
        )

    def definition(self, columns: int = 14, windows: str = "1h") -> Definition:
        """A set over events."""
        r = self.rng
        self._scope = {}
        found = Definition("")
        lines: list[str] = []
        for i in range(columns):
            name = f"s{i}"
            roll = r.random()
            if i < 4 or roll < 0.35:
                sql, kind = self.aggregate()
            elif roll < 0.45:
                sql, kind = self.library()
            elif roll < 0.5:
                operand, where = self.row_int(r.randrange(2)), self.filter()
                sql, kind = f"{r.choice(('var_samp', 'stddev_samp'))}({operand}){where}", ""
                found.operands[name] = f"list({operand}){where}"
            else:
                depth = r.randrange(1, 4)
                kind = r.choice(("int", "double", "double", "decimal", "bool"))
                sql = {"int": self.integer, "double": self.double, "decimal": self.decimal, "bool": self.boolean}[kind](
                    depth
                )
                kind = "huge" if kind == "int" else kind
            found.columns[name] = "variance" if name in found.operands else "exact"
            if kind:
                self._scope.setdefault(kind, []).append(name)
            lines.append(f"    {sql} AS {name}")
        found.where = f"\nWHERE {self.row_bool(1)}" if r.random() < 0.5 else ""
        header = f"-- entity: agent\n-- windows: {windows}\n-- owner: test\n-- description: random\n"
        found.sql = f"{header}SELECT\n" + ",\n".join(lines) + f"\nFROM events{found.where}\n"
        return found
