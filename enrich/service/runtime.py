"""What the handlers share: engine, settings, access, metrics, pools, and the bridge from the journal's thread."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from enrich.engine import Engine
from enrich.engine.results import RecordResult
from enrich.service.auth import Access
from enrich.service.durable import DurableAnswers, LoopBridge
from enrich.service.metrics import Metrics
from enrich.service.pool import BoundedPool
from enrich.service.reloading import Reloader
from enrich.service.together import Together
from enrich.settings import Settings

__all__ = ["Runtime"]

#: evaluations that run at once, besides the decisions that wait for others about the same entity
_EVALUATION_THREADS: Final = 32


class Runtime:
    """One service at work. `start` and `stop` frame its event loop's life."""

    def __init__(self, engine: Engine, settings: Settings, access: Access, metrics: Metrics) -> None:
        self.engine = engine
        self.settings = settings
        self.access = access
        self.metrics = metrics
        self.reloader = Reloader(engine, metrics)
        deadline = settings.deadline_ms / 1000
        #: large bodies: parsed and recorded beside the loop
        self.ingest = BoundedPool("ingest", threads=2, waiting=settings.ingest_queue, deadline_seconds=deadline)
        #: DuckDB and other reads that take milliseconds
        self.reads = BoundedPool("read", threads=2, waiting=settings.read_queue, deadline_seconds=deadline)
        #: policy evaluation. A decision that waits for others about the same entity holds its thread meanwhile.
        #: INVARIANT: as many as may wait leave threads to those who don't: they never wait for a busy entity
        self.evaluations = BoundedPool(
            "evaluation",
            threads=_EVALUATION_THREADS + settings.decision_queue,
            waiting=settings.evaluation_queue,
            deadline_seconds=deadline,
        )
        #: break-glass: nothing else may stand before it
        self.suspensions = BoundedPool("suspension", threads=1, waiting=64, deadline_seconds=deadline)
        #: one backtest, for as long as it takes; another one is refused meanwhile
        self.backtests = BoundedPool("backtest", threads=1, waiting=0)
        self.stopping = False
        self.durable: DurableAnswers
        self.records: LoopBridge[RecordResult]
        self.together: Together
        for name, pool in self._pools().items():
            metrics.gauge(
                f"enrich_{name}_queue_depth",
                f"Requests in the {name} pool, running or waiting.",
                partial(getattr, pool, "depth"),
            )

    def _pools(self) -> dict[str, BoundedPool]:
        return {
            "ingest": self.ingest,
            "read": self.reads,
            "evaluation": self.evaluations,
            "suspension": self.suspensions,
            "backtest": self.backtests,
        }

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Binds what belongs to the event loop."""
        self.durable = DurableAnswers(self.engine, loop)
        self.records = LoopBridge(loop)
        self.together = Together(self.engine, loop)

    def stop(self) -> None:
        """Ends the pools; the engine stays open, it belongs to whoever opened it."""
        self.stopping = True
        for pool in self._pools().values():
            pool.close()
