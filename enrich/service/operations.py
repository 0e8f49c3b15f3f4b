"""Reload, health and metrics: what operators call."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from enrich.errors import BadRequestError, BusyError, IndexNotReadyError
from enrich.events.json import strict_loads
from enrich.journal import Anchor, VerifyReport, parse_anchor, verify
from enrich.service.answers import Answer, json_answer
from enrich.service.requests import query, read_body, refuse_body
from enrich.service.runtime import Runtime

__all__ = ["OperatorRoutes", "verify_body"]

#: of a few thousand anchors
_MAX_ANCHOR_BYTES: Final = 1 << 20
#: how a warning of the engine's begins, to its code
_WARNINGS: Final = {
    "reload failed": "definitions_refused",
    "history does not follow": "history_not_following",
}


class OperatorRoutes:
    """Everything about the service itself."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._engine = runtime.engine
        self._verifying = asyncio.Lock()

    async def reload(self, request: Request) -> Response:
        """Loads definitions and policies again; 400 `reload_refused` when they are bad, the old ones stay live."""
        await _bare(request)
        report = await self._runtime.reloader.reload("call")
        if not report.ok:
            refused = BadRequestError(
                "the definitions did not load; the old ones stay live", code="reload_refused", **report.body()
            )
            # whole, not cut like other errors: what it quotes are the operator's own files
            return json_answer(refused.body(), refused.status)
        return json_answer(report.body())

    async def check(self, request: Request) -> Response:
        """Compares the live signals with DuckDB on a sample of the history at hand."""
        await _bare(request)
        report = await self._runtime.reads.run(self._engine.check)
        return json_answer({"compared": report.compared, "differences": list(report.differences)})

    async def verify(self, request: Request) -> Response:
        """Verifies the whole journal, in a process of its own so that no request waits for it."""
        anchors = await _anchors(request)
        if self._verifying.locked():
            raise BusyError("the journal is being verified already")
        async with self._verifying:
            loop = asyncio.get_running_loop()
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                report = await loop.run_in_executor(process, partial(verify, self._engine.directory, anchors=anchors))
        return json_answer(verify_body(report))

    async def anchor(self, request: Request) -> Response:
        """The last durable record, to be kept elsewhere."""
        query(request, ())
        return json_answer((await self._runtime.reads.run(self._engine.anchor)).body())

    async def health(self, request: Request) -> Response:
        """OPA's health: an empty object once the engine answers exactly."""
        self._require_ready()
        return json_answer({})

    async def live(self, request: Request) -> Response:
        """The process runs its event loop."""
        return json_answer({"status": "live"})

    async def ready(self, request: Request) -> Response:
        """Whether answers can be exact; warnings, such as a refused reload, do not make it false."""
        return json_answer({"status": "ready", "warnings": self._require_ready()})

    def _require_ready(self) -> list[dict[str, Any]]:
        # INVARIANT: needs no token, so it says what kind of thing is wrong, and how often. The texts can quote
        # definitions and name paths: they stand in the log and, for a reload, in its answer.
        state = self._engine.health()
        if not state.ready:
            raise IndexNotReadyError("the engine is not ready", reasons=len(state.reasons))
        counts = Counter(_warning_code(text) for text in state.warnings)
        return [{"code": code, "count": count} for code, count in sorted(counts.items())]

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text format."""
        text, kind = await asyncio.to_thread(self._runtime.metrics.exposition)
        return Answer(text, content_type=kind)

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI document."""
        return json_answer(request.app.openapi())


def _warning_code(text: str) -> str:
    return next((code for start, code in _WARNINGS.items() if text.startswith(start)), "maintenance_failed")


def verify_body(report: VerifyReport) -> dict[str, Any]:
    """A verification as JSON."""
    return {
        "ok": report.ok,
        "problems": [asdict(problem) for problem in report.problems],
        "journal_id": report.journal_id,
        "head_seq": report.head.seq,
        "head_hash": report.head.hash,
        "segments": report.segments,
        "records": report.records,
        "events": report.events,
        "sidecars": report.sidecars,
        "torn_bytes": report.torn_bytes,
        "unnamed_sidecars": report.unnamed_sidecars,
        "anchors": report.anchors,
        "anchor_problems": [asdict(problem) for problem in report.anchor_problems],
    }


async def _anchors(request: Request) -> list[Anchor]:
    """The anchors of a body `{"anchors": [...]}`; none without a body."""
    query(request, ())
    body = await read_body(request, _MAX_ANCHOR_BYTES)
    if not body.strip():
        return []
    document = strict_loads(body, max_bytes=_MAX_ANCHOR_BYTES)
    if type(document) is not dict or list(document) != ["anchors"] or type(document["anchors"]) is not list:
        raise BadRequestError('this call takes no body, or {"anchors": [...]}', code="unexpected_body")
    return [parse_anchor(one, f"anchor {i}") for i, one in enumerate(document["anchors"])]


async def _bare(request: Request) -> None:
    """A call without parameters: neither query nor body."""
    query(request, ())
    await refuse_body(request)
