"""Contexts of the past in bulk: exact at many (as_of, seq), in the order of their seqs.

What a decision was given, or would have been given by other definitions: replay, backtest and frames ask here, and get
what `Assembler` makes of the index that stood at that seq.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from enrich.context.assemble import PAIRS, Assembler, Key, Prepared, index_plans
from enrich.signals import Catalog
from enrich.windows import CursorSource, RollingIndex

__all__ = ["Rolling"]


class Rolling:
    """What stands under `history` for any entities at any moment, as far as was known at one seq, which only rises.

    INVARIANT: it has seen exactly `events_at(seq)`, so that it answers what the live index answered at that seq.

    For one thread.

    Args:
        source: where the events are: a `History`, or a DuckDB connection in UTC.
        retention_us: how far back `known` looks.
        at_seq: where to start, everything up to there loaded in bulk.
        relation: a table with the columns of `events`, void_seq among them; it must hold every event up to a seq by the
            time that `advance` is called with it.
        oldest_us: older events are left out; no moment asked about may be less than retention after it.
        entities: the kinds of entities that will be asked about, those that derived sets read included; None for all.
    """

    def __init__(
        self,
        source: CursorSource,
        catalog: Catalog,
        *,
        retention_us: int,
        at_seq: int = 0,
        relation: str = "events",
        oldest_us: int | None = None,
        entities: Iterable[str] | None = None,
    ) -> None:
        plans = index_plans(catalog)
        if entities is not None:
            kept = frozenset(entities)
            plans = {entity: plan for entity, plan in plans.items() if entity in kept}
        self.catalog = catalog
        self._index = RollingIndex(
            plans, source, retention_us=retention_us, relation=relation, at_seq=at_seq, oldest_us=oldest_us
        )
        self._assembler = Assembler(self._index)
        self._selections: dict[tuple[str, ...] | None, Mapping[str, Prepared]] = {}

    @property
    def seq(self) -> int:
        """Up to where events are seen."""
        return self._index.seq

    def advance(self, seq: int) -> None:
        """From here on it has seen exactly the events up to `seq`.

        Raises:
            ValueError: a seq below the one it is at.
        """
        self._index.advance(seq)

    def entities(
        self,
        keys: Mapping[str, Key | None],
        approvers: Sequence[str] | None,
        as_of_us: int,
        observed_since_us: int | None,
        select: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """The objects under `history`, by entity, as a context at (`as_of_us`, `seq`) has them.

        Args:
            keys: entity to id, None when it is missing; pairs are made of the entities that are there.
            approvers: ids of people; None when there is no word of them.
            observed_since_us: the start of observed history, for `complete`; None when nothing was observed.
            select: signals; None for all.

        Raises:
            BadRequestError: `unknown_signal`.
        """
        prepared = self._prepared(select)
        wanted = keys
        for pair, (a, b) in PAIRS.items():
            if pair in prepared and pair not in keys and a in keys and b in keys:
                left, right = keys[a], keys[b]
                wanted = {**wanted, pair: None if left is None or right is None else (str(left), str(right))}
        return self._assembler.entities(prepared, wanted, approvers, as_of_us, observed_since_us)

    def _prepared(self, select: Sequence[str] | None) -> Mapping[str, Prepared]:
        key = None if select is None else tuple(select)
        found = self._selections.get(key)
        if found is None:
            functions = self.catalog.functions(key)
            kept = {entity: f for entity, f in functions.items() if entity in self._index.plans}
            found = self._selections[key] = self._assembler.prepare(kept)
        return found
