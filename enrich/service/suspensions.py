"""`/v1/suspensions`: break-glass over HTTP."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from enrich.errors import BadRequestError, NotFoundError, show
from enrich.events import format_us
from enrich.events.json import strict_loads
from enrich.service.answers import json_answer
from enrich.service.requests import content_type, path_segments, query, read_body
from enrich.service.runtime import Runtime

__all__ = ["SuspensionRoutes"]

_PREFIX: Final = b"/v1/suspensions/"
_FIELDS: Final = frozenset({"reason", "until", "by"})
_MAX_BYTES: Final = 65_536


class SuspensionRoutes:
    """Withdrawing authority and giving it back. It has a thread of its own, so that no other work delays it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._glass = runtime.engine.break_glass

    async def put(self, request: Request) -> Response:
        """Suspends, or renews what is suspended; in force and durable when this answers."""
        scope, id_ = _named(request)
        query(request, ())
        content_type(request, (b"application/json",), default=b"application/json")
        body = _body(await read_body(request, _MAX_BYTES), self._runtime.settings.max_json_depth)
        if "reason" not in body:
            raise BadRequestError("the body has no `reason`", code="invalid_reason", field="reason")
        suspend = partial(
            self._glass.suspend, scope, id_, reason=body["reason"], until=body.get("until"), by=body.get("by")
        )
        found = await self._runtime.suspensions.run(suspend)
        return json_answer({"suspension": found.body(), "seq": self._runtime.engine.durable_seq})

    async def delete(self, request: Request) -> Response:
        """Lifts; durable when this answers."""
        scope, id_ = _named(request)
        by = query(request, ("by",)).get("by")
        if (await read_body(request, _MAX_BYTES)).strip():
            raise BadRequestError("this call takes no body", code="unexpected_body")
        found = await self._runtime.suspensions.run(partial(self._glass.lift, scope, id_, by=by))
        return json_answer({"lifted": found.body(), "seq": self._runtime.engine.durable_seq})

    async def get(self, request: Request) -> Response:
        """The one of that very name."""
        scope, id_ = _named(request)
        query(request, ())
        found, as_of_us, seq = self._glass.named(scope, id_)
        await self._runtime.durable.wait(seq)
        return json_answer({"suspension": found.body(), "as_of": format_us(as_of_us), "seq": seq})

    async def list(self, request: Request) -> Response:
        """All that are in force, oldest first."""
        query(request, ())
        held, as_of_us, seq = self._glass.in_force()
        await self._runtime.durable.wait(seq)
        return json_answer({"suspensions": [s.body() for s in held], "as_of": format_us(as_of_us), "seq": seq})


def _named(request: Request) -> tuple[str, str | None]:
    parts = path_segments(request, _PREFIX)
    if parts == ["all"]:
        return "all", None
    if len(parts) != 2:
        raise NotFoundError("a suspension has a scope and an id; only `all` has none", code="no_such_path")
    return parts[0], parts[1]


def _body(data: bytes, max_depth: int) -> dict[str, Any]:
    body = strict_loads(data, max_bytes=_MAX_BYTES, max_depth=max_depth)
    if type(body) is not dict:
        raise BadRequestError(f"the body is {show(body)}, not an object", code="invalid_body")
    unknown = sorted(body.keys() - _FIELDS)
    if unknown:
        raise BadRequestError(f"no such field: {show(unknown[0])}", code="unknown_field", field=unknown[0][:80])
    return body
