"""The shipped signals over real Gantral history: every entity at 500 moments, each value the one that DuckDB has."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from enrich import Engine
from enrich.events import ENTITY_KEYS, parse_rfc3339_us
from enrich.signals.bulk import Question, bulk_answers
from enrich.sources.gantral import load_sample
from enrich.sources.timeline import stretch
from tests.exactness.compare import Difference, Expected

QUERIES: Final = Path(__file__).parents[2] / "queries"
MOMENTS: Final = 500
#: seven minutes become nine and a half days, so that 24 h and 7 d windows have edges inside
STRETCH: Final = 2_000
_CHUNK: Final = 4_000


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    now_us = time.time_ns() // 1_000
    return stretch(load_sample().events, STRETCH, end_us=now_us - 3_600_000_000)


def moments(rng: random.Random, own: Sequence[int], windows: Sequence[int], first: int, last: int) -> list[int]:
    """Exactly at events and where events leave a window, a microsecond beside both, anywhere, and outside."""
    found = [first - 1, first, last, last + 1, last + max(windows), 2**41 * 1_000]
    edges = [t + w for t in rng.sample(own, min(40, len(own))) for w in (0, *windows)]
    found += rng.sample([t + d for t in edges for d in (-1, 0, 0, 1)], min(MOMENTS // 2, 4 * len(edges)))
    while len(found) < MOMENTS:
        found.append(rng.randrange(first, last + 86_400_000_000))
    return found[:MOMENTS]


def questions(engine: Engine, events: Sequence[Mapping[str, Any]]) -> list[Question]:
    """500 moments for every id of every kind of entity that has signals, and for one that nobody has."""
    rng = random.Random(2_026)
    times = [parse_rfc3339_us(e["occurred_at"]) for e in events]
    found: list[Question] = []
    for entity in engine.live.entities:
        (column,) = ENTITY_KEYS[entity]
        windows = [w.us for w in engine.catalog.windows(entity)]
        own: dict[str, list[int]] = {"nobody knows me": []}
        for event, t in zip(events, times, strict=True):
            if event.get(column) is not None:
                own.setdefault(event[column], []).append(t)
        for key, mine in own.items():
            at = moments(rng, mine, windows, min(times), max(times))
            found += [Question(t, {entity: key}) for t in at]
    return found


def answer(engine: Engine, question: Question) -> Mapping[str, Mapping[str, Any]]:
    ((entity, key),) = question.keys.items()
    if entity == "approver":
        return {entity: engine.context({"approvers": [key]}, as_of=question.as_of_us)["approvers"][key]}
    return engine.context({entity: key}, as_of=question.as_of_us)


def expected_of(engine: Engine, asked: Sequence[Question]) -> Iterator[tuple[int, Expected]]:
    with engine.history.cursor() as cursor:
        for start in range(0, len(asked), _CHUNK):
            expected = Expected(asked[start : start + _CHUNK])
            for found in bulk_answers(
                cursor, engine.catalog, expected.questions, relation=f"events_at({engine.seq:d})"
            ):
                expected.add(found)
            yield start, expected


def all_differences(engine: Engine, answers: Sequence[Expected]) -> list[Difference]:
    return [
        difference
        for expected in answers
        for k, question in enumerate(expected.questions)
        for difference in expected.differences(k, answer(engine, question))
    ]


def record_in_disorder(engine: Engine, events: Sequence[dict[str, Any]]) -> None:
    """In batches from 1 to 2 000, neighbours swapped and a fifth of the events up to nine days late."""
    rng = random.Random(1)
    late = [e for e in events if rng.random() < 0.2]
    marked = {id(e) for e in late}
    rest = sorted((e for e in events if id(e) not in marked), key=lambda e: (rng.randrange(50), e["occurred_at"]))
    rng.shuffle(late)
    pending = [*rest, *late]
    while pending:
        size = rng.choice((1, 3, 40, 200, 300, 600, 2_000)) if len(pending) > 60 else 7
        batch, pending = pending[:size], pending[size:]
        result = engine.record(batch)
        assert result.accepted == len(batch)


def test_every_shipped_signal_of_every_entity_is_duckdbs(tmp_path: Path, events: list[dict[str, Any]]) -> None:
    with Engine.open(tmp_path, queries=QUERIES) as engine:
        record_in_disorder(engine, events)
        stats = engine.stats()["index"]["agent"]
        assert stats["tail_rows"] > 0
        assert stats["blocks"] > 1
        engine.caught_up(30.0)
        asked = questions(engine, events)
        assert len(asked) >= 80 * MOMENTS
        answers = [expected for _, expected in expected_of(engine, asked)]
        found = all_differences(engine, answers)
        assert [str(d) for d in found[:10]] == []
        compared, values = sum(e.count() for e in answers), sum(e.values() for e in answers)
        while engine.merge_step():
            pass
        merged = all_differences(engine, answers[::4])
        assert [str(d) for d in merged[:10]] == []
    with Engine.open(tmp_path, queries=QUERIES) as engine:
        reopened = all_differences(engine, answers)
        assert [str(d) for d in reopened[:10]] == []
    print(f"\n{len(asked)} questions, {compared} values compared, {values} of them there; again after a restart")
    assert compared > 1_000_000
    assert values > compared // 4
