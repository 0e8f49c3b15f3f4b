"""From what a caller sent to a batch of validated events and a list of refusals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import msgspec

from enrich.errors import EventError
from enrich.events._bulk import bad_characters, bad_meaning, bad_times, oversized
from enrich.events._check import Bounds, check_event
from enrich.events._struct import STRUCT_COLUMNS, EventStruct, columns_of, encoder
from enrich.events.frame import Frame
from enrich.events.hashing import Hasher
from enrich.events.model import COLUMNS, OWN_SOURCE, EventBatch
from enrich.events.refusals import Rejection
from enrich.events.times import canonical_text, canonical_times_us, format_us, parse_rfc3339_us

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

__all__ = ["EventParser", "Parsed"]

#: events looked at together: few enough to stay in the processor's cache from parsing to hashing
_BLOCK: Final = 512
#: from so many on, columns that no event has are left out of the work
_MANY: Final = 64
_TIME: Final = STRUCT_COLUMNS.index("occurred_at")
#: where each column of a batch stands among the struct's
_PLACES: Final = tuple((c, STRUCT_COLUMNS.index(c)) for c in COLUMNS)
_ATTRIBUTES: Final = STRUCT_COLUMNS.index("attributes")


@dataclass(frozen=True, slots=True)
class Parsed:
    """What became of a sequence of events: `indices[i]` is the place in the input of row i of `batch`."""

    batch: EventBatch
    indices: list[int]
    rejected: list[Rejection]
    dropped_attributes: int


@dataclass(slots=True)
class _Collected:
    """What grows while blocks are parsed; the columns of each block stand in the struct's order."""

    columns: list[list[Sequence[Any]]] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    canonical: list[bytes] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    dropped: int = 0


class EventParser:
    """Validates events, whatever form they come in, by one set of rules (docs/reference/events.md).

    Args:
        hash_key: the journal's secret for keyed hashes, 1 to 64 bytes.
        max_clock_skew_us: how far ahead of `now_us` a time may lie.
        retention_us: an event as old as this or older is `too_old`.
        not_before_us: and so is one before this moment: what was pruned is not taken again, though retention is longer
            now, since nobody knows any more which events were there.
        attribute_keys: the keys of `attributes` that are kept; None keeps all.
        reserved_sources: source names that only the engine itself may use.

    Thread-safe: nothing changes after construction.
    """

    def __init__(
        self,
        *,
        hash_key: bytes,
        max_clock_skew_us: int = 60_000_000,
        retention_us: int,
        attribute_keys: frozenset[str] | None,
        reserved_sources: frozenset[str] = frozenset({OWN_SOURCE}),
        not_before_us: int | None = None,
    ) -> None:
        self._hasher = Hasher(hash_key)
        self._encode = encoder().encode
        self._skew_us = max_clock_skew_us
        self._retention_us = retention_us
        self._attribute_keys = attribute_keys
        self._reserved = reserved_sources
        # msgspec works out what a type means when it is first used, and crashes the process when two threads do so at
        # the same time: it is done here, before any thread can parse
        msgspec.convert({}, EventStruct)
        msgspec.convert([], list[EventStruct])
        self._latest_refused_us = -(1 << 63) if not_before_us is None else not_before_us - 1

    def parse(self, events: Sequence[Mapping[str, Any] | object], now_us: int) -> Parsed:
        """Events as Python objects: mappings as JSON decodes them; `occurred_at` may be an aware datetime as well.

        Args:
            events: anything that is no mapping is one refused event.
            now_us: the engine's clock, microseconds since 1970.

        Returns:
            The accepted events in their order, and the refused ones. Never raises for what an event holds.
        """
        bounds, out = self.bounds(now_us), _Collected()
        for start in range(0, len(events), _BLOCK):
            block = events[start : start + _BLOCK]
            structs, suspects = _convert(block)
            fields = STRUCT_COLUMNS if suspects else _fields(block)
            times_us = _set_times(structs, suspects, bounds)
            self._settle(events, start, structs, fields, times_us, suspects, bounds, out)
        return self._parsed(out)

    def parse_frame(self, table: pa.Table | pl.DataFrame, now_us: int) -> Parsed:
        """Events as columns, by the same rules and with the same refusals as `parse` of the table's rows.

        A null is an absent field. `occurred_at` is a timestamp with a time zone (or RFC 3339 text); `attributes` JSON
        text, a struct (its null fields are absent) or a map. A column that events don't have refuses every row.
        """
        bounds, out, frame = self.bounds(now_us), _Collected(), Frame.read(table)
        for start, structs, suspects, times_us in frame.blocks(_BLOCK):
            if times_us is None:
                times_us = _set_times(structs, suspects, bounds)
            self._settle(frame, start, structs, STRUCT_COLUMNS, times_us, suspects, bounds, out)
        return self._parsed(out)

    def bounds(self, now_us: int) -> Bounds:
        """What is accepted at that moment."""
        too_old_us = max(now_us - self._retention_us, self._latest_refused_us)
        return Bounds(too_old_us, now_us + self._skew_us, self._reserved)

    def _settle(
        self,
        events: Sequence[object],
        start: int,
        structs: list[EventStruct],
        fields: Collection[str],
        times_us: list[int],
        suspects: set[int],
        bounds: Bounds,
        out: _Collected,
    ) -> None:
        """Take one block: `structs[i]` has the types of `events[start + i]` checked unless i is in `suspects`; a field
        not in `fields` is in none of them."""
        encode = self._encode
        suspects.update(bad_times(times_us, bounds))
        encoded = _encode(structs, suspects, encode)
        columns = columns_of(structs, fields)
        suspects |= bad_meaning(columns, bounds)
        suspects.update(bad_characters(encoded), oversized(encoded, columns[_ATTRIBUTES]))
        accepted: Sequence[int] = range(len(structs))
        if suspects:
            refused = set()
            for i in sorted(suspects):
                try:
                    row = check_event(events[start + i], bounds)
                except EventError as e:
                    refused.add(i)
                    out.rejected.append(_rejection(start + i, e))
                    continue
                times_us[i] = row["occurred_at"]
                structs[i] = EventStruct(**{**row, "occurred_at": format_us(row["occurred_at"])})
                encoded[i] = encode(structs[i])
            accepted = [i for i in accepted if i not in refused]
            if not accepted:
                return
            structs, encoded = [structs[i] for i in accepted], [encoded[i] for i in accepted]
            times_us = [times_us[i] for i in accepted]
            columns = columns_of(structs, fields)
        columns[_TIME] = times_us
        out.contents += self._hasher.contents(encoded)
        columns[_ATTRIBUTES] = self._keep_attributes(structs, columns[_ATTRIBUTES], encoded, out)
        out.columns.append(columns)
        out.canonical += encoded
        out.indices.extend([start + i for i in accepted])

    def _keep_attributes(
        self, structs: list[EventStruct], attributes: Sequence[Any], encoded: list[bytes], out: _Collected
    ) -> Sequence[Any]:
        """The attributes as they are kept; changes `encoded` where one is dropped."""
        keys = self._attribute_keys
        if keys is None or not any(attributes):
            return attributes
        kept = list(attributes)
        for i, all_of_it in enumerate(attributes):
            if all_of_it and not keys.issuperset(all_of_it):
                kept[i] = {k: v for k, v in all_of_it.items() if k in keys} or None
                out.dropped += len(all_of_it) - len(kept[i] or ())
                structs[i].attributes = kept[i]
                encoded[i] = self._encode(structs[i])
        return kept

    def _parsed(self, out: _Collected) -> Parsed:
        """The end of a parse."""
        blocks = out.columns
        columns: dict[str, list[Any]]
        if len(blocks) == 1:
            (block,) = blocks
            columns = {c: list(block[at]) for c, at in _PLACES}
        else:
            columns = {c: list(chain.from_iterable([block[at] for block in blocks])) for c, at in _PLACES}
        keys = self._hasher.keys(columns["source"], columns["event_id"])
        batch = EventBatch(len(out.indices), columns, keys, out.contents, out.canonical)
        return Parsed(batch, out.indices, out.rejected, out.dropped)


def _convert(block: Sequence[object]) -> tuple[list[EventStruct], set[int]]:
    """Structs of a block, and which rows could not be converted (their struct is empty)."""
    try:
        if len(block) == 1:  # saves msgspec looking at the type of the list
            return [msgspec.convert(block[0], EventStruct)], set()
        return msgspec.convert(block, list[EventStruct]), set()
    except (msgspec.ValidationError, UnicodeEncodeError, RecursionError):
        pass  # at least one row is bad: find out which
    structs, suspects = [], set()
    for i, event in enumerate(block):
        try:
            structs.append(msgspec.convert(event, EventStruct))
        except (msgspec.ValidationError, UnicodeEncodeError, RecursionError):
            structs.append(EventStruct())
            suspects.add(i)
    return structs, suspects


def _fields(block: Sequence[Any]) -> Collection[str]:
    """Every field that an event of a converted block has, perhaps more; of a small one it is not worth the look."""
    if len(block) < _MANY or set(map(type, block)) != {dict}:
        return STRUCT_COLUMNS
    return set().union(*block)


def _set_times(structs: list[EventStruct], suspects: set[int], bounds: Bounds) -> list[int]:
    """Microseconds of each row; makes `occurred_at` of each struct canonical text; names rows with none."""
    times_us = canonical_times_us([s.occurred_at for s in structs])
    if times_us is None:
        times_us = []
        for i, struct in enumerate(structs):
            us = _time_of(struct)
            if us is None:
                suspects.add(i)
            times_us.append(bounds.newest_us if us is None else us)
    return times_us


def _time_of(struct: EventStruct) -> int | None:
    """Microseconds of RFC 3339 text, which becomes canonical; anything else is taken away, to be never encoded."""
    text = struct.occurred_at
    struct.occurred_at = None
    if type(text) is not str:
        return None
    try:
        us = parse_rfc3339_us(text)
    except EventError:
        return None
    struct.occurred_at = canonical_text(text, us)
    return us


def _encode(structs: list[EventStruct], suspects: set[int], encode: Any) -> list[bytes]:
    """Canonical bytes of each row; names rows that can't be encoded (lone surrogates, subclasses of str)."""
    for struct in structs:
        if struct.attributes == {}:
            struct.attributes = None
    try:
        return list(map(encode, structs))
    except (UnicodeEncodeError, TypeError):
        pass  # at least one row is bad: find out which
    encoded = []
    for i, struct in enumerate(structs):
        try:
            encoded.append(encode(struct))
        except (UnicodeEncodeError, TypeError):
            encoded.append(b"{}")
            suspects.add(i)
    return encoded


def _rejection(index: int, e: EventError) -> Rejection:
    return Rejection(index, e.error_code, e.detail.get("field"), e.detail.get("value"), e.message)
