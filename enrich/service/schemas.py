"""JSON Schemas of what goes over HTTP, for the OpenAPI document; the event's is made from its own columns."""

from __future__ import annotations

from typing import Any, Final, get_args

from enrich.decisions import Cause, DecisionName
from enrich.decisions.replay import REASONS
from enrich.events.model import (
    AUTHORITY_OUTCOMES,
    INT64_MAX,
    INT_COLUMNS,
    KINDS,
    MATERIALITIES,
    MAX_ATTRIBUTES,
    MAX_STRING,
    RUN_OUTCOMES,
    STRING_COLUMNS,
)
from enrich.suspensions import SCOPES

__all__ = ["components", "ref"]

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": MAX_STRING}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_REQUIRED: Final = ("source", "event_id", "occurred_at", "kind", "outcome")


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def components() -> dict[str, Schema]:
    """Every named schema."""
    return {
        "Event": _event(),
        "EventsAnswer": _object(
            {
                "accepted": _COUNT,
                "duplicates": _COUNT,
                "rejected": {"type": "array", "maxItems": 100, "items": ref("Rejection")},
                "rejected_count": _COUNT,
                "dropped_attributes": _COUNT,
                "seq": _COUNT
                | {"description": "every accepted and duplicate event of the request is visible from here on"},
            }
        ),
        "LogsAnswer": _object(
            {
                "accepted": _COUNT,
                "duplicates": _COUNT,
                "rejected": {"type": "array", "maxItems": 100, "items": ref("Rejection")},
                "rejected_count": _COUNT,
                "dropped_attributes": _COUNT,
                "seq": _COUNT | {"description": "every accepted and duplicate decision is visible from here on"},
                "ignored": _COUNT | {"description": "entries of paths that are no decisions"},
                "own": _COUNT | {"description": "entries of decisions that this engine made and counted"},
            }
        ),
        "Rejection": _object(
            {
                "index": _COUNT | {"description": "place in the array, or among the non-blank lines"},
                "code": {"type": "string"},
                "field": {"type": ["string", "null"]},
                "value": {"type": ["string", "null"]},
                "message": {"type": "string"},
            }
        ),
        "EventsPage": _object(
            {
                "events": {"type": "array", "items": {"type": "object"}},
                "next_cursor": {"type": ["string", "null"]},
                "seq": _COUNT,
            }
        ),
        "EnrichRequest": _object(
            {
                "input": {"type": "object", "description": "the policy's input, without `history`"},
                "select": {
                    "type": ["array", "null"],
                    "items": {"type": "string"},
                    "description": "what to compute: `agent.last_24h.failure_rate`, `team.*`; everything when absent",
                },
            },
            required=("input",),
        ),
        "EnrichAnswer": _object({"input": {"type": "object", "description": "the input with `history` put in"}}),
        "Entity": {
            "type": "object",
            "required": ["id", "known", "as_of", "seq", "status"],
            "properties": {
                "id": {"type": ["string", "array"]},
                "known": {"type": "boolean"},
                "as_of": {"type": "string", "format": "date-time"},
                "seq": _COUNT,
                "status": {"enum": ["fresh", "stale", "unavailable"]},
            },
        },
        "DecisionsPage": _object(
            {
                "decisions": {"type": "array", "items": {"type": "object"}},
                "next_cursor": {"type": ["string", "null"]},
                "seq": _COUNT,
            }
        ),
        "DecisionRecord": _decision_record(),
        "Replayed": _replayed(),
        "OutcomeRequest": _outcome(),
        "OutcomeAnswer": _object(
            {
                "decision_id": {"type": "string"},
                "outcome": {"enum": list(RUN_OUTCOMES)},
                "occurred_at": {"type": "string", "format": "date-time"},
                "seq": _COUNT | {"description": "of its record, and its event's"},
            }
        ),
        "Suspension": _object(
            {
                "scope": {"enum": list(SCOPES)},
                "id": {"type": "string"},
                "reason": {"type": "string"},
                "since": {"type": "string", "format": "date-time"},
                "until": {"type": "string", "format": "date-time", "description": "absent: until it is lifted"},
                "by": {"type": "string"},
                "seq": _COUNT | {"description": "absent: it acts in memory only"},
            },
            required=("scope", "reason", "since"),
        ),
        "SuspendRequest": _object(
            {
                "reason": {"type": "string", "minLength": 1, "maxLength": 500},
                "until": {"type": ["string", "null"], "format": "date-time"},
                "by": {"type": ["string", "null"], "maxLength": 200, "description": "who says so"},
            },
            required=("reason",),
        ),
        "SuspendAnswer": _object({"suspension": ref("Suspension"), "seq": _COUNT}),
        "LiftAnswer": _object({"lifted": ref("Suspension"), "seq": _COUNT}),
        "SuspensionAnswer": _object(
            {"suspension": ref("Suspension"), "as_of": {"type": "string", "format": "date-time"}, "seq": _COUNT}
        ),
        "SuspensionsAnswer": _object(
            {
                "suspensions": {"type": "array", "items": ref("Suspension")},
                "as_of": {"type": "string", "format": "date-time"},
                "seq": _COUNT,
            }
        ),
        "ReloadAnswer": _object(
            {
                "changed": {"type": "boolean"},
                "catalog": {"type": "string"},
                "policies": {"type": ["string", "null"]},
                "problems": {"type": "array", "items": {"type": "string"}},
            }
        ),
        "CheckAnswer": _object({"compared": _COUNT, "differences": {"type": "array", "items": {"type": "string"}}}),
        "Anchor": _object(
            {
                "journal_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
                "seq": _COUNT | {"description": "of the last durable record"},
                "hash": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                "at": {"type": "string", "format": "date-time", "description": "when that was recorded"},
            }
        ),
        "VerifyAnswer": {
            "type": "object",
            "required": ["ok", "problems"],
            "properties": {"ok": {"type": "boolean"}, "problems": {"type": "array", "items": {"type": "object"}}},
        },
        "Error": _object(
            {
                "error": _object(
                    {
                        "code": {"type": "string", "description": "stable; see the reference"},
                        "message": {"type": "string"},
                        "detail": {"type": "object"},
                    }
                )
            }
        ),
        "DataError": _object(
            {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "errors": {"type": "array", "items": {"type": "object"}},
            },
            required=("code", "message"),
        ),
    }


def _object(properties: dict[str, Schema], required: tuple[str, ...] | None = None) -> Schema:
    return {
        "type": "object",
        "required": list(properties if required is None else required),
        "properties": properties,
        "additionalProperties": False,
    }


def _replayed() -> Schema:
    verdict: Schema = {"enum": ["VALID", "INVALID", "INCONCLUSIVE"]}
    text_or_null: Schema = {"type": ["string", "null"]}
    reason = _object(
        {"code": {"enum": list(REASONS)}, "verdict": verdict, "message": {"type": "string"}},
        required=("code", "verdict", "message"),
    )
    return _object(
        {
            "decision_id": text_or_null | {"description": "null where the line can't be read any more"},
            "seq": _COUNT,
            "as_of": text_or_null,
            "path": text_or_null,
            "decision": text_or_null,
            "verdict": verdict,
            "reasons": {"type": "array", "items": reason | {"additionalProperties": True}},
            "checked": {"type": "array", "items": {"type": "string"}},
        }
    )


def _decision_record() -> Schema:
    digest: Schema = {"type": "string", "description": "`sha256:` and hex"}
    text_or_null: Schema = {"type": ["string", "null"]}
    record = _object(
        {
            "seq": _COUNT | {"description": "its place in the journal, and its event's"},
            "decision_id": {"type": "string"},
            "idempotency_key": text_or_null,
            "request_hash": digest | {"description": "of the canonical input as it was sent, and the path"},
            "caller": text_or_null | {"description": "a keyed hash of who asked"},
            "entities": {"type": "object", "description": "agent, team, workflow, org and approvers of the request"},
            "as_of": {"type": "string", "format": "date-time", "description": "the moment that was decided on"},
            "context_seq": _COUNT | {"description": "what its context has seen"},
            "path": {"type": "string"},
            "input": {"type": "object", "description": "enriched, as the policy saw it"},
            "input_hash": digest,
            "context_hash": digest | {"description": "of the history in the input"},
            "selection": {
                "type": ["array", "null"],
                "items": {"type": "string"},
                "description": "what of the history stands in the input, as `select` takes it; null: everything",
            },
            "catalog": digest,
            "policy_hash": digest,
            "settings_hash": digest | {"description": "of the settings that shape contexts and decisions"},
            "evaluator": _object({"name": {"type": "string"}, "version": {"type": "string"}}),
            "repeatable": {"type": "boolean", "description": "whether the policy says the same when asked again"},
            "strict_builtin_errors": {"type": "boolean", "description": "whether a built-in's error failed it"},
            "result": {"description": "what was answered"},
            "decision": {"enum": list(get_args(DecisionName))},
            "cause": {"enum": [None, *get_args(Cause)], "description": "why the policy's own answer does not stand"},
            "shadow": {
                "type": ["object", "null"],
                "description": "what shadow policies said: `policy_hash`, `evaluator`, `result`, `decision`, `cause`",
            },
            "event": ref("Event"),
            "redaction": {
                "type": ["object", "null"],
                "description": "`salt` of the hashes that stand for redacted values in `input`, and their `paths`",
            },
            "lease": {
                "type": ["integer", "null"],
                "description": "how long its action is in flight at most, in seconds; null in older records",
            },
            "suspensions": {"type": "array", "items": {"type": "object"}},
        }
    )
    record["properties"]["outcome"] = {"type": "object", "description": "what was reported, with seq, time and caller"}
    return record


def _outcome() -> Schema:
    counts = ("amount_minor", "cost_microusd", "duration_ms", "input_tokens", "output_tokens")
    properties: dict[str, Schema] = {"outcome": {"enum": list(RUN_OUTCOMES)}}
    properties |= {name: {"type": ["integer", "null"], "minimum": 0, "maximum": INT64_MAX} for name in counts}
    properties["currency"] = _TEXT | {"type": ["string", "null"], "description": "default: the one that was declared"}
    properties["error_type"] = _TEXT | {"type": ["string", "null"]}
    properties["occurred_at"] = {"type": ["string", "null"], "format": "date-time", "description": "default: now"}
    return _object(properties, required=("outcome",))


def _event() -> Schema:
    def nullable(schema: Schema, name: str) -> Schema:
        return schema if name in _REQUIRED else schema | {"type": [schema["type"], "null"]}

    properties: dict[str, Schema] = {
        "occurred_at": {
            "type": "string",
            "format": "date-time",
            "description": "when it happened; RFC 3339 with an offset, to the microsecond",
        }
    }
    for name in STRING_COLUMNS:
        properties[name] = nullable(_TEXT, name)
    properties["kind"] = {"type": "string", "enum": list(KINDS)}
    properties["outcome"] = {"type": "string", "enum": list(dict.fromkeys(RUN_OUTCOMES + AUTHORITY_OUTCOMES))}
    properties["materiality"] = {"enum": [*MATERIALITIES, None]}
    for name in INT_COLUMNS:
        properties[name] = {"type": ["integer", "null"], "minimum": 0, "maximum": INT64_MAX}
    properties["attributes"] = {
        "type": ["object", "null"],
        "maxProperties": MAX_ATTRIBUTES,
        "additionalProperties": {"type": ["string", "integer", "boolean"]},
        "description": "kept are the keys that the live catalog reads and those that the settings allow",
    }
    return _object(properties, _REQUIRED) | {
        "description": "One immutable fact. `source` and `event_id` together are its idempotency key; at least one of "
        "agent_id, team_id, workflow_id and org_id says whose history it belongs to."
    }
