"""`POST /v1/enrich`: an input in, the same input with its history out."""

from __future__ import annotations

from functools import partial
from time import perf_counter_ns
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from enrich.errors import BadRequestError, show
from enrich.events.json import strict_loads
from enrich.service.answers import Answer
from enrich.service.requests import content_type, read_body
from enrich.service.runtime import Runtime

__all__ = ["EnrichRoute"]

_ACCEPTED: Final = (b"application/json",)
#: a longer body is parsed and enriched on a thread: reading it would hold the loop for too long
_INLINE_BYTES: Final = 16_384
_FIELDS: Final = frozenset({"input", "select"})


class EnrichRoute:
    """The fast path: parse, enrich, wait only for what is not durable yet, serialize."""

    def __init__(self, runtime: Runtime) -> None:
        self._engine = runtime.engine
        self._runtime = runtime
        self._max_bytes = runtime.settings.max_input_bytes
        self._max_depth = runtime.settings.max_json_depth
        stage = runtime.metrics.stage
        self._parse = stage("enrich", "parse")
        self._context = stage("enrich", "context")
        self._durable = stage("enrich", "durable")
        self._serialize = stage("enrich", "serialize")

    async def post(self, request: Request) -> Response:
        """Answers the enriched input once everything it has seen is durable."""
        content_type(request, _ACCEPTED, default=b"application/json")
        body = await read_body(request, self._max_bytes)
        if len(body) <= _INLINE_BYTES:
            enriched, parse_ns, context_ns = self._work(body)
        else:
            enriched, parse_ns, context_ns = await self._runtime.ingest.run(partial(self._work, body))
        computed = perf_counter_ns()
        engine = self._engine
        seq = engine.seq  # at least what the context has seen
        if engine.durable_seq < seq:
            await self._runtime.durable.wait(seq)
        durable = perf_counter_ns()
        answer = Answer(orjson.dumps({"input": enriched}))
        self._serialize.observe(perf_counter_ns() - durable)
        self._durable.observe(durable - computed)
        self._context.observe(context_ns)
        self._parse.observe(parse_ns)
        return answer

    def _work(self, body: bytes) -> tuple[dict[str, Any], int, int]:
        started = perf_counter_ns()
        document, select = _unpack(strict_loads(body, max_bytes=self._max_bytes, max_depth=self._max_depth))
        parsed = perf_counter_ns()
        enriched = self._engine.enrich(document, select=select)
        return enriched, parsed - started, perf_counter_ns() - parsed


def _unpack(body: Any) -> tuple[dict[str, Any], list[str] | None]:
    if type(body) is not dict:
        raise BadRequestError(f"the body is {show(body)}, not an object", code="invalid_body")
    if not body.keys() <= _FIELDS:
        unknown = sorted(body.keys() - _FIELDS)[0]
        raise BadRequestError(f"no such field: {show(unknown)}", code="unknown_field", field=unknown[:80])
    document = body.get("input")
    if type(document) is not dict:
        if "input" not in body:
            raise BadRequestError("the body has no `input`", code="missing_input", field="input")
        raise BadRequestError(f"`input` is {show(document)}, not an object", code="invalid_input", field="input")
    select = body.get("select")
    if select is not None and (type(select) is not list or not all(type(entry) is str for entry in select)):
        raise BadRequestError(
            f"`select` is {show(select)}, not an array of strings", code="invalid_select", field="select"
        )
    return document, select
