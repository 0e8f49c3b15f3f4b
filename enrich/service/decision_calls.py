"""The calls that decide and those that read decisions, and what OpenAPI says of them."""

from __future__ import annotations

from typing import Any, Final, get_args

from enrich.decisions import DecisionName
from enrich.service.documentation import answer, body, operation, parameter, path_parameter
from enrich.service.routing import Call
from enrich.service.schemas import ref

__all__ = ["data_calls", "decision_calls"]

_ID: Final = "0b9c6a1e-6a55-4a9b-9a55-3f2f5b8f0c11"
_SHOWN: Final[dict[str, Any]] = {
    "seq": 184469,
    "decision_id": _ID,
    "as_of": "2026-11-20T10:00:00.000000Z",
    "path": "gantral/authority/decision",
    "decision": "DENY",
    "cause": "suspended",
    "agent": "payments-refunder-03",
    "team": "payments",
    "workflow": "refunds",
}
_REPLAYED: Final[dict[str, Any]] = {
    "decision_id": _ID,
    "seq": 184469,
    "as_of": "2026-11-20T10:00:00.000000Z",
    "path": "gantral/authority/decision",
    "decision": "DENY",
    "verdict": "INCONCLUSIVE",
    "reasons": [
        {
            "code": "history_pruned",
            "verdict": "INCONCLUSIVE",
            "message": "events of the time that the signals look at were let go of",
            "windows": ["agent.last_30d"],
        }
    ],
    "checked": ["line", "chain", "copy", "hashes", "record", "policy", "signals"],
}
_RECORD: Final[dict[str, Any]] = {
    "seq": 184469,
    "decision_id": _ID,
    "idempotency_key": None,
    "request_hash": "sha256:…",
    "caller": None,
    "entities": {
        "agent": "payments-refunder-03", "team": "payments", "workflow": "refunds", "org": None, "approvers": [],
    },
    "as_of": "2026-11-20T10:00:00.000000Z",
    "context_seq": 184468,
    "path": "gantral/authority/decision",
    "input": {"identity": {"actor_id": "payments-refunder-03"}, "history": {"suspended": True}},
    "input_hash": "sha256:…",
    "context_hash": "sha256:…",
    "selection": None,
    "catalog": "sha256:…",
    "policy_hash": "sha256:…",
    "settings_hash": "sha256:…",
    "evaluator": {"name": "embedded", "version": "regopy 1.3.0"},
    "strict_builtin_errors": False,
    "result": {"decision": "DENY"},
    "decision": "DENY",
    "cause": "suspended",
    "shadow": None,
    "event": {
        "source": "enrich",
        "event_id": _ID,
        "decision_id": _ID,
        "occurred_at": "2026-11-20T10:00:00.000000Z",
        "kind": "authority",
        "outcome": "denied",
        "agent_id": "payments-refunder-03",
    },
    "lease": 3600,
    "redaction": None,
    "suspensions": [],
}  # fmt: skip


def data_calls(example: dict[str, Any]) -> list[Call]:
    """OPA's Data API.

    Args:
        example: an input.
    """
    path = path_parameter("path", "the document's path; `%2F` stays inside a segment", "gantral/authority/decision")
    request = body(
        {
            "application/json": ({"type": "object", "properties": {"input": {}}}, {"input": {"input": example}}),
            "application/yaml": (
                {"type": "string"},
                {"input": "input:\n  identity: {actor_id: payments-refunder-03}\n"},
            ),
        },
        required=False,
    )
    bare = body({"application/json": ({"type": "object"}, {"input": example})}, required=False)
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "of a decision: 1 to 200 printable characters; within 24 h the same request of the same caller "
        "gets the recorded answer again, counted once",
        "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    }
    asked = [
        parameter("pretty", "indent the answer", enum=["true", "false"]),
        parameter("strict-builtin-errors", "an error in a built-in is an error of the request", enum=["true", "false"]),
        parameter("metrics", "add how long evaluation took", enum=["true", "false"]),
        parameter("provenance", "add the version, and the revision of the policies", enum=["true", "false"]),
        parameter("instrument", "the same as `metrics`", enum=["true", "false"]),
        parameter("dry_run", "decide, and leave no trace: nothing is recorded or counted", enum=["true", "false"]),
        key,
    ]
    given = parameter("input", "the input as JSON, percent-encoded", '{"identity":{"actor_id":"payments-refunder-03"}}')
    refusals = {
        400: "`invalid_parameter`, `invalid_gzip`, `history_forged`, `invalid_entity_id`, `number_not_exact`, "
        "`decision_path_required`, `missing_agent`, `invalid_idempotency_key`, `invalid_declaration`",
        404: "`undefined_document` (v0), `no_policies`",
        409: "`idempotency_conflict`: another request was decided under that key",
        504: "`evaluation_timeout`: the policies took longer than one evaluation may",
        413: "`body_too_large`: more bytes than `max_input_bytes`",
        415: "`unsupported_media_type`",
    }
    about = (
        "OPA's Data API on the enriched input: what a client of OPA sends stays as it is. A decision (setting "
        "`decision_paths`) goes through the gate: it is recorded under `decision_id`, counts at once, and its answer "
        "leaves when its record is durable. Where it can't be made it is a refusal in the path's own shape, and "
        "`warning.code` says why. What lies above or below a decision is refused; other documents are answered, "
        "neither recorded nor counted."
    )
    result = answer(
        "The document, or nothing when it is undefined.",
        {"type": "object"},
        {"decision_id": _ID, "result": {"decision": "ALLOW"}},
    )
    document = answer("The bare document.", {}, {"decision": "ALLOW"})

    def data(summary: str, answers: dict[str, Any], **more: Any) -> dict[str, Any]:
        return operation("decisions", summary, about, answers=answers, refusals=refusals, data_api=True, **more)

    return [
        Call(
            "GET", "/v1/data/{path}", "get_data", "decide",
            data("Evaluate with `?input=`", result, parameters=[path, given, *asked]), data_api=True,
        ),
        Call(
            "POST", "/v1/data/{path}", "post_data", "decide",
            data("Evaluate", result, parameters=[path, *asked], request=request), data_api=True,
        ),
        Call(
            "GET", "/v1/data", "get_data_root", "decide",
            data("Evaluate the whole of `data` with `?input=`", result, parameters=[given, *asked]), data_api=True,
        ),
        Call(
            "POST", "/v1/data", "post_data_root", "decide",
            data("Evaluate the whole of `data`", result, parameters=asked, request=request), data_api=True,
        ),
        Call(
            "POST", "/v0/data/{path}", "post_data_v0", "decide",
            data("Evaluate, bare", document, parameters=[path, *asked], request=bare), data_api=True,
        ),
        Call(
            "POST", "/v0/data", "post_data_v0_root", "decide",
            data("Evaluate the whole of `data`, bare", document, parameters=asked, request=bare), data_api=True,
        ),
        Call(
            "POST", "/", "post_root", "decide",
            data("Evaluate the default decision", document, parameters=asked, request=bare), data_api=True,
        ),
    ]  # fmt: skip


def decision_calls() -> list[Call]:
    """The list of decisions, one whole record, and whether it still stands."""
    listed = operation(
        "decisions",
        "Decisions that were made",
        "A page of decisions, newest first, at a stated `seq` that is at least the durable one at arrival.",
        parameters=[
            parameter("agent", "only about this agent", "payments-refunder-03"),
            parameter("team", "only about this team"),
            parameter("workflow", "only about this workflow"),
            parameter("org", "only about this org"),
            parameter("decision", "only these", "DENY", enum=list(get_args(DecisionName))),
            parameter("path", "only of this decision path", "gantral/authority/decision"),
            parameter("shadow", "only those where the shadow policies decide so", enum=["agrees", "differs"]),
            parameter("since", "as_of at or after, RFC 3339", "2026-11-20T00:00:00Z", format="date-time"),
            parameter("until", "as_of at or before, RFC 3339", format="date-time"),
            parameter("cursor", "`next_cursor` of the page before"),
            parameter("limit", "decisions per page", 10, type="integer", minimum=1, maximum=1000, default=100),
        ],
        answers=answer(
            "A page.", ref("DecisionsPage"), {"decisions": [_SHOWN], "next_cursor": None, "seq": 184469}
        ),
        refusals={
            400: "`unknown_parameter`, `repeated_parameter`, `invalid_parameter`, `invalid_time`, `invalid_cursor`, "
            "`invalid_utf8`"
        },
    )
    one = operation(
        "decisions",
        "A decision's record",
        "All that was written down before the answer left: the enriched input that the policy saw, byte for byte in "
        "canonical form, its hashes, what it was decided with, and the event that counts it.",
        parameters=[path_parameter("id", "the decision's id", _ID)],
        answers=answer("The record.", ref("DecisionRecord"), _RECORD),
        refusals={400: "`unknown_parameter`, `invalid_utf8`", 404: "`unknown_decision`, `no_such_path`"},
    )
    replay = operation(
        "decisions",
        "Replay a decision",
        "Reads the decision's line in the journal's files anew: line, chain and hashes, the record against itself, the "
        "policy asked again on the recorded input, and the signals computed again by the definitions' own SQL from the "
        "events known then. VALID, INVALID or INCONCLUSIVE, with reasons.",
        parameters=[path_parameter("id", "the decision's id", _ID)],
        answers=answer("The verdict.", ref("Replayed"), _REPLAYED),
        refusals={
            400: "`unknown_parameter`, `invalid_utf8`, `unexpected_body`",
            404: "`unknown_decision`, `no_such_path`",
        },
    )
    outcome = operation(
        "decisions",
        "How a decision's action ended",
        "Settles what is in flight: the action's `execution` event becomes visible in the very step in which it is no "
        "longer in flight. `cancelled` lets go of it: nothing was moved, nothing did cost. The decision was ALLOW, "
        "REQUIRE_HUMAN, or a DENY that a human overrode; its lease may be over. The same report again gets the same "
        "answer. Report the outcome or send an `execution` event with that decision_id, not both.",
        parameters=[path_parameter("id", "the decision's id", _ID)],
        request=body(
            {
                "application/json": (
                    ref("OutcomeRequest"),
                    {
                        "it did": {"outcome": "succeeded", "amount_minor": 40000, "cost_microusd": 5400},
                        "it will not": {"outcome": "cancelled"},
                    },
                )
            }
        ),
        answers=answer(
            "Settled.",
            ref("OutcomeAnswer"),
            {"decision_id": _ID, "outcome": "succeeded", "occurred_at": "2026-11-20T10:00:42.000000Z", "seq": 184471},
        ),
        refusals={
            400: "`missing_field`, `unknown_field`, `invalid_outcome`, `cancelled_with_amount`, `wrong_type`, "
            "`out_of_range`, `invalid_string`, `invalid_time`, `in_future`, `too_old`, or a body that is no exact JSON",
            404: "`unknown_decision`, `no_such_path`",
            409: "`already_settled`, `already_ended`, `not_allowed`",
            413: "`body_too_large`",
            415: "`unsupported_media_type`",
        },
    )
    return [
        Call("GET", "/v1/decisions", "decisions", "read", listed),
        Call("GET", "/v1/decisions/{id}", "decision", "read", one),
        Call("POST", "/v1/decisions/{id}/replay", "replay", "read", replay),
        Call("POST", "/v1/decisions/{id}/outcome", "outcome", "decide", outcome),
    ]
