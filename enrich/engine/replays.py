"""Replay of what a running engine has decided."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import polars as pl

from enrich.decisions.replay import (
    DefinitionsIndex,
    PolicyReplay,
    Progress,
    Replayed,
    ReplayReport,
    Source,
    evaluators_of,
    events_of,
    replay_all,
    replay_one,
)
from enrich.engine.asked import Moment, moment_us
from enrich.journal.identity import read_identity

if TYPE_CHECKING:
    from enrich.engine.engine import Engine

__all__ = ["Replays"]

#: how long DuckDB is waited for: who asks about one decision waits for the answer, a report may take its time
_ONE_SECONDS: Final = 10.0
_ALL_SECONDS: Final = 60.0


class Replays:
    """Whether decisions still stand: the journal's files read anew, policies asked again, signals computed again.

    Thread-safe. The engine goes on deciding meanwhile; what is decided after the call is not looked at.

    Example:
        >>> engine.replays.one(decision_id).verdict
        >>> engine.replays.all(since="2026-11-01T00:00:00Z").filter(pl.col("verdict") != "VALID")
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._index = DefinitionsIndex(engine.journal.directory)
        self._policy = PolicyReplay(evaluators_of(engine.settings))
        self._lock = threading.Lock()

    def one(self, decision_id: str) -> Replayed:
        """One decision, its signals by the definitions' own SQL.

        Raises:
            NotFoundError: `unknown_decision`.
            HistoryBehindError: DuckDB did not catch up with what is durable within ten seconds.
        """
        self._engine.caught_up(_ONE_SECONDS)
        with self._lock:  # one at a time: whoever replays takes a core from those who decide
            return replay_one(self._source(), decision_id, index=self._index, policy=self._policy)

    def all(
        self, since: Moment | None = None, *, progress: Progress | None = None, processes: int | None = None
    ) -> pl.DataFrame:
        """All decisions, a row each; see `ReplayReport.frame`.

        Args:
            since: only decided at or after.
            progress: called with (decisions done, decisions in all).
            processes: how many work beside each other; default: one for each core when there are many decisions.
        """
        return self.report(since, progress=progress, processes=processes).frame()

    def report(
        self, since: Moment | None = None, *, progress: Progress | None = None, processes: int | None = None
    ) -> ReplayReport:
        """The same as objects, and what is wrong with the journal as a whole."""
        since_us = None if since is None else moment_us(since)
        self._engine.caught_up(_ALL_SECONDS)
        return replay_all(self._source(), since_us=since_us, progress=progress, processes=processes)

    def close(self) -> None:
        """Let go of the policies that were asked again."""
        with self._lock:
            self._policy.close()

    def _source(self) -> Source:
        engine = self._engine
        files = engine.journal.directory
        return Source(
            files, read_identity(files), events_of(engine.history), engine.durable_seq, engine.settings
        )
