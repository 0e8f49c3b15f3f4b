"""The catalog for people (`/v1/signals`) and for schema checkers (`/v1/signals/schema.json`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from enrich.signals.definition import Signal, SignalSet
from enrich.signals.types import SqlType

if TYPE_CHECKING:
    from enrich.signals.catalog import Catalog

__all__ = ["describe", "json_schema"]

#: the entities that have something in flight
_FLYING: Final = ("agent", "team", "workflow", "org")
_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"


def describe(catalog: Catalog) -> dict[str, Any]:
    """Sets, signals, types, windows, parameters and documentation, JSON-ready."""
    return {"version": catalog.version, "sets": [_set(s) for s in catalog.sets]}


def _set(s: SignalSet) -> dict[str, Any]:
    return {
        "name": s.name,
        "entity": s.entity,
        "windows": [w.name for w in s.header.windows],
        "derived": s.derived,
        "owner": s.header.owner,
        "description": s.header.description,
        "params": {p.name: p.literal for p in s.header.params.values()},
        "version": s.version,
        "signals": [_signal(c) for c in s.signals],
        "sql": s.text,
    }


def _signal(c: Signal) -> dict[str, Any]:
    return {"name": c.name, "type": str(c.type), "always": c.always, "may_fail": c.may_fail, "description": c.comment}


def _property(c: Signal) -> dict[str, Any]:
    found: dict[str, Any] = dict(_json_type(c.type))
    if c.comment:
        found["description"] = c.comment
    return found


def _json_type(t: SqlType) -> dict[str, Any]:
    if t.is_bool:
        return {"type": "boolean"}
    if t.is_int:
        return {"type": "integer"}
    if t.is_decimal or t.is_double:
        return {"type": "number"}
    if t.id == "TIMESTAMP WITH TIME ZONE":
        return {"type": "string", "format": "date-time"}
    return {"type": "string"}


def _closed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(sorted(properties.items())),
        "required": sorted(required),
        "additionalProperties": False,
    }


def json_schema(catalog: Catalog) -> dict[str, Any]:
    """JSON Schema of the `history` object: closed objects with fixed properties, so that a misspelt signal is an error.

    A signal is required where it is never absent (counts, and what is made of them without nulls).
    """
    id_ = {"type": ["string", "null"]}
    pair = {"oneOf": [id_, {"type": "array", "items": {"type": "string"}}]}
    text = {"type": "string"}
    properties: dict[str, Any] = {
        "suspended": {"type": "boolean"},
        "suspensions": {"type": "array"},
        "as_of": {"type": "string", "format": "date-time"},
        "seq": {"type": "integer"},
        "status": {"enum": ["fresh", "stale", "unavailable"]},
        "lag_seconds": {"type": ["number", "null"]},
        "observed_since": {"type": ["string", "null"]},
        "catalog": text,
    }
    required = list(properties)
    for entity in dict.fromkeys(s.entity for s in catalog.sets):
        one = _entity(catalog, entity, pair if "_" in entity else id_)
        if entity == "approver":
            properties["approvers"] = {"type": "object", "additionalProperties": one}
        else:
            properties[entity] = one
    return {"$schema": _DRAFT, "title": "history", **_closed(properties, required)}


def _in_flight() -> dict[str, Any]:
    """What `enrich.in_flight` gives; absent is what nobody can say."""
    whole = {"type": "integer", "minimum": 0}
    texts = {
        "count": "actions that were given authority and have not ended",
        "declared_amount_minor": "what they would move, together; absent where there are several currencies",
        "declared_cost_microusd": "what they would cost, together, in millionths of a US dollar",
    }
    properties: dict[str, Any] = {name: whole | {"description": text} for name, text in texts.items()}
    properties["declared_amount_minor_by_currency"] = {
        "type": "object",
        "additionalProperties": whole,
        "description": "what they would move, by currency; empty for amounts without one",
    }
    return _closed(properties, ["count"]) | {"description": "Actions in flight, and what their requests declared."}


def _entity(catalog: Catalog, entity: str, id_: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {"id": id_, "known": {"type": "boolean"}}
    required = ["id", "known"]
    mine = [s for s in catalog.sets if s.entity == entity]
    if entity in _FLYING:
        properties["in_flight"] = _in_flight()
    for window in catalog.windows(entity):
        inner: dict[str, Any] = {"complete": {"type": "boolean"}}
        always = ["complete"]
        for s in mine:
            if window in s.header.windows:
                inner.update({c.name: _property(c) for c in s.signals})
                always += [c.name for c in s.signals if c.always]
        properties[window.key] = _closed(inner, always)
        required.append(window.key)
    for s in mine:
        if s.derived:
            properties.update({c.name: _property(c) for c in s.signals})
            required += [c.name for c in s.signals if c.always]
    return _closed(properties, required)
