"""History: the journal's events in DuckDB, for everything that is not asked in microseconds.

In: journal records, in order, once they are durable. Out: cursors on `events`, `event_keys` and `events_at(s)`, pages
and frames of events, idempotency keys in bulk, and how far it has followed. It never decides whether something is
durable, and never knows signals, contexts or decisions: delete its file and it is built again from the journal.
"""

from enrich.history.connection import reading
from enrich.history.follower import Follower, FollowerFailure, FollowerStatus, Lag
from enrich.history.keys import KeyBlock
from enrich.history.position import stored_position
from enrich.history.query import EventFilter, EventsPage
from enrich.history.store import FILE_NAME, History, PruneReport

__all__ = [
    "FILE_NAME",
    "EventFilter",
    "EventsPage",
    "Follower",
    "FollowerFailure",
    "FollowerStatus",
    "History",
    "KeyBlock",
    "Lag",
    "PruneReport",
    "reading",
    "stored_position",
]
