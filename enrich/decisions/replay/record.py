"""Whether a decision's record agrees with itself: its hashes, its ids, its times, its event."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from enrich.decisions.protocol import Defined
from enrich.decisions.record import SOURCE, instance_and_materiality
from enrich.decisions.replay.reasons import Reason, canonical
from enrich.decisions.replay.texts import Shaping
from enrich.decisions.verdict import OUTCOMES, judge
from enrich.errors import EnrichError, show
from enrich.events.canonical import format_us, parse_rfc3339_us
from enrich.events.model import ENTITY_KEYS

__all__ = ["check_record", "history_of", "shapes_of"]

#: what every decision's record has, and what it is
_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "decision_id": str,
    "request_hash": str,
    "entities": dict,
    "as_of": str,
    "context_seq": int,
    "path": str,
    "input": dict,
    "input_hash": str,
    "context_hash": str,
    "catalog": str,
    "policy_hash": str,
    "settings_hash": str,
    "evaluator": dict,
    "repeatable": bool,
    "strict_builtin_errors": bool,
    "decision": str,
    "event": dict,
    "suspensions": list,
}
#: what stands in every context, beside the entities
_AROUND: Final = frozenset(
    ("as_of", "seq", "catalog", "suspended", "suspensions", "status", "lag_seconds", "observed_since")
)
_ENTITIES: Final = frozenset(ENTITY_KEYS) - {"approver"} | {"approvers"}


def shapes_of(body: Any) -> list[Reason]:
    """What the record lacks to be that of a decision; nothing else here may be asked of it then."""
    if not isinstance(body, dict):
        return [Reason.of("record_inconsistent", "it is no object")]
    wrong = [name for name, type_ in _FIELDS.items() if not isinstance(body.get(name), type_)]
    wrong += [] if "result" in body else ["result"]
    if wrong:
        return [Reason.of("record_inconsistent", f"no {', '.join(wrong)}", field=wrong[0])]
    if body["decision"] not in OUTCOMES:
        return [Reason.of("record_inconsistent", "its decision is none", field="decision")]
    wrong = [name for name, sound in _OPTIONAL.items() if body.get(name) is not None and not sound(body[name])]
    if not all(isinstance(body["evaluator"].get(name), str) for name in ("name", "version")):
        wrong.append("evaluator")
    return [Reason.of("record_inconsistent", f"its {wrong[0]} is none", field=wrong[0])] if wrong else []


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_redaction(value: Any) -> bool:
    return isinstance(value, dict) and _is_texts(value.get("paths")) and bool(value["paths"])


#: what a record may lack, and what it is where it is there
_OPTIONAL: Final[Mapping[str, Callable[[Any], bool]]] = {
    "cause": lambda value: isinstance(value, str),
    "selection": _is_texts,
    "redaction": _is_redaction,
}


def history_of(body: Mapping[str, Any], shaping: Shaping) -> Mapping[str, Any] | None:
    """The frozen context; None when nothing stands at its path."""
    at: Any = body["input"]
    for key in shaping.paths.history:
        at = at.get(key) if isinstance(at, dict) else None
    return at if isinstance(at, dict) else None


def check_record(
    body: Mapping[str, Any],
    shaping: Shaping,
    seq: int,
    recorded_us: int,
    time_at: Callable[[int], int | None],
) -> list[Reason]:
    """Everything in the record that can be computed from the rest of it.

    Args:
        body: see `shapes_of`.
        seq, recorded_us: place and time of the record.
        time_at: when the newest record up to a seq was recorded; None when that is not known.
    """
    history = history_of(body, shaping)
    if history is None:
        return [Reason.of("record_inconsistent", "the input has no history", field="input")]
    found = list(_hashes(body, shaping, history))
    found += [
        Reason.of("record_inconsistent", what, field=field)
        for field, what in (
            *_context(body, history),
            *_times(body, seq, recorded_us, time_at),
            *_ids(body, shaping),
            *_event(body, shaping),
            *_lease(body, shaping),
            *_answer(body, history),
        )
    ]
    return found


def _hashes(body: Mapping[str, Any], shaping: Shaping, history: Mapping[str, Any]) -> Iterator[Reason]:
    if _sha256(body["input"]) != body["input_hash"]:
        yield Reason.of("hash_differs", "input_hash", field="input_hash")
    if _sha256(history) != body["context_hash"]:
        yield Reason.of("hash_differs", "context_hash", field="context_hash")
    if body.get("redaction") is not None:
        return  # it is a keyed hash of what the record does not keep
    if not any(_sha256({"input": raw, "path": body["path"]}) == body["request_hash"] for raw in _raws(body, shaping)):
        yield Reason.of("hash_differs", "request_hash", field="request_hash")


def _raws(body: Mapping[str, Any], shaping: Shaping) -> Iterator[Mapping[str, Any]]:
    """What the caller may have sent: the input without history, and without the parents that were made for it."""
    path = shaping.paths.history
    for kept in range(len(path) - 1, -1, -1):
        for null in (False, True) if kept < len(path) - 1 else (False,):
            raw = _without(body["input"], path, kept, null)
            if raw is not None:
                yield raw


def _without(value: Mapping[str, Any], path: tuple[str, ...], kept: int, null: bool) -> dict[str, Any] | None:
    """The object without what stands at `path`; of its parents the first `kept` stay, the next becomes null or goes."""
    copy = dict(value)
    if not kept:
        if len(path) > 1 and not _only(copy.get(path[0]), path[1:]):
            return None
        copy.pop(path[0], None)
        if null:
            copy[path[0]] = None
        return copy
    below = copy.get(path[0])
    inner = _without(below, path[1:], kept - 1, null) if isinstance(below, dict) else None
    if inner is None:
        return None
    copy[path[0]] = inner
    return copy


def _only(value: Any, path: tuple[str, ...]) -> bool:
    """Whether an object holds nothing beside what stands at `path`."""
    while path:
        if not isinstance(value, dict) or value.keys() != {path[0]}:
            return False
        value, path = value[path[0]], path[1:]
    return True


def _context(body: Mapping[str, Any], history: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    lacking = sorted(_AROUND - history.keys())
    if lacking:
        yield "input", f"the context has no {', '.join(lacking)}"
    for field, name in (("context_seq", "seq"), ("as_of", "as_of"), ("catalog", "catalog")):
        if history.get(name) != body[field]:
            yield field, f"{field} is not that of the context"
    if history.get("suspensions") != body["suspensions"]:
        yield "suspensions", "the suspensions are not those of the context"
    for name in sorted(history.keys() - _AROUND):
        if name not in _ENTITIES or not _is_entity(name, history[name]):
            yield "input", f"the context has {show(name)}, which is no part of one"


def _is_entity(name: str, value: Any) -> bool:
    objects = list(value.values()) if name == "approvers" and isinstance(value, dict) else [value]
    return all(isinstance(one, dict) and isinstance(one.get("in_flight", {}), dict) for one in objects)


def _times(
    body: Mapping[str, Any], seq: int, recorded_us: int, time_at: Callable[[int], int | None]
) -> Iterator[tuple[str, str]]:
    if not 0 <= body["context_seq"] < seq:
        yield "context_seq", f"a context of seq {body['context_seq']} in record {seq}"
        return
    try:
        as_of_us = parse_rfc3339_us(body["as_of"])
    except (ValueError, EnrichError):
        yield "as_of", "as_of is no time"
        return
    if format_us(as_of_us) != body["as_of"]:
        yield "as_of", "as_of is not written as a record has it"
    seen_us = time_at(body["context_seq"])
    if as_of_us > recorded_us or (seen_us is not None and as_of_us < seen_us):
        yield "as_of", "as_of lies before what the context has seen, or behind the record"


def _ids(body: Mapping[str, Any], shaping: Shaping) -> Iterator[tuple[str, str]]:
    try:
        ids: dict[str, Any] = dict(shaping.paths.entity_ids(body["input"]))
        ids["approvers"] = shaping.paths.approver_ids(body["input"])
    except EnrichError as error:
        yield "entities", error.message
        return
    if ids != body["entities"]:
        yield "entities", "the entities are not those of the input"


def _event(body: Mapping[str, Any], shaping: Shaping) -> Iterator[tuple[str, str]]:
    event = body["event"]
    instance, materiality = instance_and_materiality(body["input"], shaping.instance, shaping.materiality)
    try:
        declared = shaping.declaring.read(body["input"])
    except EnrichError as error:
        yield "event", error.message
        return
    values = {
        "source": SOURCE,
        "event_id": body["decision_id"],
        "decision_id": body["decision_id"],
        "occurred_at": body["as_of"],
        "kind": "authority",
        "outcome": OUTCOMES[body["decision"]],
        "instance_id": instance,
        "materiality": materiality,
        **{f"{entity}_id": id_ for entity, id_ in body["entities"].items() if entity != "approvers"},
        **declared,
    }
    expected = {name: value for name, value in values.items() if value is not None}
    wrong = sorted(name for name in expected.keys() | event.keys() if event.get(name) != expected.get(name))
    if wrong:
        yield "event", f"the event's {', '.join(wrong)} is not the decision's"


def _lease(body: Mapping[str, Any], shaping: Shaping) -> Iterator[tuple[str, str]]:
    lease = body.get("lease")
    if type(lease) is not int or lease != shaping.lease_seconds:
        yield "lease", "the lease is not that of the settings"


def _answer(body: Mapping[str, Any], history: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    cause, decision, result = body.get("cause"), body["decision"], body.get("result")
    if cause is None:
        if judge(Defined(result), boolean=False).decision != decision:
            yield "decision", "the result says something else than the decision"
    elif decision == "ALLOW":
        yield "decision", f"allowed, though {cause}"
    elif result is not False and (not isinstance(result, dict) or result.get("decision") != decision):
        yield "result", "the refusal has not the form of one"
    if bool(body["suspensions"]) != (cause == "suspended"):
        yield "cause", "the cause and the suspensions in force do not agree"
    if history.get("suspended") is not bool(body["suspensions"]):
        yield "suspensions", "the context says something else than the suspensions"
    if history.get("status") != "fresh" and cause not in ("history_unavailable", "suspended"):
        yield "cause", "history could not be relied on, and the policy was asked"
    if cause == "history_unavailable" and history.get("status") == "fresh":
        yield "cause", "history is said to be unavailable, and is fresh"


def _sha256(value: Any) -> str:
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()
