"""`POST /v1/backtest`: changed policies and signals, sent as texts, on the decisions of the past."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from enrich.decisions.backtest.texts import policies_of_texts
from enrich.errors import BadRequestError, IndexNotReadyError, show
from enrich.events.json import strict_loads
from enrich.service.answers import json_answer
from enrich.service.requests import content_type, query, read_body
from enrich.service.runtime import Runtime

__all__ = ["FIELDS", "ROWS", "BacktestRoutes"]

#: texts that are passed on to `Backtests.run` as they are
_TEXTS: Final = ("since", "until", "agent", "team", "workflow", "org", "decision", "path", "against")
_OBJECTS: Final = ("policies", "queries", "mapping")
FIELDS: Final = (*_OBJECTS, *_TEXTS)
#: flips in an answer; all of them are counted
ROWS: Final = 1_000
_SECONDS: Final = 60.0


class BacktestRoutes:
    """One backtest at a time, beside the service: policies are asked in a process of their own."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._engine = runtime.engine

    async def post(self, request: Request) -> Response:
        """Tests at most `backtest_decisions` decisions, in a minute at most."""
        query(request, ())
        content_type(request, (b"application/json",), default=b"application/json")
        settings = self._runtime.settings
        body = await read_body(request, settings.max_body_bytes)
        wanted = _wanted(strict_loads(body, max_bytes=settings.max_body_bytes, max_depth=settings.max_json_depth))
        return json_answer(await self._runtime.backtests.run(partial(self._run, wanted)))

    def _run(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if "policies" in wanted:
            wanted["policies"] = policies_of_texts(wanted["policies"])
        found = self._engine.backtests.run(
            **wanted,
            processes=1,
            limit=self._runtime.settings.backtest_decisions,
            deadline=time.monotonic() + _SECONDS,
            progress=self._go_on,
        )
        return found.body(ROWS)

    def _go_on(self, done: int, total: int) -> None:
        if self._runtime.stopping:
            raise IndexNotReadyError("the service stops")


def _wanted(body: Any) -> dict[str, Any]:
    if type(body) is not dict:
        raise BadRequestError(f"the body is {show(body)}, not an object", code="invalid_body")
    unknown = sorted(body.keys() - set(FIELDS))
    if unknown:
        raise BadRequestError(f"no such field: {show(unknown[0])}", code="unknown_field", field=unknown[0][:80])
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in given.items():
        texts = value.values() if name in _OBJECTS and type(value) is dict else (value,)
        if (name in _OBJECTS and type(value) is not dict) or not all(type(text) is str for text in texts):
            kind = "an object of texts" if name in _OBJECTS else "a text"
            raise BadRequestError(f"`{name}` is {show(value)}, not {kind}", code="invalid_body", field=name)
    if "queries" in given:
        given["queries"] = {name.removesuffix(".sql"): text for name, text in given["queries"].items()}
    return given
