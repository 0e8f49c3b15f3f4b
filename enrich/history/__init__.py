"""History: the journal's events and decisions in DuckDB, for everything that is not asked in microseconds.

In: journal records, in order, once they are durable. Out: cursors on `events`, `event_keys`, `decisions` and
`events_at(s)`, pages and frames of events, pages of decisions, idempotency keys in bulk, and how far it has followed.
It never decides whether something is durable, and never knows signals or contexts, nor how a decision comes about:
delete its file and it is built again from the journal.
"""

from enrich.history.connection import reading
from enrich.history.decisions import DECISION_FILTERS, DecisionFilter, DecisionsPage
from enrich.history.follower import Follower, FollowerFailure, FollowerStatus, Lag
from enrich.history.keys import KeyBlock
from enrich.history.position import follow_on, stored_position
from enrich.history.query import EventFilter, EventsPage
from enrich.history.store import FILE_NAME, History, PruneReport

__all__ = [
    "DECISION_FILTERS",
    "FILE_NAME",
    "DecisionFilter",
    "DecisionsPage",
    "EventFilter",
    "EventsPage",
    "Follower",
    "FollowerFailure",
    "FollowerStatus",
    "History",
    "KeyBlock",
    "Lag",
    "PruneReport",
    "follow_on",
    "reading",
    "stored_position",
]
