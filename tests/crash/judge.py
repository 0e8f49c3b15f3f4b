"""What must be true after every restart: the acknowledged against journal, DuckDB, context and a rebuilt index."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from enrich import Engine
from enrich.engine.live import Live
from enrich.engine.startup import index_from_duckdb
from enrich.events import format_us
from enrich.journal import verify
from tests.crash.story import AGENTS, DAY_US, TEAMS, WINDOWS_US, agent_of, event, number_of, team_of

__all__ = ["Wrong", "judge"]


class Wrong(Exception):
    """Something acknowledged is lost, doubled or different, or two rooms disagree."""


@dataclass(frozen=True, slots=True)
class Row:
    """An event as the journal has it."""

    seq: int
    occurred_us: int
    n: int
    variant: int
    error: str | None
    failed: bool


def judge(engine: Engine, acknowledged: Iterable[str], base_us: int, *, whole: bool) -> str:
    """Check everything; nobody writes meanwhile.

    Args:
        acknowledged: lines `ok SEQ N.V N.V ...` and `no SEQ N.V ...`: stored (or stored before) and visible at SEQ;
            refused because other content is known.
        whole: verify the journal's files too, as the start has left them.

    Returns:
        What was checked, for people.

    Raises:
        Wrong: with the first few differences.
    """
    engine.caught_up(30)
    rows = _journal(engine, base_us)
    promises = _promises(acknowledged, rows)
    _duckdb(engine, rows)
    checked = _contexts(engine, list(rows.values()))
    compared = _rebuilt(engine, base_us)
    if whole:
        report = verify(engine.directory)
        _equal("verify", ([], engine.journal.head, len(rows)), (report.problems, report.head, report.events))
    return f"{len(rows)} events, {promises} promises, {checked} values, {compared} contexts"


def _equal(what: str, expected: Any, got: Any) -> None:
    if expected != got:
        raise Wrong(f"{what}: expected {expected!r:.2000}, got {got!r:.2000}")


def _journal(engine: Engine, base_us: int) -> dict[int, Row]:
    rows: dict[int, Row] = {}
    for record in engine.journal.read():
        batch = record.batch
        if batch is None:
            continue
        c = batch.columns
        for i in range(batch.n):
            n, variant = number_of(c["duration_ms"][i])
            if n in rows:
                raise Wrong(f"event {n} is in the journal twice: {rows[n].seq} and {record.seq + i}")
            ids = (c["event_id"][i], c["agent_id"][i], c["team_id"][i])
            _equal(f"event {n}", (f"e{n}", agent_of(n), team_of(n)), ids)
            error = c["error_type"][i]
            rows[n] = Row(record.seq + i, c["occurred_at"][i], n, variant, error, c["outcome"][i] == "failed")
    for n, row in list(rows.items())[::97]:  # and now and then word by word
        expected = event(base_us, n, row.variant)
        _equal(f"event {n} in DuckDB", (expected["occurred_at"], expected["attributes"]), _in_duckdb(engine, row.seq))
    return rows


def _in_duckdb(engine: Engine, seq: int) -> tuple[str, Any]:
    with engine.history.cursor() as cursor:
        [(occurred_us, attributes)] = cursor.execute(
            "SELECT epoch_us(occurred_at), attributes FROM events WHERE seq = ?", [seq]
        ).fetchall()
    return format_us(occurred_us), json.loads(attributes)


def _promises(acknowledged: Iterable[str], rows: Mapping[int, Row]) -> int:
    count = 0
    for line in acknowledged:
        word, seq_text, *events = line.split()
        for text in events:
            n, variant = map(int, text.split("."))
            count += 1
            row = rows.get(n)
            if row is None:
                raise Wrong(f"event {n} was answered `{word}` and is lost")
            if word == "ok" and (row.variant != variant or row.seq > int(seq_text)):
                raise Wrong(f"event {n}, variant {variant}, was visible at {seq_text}; the journal has {row}")
            if word == "no" and row.variant == variant:
                raise Wrong(f"event {n}, variant {variant}, was refused as a conflict; the journal has just that")
    return count


def _duckdb(engine: Engine, rows: Mapping[int, Row]) -> None:
    _equal("DuckDB's position", engine.journal.head, engine.history.position)
    expected = sorted((r.seq, f"e{r.n}", r.occurred_us, 2 * r.n + r.variant) for r in rows.values())
    with engine.history.cursor() as cursor:
        got = cursor.execute(
            "SELECT seq, event_id, epoch_us(occurred_at), duration_ms FROM events ORDER BY seq"
        ).fetchall()
        keys = [s for (s,) in cursor.execute("SELECT seq FROM event_keys ORDER BY seq").fetchall()]
    if got != expected:
        missing, extra = Counter(expected) - Counter(got), Counter(got) - Counter(expected)
        raise Wrong(f"DuckDB lacks {list(missing)[:5]} and has {list(extra)[:5]}")
    _equal("seqs of the keys", [r[0] for r in expected], keys)
    _equal("keys in memory", len(rows), len(engine.keys))


def _contexts(engine: Engine, rows: list[Row]) -> int:
    checked = 0
    by_agent: dict[str, list[Row]] = {f"agent-{i}": [] for i in range(AGENTS)}
    by_team: dict[str, list[Row]] = {f"team-{i}": [] for i in range(TEAMS)}
    for row in sorted(rows, key=lambda r: (r.occurred_us, r.seq)):
        by_agent[agent_of(row.n)].append(row)
        team = team_of(row.n)
        if team is not None:
            by_team[team].append(row)
    now = engine.journal.now_us()
    for entity, prefix, found in (("agent", "", by_agent), ("team", "team_", by_team)):
        for id_, own in found.items():
            for as_of in (now, now - 1_800_000_000):
                history = engine.context({entity: id_}, as_of=as_of)
                _equal("seq of a context", engine.journal.head.seq, history["seq"])
                for window, us in WINDOWS_US.items():
                    values = {k: v for k, v in history[entity][window].items() if k != "complete"}
                    _equal(f"{id_} {window} as of {as_of}", _expected(own, as_of - us, as_of, prefix), values)
                    checked += len(values)
    return checked


def _expected(own: list[Row], after_us: int, until_us: int, prefix: str) -> dict[str, Any]:
    start = bisect_left(own, after_us + 1, key=lambda r: r.occurred_us)
    end = bisect_left(own, until_us + 1, key=lambda r: r.occurred_us)
    window = own[start:end]
    durations = sorted(2 * r.n + r.variant for r in window)
    values: dict[str, Any] = {
        "runs": len(window),
        "failures": sum(r.failed for r in window),
        "errors": len({r.error for r in window if r.error is not None}),
    }
    if window:
        newest = window[-1]
        middle = durations[(len(durations) + 1) // 2 - 1]
        values |= {"ms": sum(durations), "newest": 2 * newest.n + newest.variant, "middle": middle}
    return {prefix + k: v for k, v in values.items()}


def _rebuilt(engine: Engine, base_us: int) -> int:
    """What the engine has (from a saved index and a tail, or built at the start) against one built from DuckDB now."""
    live = engine.live
    fresh = Live(live.catalog, index_from_duckdb(live.catalog, engine.settings, engine.history, lambda *_: None))
    compared = 0
    for as_of in (base_us, base_us - 1_800_000_000, base_us - DAY_US // 24, base_us - 3 * DAY_US):
        for i in range(AGENTS):
            ids = {"agent": f"agent-{i}", "team": f"team-{i % TEAMS}"}
            one, other = (_history(which, ids, as_of) for which in (live, fresh))
            _equal(f"{ids} as of {as_of}, rebuilt", other, one)
            compared += 1
    return compared


def _history(live: Live, ids: Mapping[str, str], as_of: int) -> Any:
    prepared = live.assembler.prepare(live.catalog.functions(None))
    with live.index.lock:
        return live.assembler.entities(prepared, dict(ids), None, as_of, None)
