"""Every call of the service: method, path, scope, and what OpenAPI says of it."""

from __future__ import annotations

import json
from typing import Any, Final

from enrich.service.backtest_calls import backtest_calls
from enrich.service.decision_calls import data_calls, decision_calls
from enrich.service.decision_log_calls import log_calls
from enrich.service.documentation import answer, body, operation, parameter, path_parameter
from enrich.service.routing import Call
from enrich.service.schemas import ref
from enrich.service.suspension_calls import suspension_calls

__all__ = ["calls"]

_EVENT: Final[dict[str, Any]] = {
    "source": "ci",
    "event_id": "run-4711",
    "occurred_at": "2026-11-20T09:30:00Z",
    "kind": "execution",
    "outcome": "failed",
    "agent_id": "payments-refunder-03",
    "team_id": "payments",
    "workflow_id": "refunds",
    "duration_ms": 1840,
    "error_type": "timeout",
}
_EVENT_2: Final = _EVENT | {"event_id": "run-4712", "outcome": "succeeded"}
_INPUT: Final[dict[str, Any]] = {
    "instance": {"instance_id": "i-1", "workflow_id": "refunds", "owning_team_id": "payments", "materiality": "HIGH"},
    "identity": {"actor_id": "payments-refunder-03", "roles": ["refunder"]},
}
_HISTORY: Final[dict[str, Any]] = {
    "agent": {
        "id": "payments-refunder-03",
        "known": True,
        "last_24h": {"complete": True, "executions": 2, "failures": 1},
    },
    "suspended": False,
    "suspensions": [],
    "as_of": "2026-11-20T10:00:00.000000Z",
    "seq": 2,
    "status": "fresh",
    "lag_seconds": None,
    "observed_since": "2026-11-20T09:30:00.000000Z",
    "catalog": "sha256:…",
}
_VERIFIED: Final[dict[str, Any]] = {
    "ok": True,
    "problems": [],
    "journal_id": "6f1b…",
    "head_seq": 184467,
    "head_hash": "9c2f…",
    "segments": 2,
    "records": 9120,
    "events": 184460,
    "sidecars": 12,
    "torn_bytes": 0,
    "unnamed_sidecars": 0,
    "anchors": 1,
    "anchor_problems": [],
}
_ANCHOR: Final[dict[str, Any]] = {
    "journal_id": "6f1b0d52a8c94e7fb3d1c0a95e2f4c11",
    "seq": 184467,
    "hash": "9c2f6f0cbb2c1c5dfb8ad4a4a3d3b64a2e4f0f0f5b0f6d8bb1f7c0a1e5a4d2c3",
    "at": "2026-11-20T10:00:00.123456Z",
}
_BODY_REFUSALS: Final = {
    400: "`invalid_json`, `duplicate_key`, `too_deep`, `invalid_utf8`, `number_not_finite`, `number_not_exact`",
    413: "`body_too_large`: more bytes than `max_body_bytes`",
    415: "`unsupported_media_type`",
}
_QUERY_REFUSALS: Final = {
    400: "`unknown_parameter`, `repeated_parameter`, `invalid_parameter`, `invalid_time`, `invalid_utf8`"
}
_AS_OF: Final = parameter(
    "as_of",
    "the moment to answer for, RFC 3339; needs scope `as_of`; now when absent",
    "2026-11-20T10:00:00Z",
    format="date-time",
)


def calls() -> list[Call]:
    """The service's calls, in the order of the reference."""
    return [
        *_event_calls(),
        *_enrich_calls(),
        *data_calls(_INPUT),
        *decision_calls(),
        *backtest_calls(),
        *_entity_calls(),
        *suspension_calls(),
        *_operator_calls(),
    ]


def _event_calls() -> list[Call]:
    event, array = ref("Event"), {"type": "array", "maxItems": 10_000, "items": ref("Event")}
    post = operation(
        "events",
        "Record events",
        "One event, an array, or NDJSON. A bad event is one entry of `rejected`, its neighbours are kept; a body that "
        "is no JSON stores nothing, while a bad NDJSON line is one rejected entry. Up to `max_request_events` are "
        "one record, all or nothing; up to ten times as many are several, and a retry finds the earlier ones as "
        "duplicates. The answer leaves when every event is durable, and visible to every context from then on.",
        request=body(
            {
                "application/json": (
                    {"oneOf": [event, array]},
                    {"one": _EVENT, "several": [_EVENT, _EVENT_2]},
                ),
                "application/x-ndjson": (
                    {"type": "string", "description": "one event per line"},
                    {"two": _lines(_EVENT, _EVENT_2)},
                ),
            }
        ),
        answers=answer(
            "What became of the events.",
            ref("EventsAnswer"),
            {
                "accepted": 1,
                "duplicates": 0,
                "rejected": [
                    {
                        "index": 1,
                        "code": "invalid_outcome",
                        "field": "outcome",
                        "value": "broken",
                        "message": "outcome `broken` is no outcome of execution: succeeded, failed, timed_out, "
                        "cancelled",
                    }
                ],
                "rejected_count": 1,
                "dropped_attributes": 0,
                "seq": 184467,
            },
        ),
        refusals=_BODY_REFUSALS | {413: "`too_many_events`, `body_too_large`: split the request"},
    )
    get = operation(
        "events",
        "Events behind the numbers",
        "A page of events, newest first, at a stated `seq` that is at least the durable one at arrival.",
        parameters=[
            parameter("agent", "only this agent's", "payments-refunder-03"),
            parameter("team", "only this team's"),
            parameter("workflow", "only this workflow's"),
            parameter("org", "only this org's"),
            parameter("approver", "only what this human or system decided"),
            parameter("kind", "only this kind", "execution", enum=["execution", "step", "authority"]),
            parameter("outcome", "only this outcome"),
            parameter("since", "occurred_at at or after, RFC 3339", "2026-11-20T00:00:00Z", format="date-time"),
            parameter("until", "occurred_at at or before, RFC 3339", format="date-time"),
            parameter("cursor", "`next_cursor` of the page before"),
            parameter("limit", "events per page, 1 to 1000", 10, type="integer", minimum=1, maximum=1000, default=100),
        ],
        answers=answer("A page.", ref("EventsPage"), {"events": [_EVENT | {"seq": 2}], "next_cursor": None, "seq": 2}),
        refusals=_QUERY_REFUSALS,
    )
    return [
        Call("POST", "/v1/events", "post_events", "ingest", post),
        Call("GET", "/v1/events", "get_events", "read", get),
        *log_calls(),
    ]


def _lines(*events: dict[str, Any]) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


def _enrich_calls() -> list[Call]:
    documentation = operation(
        "decisions",
        "Enrich an input",
        "Puts `history` into a policy's input. Everything in it comes from one snapshot: one as_of, one seq, one "
        "catalog; the answer leaves when what it has seen is durable. With `select`, only what is named is computed.",
        request=body(
            {
                "application/json": (
                    ref("EnrichRequest"),
                    {
                        "everything": {"input": _INPUT},
                        "selected": {"input": _INPUT, "select": ["agent.last_24h.failure_rate", "team.*"]},
                    },
                )
            }
        ),
        answers=answer("The input with `history`.", ref("EnrichAnswer"), {"input": _INPUT | {"history": _HISTORY}}),
        refusals=_BODY_REFUSALS
        | {
            400: "`history_forged`, `invalid_entity_id`, `missing_input`, `invalid_input`, `invalid_select`, "
            "`unknown_signal`, `unknown_field`, or a body that is no exact JSON",
            413: "`body_too_large`: more bytes than `max_input_bytes`",
        },
    )
    return [Call("POST", "/v1/enrich", "enrich", "decide", documentation)]


def _entity_calls() -> list[Call]:
    entity = path_parameter("entity", "agent, team, workflow, org, approver, or a pair such as agent_workflow", "agent")
    first = path_parameter("id", "percent-encoded", "payments-refunder-03")
    pair = path_parameter("entity", "a pair, such as agent_workflow", "agent_workflow")
    second = path_parameter("id2", "percent-encoded", "refunds")
    about = (
        "The entity's object as it stands under `history.<entity>`, plus as_of, seq and status. Ids are "
        "percent-decoded per segment. An id without any event is `known: false`, with zero counts."
    )
    what = "what to compute of this entity, separated by commas; everything when absent"
    example = _HISTORY["agent"] | {"as_of": _HISTORY["as_of"], "seq": 2, "status": "fresh"}
    refusals = _QUERY_REFUSALS | {
        400: "`invalid_entity_id`, `invalid_time`, `invalid_select`, `unknown_signal`, `unknown_parameter`, "
        "`repeated_parameter`, `invalid_utf8`",
        404: "`unknown_entity`: no signals are kept for it",
    }

    def documentation(summary: str, select: str, *path: dict[str, Any]) -> dict[str, Any]:
        return operation(
            "entities", summary, about,
            parameters=[*path, _AS_OF, parameter("select", what, select)],
            answers=answer("The entity.", ref("Entity"), example), refusals=refusals,
        )  # fmt: skip

    schema = operation(
        "signals",
        "JSON Schema of the enriched input",
        "Of the input it says only what is in the history; other fields are the caller's. `opa check -s` takes every "
        "field beside one that a schema names for a mistake: give it the schema at `properties.history` alone, as "
        "`history.json` in a directory, and annotate the package with `schemas: [input.history: schema.history]`.",
        answers=answer(
            "The schema.",
            {"type": "object"},
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "title": "input",
                "type": "object",
                "required": ["history"],
                "properties": {"history": {"type": "object"}},
            },
        ),
        refusals={400: "`unknown_parameter`"},
    )
    signals = operation(
        "signals",
        "The catalog",
        "Every signal set that is live: its signals with type and documentation, windows, parameters, owner, version.",
        answers=answer("The catalog.", {"type": "object"}, {"version": "sha256:…", "sets": []}),
        refusals={400: "`unknown_parameter`"},
    )
    sql = operation(
        "signals",
        "A signal set as SQL",
        "Prelude and query to paste into DuckDB: the same signals, for one entity and window, over the events.",
        parameters=[
            path_parameter("set", "a signal set", "agent_reliability"),
            parameter("id", "the entity's id", "payments-refunder-03", required=True),
            parameter("id2", "a pair's second id"),
            parameter("window", "one of the set's windows", "24h"),
            parameter("as_of", "the window's end, RFC 3339; now when absent", format="date-time"),
        ],
        answers=answer(
            "The SQL.",
            {"type": "object", "required": ["sql"], "properties": {"sql": {"type": "string"}}},
            {"sql": "SELECT …"},
        ),
        refusals={400: "`missing_parameter`, `unknown_window`, `invalid_time`", 404: "`unknown_set`"},
    )
    return [
        Call(
            "GET", "/v1/entities/{entity}/{id}", "entity", "read",
            documentation("An entity", "agent.last_24h.*", entity, first),
        ),
        Call(
            "GET", "/v1/entities/{entity}/{id}/{id2}", "entity_pair", "read",
            documentation("A pair of entities", "agent_workflow.last_24h.*", pair, first, second),
        ),
        Call("GET", "/v1/signals", "signals", "read", signals),
        Call("GET", "/v1/signals/schema.json", "signals_schema", "read", schema),
        Call("GET", "/v1/signals/{set}/sql", "signals_sql", "read", sql),
    ]  # fmt: skip


def _operator_calls() -> list[Call]:
    reload = operation(
        "operations",
        "Reload definitions and policies",
        "Loads both directories again. What does not compile, or differs from DuckDB on the history at hand, leaves "
        "the old version live, and shows in readiness and metrics.",
        answers=answer(
            "What is live now.",
            ref("ReloadAnswer"),
            {"changed": True, "catalog": "sha256:…", "policies": "sha256:…", "problems": []},
        ),
        refusals={400: "`reload_refused`: `detail.problems` says why"},
    )
    check = operation(
        "operations",
        "Compare the live definitions with DuckDB",
        "Computes the live signals of a sample of entities and moments twice, compiled and in DuckDB.",
        answers=answer("What was compared, and what differs.", ref("CheckAnswer"), {"compared": 96, "differences": []}),
        refusals={},
    )
    verify = operation(
        "operations",
        "Verify the journal",
        "Reads the whole journal in a process of its own: chain, bodies, sidecars, manifests. One at a time. With "
        "anchors in the body, it has to have those very records.",
        request=body(
            {
                "application/json": (
                    {"type": "object", "properties": {"anchors": {"type": "array", "items": ref("Anchor")}}},
                    {"anchored": {"anchors": [_ANCHOR]}},
                )
            },
            required=False,
        ),
        answers=answer("What was verified.", ref("VerifyAnswer"), _VERIFIED),
        refusals={
            400: "`invalid_anchor`, `unexpected_body`, or a body that is no JSON",
            413: "`body_too_large`: more than 1 MiB",
        },
    )
    anchor = operation(
        "operations",
        "The journal's head, to keep elsewhere",
        "The last durable record. Kept where whoever can write the data directory can't, it shows later that the "
        "journal was replaced or cut: `enrich journal verify --anchor`, setting `anchors`.",
        answers=answer("The anchor.", ref("Anchor"), _ANCHOR),
        refusals={400: "`nothing_recorded`, `unknown_parameter`"},
    )
    health = operation(
        "operations",
        "OPA's health",
        "An empty object once every answer can be exact.",
        answers=answer("Healthy.", {"type": "object"}, {}),
        refusals={},
        public=True,
    )
    live = operation(
        "operations",
        "Liveness",
        "The process answers.",
        answers=answer("Live.", {"type": "object"}, {"status": "live"}),
        refusals={},
        public=True,
    )
    ready = operation(
        "operations",
        "Readiness",
        "Ready when every answer can be exact; warnings, such as a refused reload, do not make it false. "
        "They are counted by code: `definitions_refused`, `history_not_following`, `maintenance_failed`; their texts "
        "stand in the log, and those of a reload in its answer.",
        answers=answer("Ready.", {"type": "object"}, {"status": "ready", "warnings": []}),
        refusals={},
        public=True,
    )
    metrics = operation(
        "operations",
        "Metrics",
        "Prometheus: latency per stage, queue depths, seqs, events, refusals by code, reloads, the index.",
        answers=answer("Metrics.", {"type": "string"}, "enrich_seq 184467.0\n", "text/plain"),
        refusals={},
    )
    openapi = operation(
        "operations",
        "This document",
        "OpenAPI 3.1.",
        answers=answer("The document.", {"type": "object"}, {"openapi": "3.1.0"}),
        refusals={},
        public=True,
    )
    return [
        Call("POST", "/v1/reload", "reload", "admin", reload),
        Call("POST", "/v1/check", "check", "admin", check),
        Call("POST", "/v1/journal/verify", "journal_verify", "admin", verify),
        Call("GET", "/v1/journal/anchor", "journal_anchor", "read", anchor),
        Call("GET", "/health", "health", None, health),
        Call("GET", "/health/live", "health_live", None, live),
        Call("GET", "/health/ready", "health_ready", None, ready),
        Call("GET", "/metrics", "metrics", "admin", metrics),
        Call("GET", "/openapi.json", "openapi", None, openapi),
    ]
