"""Events: validated facts about what agents did, in, and columnar batches of them, out.

In come Python objects decoded from JSON, Arrow or Polars frames, NDJSON and Parquet files. Out come `EventBatch`
(columns, keyed hashes, canonical bytes) and a `Rejection` for each event that breaks a rule; one bad event never
takes its neighbours along. This room must never know where events are kept, what is computed from them, or who asks.
"""

from __future__ import annotations

from enrich.events.arrow import ARROW_SCHEMA, HASHED_SCHEMA, from_arrow, to_arrow, with_hashes
from enrich.events.canonical import (
    canonical_event,
    canonical_events,
    event_from_canonical,
    format_us,
    parse_rfc3339_us,
)
from enrich.events.files import FileBatch, decode_ndjson, read_events
from enrich.events.hashing import content_hashes, key_hashes
from enrich.events.json import canonical_json, strict_loads
from enrich.events.model import COLUMNS, ENTITY_KEYS, EventBatch
from enrich.events.parse import EventParser, Parsed
from enrich.events.refusals import REFUSAL_CODES, Rejection, Unreadable

__all__ = [
    "ARROW_SCHEMA",
    "COLUMNS",
    "ENTITY_KEYS",
    "HASHED_SCHEMA",
    "REFUSAL_CODES",
    "EventBatch",
    "EventParser",
    "FileBatch",
    "Parsed",
    "Rejection",
    "Unreadable",
    "canonical_event",
    "canonical_events",
    "canonical_json",
    "content_hashes",
    "decode_ndjson",
    "event_from_canonical",
    "format_us",
    "from_arrow",
    "key_hashes",
    "parse_rfc3339_us",
    "read_events",
    "strict_loads",
    "to_arrow",
    "with_hashes",
]
