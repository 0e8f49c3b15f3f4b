"""The call of backtests, and what OpenAPI says of it."""

from __future__ import annotations

from typing import Any, Final

from enrich.decisions.backtest import AGAINST, FLIPS
from enrich.service.backtests import ROWS
from enrich.service.documentation import answer, body, operation
from enrich.service.routing import Call

__all__ = ["backtest_calls"]

_ID: Final = "0b9c6a1e-6a55-4a9b-9a55-3f2f5b8f0c11"
_POLICY: Final = """\
package gantral.authority

default decision := {"decision": "DENY"}

decision := {"decision": "ALLOW"} if input.history.agent.last_24h.failures < 3
"""
_FLIP: Final[dict[str, Any]] = {
    "decision_id": _ID,
    "seq": 184469,
    "as_of": "2026-11-20T10:00:00.000000Z",
    "agent": "payments-refunder-03",
    "team": "payments",
    "workflow": "refunds",
    "path": "gantral/authority/decision",
    "before": "ALLOW",
    "after": "DENY",
    "kind": "allow-to-deny",
    "cause_before": None,
    "cause_after": None,
    "result_before": {"decision": "ALLOW"},
    "result_after": {"decision": "DENY"},
    "moved": [],
    "rules": [{"name": "gantral.authority.decision", "before": {"decision": "ALLOW"}, "after": {"decision": "DENY"}}],
    "basis": "as_recorded",
    "input": "recorded",
}
_FOUND: Final[dict[str, Any]] = {
    "tested": 120,
    "not_tested": 0,
    "flipped": 1,
    "changed_results": 0,
    "flips_by": {
        "kind": [{"kind": "allow-to-deny", "flips": 1}],
        "agent": [{"agent": "payments-refunder-03", "kind": "allow-to-deny", "flips": 1}],
        "rule": [{"rule": "gantral.authority.decision", "kind": "allow-to-deny", "flips": 1}],
        "signal": [],
    },
    "flips": [_FLIP],
    "counts": [],
    "not_testable": [],
    "slowdown": {"ratio": 1.1, "before_us": 410.0, "after_us": 451.0, "samples": 120},
    "against": "recorded",
    "changes": ["policy gantral/authority.rego: changed"],
    "mapping": [],
    "notes": ["open-loop: …"],
    "seq": 184470,
    "catalog": "sha256:…",
    "policies": "sha256:…",
}


def backtest_calls() -> list[Call]:
    """The one call."""
    text = {"type": "string"}
    texts = {"type": "object", "additionalProperties": text}
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "policies": texts | {"description": "file name to text; the live ones when absent"},
            "queries": texts | {"description": "signal set to text; the live ones when absent"},
            "mapping": texts | {"description": "column of events to path of the input"},
            "against": {"enum": list(AGAINST), "default": AGAINST[0]},
            **dict.fromkeys(("since", "until", "agent", "team", "workflow", "org", "decision", "path"), text),
        },
    }
    documented = operation(
        "decisions",
        "Try changed policies or signals on the past",
        "What would have been decided: each recorded decision on what was known when it was made, those known only as "
        "`authority` events on what is known now of the time before them, on an input made of the event. All flips are "
        f"counted, by kind, agent, rule and signal; the first {ROWS:,} are listed. Open-loop: what a changed decision "
        "would have changed later is not simulated. One at a time, at most `backtest_decisions` decisions, for at most "
        "a minute: `enrich backtest` on a data directory has no such bounds.",
        request=body({"application/json": (schema, {"policies": {"policies": {"authority.rego": _POLICY}}})}),
        answers=answer(
            "What would be decided.",
            {
                "type": "object",
                "required": list(_FOUND),
                "properties": {
                    "flips": {
                        "type": "array",
                        "maxItems": ROWS,
                        "items": {"type": "object", "required": list(FLIPS)},
                    }
                },
            },
            _FOUND,
        ),
        refusals={
            400: "`invalid_body`, `unknown_field`, `invalid_parameter`, `invalid_time`, `invalid_mapping`, "
            "`attributes_not_kept`, `invalid_definitions`, or what is wrong with a policy, such as `rego_parse_error`",
            404: "`no_policies`",
            413: "`too_many_decisions`, `backtest_too_long`, `body_too_large`",
        },
    )
    return [Call("POST", "/v1/backtest", "backtest", "admin", documented)]
