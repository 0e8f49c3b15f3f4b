"""Reloading definitions and policies: by call, by SIGHUP, and when a file in their directories changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
import watchfiles

from enrich.engine import Engine
from enrich.engine.results import ReloadReport
from enrich.errors import EnrichError
from enrich.service.metrics import Metrics

__all__ = ["Reloader"]

_BURST: Final[dict[str, Any]] = {"debounce": 400, "step": 100}


class Reloader:
    """One reload at a time, whoever asks for it; what became of it shows in metrics, log and readiness."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self._log = structlog.stdlib.get_logger("enrich.reload")
        self._lock = asyncio.Lock()

    async def reload(self, cause: str) -> ReloadReport:
        """Loads the directories again; bad definitions leave the old ones live and stand in the report.

        Raises:
            EnrichError: the engine can't reload at all.
        """
        async with self._lock:
            try:
                report = await asyncio.to_thread(self._engine.reload)
            except Exception as error:
                self._metrics.reloads["failed"] += 1
                if isinstance(error, EnrichError):
                    self._log.error("reload failed", cause=cause, code=error.error_code)
                raise
        outcome = "refused" if not report.ok else "changed" if report.changed else "unchanged"
        self._metrics.reloads[outcome] += 1
        self._metrics.definitions_stale = not report.ok
        log = self._log.info if report.ok else self._log.error
        log("reload", cause=cause, outcome=outcome, catalog=report.catalog, problems=list(report.problems))
        return report

    async def quietly(self, cause: str) -> None:
        """A reload that nobody waits for: its failure is counted and logged, not raised."""
        try:
            await self.reload(cause)
        except EnrichError:
            return
        except Exception as error:  # noqa: BLE001 - a fault in one reload must not end the watching for the next
            self._log.error("reload failed", cause=cause, error=type(error).__name__)

    async def watch(self, sources: Sequence[Path], stop: asyncio.Event) -> None:
        """Reloads after every burst of changes to directories and files, until `stop`.

        A file is replaced by rename, and whoever watches the file itself is left with the old one: its directory is
        watched, for names that stand for it.
        """
        files = [source.absolute() for source in sources if source.is_file()]
        directories = [source for source in sources if not source.is_file()]
        names = {file.name for file in files}
        watches = [watchfiles.awatch(*directories, stop_event=stop, **_BURST)] if directories else []
        if files:
            watches.append(
                watchfiles.awatch(
                    *{file.parent for file in files},
                    # what a mounted volume swaps begins with two dots
                    watch_filter=lambda _, path: Path(path).name in names or Path(path).name.startswith(".."),
                    stop_event=stop,
                    recursive=False,
                    **_BURST,
                )
            )
        await asyncio.gather(*map(self._after, watches))

    async def _after(self, changes: AsyncIterator[object]) -> None:
        async for _ in changes:
            await self.quietly("file change")
