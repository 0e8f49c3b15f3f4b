"""Everything that the plan asks about an entity, held against the list."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from enrich.windows import Index
from tests.windows.model import BREAK, BURST, DISTINCT, ORDER_DOUBLE, ORDER_INT, PLANS, Model

__all__ = ["ENTITIES", "WIDTHS", "check", "check_all"]

WIDTHS = (1, 10, 60, 400)
ENTITIES = (("agent", ("a0",)), ("agent", ("a1",)), ("agent_workflow", ("a0", "w0")), ("agent_workflow", ("a0", "w1")))


def check(index: Index, model: Model, entity: str, key: tuple[str, ...], moments: Sequence[int]) -> None:
    """Fails on the first answer that is not the list's."""
    mine = model.of(PLANS[entity].key_columns, key)
    for as_of in moments:
        seen = [t for t, _, _ in mine if t <= as_of]
        located = index.locate(entity, key[0] if len(key) == 1 else key, as_of, WIDTHS)
        if located is None:
            assert not seen
            continue
        assert located.first_us == min(seen)
        assert located.known == (max(seen) > as_of - index.retention_us)
        for w, width in enumerate(WIDTHS):
            want = model.window(mine, as_of, width)
            got = tuple(a - b for a, b in zip(located.end_record, located.start_records[w], strict=True))
            assert got == want.totals
            p, ints, doubles = located.probe, want.sorted_ints, want.sorted_doubles
            assert [p.order(w, ORDER_INT, k) for k in range(len(ints))] == ints
            assert [p.order(w, ORDER_DOUBLE, k) for k in range(len(doubles))] == doubles
            pairs = list(pairwise(ints))
            assert [p.order2(w, ORDER_INT, k) for k in range(len(pairs))] == pairs
            if ints:
                assert (p.minimum(w, ORDER_INT), p.maximum(w, ORDER_INT)) == (ints[0], ints[-1])
            if doubles:
                assert (p.minimum(w, ORDER_DOUBLE), p.maximum(w, ORDER_DOUBLE)) == (doubles[0], doubles[-1])
            assert p.distinct(w, ORDER_INT) == want.distinct_ints
            assert p.distinct(w, DISTINCT) == want.distinct_texts
            assert p.last(w, ORDER_INT) == want.last_int
            assert p.last(w, DISTINCT) == want.last_text
            assert p.since_break(w, 0, BREAK) == want.since_break
            assert p.burst(w, BURST) == want.burst


def check_all(index: Index, model: Model, moments: Sequence[int]) -> None:
    for entity, key in ENTITIES:
        check(index, model, entity, key, moments)
