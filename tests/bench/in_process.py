"""Contexts in process: against the floor, against DuckDB, and the hottest agent against a median one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from enrich import Engine
from tests.bench.data import DAY_US, agent_name, table
from tests.bench.floor import SET_SQL, Floor
from tests.bench.measure import Row, Timing, in_turns

__all__ = ["contexts", "hot"]

_AGENTS = 10_000
_QUANTILE = "    quantile_cont(duration_ms, 0.95) AS p95_ms, -- 95th percentile\n"
_DISTINCT = "    count(DISTINCT error_type) AS kinds_of_error, -- different errors\n"
_FIVE = [
    "agent.last_24h.executions",
    "agent.last_24h.failures",
    "agent.last_24h.failure_rate",
    "agent.last_7d.executions",
    "agent.last_7d.failure_rate",
]


def _queries(root: Path, name: str, sql: str) -> Path:
    directory = root / name
    directory.mkdir()
    (directory / "bench.sql").write_text(sql)
    return directory


def _with(extra: str) -> str:
    return SET_SQL.replace("SELECT\n", "SELECT\n" + extra, 1)


def contexts(root: Path, events: int = 1_000_000) -> list[Row]:
    """`engine.context` and `engine.enrich` against the floor."""
    end = time.time_ns() // 1000 - 60_000_000
    data = table(events, _AGENTS, end_us=end)
    floor = Floor(data)
    rng = random.Random(3)
    agents = [agent_name(rng.randrange(_AGENTS)) for _ in range(4096)]
    moments = [end - rng.randrange(20 * DAY_US) for _ in range(4096)]

    def by_hand(i: int) -> object:
        return floor.context(agents[i & 4095], moments[i & 4095])

    rows: list[Row] = []
    base: Timing | None = None
    for name, extra in (("plain", ""), ("quantile", _QUANTILE), ("distinct", _DISTINCT)):
        with Engine.open(root / f"data-{name}", queries=_queries(root, f"queries-{name}", _with(extra))) as engine:
            engine.record(data)
            _settle(engine)

            def context(i: int, engine: Engine = engine) -> object:
                return engine.context({"agent": agents[i & 4095]}, as_of=moments[i & 4095])

            _same(floor, engine, agents, moments)
            hand, ours = in_turns([by_hand, context])
            if base is None:
                base = ours
                a, b = ours.p50 / hand.p50, ours.p99 / hand.p99
                rows.append(
                    Row(
                        f"`engine.context`, one entity, 20 sum-like signals x 3 windows, {events:,} events, "
                        "10 k agents, against the floor",
                        "<= 2.5 x p50, <= 3 x p99",
                        f"{a:.2f} x, {b:.2f} x",
                        f"{ours}; floor {hand}",
                        a <= 2.5 and b <= 3,
                    )
                )
                rows.append(_duckdb(engine, agents, moments, ours))
            else:
                each = (ours.p50 - base.p50) / 3
                rows.append(Row(f"one {name} more, per window", "<= 40 us", f"{each:.1f} us", f"{ours}", each <= 40))
    with Engine.open(root / "data-shipped", queries="queries") as engine:
        engine.record(data)
        _settle(engine)

        def document(i: int) -> dict[str, object]:
            agent = agents[i & 4095]
            return {
                "identity": {"actor_id": agent},
                "instance": {
                    "owning_team_id": f"team-{int(agent[6:]) % 200:04d}",
                    "workflow_id": f"workflow-{i % 200:03d}",
                },
            }

        documents = [document(i) for i in range(4096)]
        hand, whole, five = in_turns(
            [
                by_hand,
                lambda i: engine.enrich(documents[i & 4095]),
                lambda i: engine.enrich(documents[i & 4095], select=_FIVE),
            ]
        )
        a, b = whole.p50 / hand.p50, five.p50 / hand.p50
        rows.append(
            Row("`engine.enrich`, shipped catalog (agent, team, workflow), without hash", "<= 8 x the floor",
                f"{a:.2f} x", f"{whole}; floor {hand}", a <= 8)
        )  # fmt: skip
        rows.append(
            Row(
                "the same with 5 signals selected",
                "<= 1.5 x the floor",
                f"{b:.2f} x",
                f"{five}; floor {hand}",
                b <= 1.5,
            )
        )
    return rows


def _settle(engine: Engine) -> None:
    """Until background merging has nothing left to do."""
    while engine.merge_step(idle=True):
        pass
    engine.caught_up(120.0)


def _same(floor: Floor, engine: Engine, agents: list[str], moments: list[int]) -> None:
    """The floor is worth comparing with only if it computes the same numbers."""
    for i in range(200):
        ours = engine.context({"agent": agents[i]}, as_of=moments[i])["agent"]
        for window, signals in floor.context(agents[i], moments[i]).items():
            for name, value in signals.items():
                got = ours[window].get(name)
                if got != value:
                    raise SystemExit(f"{agents[i]} {window}.{name}: floor {value!r}, engine {got!r}")


def _duckdb(engine: Engine, agents: list[str], moments: list[int], ours: Timing) -> Row:
    cursor = engine.history.cursor()
    select = SET_SQL[SET_SQL.index("SELECT") :]

    def query(i: int) -> object:
        answers = []
        for hours in (1, 24, 168):
            start = moments[i] - hours * 3_600_000_000
            source = (
                f"(SELECT * FROM events WHERE agent_id = '{agents[i]}' AND occurred_at > make_timestamptz({start}) "
                f"AND occurred_at <= make_timestamptz({moments[i]}))"
            )
            answers.append(cursor.execute(select.replace("FROM events", f"FROM {source} AS events")).fetchall())
        return answers

    (seen,) = in_turns([query], turns=1, calls=40, warm=3)
    return Row(
        "the same SQL in DuckDB, for comparison",
        "",
        f"{seen.p50 / ours.p50:,.0f} x slower",
        f"p50 {seen.p50 / 1e3:.1f} ms",
        None,
    )


def hot(root: Path, events: int = 1_000_000) -> list[Row]:
    """The agent with a quarter of all events against a median one."""
    end = time.time_ns() // 1000 - 60_000_000
    data: pa.Table = table(events, _AGENTS, end_us=end, hot=0.25)
    rows = []
    cases = (
        ("sums", "", 2.0),
        ("a quantile", _QUANTILE, 4.0),
        ("a distinct count", _DISTINCT, 4.0),
    )
    moments = [end - i * 1_000_000 for i in range(4096)]
    head, tail = (
        "-- entity: agent\n-- windows: 1h, 24h, 7d\n-- owner: bench\n-- description: One.\nSELECT\n",
        "FROM events\n",
    )
    for name, extra, limit in cases:
        body = extra or "    count(*) AS n, -- events\n    sum(duration_ms) AS total_ms, -- time\n"
        sql = head + body.rstrip().replace(", --", " --", 1) + "\n" + tail if extra else _with("")
        tag = name.replace(" ", "-")
        with Engine.open(root / f"hot-{tag}", queries=_queries(root, f"hot-queries-{tag}", sql)) as engine:
            engine.record(data)
            _settle(engine)

            def ask(agent: str, engine: Engine = engine) -> Callable[[int], object]:
                return lambda i: engine.context({"agent": agent}, as_of=moments[i & 4095])

            hottest, median = in_turns([ask(agent_name(0)), ask(agent_name(777))], turns=30)
            ratio = hottest.p50 / median.p50
            rows.append(
                Row(f"the hottest agent (25 % of {events:,} events) against a median one: {name}", f"<= {limit:g} x",
                    f"{ratio:.2f} x", f"{hottest}; median agent {median}", ratio <= limit)
            )  # fmt: skip
    return rows
