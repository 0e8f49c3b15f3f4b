"""What changes while an engine is open, shared by the parts that write it and the parts that read it."""

from __future__ import annotations

import threading

from enrich.engine.live import Live
from enrich.engine.policies import LivePolicies
from enrich.errors import EnrichError, IndexNotReadyError
from enrich.events import EventBatch, EventParser, format_us
from enrich.in_flight import InFlight
from enrich.journal import Position
from enrich.suspensions import Members, Register

__all__ = ["SecondText", "State"]


class SecondText:
    """`format_us` for moments that mostly lie in the same second: the text up to the second is kept."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept = (0, format_us(0)[:20])

    def __call__(self, us: int) -> str:
        kept_us, text = self._kept
        micro = us - kept_us
        if not 0 <= micro < 1_000_000:
            micro = us % 1_000_000
            text = format_us(us - micro)[:20]
            self._kept = (us - micro, text)  # one assignment: a reader in another thread sees a whole pair
        return f"{text}{micro:06d}Z"


class State:
    """The live definitions and how far history goes.

    `order` is held by whoever gives a record its place; `live.index.lock`, inside it, by whoever makes the record
    visible or reads a context. `position`, `observed_since`, `suspensions`, `members` and `in_flight` change under
    both.
    """

    def __init__(
        self,
        live: Live,
        parser: EventParser,
        policies: LivePolicies | None,
        position: Position,
        observed_since_us: int | None,
        suspensions: Register,
        members: Members,
        in_flight: InFlight,
    ) -> None:
        self.order = threading.Lock()
        self.live = live
        self.parser = parser
        self.policies = policies
        self.position = position
        self.suspensions = suspensions
        self.members = members
        self.in_flight = in_flight
        #: while an index is about to go live, what is ordered meanwhile, with first seqs; changes under `order`
        self.ordered: list[tuple[EventBatch, int]] | None = None
        self.observed_since_us: int | None = None
        self.observed_since: str | None = None
        self.pruned_us: int | None = None
        self.broken: EnrichError | None = None
        self.closed = False
        if observed_since_us is not None:
            self.observe(observed_since_us)

    @property
    def seq(self) -> int:
        """What a context computed now has seen."""
        return self.position.seq

    def observe(self, occurred_us: int) -> None:
        """History reaches back at least to this moment."""
        if self.observed_since_us is None or occurred_us < self.observed_since_us:
            self.observed_since_us = occurred_us
            self.observed_since = format_us(occurred_us)

    @property
    def held_since_us(self) -> int | None:
        """From when on all observed history is still held; None when nothing was observed."""
        if self.observed_since_us is None or self.pruned_us is None:
            return self.observed_since_us
        return max(self.observed_since_us, self.pruned_us)

    def check_open(self) -> None:
        """
        Raises:
            IndexNotReadyError: the engine was closed, or an appended record could not be applied.
        """
        if self.broken is not None:
            raise self.broken
        if self.closed:
            raise IndexNotReadyError("the engine is closed")
