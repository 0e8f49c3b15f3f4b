"""Moving recorded events along the time axis, for demos and tests; whoever shows the result says that it was done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from enrich.events import format_us, parse_rfc3339_us

__all__ = ["shift", "stretch"]


def stretch(events: Iterable[Mapping[str, Any]], k: int, *, end_us: int | None = None) -> list[dict[str, Any]]:
    """The events with their time axis stretched: t' = end - k (t_last - t), exact in microseconds.

    Args:
        events: with `occurred_at` as RFC 3339 text.
        k: the factor, at least 1.
        end_us: where the last event comes to lie, microseconds since 1970; None leaves it where it is.

    Returns:
        New dicts in the same order, `occurred_at` canonical.

    Raises:
        ValueError: `k` is below 1.
        EventError: `invalid_time`.
        OverflowError: an event would lie before the year 1.
    """
    if k < 1:
        raise ValueError(f"k `{k}` is below 1")
    rows = [dict(e) for e in events]
    times_us = [parse_rfc3339_us(e["occurred_at"]) for e in rows]
    last_us = max(times_us, default=0)
    end = last_us if end_us is None else end_us
    for row, us in zip(rows, times_us, strict=True):
        row["occurred_at"] = format_us(end - k * (last_us - us))
    return rows


def shift(events: Iterable[Mapping[str, Any]], end_us: int) -> list[dict[str, Any]]:
    """The events moved as a whole so that the last one lies at `end_us`; distances stay."""
    return stretch(events, 1, end_us=end_us)
