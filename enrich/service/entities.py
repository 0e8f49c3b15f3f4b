"""`GET /v1/entities/{entity}/{id}[/{id2}]`, `GET /v1/signals`, its JSON Schema and its SQL."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from enrich.errors import BadRequestError, NotFoundError
from enrich.service.answers import json_answer
from enrich.service.requests import path_segments, query
from enrich.service.runtime import Runtime

__all__ = ["EntityRoutes"]

_ENTITIES: Final = b"/v1/entities/"
_SIGNALS: Final = b"/v1/signals/"


class EntityRoutes:
    """One entity's signals, and the catalog they come from."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._engine = runtime.engine

    async def entity(self, request: Request) -> Response:
        """One entity's object, as it stands under `history.<entity>`, with as_of, seq and status."""
        entity, *ids = path_segments(request, _ENTITIES)
        if not 1 <= len(ids) <= 2:
            raise NotFoundError("an entity has one id, a pair two", code="no_such_path")
        given = query(request, ("as_of", "select"))
        as_of = given.get("as_of")
        if as_of is not None:
            self._runtime.access.authorize(request, "as_of")
        select = given["select"].split(",") if "select" in given else None
        body = self._engine.entity(entity, ids, as_of=as_of, select=select)
        await self._runtime.durable.wait(body["seq"])
        return json_answer(body)

    async def signals(self, request: Request) -> Response:
        """The live catalog."""
        query(request, ())
        return json_answer(self._engine.signals())

    async def schema(self, request: Request) -> Response:
        """JSON Schema of the enriched input."""
        query(request, ())
        return json_answer(self._engine.schema())

    async def sql(self, request: Request) -> Response:
        """The SQL of one set for one entity and window, to paste into DuckDB."""
        name, *rest = path_segments(request, _SIGNALS)
        if rest != ["sql"]:
            raise NotFoundError("a signal set has only its `sql`", code="no_such_path")
        given = query(request, ("id", "id2", "window", "as_of"))
        if "id" not in given:
            raise BadRequestError("parameter `id` is missing", code="missing_parameter", parameter="id")
        ids = [given[part] for part in ("id", "id2") if part in given]
        text = self._engine.sql(name, ids, given.get("window"), as_of=given.get("as_of"))
        return json_answer({"sql": text})
