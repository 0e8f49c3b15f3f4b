"""The application: FastAPI for the declarations and the OpenAPI document, one thin ASGI layer for the requests.

`Application.__call__` finds the route by path, times it, authorizes it, runs its handler and turns every error into the
one error body. It stands where FastAPI's six middlewares and Starlette's linear route table would: they cost more than
a whole enrichment does.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter_ns
from traceback import extract_tb
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from enrich.errors import EnrichError, MethodNotAllowedError, NotFoundError, show
from enrich.service import auth
from enrich.service.answers import error_answer, status_of, unhandled_answer
from enrich.service.metrics import Metrics, StageHistogram
from enrich.service.requests import ClientGoneError

__all__ = ["Application", "Call", "Handler"]

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Call:
    """One method of one path: the scope it needs, and its documentation.

    Attributes:
        path: as OpenAPI writes it. With parameters in it, it matches every path that starts with its fixed part, and
            ends with what stands behind them; the handler splits the rest itself, because ids are percent-decoded per
            segment.
        name: its handler's name, its label in metrics and logs, and its operation id.
        scope: None for what needs no token.
        data_api: errors take OPA's form.
        docs: OpenAPI's operation object: summary, description, parameters, requestBody, responses.
    """

    method: str
    path: str
    name: str
    scope: auth.Scope | None
    docs: Mapping[str, Any]
    data_api: bool = False


@dataclass(slots=True)
class _Bound:
    """A call with what serving it needs, looked up once."""

    call: Call
    handler: Handler
    total: StageHistogram
    ok: tuple[str, int]


@dataclass(slots=True)
class _Path:
    """The methods of one path, or of one prefix; `endings` are those of paths that also end alike."""

    data_api: bool
    methods: dict[str, _Bound] = field(default_factory=dict)
    endings: dict[tuple[str, bytes], _Bound] = field(default_factory=dict)

    def bound(self, method: str, raw: bytes) -> _Bound | None:
        for (own, ending), bound in self.endings.items():
            if own == method and raw.endswith(ending):
                return bound
        return self.methods.get(method)


class _DocumentedRoute(APIRoute):
    """A route for the OpenAPI document; `Application` itself answers the requests."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.app: ASGIApp = _answered_elsewhere


async def _answered_elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("a documented route was reached past `Application`")


class Application(FastAPI):
    """The HTTP service of one engine.

    Args:
        calls: what it serves.
        handlers: by the calls' names.
        access: the tokens.
        metrics: where times, counts and refusals go.
        options: for FastAPI: title, description, lifespan.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        handlers: Mapping[str, Handler],
        access: auth.Access,
        metrics: Metrics,
        **options: Any,
    ) -> None:
        super().__init__(docs_url=None, redoc_url=None, openapi_url=None, **options)
        self.access = access
        self.metrics = metrics
        self.log = structlog.stdlib.get_logger("enrich.service")
        self._exact: dict[bytes, _Path] = {}
        self._prefixes: dict[bytes, _Path] = {}
        self._ids = (f"{secrets.token_hex(4)}-{n:x}" for n in count(1))
        self.router.route_class = _DocumentedRoute
        for call in calls:
            self._add(call, handlers[call.name])

    def _add(self, call: Call, handler: Handler) -> None:
        fixed, brace, _ = call.path.partition("{")
        bound = _Bound(call, handler, self.metrics.stage(call.name, "total"), (call.name, 200))
        if brace:
            path = self._prefixes.setdefault(fixed.encode(), _Path(call.data_api))
        else:
            path = self._exact.setdefault(call.path.encode(), _Path(call.data_api))
        # two paths of one prefix (an id, two ids) share a handler, which tells them apart
        path.methods.setdefault(call.method, bound)
        ending = call.path.rpartition("}")[2] if brace else ""
        if ending:
            path.endings[call.method, ending.encode()] = bound
        self.router.add_api_route(
            call.path,
            handler,
            methods=[call.method],
            name=call.name,
            operation_id=call.name,
            response_class=Response,
            openapi_extra={**call.docs, "x-scope": call.scope},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        started = perf_counter_ns()
        scope["app"] = self
        # as it came: percent-encoded, a slash is no slash, here as in the handlers
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        path = self._exact.get(raw) or self._by_prefix(raw)
        method = scope["method"]
        bound = None
        if path is not None:
            # OPA refuses HEAD, and nobody decides for an answer that is thrown away
            bound = path.bound("GET" if method == "HEAD" and not path.data_api else method, raw)
        request = Request(scope, receive)
        try:
            if bound is None:
                raise self._no_route(scope, path)
            self.access.authorize(request, bound.call.scope)
            response = await bound.handler(request)
        except EnrichError as error:
            response = self._refuse(error, scope, path, bound)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - the last line of defence: logged, answered, never passed on
            response = self._unhandled(error, scope, path, bound)
        if bound is not None:
            status = response.status_code
            self.metrics.requests[bound.ok if status == 200 else (bound.call.name, status)] += 1
        await response(scope, receive, send)
        if bound is not None:
            bound.total.observe(perf_counter_ns() - started)

    def _by_prefix(self, raw: bytes) -> _Path | None:
        for prefix, path in self._prefixes.items():  # none is another's prefix
            if raw.startswith(prefix):
                return path
        return None

    def _no_route(self, scope: Scope, path: _Path | None) -> EnrichError:
        if path is None:
            return NotFoundError(f"nothing is served at {show(scope['path'])}", code="no_such_path")
        allow = sorted(path.methods)
        return MethodNotAllowedError(
            f"{show(scope['method'])} is not a method of {show(scope['path'])}", allow=", ".join(allow)
        )

    def _refuse(self, error: EnrichError, scope: Scope, path: _Path | None, bound: _Bound | None) -> Response:
        status = status_of(error)
        request_id = next(self._ids)
        self.metrics.refusals[error.error_code] += 1
        # INVARIANT: neither the path nor the message is logged: both can hold ids and values of a caller's input.
        log = self.log.error if status >= 500 and status != 503 else self.log.info
        log("refused", request_id=request_id, route=_name(bound), status=status, code=error.error_code)
        return error_answer(error, request_id, data_api=path is not None and path.data_api)

    def _unhandled(self, error: Exception, scope: Scope, path: _Path | None, bound: _Bound | None) -> Response:
        request_id = next(self._ids)
        self.metrics.refusals["internal_error"] += 1
        # INVARIANT: the exception's own text is not logged: it can hold a piece of a caller's input.
        where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in extract_tb(error.__traceback__)]
        self.log.error(
            "unhandled", request_id=request_id, route=_name(bound), error=type(error).__name__, where=where[-12:]
        )
        return unhandled_answer(request_id, data_api=path is not None and path.data_api)


def _name(bound: _Bound | None) -> str:
    return "none" if bound is None else bound.call.name
