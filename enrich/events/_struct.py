"""The event as a msgspec struct: validated by type in C, written as canonical JSON in C.

The struct's checks are never laxer than `_check.check_event` in what they can tell; what they can't (characters,
meaning, time) the parser looks at over many events at once. Fields stand in code point order: encoding is canonical.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, Final, Literal

import msgspec

from enrich.events.model import COLUMNS, INT64_MAX, MAX_ATTRIBUTES, MAX_STRING
from enrich.events.times import format_many_us

__all__ = ["STRUCT_COLUMNS", "Attributes", "EventStruct", "columns_of", "encoder", "structs_of"]

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_STRING)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]
_Value = bool | Annotated[int, msgspec.Meta(ge=-(2**63), le=INT64_MAX)] | str
Attributes = Annotated[dict[_Text, _Value], msgspec.Meta(max_length=MAX_ATTRIBUTES)]


class EventStruct(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """One event. That the required fields are there is checked on the columns: a required field can't follow an
    optional one, and only this order of fields is canonical."""

    action: _Text | None = None
    actor_id: _Text | None = None
    agent_id: _Text | None = None
    amount_minor: _Count | None = None
    attributes: Attributes | None = None
    cost_microusd: _Count | None = None
    currency: _Text | None = None
    decision_id: _Text | None = None
    declared_amount_minor: _Count | None = None
    declared_cost_microusd: _Count | None = None
    duration_ms: _Count | None = None
    environment: _Text | None = None
    error_type: _Text | None = None
    event_id: _Text | None = None
    input_tokens: _Count | None = None
    instance_id: _Text | None = None
    kind: Literal["execution", "step", "authority"] | None = None
    materiality: Literal["LOW", "MEDIUM", "HIGH"] | None = None
    occurred_at: Any = None
    org_id: _Text | None = None
    outcome: _Text | None = None
    output_tokens: _Count | None = None
    source: _Text | None = None
    team_id: _Text | None = None
    wait_ms: _Count | None = None
    workflow_id: _Text | None = None


STRUCT_COLUMNS: Final = tuple(sorted(COLUMNS))


def encoder() -> msgspec.json.Encoder:
    """An encoder that writes the canonical form of an `EventStruct` whose `occurred_at` is canonical text."""
    return msgspec.json.Encoder(order="deterministic")


def columns_of(structs: Sequence[EventStruct], fields: Collection[str] = STRUCT_COLUMNS) -> list[Sequence[Any]]:
    """The structs' fields, a sequence for each in the order of `STRUCT_COLUMNS`; those not in `fields`, which are None
    in every struct, share one."""
    names = [c for c in STRUCT_COLUMNS if c in fields]
    if len(names) in (0, 1, len(STRUCT_COLUMNS)):
        return list(zip(*map(msgspec.structs.astuple, structs), strict=True))
    found = dict(zip(names, zip(*map(attrgetter(*names), structs), strict=True), strict=True))
    absent = (None,) * len(structs)
    return [found.get(c, absent) for c in STRUCT_COLUMNS]


def structs_of(columns: Mapping[str, Sequence[Any]]) -> list[EventStruct]:
    """Validated columns as structs, `occurred_at` from int microseconds to canonical text."""
    in_order = [columns[c] for c in STRUCT_COLUMNS]
    in_order[STRUCT_COLUMNS.index("occurred_at")] = format_many_us(columns["occurred_at"])
    return list(map(EventStruct, *in_order))
