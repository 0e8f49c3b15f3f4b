"""`GET /v1/decisions`, `GET /v1/decisions/{id}`, `POST /v1/decisions/{id}/replay`: what was decided, and whether it
still stands."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from enrich.errors import NotFoundError
from enrich.history import DECISION_FILTERS
from enrich.service.answers import json_answer
from enrich.service.requests import limit_of, path_segments, query, refuse_body
from enrich.service.runtime import Runtime

__all__ = ["DecisionRoutes"]

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
