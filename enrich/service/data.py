"""OPA's Data API with history injected: `/v1/data`, `/v0/data`, `POST /`.

What a request means and how an answer looks is `enrich.decisions.data_api`'s; here it is carried over HTTP.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from time import monotonic, perf_counter_ns
from typing import Any, Final, Literal
from urllib.parse import parse_qs

import orjson
from starlette.requests import Request
from starlette.responses import Response

from enrich.decisions import data_api
from enrich.engine.results import Decision, Evaluation
from enrich.errors import BadRequestError, show
from enrich.events.json import strict_loads
from enrich.service.answers import JSON, Answer
from enrich.service.requests import header, read_body, unpacked
from enrich.service.runtime import Runtime

__all__ = ["DataRoutes"]

_MAX_PARAMETERS: Final = 64
_VERSION: Final = version("enrich")
#: what was asked, and how long it took to read
_Read = tuple[data_api.DataQuery | data_api.Redirect, int]


class DataRoutes:
    """A document of the policies, asked for with an enriched input; decisions go through the gate."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._engine = runtime.engine
        settings = runtime.settings
        self._max_bytes = settings.max_input_bytes
        self._loads = partial(strict_loads, max_bytes=settings.max_input_bytes, max_depth=settings.max_json_depth)
        self._loads_yaml = partial(
            data_api.yaml_loads,
            max_bytes=min(settings.max_input_bytes, data_api.MAX_YAML_BYTES),
            max_depth=settings.max_json_depth,
        )
        self._deadline_seconds = settings.deadline_ms / 1000
        self._decisions, self._shadow = runtime.metrics.decisions, runtime.metrics.shadow
        stage = runtime.metrics.stage
        self._stages = {name: stage("decide", name) for name in ("lock", "context", "evaluate", "shadow", "order")}
        self._parse, self._evaluate = stage("data", "parse"), stage("data", "evaluate")
        self._durable, self._serialize = stage("data", "durable"), stage("data", "serialize")

    async def answer(self, request: Request) -> Response:
        """Every call of the Data API: parsed and evaluated on a thread, answered once what was seen is durable."""
        body = await read_body(request, self._max_bytes)
        arrived = monotonic()
        kind = (header(request, b"content-type") or b"").decode("latin-1").lower()
        read = partial(self._read, request, kind, body)
        if "yaml" in kind and body:  # slow to read: it must not keep others from being decided
            read = partial(_given, await self._runtime.ingest.run(read))
        key, caller = _idempotency_key(request), self._runtime.access.caller(request)
        work = await self._runtime.evaluations.run(
            partial(self._work, read, key=key, caller=caller, deadline=arrived + self._deadline_seconds)
        )
        if isinstance(work, data_api.Redirect):
            return self._redirect(work, request)
        query, answered, parse_ns, evaluate_ns = work
        evaluated = perf_counter_ns()
        # at least what the context has seen; of a decision, its record too
        seq = answered.seq if isinstance(answered, Decision) else self._engine.seq
        if self._engine.durable_seq < seq:
            await self._runtime.durable.wait(seq)
        durable = perf_counter_ns()
        timers = {"timer_rego_input_parse_ns": parse_ns, "timer_rego_query_eval_ns": evaluate_ns}
        answer = data_api.answer(
            query,
            answered.outcome,
            decision_id=answered.decision_id if isinstance(answered, Decision) else str(uuid.uuid4()),
            metrics=timers,
            warning=answered.verdict.warning if isinstance(answered, Decision) else None,
            dry_run=isinstance(answered, Decision) and answered.fate == "dry_run",
            provenance=data_api.provenance(_VERSION, answered.provenance) if query.provenance else None,
        )
        response = Answer(
            orjson.dumps(answer.body, option=orjson.OPT_INDENT_2 if query.pretty else None), answer.status
        )
        self._serialize.observe(perf_counter_ns() - durable)
        self._durable.observe(durable - evaluated)
        self._evaluate.observe(evaluate_ns)
        self._parse.observe(parse_ns)
        if isinstance(answered, Decision):
            self._count(answered)
        return response

    def _count(self, decision: Decision) -> None:
        self._decisions[decision.fate, decision.decision, decision.cause or ""] += 1
        shadow = decision.shadow
        if shadow is not None:
            self._shadow[decision.decision, shadow.decision or "", shadow.cause or ""] += 1
        for stage, duration_ns in decision.stages_ns.items():
            self._stages[stage].observe(duration_ns)

    def _read(self, request: Request, kind: str, body: bytes) -> _Read:
        started = perf_counter_ns()
        method: Literal["GET", "POST"] = "POST" if request.method == "POST" else "GET"
        query = data_api.read(
            method,
            request.scope["raw_path"].decode("ascii"),
            _parameters(request.scope["query_string"]),
            kind,
            unpacked(request, body, self._max_bytes),
            loads=self._loads,
            loads_yaml=self._loads_yaml,
        )
        return query, perf_counter_ns() - started

    def _work(
        self, read: Callable[[], _Read], **options: Any
    ) -> data_api.Redirect | tuple[data_api.DataQuery, Decision | Evaluation, int, int]:
        query, parse_ns = read()
        if isinstance(query, data_api.Redirect):
            return query
        parsed = perf_counter_ns()
        answered = self._decide(query, **options)
        return query, answered, parse_ns, perf_counter_ns() - parsed

    def _decide(
        self, query: data_api.DataQuery, *, key: str | None, caller: str, deadline: float
    ) -> Decision | Evaluation:
        document: Any = query.input
        if document is data_api.ABSENT:  # nobody to have a history: `input` stays undefined, as OPA has it
            document = None
        elif not isinstance(document, Mapping):
            raise BadRequestError(
                f"the input is {show(document)}, not an object",
                code="invalid_parameter",
                hint="history is put into the input, so it must be an object",
            )
        return self._engine.decide(
            query.path,
            document,
            idempotency_key=key,
            caller=caller,
            deadline=deadline,
            strict_builtin_errors=query.strict,
            dry_run=query.dry_run,
            wait=False,
        )

    def _redirect(self, redirect: data_api.Redirect, request: Request) -> Response:
        location = redirect.location.encode("ascii")
        if request.scope["query_string"]:
            location += b"?" + request.scope["query_string"]
        return Answer(b"{}", redirect.status, JSON, [(b"location", location)])


def _idempotency_key(request: Request) -> str | None:
    """The header's value; what a key may be is the gate's to say."""
    found = [bytes(value) for name, value in request.scope["headers"] if name == b"idempotency-key"]
    if len(found) > 1:
        raise BadRequestError("`Idempotency-Key` stands twice", code="invalid_idempotency_key")
    return found[0].decode("utf-8", "surrogateescape") if found else None


def _given(read: _Read) -> _Read:
    return read


def _parameters(query: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS)
    except ValueError as error:  # not UTF-8 once decoded, or too many
        raise BadRequestError("the query is malformed", code="invalid_parameter") from error
