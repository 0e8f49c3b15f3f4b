"""What a caller names, as the engine wants it: moments in microseconds, entities as keys."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from enrich.context import Key, check_id
from enrich.errors import BadRequestError, EnrichError, InvalidEntityIdError, NotFoundError, show
from enrich.events import ENTITY_KEYS, parse_rfc3339_us

__all__ = ["Moment", "entity_keys", "moment_us"]

#: the end of 9998: windows and a day of skew around a moment stay within the years 1 to 9999
_LAST_MOMENT_US: Final = 253_370_764_799_999_999

Moment = int | str | datetime


def moment_us(value: Moment) -> int:
    """A moment as microseconds since 1970 UTC.

    Raises:
        BadRequestError: `invalid_time`, for a naive or unreadable time, and for one outside 1970 to 9998.
    """
    us = _moment_us(value)
    if not 0 <= us <= _LAST_MOMENT_US:
        raise BadRequestError(f"{show(value)} is outside 1970 to 9998", code="invalid_time")
    return us


def _moment_us(value: Moment) -> int:
    if isinstance(value, bool):
        raise BadRequestError(f"{show(value)} is no time", code="invalid_time")
    if isinstance(value, int):
        return value
    try:
        text = value.isoformat() if isinstance(value, datetime) else value
        return parse_rfc3339_us(text)
    except (ValueError, TypeError, EnrichError) as error:
        raise BadRequestError(
            f"{show(value)} is no time",
            code="invalid_time",
            hint="RFC 3339 with an offset, such as 2026-11-23T10:00:00Z",
        ) from error


def entity_keys(entities: Mapping[str, Any]) -> tuple[dict[str, Key | None], list[str] | None]:
    """The keys of the entities that a context is asked for, and the approvers' ids; None when there is no word of them.

    Args:
        entities: see `Engine.context`.

    Raises:
        NotFoundError: `unknown_entity`.
        InvalidEntityIdError: an id that can't be one.
    """
    keys: dict[str, Key | None] = {}
    approvers: list[str] | None = None
    for entity, value in entities.items():
        if entity in ("approvers", "approver"):
            people = [value] if isinstance(value, str) else value
            approvers = list(dict.fromkeys(check_id(v, "approver", "approvers") for v in people or ()))
        elif entity not in ENTITY_KEYS:
            raise NotFoundError(f"no entity {show(entity)}", code="unknown_entity", entity=entity)
        else:
            keys[entity] = None if value is None else _key(entity, value)
    return keys, approvers


def _key(entity: str, value: Any) -> Key:
    parts = ENTITY_KEYS[entity]
    if len(parts) == 1:
        return check_id(value, entity, entity)
    if not isinstance(value, list | tuple) or len(value) != len(parts):
        raise InvalidEntityIdError(f"{entity} id is {show(value)}, not {len(parts)} ids", entity=entity)
    return tuple(check_id(v, entity, f"{entity}[{i}]") for i, v in enumerate(value))
