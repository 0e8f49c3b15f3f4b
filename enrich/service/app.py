"""`create_app`: one engine's HTTP service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from enrich.engine import Engine
from enrich.errors import NotFoundError
from enrich.service.auth import Access
from enrich.service.calls import calls
from enrich.service.handlers import handlers
from enrich.service.metrics import Metrics
from enrich.service.routing import Application
from enrich.service.runtime import Runtime
from enrich.service.schemas import components
from enrich.settings import Settings

__all__ = ["create_app", "document"]

_TAGS = (
    ("events", "Facts in, and the facts behind the numbers out."),
    ("decisions", "A policy's input with its history, and OPA's Data API on it."),
    ("entities", "One entity's signals."),
    ("signals", "What the signals are."),
    ("suspensions", "Break-glass: authority withdrawn, and given back."),
    ("operations", "Reload, health, metrics."),
)


def create_app(engine: Engine, settings: Settings, *, watch: Sequence[Path] = ()) -> FastAPI:
    """The ASGI application of one engine.

    Args:
        engine: open; it is neither opened nor closed here.
        settings: limits, queues, tokens.
        watch: directories and files whose changes reload the definitions.

    Raises:
        ConfigError: a token for a scope that does not exist.
    """
    access = Access(settings.tokens())
    metrics = Metrics(engine.stats)
    runtime = Runtime(engine, settings, access, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        runtime.start(asyncio.get_running_loop())
        stop = asyncio.Event()
        watching = asyncio.create_task(runtime.reloader.watch(watch, stop)) if watch else None
        try:
            yield
        finally:
            stop.set()
            if watching is not None:
                await watching
            await asyncio.to_thread(runtime.stop)

    app = _Documented(calls(), handlers(runtime), access, metrics, lifespan=lifespan)
    app.state.runtime = runtime
    return app


def document() -> dict[str, Any]:
    """The OpenAPI document, without an engine behind it."""
    documented = calls()

    async def unanswered(request: Request) -> Response:
        raise NotFoundError("only documented here")

    access, metrics = Access({}), Metrics(lambda: {})
    return _Documented(documented, {call.name: unanswered for call in documented}, access, metrics).openapi()


class _Documented(Application):
    """Adds title, named schemas and the security scheme to FastAPI's document."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(
            *arguments,
            title="enrich",
            summary="An agent's history, exact to the microsecond, inside the input of every authority decision.",
            version="1",
            openapi_tags=[{"name": name, "description": text} for name, text in _TAGS],
            **options,
        )

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            document["components"] = {
                "schemas": components(),
                "securitySchemes": {
                    "bearer": {
                        "type": "http",
                        "scheme": "bearer",
                        "description": "A static token per scope: ingest, decide, read, as_of, admin. "
                        "Without configured tokens the service listens on loopback only, and asks for none.",
                    }
                },
            }
            self.openapi_schema = document
        return self.openapi_schema
