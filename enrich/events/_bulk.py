"""Looking at many events at once: which rows of a block need the precise check.

INVARIANT: a row that none of these functions name is one that `_check.check_event` accepts, given that the struct's
types held. Naming a row too many costs time, never correctness: the precise check decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from enrich.events._check import Bounds
from enrich.events._struct import STRUCT_COLUMNS
from enrich.events.model import AUTHORITY_OUTCOMES, KINDS, MAX_ATTRIBUTE_BYTES, MIN_TIME_US, RUN_OUTCOMES

__all__ = ["bad_characters", "bad_meaning", "bad_times", "oversized"]

_PAIRS: Final = frozenset(
    (kind, outcome) for kind in KINDS for outcome in (AUTHORITY_OUTCOMES if kind == "authority" else RUN_OUTCOMES)
)
_AT: Final = {name: i for i, name in enumerate(STRUCT_COLUMNS)}
_ENTITIES: Final = tuple(_AT[c] for c in ("agent_id", "team_id", "workflow_id", "org_id"))


def bad_times(times_us: Sequence[int], bounds: Bounds) -> list[int]:
    """Rows whose time is out of bounds."""
    low, high = max(MIN_TIME_US, bounds.oldest_us + 1), bounds.newest_us
    if min(times_us) >= low and max(times_us) <= high:
        return []
    return [i for i, us in enumerate(times_us) if not low <= us <= high]


def bad_meaning(columns: Sequence[Sequence[Any]], bounds: Bounds) -> set[int]:
    """Rows without a required field, with an outcome not of their kind, without entity, or of a reserved source."""
    rows: set[int] = set()
    kinds, outcomes = columns[_AT["kind"]], columns[_AT["outcome"]]
    if not _PAIRS.issuperset(zip(kinds, outcomes, strict=True)):
        rows.update(i for i, pair in enumerate(zip(kinds, outcomes, strict=True)) if pair not in _PAIRS)
    sources, ids = columns[_AT["source"]], columns[_AT["event_id"]]
    if None in sources or not bounds.reserved.isdisjoint(sources):
        rows.update(i for i, s in enumerate(sources) if s is None or s in bounds.reserved)
    if None in ids:
        rows.update(i for i, e in enumerate(ids) if e is None)
    entities = [columns[i] for i in _ENTITIES]
    if all(None in column for column in entities):
        rows.update(i for i, named in enumerate(zip(*entities, strict=True)) if not any(named))
    return rows


def oversized(encoded: Sequence[bytes], attributes: Sequence[Any]) -> list[int]:
    """Rows whose attributes might pass the limit of bytes."""
    if max(map(len, encoded)) <= MAX_ATTRIBUTE_BYTES:
        return []
    return [i for i, e in enumerate(encoded) if len(e) > MAX_ATTRIBUTE_BYTES and attributes[i] is not None]


def bad_characters(encoded: Sequence[bytes]) -> list[int]:
    """Rows whose canonical bytes hold an escape, DEL, a C1 control, or white space where a string begins or ends.

    Control characters below 0x20 are escaped in JSON; so are quotes and backslashes, which are fine but rare.
    """
    blob = b"\n".join(encoded)
    ascii_only = blob.isascii()
    if ascii_only and b"\\" not in blob and b" " not in blob and b"\x7f" not in blob:
        return []
    a = np.frombuffer(blob, dtype=np.uint8)
    bad = (a == 0x5C) | (a == 0x7F)
    quote, space = a == 0x22, a == 0x20
    bad[1:] |= space[1:] & quote[:-1]
    bad[:-1] |= space[:-1] & quote[1:]
    if not ascii_only:
        bad |= _wide_space_or_control(a)
    at = np.flatnonzero(bad)
    if not len(at):
        return []
    ends = np.cumsum(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)) + 1)
    rows: list[int] = np.unique(np.searchsorted(ends, at, side="right")).tolist()
    return rows


def _wide_space_or_control(a: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where a C1 control (U+0080..9F) or white space beyond ASCII begins, wherever in the string it stands."""
    first, second, third = a, np.append(a[1:], 0), np.append(a[2:], [0, 0])
    e2_80 = (first == 0xE2) & (second == 0x80) & ((third <= 0x8A) | (third == 0xA8) | (third == 0xA9) | (third == 0xAF))
    found: np.ndarray[Any, np.dtype[np.bool_]] = (
        ((first == 0xC2) & (second <= 0xA0))
        | ((first == 0xE1) & (second == 0x9A) & (third == 0x80))
        | e2_80
        | ((first == 0xE2) & (second == 0x81) & (third == 0x9F))
        | ((first == 0xE3) & (second == 0x80) & (third == 0x80))
    )
    return found
