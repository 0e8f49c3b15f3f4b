"""Exact sliding windows at any moment.

In: `EntityPlan`s (what to keep per row) and batches of events, in journal order. Out: running totals at a window's two
ends, and a probe for what is no difference of totals. It must never know what a signal means, nor how an answer is
shown; it reads no clock and no settings.
"""

from enrich.windows.index import Index, PreparedBlock
from enrich.windows.located import Located
from enrich.windows.rolling import CursorSource, RollingIndex
from enrich.windows.store import SavedPosition, saved_position

__all__ = [
    "CursorSource",
    "Index",
    "Located",
    "PreparedBlock",
    "RollingIndex",
    "SavedPosition",
    "saved_position",
]
