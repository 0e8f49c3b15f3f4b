"""A decision's record: what was asked, what was read, what was answered, and the event that counts it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote

import orjson

from enrich.context import canonical_json, check_id, context_hash
from enrich.decisions.declared import value_at
from enrich.decisions.protocol import DataPath
from enrich.decisions.shadow import ShadowVerdict
from enrich.decisions.verdict import OUTCOMES, Verdict
from enrich.errors import InvalidEntityIdError
from enrich.events.canonical import format_us
from enrich.events.model import MATERIALITIES, OWN_SOURCE

__all__ = ["SOURCE", "Question", "decision_body", "path_text"]

#: the source of the events of decisions
SOURCE: Final = OWN_SOURCE


def path_text(path: DataPath) -> str:
    """A path as it stands in a URL: `gantral/authority/decision`."""
    return "/".join(quote(segment, safe="") for segment in path)


def data_path(text: str) -> DataPath:
    """What `path_text` made a text of."""
    return tuple(unquote(segment) for segment in text.split("/"))


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, as far as it does not depend on the moment.

    Attributes:
        entities: agent, team, workflow and org to their ids, None where the request lacks one.
        document: the input as it was sent.
        caller: a keyed hash of who asked; None when that is not known.
        declared: what it says that it would do, move and cost: columns of its event.
    """

    path: DataPath
    document: Mapping[str, Any]
    entities: Mapping[str, str | None]
    approvers: Sequence[str]
    instance_id: str | None
    materiality: str | None
    caller: str | None
    declared: Mapping[str, str | int]
    text: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", path_text(self.path))

    def request(self) -> bytes:
        """The canonical raw input and path: two requests are the same when these are."""
        return canonical_json({"input": self.document, "path": self.text})


def instance_and_materiality(
    document: Mapping[str, Any], instance: Sequence[str], materiality: Sequence[str]
) -> tuple[str | None, str | None]:
    """What of the two a decision's event can carry; None for what is not there or is none."""
    found, level = value_at(document, instance), value_at(document, materiality)
    try:
        id_ = None if found is None else check_id(found, "instance", ".".join(instance))
    except InvalidEntityIdError:
        id_ = None
    return id_, level if isinstance(level, str) and level in MATERIALITIES else None


def decision_body(
    question: Question,
    verdict: Verdict,
    *,
    decision_id: str,
    idempotency_key: str | None,
    request_hash: str,
    as_of_us: int,
    history: Mapping[str, Any],
    input_json: bytes,
    policy_hash: str,
    settings_hash: str,
    evaluator: Mapping[str, str],
    selection: Sequence[str] | None,
    repeatable: bool,
    strict_builtin_errors: bool,
    shadow: ShadowVerdict | None = None,
    lease_seconds: int,
    redaction: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The body of a `decision` record.

    Args:
        history: the context.
        input_json: the canonical bytes of the enriched input, without what is redacted; they stand in the record so.
        shadow: what other policies said; None when none were to be asked.
        selection: what of the history stands in it; None for everything.
        repeatable: whether the policy answers the same when asked again.
        lease_seconds: how long an action is in flight at most, in its context and from this decision on.
        redaction: what was redacted, see `Redaction.redact`; None when the policy saw these very bytes.
    """
    as_of = format_us(as_of_us)
    entities = question.entities
    event = {
        "source": SOURCE,
        "event_id": decision_id,
        "decision_id": decision_id,
        "occurred_at": as_of,
        "kind": "authority",
        "outcome": OUTCOMES[verdict.decision],
        **{f"{entity}_id": id_ for entity, id_ in entities.items() if id_ is not None},
        **question.declared,
    }
    if question.instance_id is not None:
        event["instance_id"] = question.instance_id
    if question.materiality is not None:
        event["materiality"] = question.materiality
    return {
        "decision_id": decision_id,
        "idempotency_key": idempotency_key,
        "request_hash": request_hash,
        "caller": question.caller,
        "entities": {**entities, "approvers": list(question.approvers)},
        "as_of": as_of,
        "context_seq": history["seq"],
        "path": question.text,
        "input": orjson.Fragment(input_json),
        "input_hash": _sha256(input_json),
        "redaction": None if redaction is None else dict(redaction),
        "context_hash": context_hash(history),
        "selection": None if selection is None else list(selection),
        "catalog": history["catalog"],
        "policy_hash": policy_hash,
        "settings_hash": settings_hash,
        "evaluator": dict(evaluator),
        "repeatable": repeatable,
        "strict_builtin_errors": strict_builtin_errors,
        "result": verdict.result,
        "decision": verdict.decision,
        "cause": verdict.cause,
        "shadow": None if shadow is None else shadow.body(),
        "event": event,
        "lease": lease_seconds,
        "suspensions": history["suspensions"],
    }


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
