"""`POST /v1/events` and `GET /v1/events`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from enrich.engine.results import RecordResult
from enrich.errors import BadRequestError, PayloadTooLargeError, show
from enrich.events.files import decode_ndjson
from enrich.events.json import strict_loads
from enrich.service.answers import json_answer
from enrich.service.requests import content_type, limit_of, query, read_body
from enrich.service.runtime import Runtime

__all__ = ["EventRoutes"]

_JSON: Final = b"application/json"
_NDJSON: Final = b"application/x-ndjson"
_ACCEPTED: Final = (_JSON, _NDJSON)
#: up to this many bytes a body is parsed and recorded on the loop: a hop to a thread costs more than it does
_INLINE_BYTES: Final = 8192
#: an event is flat but for its attributes, and stands in an array; deeper ones are refused one by one up to here
_MAX_DEPTH: Final = 16
_FILTERS: Final = ("agent", "team", "workflow", "org", "approver", "kind", "outcome")
_PARAMETERS: Final = (*_FILTERS, "since", "until", "cursor", "limit")
#: records that one body may become: past them it is refused unread, since a body of events that are none is all cost
_MAX_RECORDS: Final = 10


class EventRoutes:
    """Events in, and the events behind the numbers out."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._engine = runtime.engine
        self._max_bytes = runtime.settings.max_body_bytes
        self._max_events = _MAX_RECORDS * runtime.settings.max_request_events
        stage = runtime.metrics.stage
        self._parse, self._durable = stage("post_events", "parse"), stage("post_events", "durable")
        self._counts = runtime.metrics.events

    async def post(self, request: Request) -> Response:
        """Records the events of one body; answers once they are durable."""
        kind = content_type(request, _ACCEPTED, default=_JSON)
        body = await read_body(request, self._max_bytes)
        started = perf_counter_ns()
        if len(body) <= _INLINE_BYTES:
            done = self._runtime.together.add(self._events(kind, body))
        else:
            done = self._runtime.records.future()
            await self._runtime.ingest.run(lambda: self._submit(kind, body, done))
        submitted = perf_counter_ns()
        self._parse.observe(submitted - started)
        result = await done
        self._durable.observe(perf_counter_ns() - submitted)
        counts = self._counts
        counts["accepted"] += result.accepted
        counts["duplicate"] += result.duplicates
        counts["rejected"] += result.rejected_count
        return json_answer(result.body())

    def _submit(self, kind: bytes, body: bytes, done: asyncio.Future[RecordResult]) -> None:
        """Parses and submits; `done` completes once everything is durable."""
        complete = self._runtime.records.complete
        self._engine.submit(self._events(kind, body), lambda outcome: complete(done, outcome))

    def _events(self, kind: bytes, body: bytes) -> Sequence[Any]:
        events = self._lines(body) if kind == _NDJSON else self._document(body)
        if len(events) > self._max_events:
            raise _too_many(len(events), self._max_events)
        return events

    def _document(self, body: bytes) -> Sequence[Any]:
        document = strict_loads(body, max_bytes=self._max_bytes, max_depth=_MAX_DEPTH, check=self._refuse_too_many)
        if type(document) is list:
            return document
        if type(document) is dict:
            return (document,)
        raise BadRequestError(
            f"the body is {show(document)}, neither an event nor an array of events", code="invalid_events"
        )

    def _refuse_too_many(self, document: Any) -> None:
        if type(document) is list and len(document) > self._max_events:
            raise _too_many(len(document), self._max_events)

    def _lines(self, body: bytes) -> Sequence[Any]:
        """One entry per non-blank line; one that does not parse is refused in its place, its neighbours are kept."""
        if body.count(b"\n") > self._max_events:
            count = sum(1 for line in body.split(b"\n") if line and not line.isspace())
            if count > self._max_events:  # before any is decoded
                raise _too_many(count, self._max_events)
        return decode_ndjson(body)

    async def get(self, request: Request) -> Response:
        """A page of events, newest first."""
        given = query(request, _PARAMETERS)
        limit = limit_of(given.get("limit"))
        since, until = given.get("since"), given.get("until")
        filters = {name: given[name] for name in _FILTERS if name in given}
        page = await self._runtime.reads.run(
            lambda: self._engine.events(since=since, until=until, cursor=given.get("cursor"), limit=limit, **filters)
        )
        return json_answer({"events": page.events, "next_cursor": page.next_cursor, "seq": page.seq})


def _too_many(count: int, most: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"{count} events, at most {most} in one request",
        code="too_many_events",
        hint="send them in several requests; what was sent twice is counted as duplicate",
        events=count,
        max_events=most,
    )
