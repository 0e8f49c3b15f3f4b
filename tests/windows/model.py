"""A hand-written plan, random events, and the naive model that the index is held against."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from enrich.events.model import COLUMNS, EventBatch
from enrich.signals.plan import EntityPlan, RowExpression, SumColumn, ValueColumn, ValueType

BURST_US = 50
INT, DOUBLE, VARCHAR, BOOL = ValueType.INT, ValueType.DOUBLE, ValueType.VARCHAR, ValueType.BOOL

COUNTS = (
    "kind = 'execution'",
    "outcome = 'failed'",
    "cost_microusd IS NOT NULL",
    "amount_minor IS NOT NULL",
    "action IS NOT NULL",
    "outcome IS NULL OR outcome <> 'failed'",
)
ORDER_INT, ORDER_DOUBLE, DISTINCT, BREAK, BURST = range(5)


def rows(columns: Mapping[str, Sequence[Any]], n: int) -> Iterable[tuple[Any, ...]]:
    """What the compiler would have written for the plan below."""
    for kind, outcome, cost, amount, action in zip(
        *(columns[c] for c in ("kind", "outcome", "cost_microusd", "amount_minor", "action")), strict=True
    ):
        failed = outcome == "failed"
        x = 0 if cost is None else cost
        y = 0 if amount is None else amount
        yield (
            1 if kind == "execution" else 0,
            1 if failed else 0,
            0 if cost is None else 1,
            0 if amount is None else 1,
            0 if action is None else 1,
            0 if failed else 1,
            x,
            -y,
            x * x,
            cost,
            None if amount is None else amount / 4.0,
            action,
            None if failed else 1,
            1 if failed else None,
        )


def plan(entity: str = "agent", keys: tuple[str, ...] = ("agent_id",)) -> EntityPlan:
    cost = RowExpression("cost_microusd", INT)
    return EntityPlan(
        entity=entity,
        key_columns=keys,
        counts=tuple(RowExpression(sql, BOOL) for sql in COUNTS),
        sums=(SumColumn(cost), SumColumn(RowExpression("-amount_minor", INT)), SumColumn(cost, squared=True)),
        values=(
            ValueColumn(2, cost, frozenset({"order", "extreme", "distinct", "last"})),
            ValueColumn(3, RowExpression("amount_minor / 4e0", DOUBLE), frozenset({"order", "extreme", "last"})),
            ValueColumn(4, RowExpression("action", VARCHAR), frozenset({"distinct", "last"})),
            ValueColumn(5, RowExpression("true", BOOL), frozenset({"break"})),
            ValueColumn(1, RowExpression("true", BOOL), frozenset({"burst"}), BURST_US),
        ),
        reads=frozenset({"kind", "outcome", "cost_microusd", "amount_minor", "action", *keys}),
        rows=rows,
    )


PLANS = {"agent": plan(), "agent_workflow": plan("agent_workflow", ("agent_id", "workflow_id"))}


def batch(events: Sequence[Mapping[str, Any]]) -> EventBatch:
    """Events given as sparse dicts."""
    blank = [b""] * len(events)
    return EventBatch(len(events), {c: [e.get(c) for e in events] for c in COLUMNS}, blank, blank)


def random_event(rng: random.Random, span_us: int, agents: int, extremes: bool = False) -> dict[str, Any]:
    """An event within `span_us`, with ties, nulls and, if asked for, values at the edge of int64."""
    pick = rng.random
    big = [0, 1, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1] if extremes else [0, 1, 5, 9]
    return {
        "source": "s",
        "event_id": "e",
        "occurred_at": rng.randrange(span_us),
        "kind": rng.choice(("execution", "step")),
        "outcome": rng.choice(("failed", "succeeded", None)),
        "agent_id": None if pick() < 0.1 else f"a{rng.randrange(agents)}",
        "workflow_id": None if pick() < 0.3 else f"w{rng.randrange(2)}",
        "cost_microusd": None if pick() < 0.3 else (rng.choice(big) if pick() < 0.5 else rng.randrange(50)),
        "amount_minor": None if pick() < 0.3 else (rng.choice(big) if pick() < 0.3 else rng.randrange(50)),
        "action": None if pick() < 0.2 else rng.choice("uvwxyz"),
    }


@dataclass(frozen=True, slots=True)
class Window:
    """All that the plan above asks about one window, by going through the rows."""

    totals: tuple[int, ...]
    sorted_ints: list[int]
    sorted_doubles: list[float]
    distinct_ints: int
    distinct_texts: int
    last_int: tuple[int, int] | None
    last_text: tuple[str, int] | None
    since_break: int
    burst: int


class Model:
    """Every event ever linked, with its seq, as a list."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int, dict[str, Any]]] = []

    def add(self, events: Sequence[dict[str, Any]], first_seq: int) -> None:
        self.events += [(e["occurred_at"], first_seq + i, e) for i, e in enumerate(events)]

    def of(self, keys: tuple[str, ...], key: tuple[str, ...]) -> list[tuple[int, int, tuple[Any, ...]]]:
        """The entity's rows by (t, seq)."""
        mine = sorted(((t, s) for t, s, e in self.events if tuple(e.get(k) for k in keys) == key))
        by_place = {(t, s): e for t, s, e in self.events}
        out = []
        for place in mine:
            one = batch([by_place[place]])
            out.append((*place, next(iter(rows(one.columns, 1)))))
        return out

    @staticmethod
    def window(mine: list[tuple[int, int, tuple[Any, ...]]], as_of: int, width: int) -> Window:
        inside = [r for r in mine if as_of - width < r[0] <= as_of]
        got = [r[2] for r in inside]
        ints = [g[9] for g in got if g[2]]
        texts = [g[11] for g in got if g[4]]
        after = 0
        for g in got:
            after = 0 if g[5] else after + g[0]
        times = [r[0] for r in inside if r[2][1]]
        last_int = [(r[2][9], r[0]) for r in inside if r[2][2]]
        last_text = [(r[2][11], r[0]) for r in inside if r[2][4]]
        return Window(
            tuple(sum(g[i] for g in got) for i in range(9)),
            sorted(ints),
            sorted(g[10] for g in got if g[3]),
            len(set(ints)),
            len(set(texts)),
            last_int[-1] if last_int else None,
            last_text[-1] if last_text else None,
            after,
            max((sum(1 for u in times if t - BURST_US < u <= t) for t in times), default=0),
        )
