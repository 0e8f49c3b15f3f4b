"""Shadow policies: asked after the live ones, on the same bytes, by threads of their own.

INVARIANT: a shadow changes no decision. It is asked once the verdict stands, whatever it raises ends here, and nobody
waits for it beyond its limit: an evaluator may take longer than it was told, to start a process again say, and then it
is its thread that is late.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Final

import structlog

from enrich.context import canonical_json
from enrich.decisions import DataPath, Failed, Prepared, ShadowVerdict, Verdict, judge, refuse
from enrich.decisions.protocol import TIMED_OUT
from enrich.errors import EnrichError

__all__ = ["Shadow"]

_THREADS: Final = max(2, os.cpu_count() or 1)


class Shadow:
    """Policies that are ready to be asked and never answer. Thread-safe.

    Args:
        evaluator: name and version.
        limit_seconds: the longest that a decision waits for them.
        source: what the directory or bundle that they came from is called.
    """

    def __init__(self, prepared: Prepared, evaluator: Mapping[str, str], limit_seconds: float, source: str) -> None:
        self.prepared = prepared
        self.evaluator = evaluator
        self.source = source
        self._limit_seconds = limit_seconds
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="enrich-shadow")
        self._free = BoundedSemaphore(_THREADS)
        self._log = structlog.get_logger("enrich.shadow")

    @property
    def version(self) -> str:
        """What identifies their text."""
        return self.prepared.policies.version

    def ask(self, path: DataPath, input_json: bytes, *, strict: bool, left_seconds: float) -> ShadowVerdict:
        """What they would decide; never raises.

        Args:
            left_seconds: how long the decision can still wait; with less than the limit they are skipped.
        """
        try:
            verdict = self._verdict(path, input_json, strict) if left_seconds >= self._limit_seconds else None
        except Exception as error:  # noqa: BLE001 - INVARIANT: however a shadow breaks, the decision is the live one
            self._log.error("shadow_failed", error=type(error).__name__)
            verdict = refuse("evaluation_failed", boolean=self._boolean(path))
        return ShadowVerdict.of(self.version, self.evaluator, verdict)

    def _verdict(self, path: DataPath, input_json: bytes, strict: bool) -> Verdict | None:
        deadline = time.monotonic() + self._limit_seconds
        if not self._free.acquire(blocking=False):
            return None  # those before are late: nobody waits for them
        try:
            asked = self._threads.submit(self._evaluate, path, input_json, strict, deadline)
        except RuntimeError:  # other policies went live meanwhile
            self._free.release()
            return None
        try:
            return asked.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return judge(Failed(TIMED_OUT, ""), boolean=False)

    def _evaluate(self, path: DataPath, input_json: bytes, strict: bool, deadline: float) -> Verdict:
        try:
            limit = max(0.001, deadline - time.monotonic())
            outcome = self.prepared.evaluate(path, input_json, strict_builtin_errors=strict, limit_seconds=limit)
            verdict = judge(outcome, boolean=self._boolean(path))
            try:
                canonical_json(verdict.result)
            except EnrichError:
                verdict = refuse("malformed_decision", boolean=self._boolean(path))
            return verdict
        finally:
            self._free.release()

    def _boolean(self, path: DataPath) -> bool:
        return path[-1] == "allow" or path in self.prepared.booleans

    def close(self) -> None:
        """Let go of them; what they still evaluate comes to its end."""
        self._threads.shutdown(wait=False)
        self.prepared.close()
