"""Compiled signals against DuckDB, on a sample of the history at hand: a definition that differs does not go live.

The sample is what it is: the busiest entities and some at random, now, at events and where events leave a window. It
finds a compiler that is wrong on this history, and proves nothing about other moments; the proof is `tests/exactness`,
with random definitions and histories. Entities with more events than fit a quick start are not asked, and neither are
signals made of a variance: the index has it exactly, DuckDB's running sum does not, so that DuckDB is no judge of it.
Where arithmetic overflows a signal has no value here, while DuckDB may have skipped the part that does: no difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import duckdb

from enrich.context import Key
from enrich.engine.live import Live
from enrich.engine.results import CheckReport
from enrich.engine.state import State
from enrich.events import ENTITY_KEYS, format_us
from enrich.history import History
from enrich.signals.bulk import BulkAnswers, Question, bulk_answers

if TYPE_CHECKING:
    from enrich.engine.engine import Engine

__all__ = ["Asked", "ask", "check_live", "compare", "same_value", "sample"]

_CATCH_UP_SECONDS: Final = 60.0
_ENTITIES: Final = 4
_MOMENTS: Final = 3
_SHOWN: Final = 20
#: of the history, how many events the sample is drawn from
_DRAWN_EVENTS: Final = 200_000
#: how many events of one entity DuckDB goes through, over all its moments
_ENTITY_EVENTS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Asked:
    """One entity at one moment, and what the compiled signals said (the object under `history.<entity>`)."""

    entity: str
    key: Key
    as_of_us: int
    answer: Mapping[str, Any]


def check_live(engine: Engine, state: State, entities: int, moments: int) -> CheckReport:
    """The live signals against DuckDB, at one sequence number that both have seen."""
    engine.caught_up(_CATCH_UP_SECONDS)
    while True:
        live = state.live
        asked = sample(live, engine.history, engine.journal.now_us(), entities, moments)
        with live.index.lock:
            if state.live is live:
                answered, seq = ask(live, asked), state.seq
                break
    engine.durable(seq)
    engine.caught_up(_CATCH_UP_SECONDS)
    return compare(live, engine.history, seq, answered)


def sample(
    live: Live, history: History, now_us: int, entities: int = _ENTITIES, moments: int = _MOMENTS
) -> list[Asked]:
    """Entities and moments worth asking about, not answered yet; the same ones for the same history.

    Moments whose windows reach back before what was pruned are left out: the index lets go of rows when it merges, not
    when DuckDB does.
    """
    found: list[Asked] = []
    held_us = history.pruned_before_us()
    with history.cursor() as cursor:
        keys = ", ".join(dict.fromkeys(n for names in ENTITY_KEYS.values() for n in names))
        cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE drawn AS SELECT {keys}, seq, epoch_us(occurred_at) AS us FROM events"
            f" USING SAMPLE reservoir({_DRAWN_EVENTS} ROWS) REPEATABLE (1)"
        )
        share = max(1.0, history.count() / _DRAWN_EVENTS)
        for entity in live.entities:
            for key, n in _drawn(cursor, entity, entities, int(_ENTITY_EVENTS / share)):
                times = [now_us]
                edges = _edges(cursor, entity, key, min(moments, int(_ENTITY_EVENTS / (n * share)) - 1))
                windows = [w.us for w in live.catalog.windows(entity)]
                for i, at in enumerate(edges):
                    times += [at, at + windows[i % len(windows)]] if windows else [at]
                if held_us is not None:
                    times = [t for t in times if t - max(windows, default=0) >= held_us]
                found += [Asked(entity, key if len(key) > 1 else key[0], t, {}) for t in times]
    return found


def _drawn(
    cursor: duckdb.DuckDBPyConnection, entity: str, entities: int, most: int
) -> list[tuple[tuple[str, ...], int]]:
    """The busiest entities of at most `most` drawn events and some others, each with how many it has."""
    names = ENTITY_KEYS[entity]
    columns = ", ".join(names)
    present = " AND ".join(f"{n} IS NOT NULL" for n in names)
    groups = f"SELECT {columns}, count(*) AS n FROM drawn WHERE {present} GROUP BY ALL HAVING n <= ?"
    rows = [
        row
        for order in ("n DESC", f"hash({columns})")
        for row in cursor.execute(f"FROM ({groups}) ORDER BY {order}, {columns} LIMIT ?", [most, entities]).fetchall()
    ]
    return [(row[:-1], row[-1]) for row in dict.fromkeys(rows)]


def _edges(cursor: duckdb.DuckDBPyConnection, entity: str, key: tuple[str, ...], moments: int) -> list[int]:
    """Times of some of the entity's events."""
    mine = " AND ".join(f"{n} = ?" for n in ENTITY_KEYS[entity])
    rows = cursor.execute(
        f"SELECT us FROM drawn WHERE {mine} ORDER BY hash(seq), seq LIMIT ?", [*key, max(0, moments)]
    ).fetchall()
    return [us for (us,) in rows]


def ask(live: Live, asked: Sequence[Asked]) -> list[Asked]:
    """Answer a sample from the index. The caller holds the index's lock."""
    prepared = live.selection(None).entities
    answered = []
    for one in asked:
        if one.entity == "approver":
            people = live.assembler.entities(prepared, {}, [str(one.key)], one.as_of_us, None)["approvers"]
            answer = people[one.key]
        else:
            answer = live.assembler.entities(prepared, {one.entity: one.key}, None, one.as_of_us, None)[one.entity]
        answered.append(Asked(one.entity, one.key, one.as_of_us, answer))
    return answered


def compare(live: Live, history: History, seq: int, asked: Sequence[Asked]) -> CheckReport:
    """The answers against the definitions' own SQL over `events_at(seq)`, all questions at once."""
    compared = 0
    differences: list[str] = []
    questions = [Question(one.as_of_us, {one.entity: one.key}) for one in asked]
    with history.cursor() as cursor:
        for answers in bulk_answers(cursor, live.catalog, questions, relation=f"events_at({seq:d})"):
            got = [_part(asked[k].answer, answers) for k in answers.questions]
            for signal in answers.set.signals:
                made_of = list(live.catalog.made_of(signal))
                if any(n.op == "variance" for s in made_of for n in s.node.walk()):
                    continue
                compared += len(got)
                overflows, name = any(s.may_fail for s in made_of), signal.name
                differences += [
                    _difference(asked[k], answers, name, expected, mine.get(name))
                    for k, expected, mine in zip(answers.questions, answers.values[name], got, strict=True)
                    if not same_value(expected, mine.get(name)) and not (overflows and name not in mine)
                ]
    return CheckReport(compared, tuple(differences[:_SHOWN]))


def _part(answer: Mapping[str, Any], answers: BulkAnswers) -> Mapping[str, Any]:
    if answers.window is None:
        return answer
    part: Mapping[str, Any] = answer[answers.window.key]
    return part


def _difference(one: Asked, answers: BulkAnswers, name: str, expected: Any, got: Any) -> str:
    window = answers.window.name if answers.window else "derived"
    where = f"{one.entity} {one.key!r} {window} {name} as of {format_us(one.as_of_us)}"
    return f"{where}: DuckDB {expected!r}, compiled {got!r}"


def same_value(expected: Any, got: Any) -> bool:
    """Whether two settled values are the same: same type, same bits."""
    return type(expected) is type(got) and bool(expected == got)
