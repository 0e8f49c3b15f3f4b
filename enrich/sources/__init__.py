"""Sources: one module per system that history comes from.

In come that system's own rows; out come events as dicts for `enrich.events.EventParser`, and a report of everything in
the rows that could not be taken at its word. A source knows events and nothing else of the engine: never where they are
kept or what is computed from them.
"""

from __future__ import annotations

from enrich.sources.gantral import (
    Doubt,
    GantralMapping,
    Mapped,
    events_from_directory,
    events_from_rows,
    load_sample,
    sample_directory,
)
from enrich.sources.timeline import shift, stretch

__all__ = [
    "Doubt",
    "GantralMapping",
    "Mapped",
    "events_from_directory",
    "events_from_rows",
    "load_sample",
    "sample_directory",
    "shift",
    "stretch",
]
