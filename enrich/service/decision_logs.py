"""`POST /v1/logs`: decision logs, as OPA's plugin uploads them."""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from enrich.engine.opa_logs import LogsResult, OpaLogs
from enrich.errors import BadRequestError, PayloadTooLargeError, show
from enrich.service.answers import json_answer
from enrich.service.requests import content_type, query, read_body, unpacked
from enrich.service.runtime import Runtime

__all__ = ["DecisionLogRoutes"]

_JSON: Final = b"application/json"
#: records that one upload may become, as of `POST /v1/events`
_MAX_RECORDS: Final = 10


class DecisionLogRoutes:
    """Decisions of other OPAs in."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._logs = OpaLogs(runtime.engine)
        self._max_bytes = runtime.settings.max_body_bytes
        self._max_entries = _MAX_RECORDS * runtime.settings.max_request_events

    async def post(self, request: Request) -> Response:
        """Records one upload; answers once it is durable. OPA sends again what is not answered with 200."""
        query(request, ())
        content_type(request, (_JSON,), default=_JSON, packed=True)
        body = await read_body(request, self._max_bytes)
        result = await self._runtime.ingest.run(lambda: self._record(request, body))
        told = result.body()
        counts = self._runtime.metrics.events
        counts["accepted"] += result.recorded.accepted
        counts["duplicate"] += result.recorded.duplicates
        counts["rejected"] += told["rejected_count"]
        return json_answer(told)

    def _record(self, request: Request, body: bytes) -> LogsResult:
        return self._logs.record(self._entries(unpacked(request, body, self._max_bytes)))

    def _entries(self, body: bytes) -> list[Any]:
        """An upload's entries. A number in one of them that is not exact, or a key that stands twice, is no reason to
        refuse the others: nothing but ids, names and times is read."""
        try:
            entries = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadRequestError(f"the body is no JSON: {error}", code="invalid_json") from error
        if type(entries) is not list:
            raise BadRequestError(f"the body is {show(entries)}, not an array of entries", code="invalid_entries")
        if len(entries) > self._max_entries:
            raise PayloadTooLargeError(
                f"{len(entries)} entries, at most {self._max_entries} in one upload",
                code="too_many_events",
                hint="lower OPA's `decision_logs.reporting.upload_size_limit_bytes`",
            )
        return entries
