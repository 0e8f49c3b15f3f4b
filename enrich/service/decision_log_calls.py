"""What OpenAPI says of `POST /v1/logs`."""

from __future__ import annotations

from typing import Any, Final

from enrich.service.documentation import answer, body, operation, path_parameter
from enrich.service.routing import Call
from enrich.service.schemas import ref

__all__ = ["log_calls"]

_ENTRY: Final[dict[str, Any]] = {
    "labels": {"id": "2b5e8a4e-2f6b-4d2e-9a53-0f8b2ff0a6cd", "version": "1.22.2"},
    "decision_id": "4ca636c1-55e4-417a-b1d8-4aceb67960d1",
    "path": "gantral/authority/decision",
    "input": {
        "identity": {"actor_id": "payments-refunder-03"},
        "instance": {"instance_id": "i-1", "owning_team_id": "payments", "workflow_id": "refunds"},
    },
    "result": {"decision": "ALLOW"},
    "timestamp": "2026-11-20T09:59:58.123456789Z",
}


def log_calls() -> list[Call]:
    """The call, and the same with the partition that OPA may append."""

    def documentation(*parameters: dict[str, Any]) -> dict[str, Any]:
        return operation(
            "events",
            "Decisions that OPA made elsewhere",
            "OPA's decision-log API: an array of entries, `gzip` or plain. Each decision (setting `decision_paths`) "
            "becomes an `authority` event of source `opa`, known by its `decision_id`: what is uploaded again is a "
            "duplicate. Entries of other paths are `ignored`, those of decisions that this engine asked an OPA for are "
            "`own`; what can't become an event is one entry of `rejected`, its neighbours are kept.",
            parameters=parameters,
            request=body(
                {"application/json": ({"type": "array", "items": {"type": "object"}}, {"upload": [_ENTRY]})}
            ),
            answers=answer(
                "What became of the entries, once that is durable.",
                ref("LogsAnswer"),
                {
                    "accepted": 1,
                    "duplicates": 0,
                    "rejected": [],
                    "rejected_count": 0,
                    "dropped_attributes": 0,
                    "seq": 184467,
                    "ignored": 0,
                    "own": 0,
                },
            ),
            refusals={
                400: "`invalid_json`, `invalid_entries`, `invalid_gzip`, `unknown_parameter`",
                413: "`too_many_events`, `body_too_large`: more bytes than `max_body_bytes`, before or after unpacking",
                415: "`unsupported_media_type`",
            },
        )

    partition = path_parameter("partition", "OPA's `partition_name`; it is not looked at", "eu")
    return [
        Call("POST", "/v1/logs", "post_logs", "ingest", documentation()),
        Call("POST", "/v1/logs/{partition}", "post_partition_logs", "ingest", documentation(partition)),
    ]
