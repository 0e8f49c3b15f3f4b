"""The calls of break-glass, and what OpenAPI says of them."""

from __future__ import annotations

from typing import Any, Final

from enrich.service.documentation import answer, body, operation, parameter, path_parameter
from enrich.service.routing import Call
from enrich.service.schemas import ref

__all__ = ["suspension_calls"]

_SUSPENSION: Final[dict[str, Any]] = {
    "scope": "team",
    "id": "payments",
    "reason": "refunds to the wrong accounts",
    "since": "2026-11-20T10:00:00.000000Z",
    "by": "oncall",
    "seq": 184468,
}
_EVERYONE: Final = {k: v for k, v in _SUSPENSION.items() if k != "id"} | {"scope": "all"}
_AS_OF: Final = "2026-11-20T10:00:05.000000Z"
_SUSPEND: Final = (
    "In force from its record on: every context with that seq or a higher one says `suspended`, and lists it with "
    "why it `match`es: `id`, an id of the request; `known`, a team or org that the agent's events name; `unknown`, the "
    "request lacks the id that would tell; `all`. Suspending again renews reason and end. A journal that can't take it "
    "answers 503 `not_durable`: the suspension acts, until a restart."
)
_NAME: Final = "`invalid_entity_id`, `unknown_parameter`, `repeated_parameter`, `invalid_utf8`"
_UNKNOWN: Final = "`not_suspended`, `unknown_scope`, `no_such_path`"
_NOT_DURABLE: Final = "`not_durable`: it acts, but not after a restart; or `busy`, `not_ready`"


def suspension_calls() -> list[Call]:
    """PUT, GET and DELETE of one; the list."""
    scope = path_parameter("scope", "org, team, workflow or agent", "team")
    id_ = path_parameter("id", "percent-encoded", "payments")
    listed = operation(
        "suspensions",
        "Suspensions in force",
        "All of them, oldest first.",
        answers=answer(
            "What is suspended.",
            ref("SuspensionsAnswer"),
            {"suspensions": [_SUSPENSION], "as_of": _AS_OF, "seq": 184468},
        ),
        refusals={400: "`unknown_parameter`"},
    )
    return [
        *_of("/v1/suspensions/{scope}/{id}", ("suspend", "suspension", "lift"), [scope, id_], _SUSPENSION),
        *_of("/v1/suspensions/all", ("suspend_all", "suspension_of_all", "lift_all"), [], _EVERYONE),
        Call("GET", "/v1/suspensions", "suspensions", "read", listed),
    ]


def _of(
    path: str, names: tuple[str, str, str], parameters: list[dict[str, Any]], example: dict[str, Any]
) -> list[Call]:
    whom = "one" if parameters else "everyone"
    asked = body(
        {
            "application/json": (
                ref("SuspendRequest"),
                {"until it is lifted": {"reason": example["reason"], "by": "oncall"}},
            )
        }
    )
    put = operation(
        "suspensions",
        f"Suspend {whom}",
        _SUSPEND,
        parameters=parameters,
        request=asked,
        answers=answer("Suspended.", ref("SuspendAnswer"), {"suspension": example, "seq": 184468}),
        refusals={
            400: "`invalid_reason`, `invalid_time`, `invalid_by`, `invalid_entity_id`, `unknown_field`, or a body that "
            "is no exact JSON",
            404: "`unknown_scope`, `no_such_path`",
            413: "`body_too_large`",
            415: "`unsupported_media_type`",
            503: _NOT_DURABLE,
        },
    )
    get = operation(
        "suspensions",
        f"The suspension of {whom}",
        "What is in force under that very name, and 404 when nothing is.",
        parameters=parameters,
        answers=answer("It.", ref("SuspensionAnswer"), {"suspension": example, "as_of": _AS_OF, "seq": 184468}),
        refusals={400: _NAME, 404: _UNKNOWN},
    )
    lift = operation(
        "suspensions",
        f"Give authority back to {whom}",
        "Lifts what is in force under that very name; what else covers a request still does.",
        parameters=[*parameters, parameter("by", "who says so", "oncall")],
        answers=answer("Lifted.", ref("LiftAnswer"), {"lifted": example, "seq": 184470}),
        refusals={400: _NAME + ", `invalid_by`, `unexpected_body`", 404: _UNKNOWN},
    )
    return [
        Call("PUT", path, names[0], "admin", put),
        Call("GET", path, names[1], "read", get),
        Call("DELETE", path, names[2], "admin", lift),
    ]
