"""The event: its fields, limits and column types, in one place.

An event is one immutable fact. `COLUMNS` is the order in which every columnar form (batches, Arrow, DuckDB, Parquet)
has them; times are int64 microseconds since 1970-01-01 UTC wherever they are numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "AUTHORITY_OUTCOMES",
    "COLUMNS",
    "ENTITY_KEYS",
    "INT64_MAX",
    "INT_COLUMNS",
    "KINDS",
    "MATERIALITIES",
    "MAX_ATTRIBUTES",
    "MAX_ATTRIBUTE_BYTES",
    "MAX_STRING",
    "MIN_TIME_US",
    "OWN_SOURCE",
    "RUN_OUTCOMES",
    "STRING_COLUMNS",
    "EventBatch",
]

INT64_MAX: Final = 2**63 - 1
#: the source of the events that the engine makes; nobody else may use it
OWN_SOURCE: Final = "enrich"
KINDS: Final = ("execution", "step", "authority")
RUN_OUTCOMES: Final = ("succeeded", "failed", "timed_out", "cancelled")
AUTHORITY_OUTCOMES: Final = (
    "allowed", "required_human", "denied", "approved", "rejected", "overridden", "timed_out",
)  # fmt: skip
MATERIALITIES: Final = ("LOW", "MEDIUM", "HIGH")
#: characters in an id, or in any other string field, or in a key of attributes
MAX_STRING: Final = 200
MAX_ATTRIBUTES: Final = 64
#: of the attributes as canonical JSON, before any are dropped
MAX_ATTRIBUTE_BYTES: Final = 8192
#: 2000-01-01T00:00:00Z
MIN_TIME_US: Final = 946_684_800_000_000

#: string columns in order; all but the first four are nullable
STRING_COLUMNS: Final = (
    "source", "event_id", "kind", "outcome",
    "agent_id", "team_id", "workflow_id", "instance_id", "org_id", "decision_id",
    "action", "environment", "materiality", "actor_id", "error_type", "currency",
)  # fmt: skip
#: int64 columns >= 0, nullable
INT_COLUMNS: Final = (
    "duration_ms", "wait_ms", "cost_microusd", "input_tokens", "output_tokens",
    "amount_minor", "declared_amount_minor", "declared_cost_microusd",
)  # fmt: skip
#: every column of an event, in order; occurred_at is int64 microseconds, attributes a flat object or null
COLUMNS: Final = ("occurred_at", *STRING_COLUMNS, *INT_COLUMNS, "attributes")

#: which column(s) of an event name the entity it belongs to; an event without them does not belong to that entity
ENTITY_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "agent": ("agent_id",),
    "team": ("team_id",),
    "workflow": ("workflow_id",),
    "org": ("org_id",),
    "approver": ("actor_id",),
    "agent_workflow": ("agent_id", "workflow_id"),
    "agent_team": ("agent_id", "team_id"),
    "team_workflow": ("team_id", "workflow_id"),
}


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Validated events as columns: every name of `COLUMNS` to a list of `n` values, null as None.

    `occurred_at` holds int microseconds, `attributes` a dict (string to str, int or bool) or None; nothing in a batch
    is shared with the caller. `keys` are the 16-byte keyed hashes of (source, event_id), `contents` those of the whole
    validated event before attributes were dropped. `canonical` are the canonical bytes of each event as it is kept,
    where the parser has them at hand (see `canonical_events`).
    """

    n: int
    columns: Mapping[str, list[Any]]
    keys: list[bytes]
    contents: list[bytes]
    canonical: list[bytes] | None = None

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each event as a dict in column order, nulls left out, occurred_at as int microseconds."""
        names = COLUMNS
        for values in zip(*(self.columns[c] for c in names), strict=True):
            yield {c: v for c, v in zip(names, values, strict=True) if v is not None}

    def take(self, indices: list[int]) -> EventBatch:
        """The rows at `indices`, in that order."""
        return EventBatch(
            len(indices),
            {c: [v[i] for i in indices] for c, v in self.columns.items()},
            [self.keys[i] for i in indices],
            [self.contents[i] for i in indices],
            None if self.canonical is None else [self.canonical[i] for i in indices],
        )
