"""Decisions of the past in bulk: where they stand, their records, and those that are known only as events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import orjson

from enrich.events.canonical import format_us
from enrich.history.decisions import DecisionFilter
from enrich.history.query import EventFilter
from enrich.history.schema import EVENT_COLUMNS

__all__ = ["Places", "decision_places", "decision_records", "told_decisions", "told_places"]

#: an event's outcome that says what a policy decided; the others are people's answers
_TOLD: Final = "kind = 'authority' AND outcome IN ('allowed', 'required_human', 'denied')"
#: events of the engine's own decisions, which have their record
_OWN: Final = "source = ? OR decision_id IN (SELECT decision_id FROM decisions)"
_TIMES: Final = ("occurred_at", "recorded_at")
_SELECT: Final = ", ".join(f"epoch_us({c}) AS {c}" if c in _TIMES else c for c in EVENT_COLUMNS)

Seqs = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Places:
    """Where decisions stand: arrays side by side, ascending by `context_seq`, then `seq`.

    `whole` says that the record's input holds all signals asked for, of the catalog asked for.
    """

    seq: Seqs
    context_seq: Seqs
    whole: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.seq)


def decision_places(
    con: duckdb.DuckDBPyConnection,
    wanted: DecisionFilter,
    *,
    at_seq: int,
    catalog: str,
    enough: Callable[[str, Sequence[str] | None], bool],
) -> Places:
    """The decisions up to `at_seq`, in the order in which history saw the moments that they were made at.

    Decisions that share no entity are made beside each other, so that this is not the order of their own seqs.

    Args:
        catalog: the version of the signals that an input is to hold.
        enough: whether a selection of them (None: all) is all that is asked for at a path.
    """
    conditions, values = wanted.where()
    where = " AND ".join(["seq <= ?", *conditions])
    read = "json_extract_string(body, ['$.context_seq', '$.catalog', '$.selection'])"
    source = f"(SELECT seq, path, {read} AS read FROM decisions WHERE {where})"
    selections = con.execute(f"SELECT DISTINCT path, read[3] FROM {source}", [at_seq, *values]).fetchall()
    whole = [
        _selected(path, text)
        for path, text in selections
        if enough(path, None if text is None else orjson.loads(text))
    ]
    found = con.execute(
        "SELECT seq, read[1]::BIGINT AS context_seq,"
        " read[2] = ? AND concat(path, chr(10), read[3]) IN (SELECT unnest(?::VARCHAR[])) AS whole"
        f" FROM {source} ORDER BY context_seq, seq",
        [catalog, whole, at_seq, *values],
    ).fetchnumpy()
    return Places(
        np.asarray(found["seq"], np.int64),
        np.asarray(found["context_seq"], np.int64),
        np.asarray(found["whole"], np.bool_),
    )


def _selected(path: str, selection: str | None) -> str:
    return f"{path}\n{selection or ''}"


def decision_records(con: duckdb.DuckDBPyConnection, seqs: Seqs) -> dict[int, str]:
    """The records of some decisions as JSON, by seq; fast when the seqs lie near each other."""
    rows = con.execute(
        "SELECT seq, body FROM decisions WHERE seq BETWEEN ? AND ? AND seq IN (SELECT unnest(?::BIGINT[]))",
        [int(seqs.min()), int(seqs.max()), seqs.tolist()],
    ).fetchall()
    return dict(rows)


def told_places(con: duckdb.DuckDBPyConnection, wanted: EventFilter, *, at_seq: int, own: str) -> Seqs:
    """The seqs of `authority` events up to `at_seq` that are all that is known of a decision, by time, then seq.

    Args:
        own: the source of the events of recorded decisions.
    """
    conditions, values = wanted.where()
    where = " AND ".join([_TOLD, f"NOT coalesce({_OWN}, false)", *conditions])
    found = con.execute(
        f"SELECT seq FROM events_at(?) WHERE {where} ORDER BY occurred_at, seq", [at_seq, own, *values]
    ).fetchnumpy()
    return np.asarray(found["seq"], np.int64)


def told_decisions(con: duckdb.DuckDBPyConnection, seqs: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    """Those events, in the order given: nulls left out, `us` beside `occurred_at`."""
    rows = con.execute(
        f"SELECT {_SELECT} FROM events WHERE seq IN (SELECT unnest(?::BIGINT[]))", [list(seqs)]
    ).fetchall()
    by_seq = {}
    for row in rows:
        event = {name: value for name, value in zip(EVENT_COLUMNS, row, strict=True) if value is not None}
        if "attributes" in event:
            event["attributes"] = orjson.loads(event["attributes"])
        event["us"] = event["occurred_at"]
        event["occurred_at"] = format_us(event["us"])
        by_seq[event["seq"]] = event
    return (by_seq[seq] for seq in seqs)
