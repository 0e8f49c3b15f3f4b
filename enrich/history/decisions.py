"""The decisions that were made: pages for the API, one whole record, and those under an idempotency key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import duckdb
import orjson

from enrich.errors import BadRequestError, show
from enrich.events.canonical import format_us
from enrich.history.filters import Filter, check_limit

__all__ = [
    "DECISION_FILTERS",
    "DecisionFilter",
    "DecisionsPage",
    "KeyedDecision",
    "decision_body",
    "decisions_page",
    "end_of",
    "keyed_decisions",
    "outcome_body",
]

#: filters, each the column of its name but the last
DECISION_FILTERS: Final = ("agent", "team", "workflow", "org", "decision", "path", "shadow")
#: of the filter `shadow`: how its decision stands to the live one; null where there is none
_SHADOW: Final = "CASE WHEN shadow = decision THEN 'agrees' WHEN shadow <> decision THEN 'differs' END"
#: what a page shows of a decision; its record has the rest
_SHOWN: Final = (
    "seq", "decision_id", "as_of", "path", "decision", "cause", "agent", "team", "workflow", "org", "idempotency_key",
    "shadow",
)  # fmt: skip
_SELECT: Final = ", ".join(f"epoch_us({c}) AS {c}" if c == "as_of" else c for c in _SHOWN)
#: in the order of `KeyedDecision`
_KEYED: Final = (
    "seq, epoch_us(as_of), caller, path, idempotency_key, request_hash, decision_id, decision, cause,"
    " body -> '$.result'"
)
_ROWS: Final = 1000


class DecisionFilter(Filter):
    """Which decisions."""

    __slots__ = ()
    NAME = "decisions"
    COLUMNS: ClassVar[Mapping[str, str]] = {name: name for name in DECISION_FILTERS} | {"shadow": _SHADOW}
    TIME = "as_of"

    def where(self) -> tuple[list[str], list[Any]]:
        """
        Raises:
            BadRequestError: `invalid_parameter`, a `shadow` that is neither `agrees` nor `differs`.
        """
        wanted = self.values.get("shadow", "differs")
        if wanted not in ("agrees", "differs"):
            raise BadRequestError(
                f"shadow {show(wanted)} is neither `agrees` nor `differs`", code="invalid_parameter", field="shadow"
            )
        return super().where()


@dataclass(frozen=True, slots=True)
class DecisionsPage:
    """Decisions newest first by seq, what a page shows of each, nulls left out.

    `next_cursor` is None on the last page; `seq` is the sequence number at which all pages of one walk hold.
    """

    decisions: Sequence[Mapping[str, Any]]
    next_cursor: str | None
    seq: int


@dataclass(frozen=True, slots=True)
class KeyedDecision:
    """What was answered under an idempotency key; `result` is JSON as Python."""

    seq: int
    as_of_us: int
    caller: str | None
    path: str
    idempotency_key: str
    request_hash: str
    decision_id: str
    decision: str
    cause: str | None
    result: Any


def decisions_page(
    con: duckdb.DuckDBPyConnection, wanted: DecisionFilter, *, at_seq: int, cursor: str | None = None, limit: int = 100
) -> DecisionsPage:
    """A page of the decisions up to `at_seq`, or up to the seq of the walk that `cursor` continues.

    Raises:
        BadRequestError: `invalid_cursor`, not from this call or from one with other filters; `invalid_parameter`, a
            limit that is not 1 to 1000.
    """
    check_limit(limit)
    conditions, values = wanted.where()
    below = at_seq + 1
    if cursor is not None:
        at_seq, _, below = wanted.decode(cursor, at_seq)
        below = min(below, at_seq + 1)
    where = " AND ".join(["seq < ?", *conditions])
    rows = con.execute(
        f"SELECT {_SELECT} FROM decisions WHERE {where} ORDER BY seq DESC LIMIT ?", [below, *values, limit + 1]
    ).fetchall()
    following = wanted.encode(at_seq, 0, rows[limit - 1][0]) if len(rows) > limit else None
    return DecisionsPage([_shown(row) for row in rows[:limit]], following, at_seq)


def decision_body(con: duckdb.DuckDBPyConnection, decision_id: str) -> dict[str, Any] | None:
    """A decision's record with its seq, without the journal's salt; None when there is none of that id."""
    rows = con.execute("SELECT seq, body FROM decisions WHERE decision_id = ?", [decision_id]).fetchall()
    if not rows:
        return None
    body, outcome = _body(*rows[0]), outcome_body(con, decision_id)
    if outcome is not None:
        body["outcome"] = {
            "seq": outcome["seq"],
            "occurred_at": outcome["event"]["occurred_at"],
            **outcome["report"],
            "caller": outcome["caller"],
        }
    return body


def outcome_body(con: duckdb.DuckDBPyConnection, decision_id: str) -> dict[str, Any] | None:
    """The record of what was reported of a decision with its seq, without the journal's salt; None without any."""
    rows = con.execute("SELECT seq, body FROM outcomes WHERE decision_id = ?", [decision_id]).fetchall()
    return _body(*rows[0]) if rows else None


def end_of(con: duckdb.DuckDBPyConnection, decision_id: str) -> tuple[bool, bool]:
    """(whether an event gave the decision authority, whether a run of it ended), as far as events are held."""
    rows = con.execute(
        "SELECT coalesce(bool_or(kind = 'authority' AND outcome IN ('allowed', 'approved', 'overridden')), false),"
        " coalesce(bool_or(kind = 'execution'), false) FROM events WHERE decision_id = ? AND void_seq IS NULL",
        [decision_id],
    ).fetchall()
    return rows[0]


def keyed_decisions(con: duckdb.DuckDBPyConnection, since_us: int) -> Iterator[KeyedDecision]:
    """The decisions with an idempotency key and an as_of after `since_us`, in order.

    INVARIANT: a day of decisions may be more than DuckDB's memory, since a body holds a whole input: few bodies are
    read at a time, and of each only the result is taken out.
    """
    wanted = "FROM decisions WHERE idempotency_key IS NOT NULL AND as_of > make_timestamptz(?)"
    seqs = [seq for (seq,) in con.execute(f"SELECT seq {wanted} ORDER BY seq", [since_us]).fetchall()]
    for some in (seqs[at : at + _ROWS] for at in range(0, len(seqs), _ROWS)):
        rows = con.execute(
            f"SELECT {_KEYED} {wanted} AND seq BETWEEN ? AND ? ORDER BY seq", [since_us, some[0], some[-1]]
        ).fetchall()
        for row in rows:
            yield KeyedDecision(*(*row[:-1], orjson.loads(row[-1])))


def _shown(row: Sequence[Any]) -> dict[str, Any]:
    shown = {name: value for name, value in zip(_SHOWN, row, strict=True) if value is not None}
    shown["as_of"] = format_us(shown["as_of"])
    return shown


def _body(seq: int, text: str) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(text)
    body.pop("salt", None)  # it guards the record once its body is erased, and says nothing to a reader
    return {"seq": seq, **body}
