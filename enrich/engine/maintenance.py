"""Background work: merging the index's parts as they grow, pruning what left retention, saving the index.

Merging has its own thread, kept nicer than the ones that answer; the rest runs on APScheduler's clock.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from enrich.errors import EnrichError

if TYPE_CHECKING:
    from enrich.engine.engine import Engine

__all__ = ["Maintenance", "be_nice"]

_MERGE_SECONDS: Final = 0.05
_IDLE_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 5.0
_NICE: Final = 10


def be_nice(increment: int = _NICE) -> None:
    """Lower the priority of the calling thread alone (Linux counts niceness per thread)."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), increment)


class Maintenance:
    """Runs beside one engine until stopped. `failure` says why the index is not merged at the moment."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self.failure: str | None = None
        self._follower_failed: str | None = None
        self._log = structlog.get_logger("enrich.maintenance")
        self._thread = threading.Thread(target=self._merge, name="enrich-merge", daemon=True)
        self._scheduler = BackgroundScheduler(timezone="UTC")
        settings = engine.settings
        self._scheduler.add_job(self._prune, "interval", seconds=settings.prune_interval_seconds, max_instances=1)
        self._scheduler.add_job(self._save, "interval", seconds=settings.save_interval_seconds, max_instances=1)

    def start(self) -> None:
        self._thread.start()
        self._scheduler.start()

    def stop(self) -> None:
        self._stop.set()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)
        if self._thread.is_alive():
            self._thread.join()

    def _merge(self) -> None:
        be_nice()
        seq, since = -1, 0.0
        while not self._stop.wait(_MERGE_SECONDS if self.failure is None else _RETRY_SECONDS):
            now = time.monotonic()
            if self._engine.seq != seq:
                seq, since = self._engine.seq, now
            idle = now - since >= _IDLE_SECONDS
            self._tell_follower()
            try:
                while not self._stop.is_set() and self._engine.merge_step(idle=idle and self._engine.seq == seq):
                    pass
                self.failure = None
            except Exception as error:  # noqa: BLE001 - answers stay exact without merging, and slower: it must show
                self.failure = f"merging the index failed: {error!r}"
                self._log.exception("merge_failed")

    def _tell_follower(self) -> None:
        """Log why DuckDB does not follow, once per reason: callers without the log are told the code alone."""
        failure = self._engine.follower.error
        reason = None if failure is None else failure.message
        if reason == self._follower_failed:
            return
        self._follower_failed = reason
        if failure is None:
            self._log.info("history_follows_again", applied_seq=self._engine.follower.applied.seq)
        else:
            self._log.error("history_not_following", code=failure.code, reason=reason)

    def _prune(self) -> None:
        be_nice()
        try:
            self._engine.prune()
        except EnrichError as error:
            self._log.error("prune_failed", code=error.error_code, reason=error.message)

    def _save(self) -> None:
        be_nice()
        try:
            self._engine.save_index()
        except (EnrichError, OSError) as error:
            self._log.error("save_failed", reason=str(error))
