"""A random history with random definitions over it: answered by the real index and assembler, and by DuckDB."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest.mock import patch

import duckdb
import orjson

from enrich.context import Assembler
from enrich.engine.live import index_plans
from enrich.events.model import COLUMNS, EventBatch
from enrich.signals import Catalog
from enrich.signals.bind import EVENT_TYPES
from enrich.signals.bulk import Question, bulk_answers
from enrich.windows import Index, SavedPosition, bursts, columns, located, merge
from tests.exactness.compare import Expected

__all__ = [
    "ENTITIES",
    "Splits",
    "asked_of",
    "build",
    "contexts",
    "duckdb_of",
    "expected_of",
    "history_table",
    "inlined",
]

ENTITIES: Final = ("agent", "workflow", "agent_workflow")
_RETENTION_US: Final = 90 * 86_400_000_000
_LATER_US: Final = 400 * 86_400_000_000


def history_table(connection: duckdb.DuckDBPyConnection, events: Sequence[Mapping[str, Any]]) -> None:
    """The table `history`: the events with seq 1, 2, ..."""
    types = {c: t for c, t in EVENT_TYPES.items() if c not in ("as_of", "window_start")}
    connection.execute(f"CREATE OR REPLACE TABLE history ({', '.join(f'{c} {t}' for c, t in types.items())})")
    values: list[list[Any]] = []
    for c in types:
        if c == "seq":
            values.append(list(range(1, len(events) + 1)))
        elif c == "attributes":
            values.append([None if (a := e.get(c)) is None else orjson.dumps(a).decode() for e in events])
        else:
            values.append([e.get(c) for e in events])
    shown = ", ".join("make_timestamptz(occurred_at)" if c == "occurred_at" else c for c in types)
    given = ", ".join(f"unnest(?::{'BIGINT' if c == 'occurred_at' else t}[]) AS {c}" for c, t in types.items())
    connection.execute(f"INSERT INTO history SELECT {shown} FROM (SELECT {given})", values)


def duckdb_of(events: Sequence[Mapping[str, Any]]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": "1"})
    connection.execute("SET TimeZone = 'UTC'")
    history_table(connection, events)
    return connection


def batch(events: Sequence[Mapping[str, Any]]) -> EventBatch:
    blank = [b""] * len(events)
    return EventBatch(len(events), {c: [e.get(c) for e in events] for c in COLUMNS}, blank, blank)


@dataclass
class Splits:
    """How a history comes in: batch by batch, each a tail, a block or one that DuckDB evaluates, with merges between.

    `slice_rows` is how many rows are answered without a structure: with few, those of hot entities answer everything.
    """

    rng: random.Random
    slice_rows: int = 2_048
    blocks: int = 4
    sizes: tuple[int, ...] = (1, 2, 7, 40, 40, 400)
    taken: list[str] = field(default_factory=list)

    @classmethod
    def draw(cls, rng: random.Random) -> Splits:
        return cls(rng, rng.choice((2_048, 2_048, 0, 3)), rng.choice((4, 1, 2)))

    @contextmanager
    def limits(self) -> Iterator[None]:
        with ExitStack() as stack:
            for module in (columns, located, bursts):
                stack.enter_context(patch.object(module, "SLICE", self.slice_rows))
            stack.enter_context(patch.object(bursts, "ROWS_PER_PIECE", 64 if self.slice_rows == 2_048 else 0))
            stack.enter_context(patch.object(merge, "MAX_BLOCKS", self.blocks))
            if self.blocks < 4:
                stack.enter_context(patch.object(merge, "FLUSH_TAIL", 4))
            yield


def build(catalog: Catalog, events: Sequence[Mapping[str, Any]], splits: Splits) -> Index:
    """The index after all of `events`, in order of seq; call it and ask inside `splits.limits()`."""
    rng, plans = splits.rng, index_plans(catalog)
    index = Index(plans, retention_us=_RETENTION_US)
    at = 0
    while at < len(events):
        part = events[at : at + rng.choice(splits.sizes) * (1 if len(events) < 1_000 else 10)]
        way = rng.choice(("tail", "tail", "block", "duckdb"))
        index._block_rows, index._duckdb_rows = {"tail": (10**9, 10**9), "block": (1, 10**9), "duckdb": (1, 1)}[way]
        prepared = index.prepare(batch(part))
        with index.lock:
            index.link(prepared, at + 1)
        at += len(part)
        step = rng.choice(("", "", "merge", "save"))
        if step == "merge":
            index.merge_step()
        elif step == "save" and rng.random() < 0.2:
            with TemporaryDirectory() as directory:
                index.save(Path(directory), SavedPosition("journal", at, "hash"), catalog.version)
                index = Index(plans, retention_us=_RETENTION_US)
                if index.load(Path(directory), catalog.version) is None:
                    raise AssertionError("the saved index was not found")
        splits.taken += [way, step]
    return index


def asked_of(
    rng: random.Random, events: Sequence[Mapping[str, Any]], windows_us: Sequence[int], moments: int
) -> list[Question]:
    """Moments at events, where they leave a window, a microsecond beside, outside of all; each for several entities."""
    times = [e["occurred_at"] for e in events] or [1_700_000_000_000_000]
    edges = [t + w + d for t in times for w in (0, *windows_us) for d in (-1, 0, 0, 1)]
    chosen = {rng.choice(edges) for _ in range(moments - 2)}
    chosen.add(rng.choice((rng.randrange(min(times) - 10, max(times) + max(windows_us)), min(times) - 1, max(times))))
    chosen.add(rng.choice((max(times), max(times) + 1, max(times) + _LATER_US)))
    agents = sorted({e["agent_id"] for e in events if e.get("agent_id") is not None})
    flows = sorted({e["workflow_id"] for e in events if e.get("workflow_id") is not None})
    found = []
    for at in sorted(chosen):
        for agent in [*rng.sample(agents, min(3, len(agents))), "nobody"]:
            flow = rng.choice([*flows, "nothing"])
            keys: dict[str, str | tuple[str, ...]] = {"agent": agent}
            if rng.random() < 0.9:
                keys |= {"workflow": flow, "agent_workflow": (agent, flow)}
            found.append(Question(at, keys))
    return found


def expected_of(connection: duckdb.DuckDBPyConnection, catalog: Catalog, asked: Sequence[Question]) -> Expected:
    expected = Expected(asked)
    for answers in bulk_answers(connection, catalog, asked, relation="history"):
        expected.add(answers)
    return expected


def contexts(catalog: Catalog, index: Index, asked: Sequence[Question]) -> Iterator[dict[str, Any]]:
    """What the index and the assembler answer, one object per entity."""
    assembler = Assembler(index)
    prepared = assembler.prepare(catalog.functions(None))
    for question in asked:
        keys = {e: k for e, k in question.keys.items() if e in prepared}
        with index.lock:
            yield assembler.entities(prepared, keys, None, question.as_of_us, None)


_ITEM: Final = re.compile(r"^    (.*) AS (\w+),?$", re.MULTILINE)


def inlined(sql: str, prefix: str = "s") -> dict[str, str]:
    """Each column of a random set as an expression without names of other columns, and with the set's WHERE."""
    found: dict[str, str] = {}
    where = sql.partition("\nWHERE ")[2].strip()
    for text, name in _ITEM.findall(sql):
        inner = re.sub(rf"\b{prefix}\d+\b", lambda m: f"({found[m.group()]})", text)
        found[name] = inner
    return {name: f"{text} | {where}" for name, text in found.items()}
