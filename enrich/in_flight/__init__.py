"""In flight: actions that were given authority and have not ended.

In: events, in the order of their seqs, or DuckDB's `events`. Out: how many actions an entity has in flight at a moment,
and what they declared that they would move and cost. It never knows who asks, what a policy makes of it, or how an
outcome is reported.
"""

from enrich.in_flight.actions import IN_FLIGHT_COLUMNS, End, Own, PreparedInFlight, Said
from enrich.in_flight.definition import (
    GRANTS,
    IN_FLIGHT_ENTITIES,
    REACH_US,
    InFlightQuestion,
    in_flight_at,
    in_flight_bulk,
    in_flight_object,
)
from enrich.in_flight.memory import InFlight

__all__ = [
    "GRANTS",
    "IN_FLIGHT_COLUMNS",
    "IN_FLIGHT_ENTITIES",
    "REACH_US",
    "End",
    "InFlight",
    "InFlightQuestion",
    "Own",
    "PreparedInFlight",
    "Said",
    "in_flight_at",
    "in_flight_bulk",
    "in_flight_object",
]
