"""`/v1/decisions`, `/v1/decisions/{id}` with `/outcome` and `/replay`: what was decided, what became of it, and
whether it still stands."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from enrich.engine.outcomes import OUTCOME_FIELDS
from enrich.errors import BadRequestError, NotFoundError, show
from enrich.events.json import strict_loads
from enrich.history import DECISION_FILTERS
from enrich.service.answers import json_answer
from enrich.service.requests import content_type, limit_of, path_segments, query, read_body, refuse_body
from enrich.service.runtime import Runtime

__all__ = ["DecisionRoutes"]

_MAX_BYTES: Final = 16_384
_PREFIX: Final = b"/v1/decisions/"
_PARAMETERS: Final = (*DECISION_FILTERS, "since", "until", "cursor", "limit")


class DecisionRoutes:
    """The decisions that were recorded, from DuckDB once it has followed."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._engine = runtime.engine

    async def list(self, request: Request) -> Response:
        """A page, newest first."""
        given = query(request, _PARAMETERS)
        limit = limit_of(given.pop("limit", None))
        page = await self._runtime.reads.run(partial(self._engine.decisions, limit=limit, **given))
        return json_answer({"decisions": page.decisions, "next_cursor": page.next_cursor, "seq": page.seq})

    async def one(self, request: Request) -> Response:
        """A whole record."""
        parts = path_segments(request, _PREFIX)
        if len(parts) != 1:
            raise NotFoundError("a decision has one id", code="no_such_path")
        query(request, ())
        return json_answer(await self._runtime.reads.run(partial(self._engine.decision, parts[0])))

    async def replay(self, request: Request) -> Response:
        """A verdict; it is computed on a thread for reads, while decisions go on."""
        parts = path_segments(request, _PREFIX)
        if len(parts) != 2 or parts[1] != "replay":
            raise NotFoundError("nothing is served at that path", code="no_such_path")
        query(request, ())
        await refuse_body(request)
        replayed = await self._runtime.reads.run(partial(self._engine.replays.one, parts[0]))
        return json_answer(replayed.body())

    async def outcome(self, request: Request) -> Response:
        """How its action ended; durable when this answers."""
        parts = path_segments(request, _PREFIX)
        if len(parts) != 2 or parts[1] != "outcome":
            raise NotFoundError("an outcome belongs to one decision", code="no_such_path")
        query(request, ())
        content_type(request, (b"application/json",), default=b"application/json")
        data = await read_body(request, _MAX_BYTES)
        body = strict_loads(data, max_bytes=_MAX_BYTES, max_depth=self._runtime.settings.max_json_depth)
        if type(body) is not dict:
            raise BadRequestError(f"the body is {show(body)}, not an object", code="invalid_body")
        unknown = sorted(body.keys() - {"outcome", *OUTCOME_FIELDS})
        if unknown:
            raise BadRequestError(f"no such field: {show(unknown[0])}", code="unknown_field", field=unknown[0][:80])
        outcome = body.pop("outcome", None)
        caller = self._runtime.access.caller(request)
        report = partial(self._engine.outcomes.report, parts[0], outcome, caller=caller, wait=False, **body)
        settled = await self._runtime.evaluations.run(report)
        await self._runtime.durable.wait(settled.seq)
        return json_answer(settled.body())
