"""Frames of events as columns of Python values, and which rows need the precise check because of their types.

What is told apart here is only what the struct tells apart for objects: types, lengths, ranges. All other rules are the
parser's own, so a frame and its rows as objects get the same answers.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from enrich.errors import EnrichError
from enrich.events._struct import STRUCT_COLUMNS, Attributes, EventStruct, encoder
from enrich.events.json import strict_loads
from enrich.events.model import COLUMNS, INT64_MAX, INT_COLUMNS, MATERIALITIES, MAX_ATTRIBUTE_BYTES, MAX_STRING
from enrich.events.times import format_many_us, format_us

__all__ = ["Frame"]

_UNITS_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
#: the years 1 to 9999, which text and datetime can hold
_MIN_SECOND, _MAX_SECOND = -62_135_596_800, 253_402_300_799
#: made once: PyArrow looks for pandas each time that it makes a scalar of a Python value, 0.1 ms where there is none
_FALSE: Final = pa.scalar(False)
_ZERO: Final = pa.scalar(0, pa.int64())
_ONE: Final = pa.scalar(1, pa.int64())
_MAX_INT64: Final = pa.scalar(INT64_MAX, pa.uint64())
_Mask = npt.NDArray[np.bool_]
#: a JSON text much longer than its canonical form is not worth reading
_MAX_ATTRIBUTE_TEXT: Final = 4 * MAX_ATTRIBUTE_BYTES


@dataclass(slots=True)
class Frame(Sequence[object]):
    """A table read once: `values` for the struct, `raw` for the precise check, `suspect` rows, and times where known.

    As a sequence it is the rows as objects: dicts without nulls, as the precise check wants them.
    """

    n: int
    values: dict[str, list[Any]]
    raw: dict[str, list[Any]]
    unknown: list[str]
    suspect: _Mask
    times_us: list[int] | None

    @classmethod
    def read(cls, table: Any) -> Frame:
        """Read a `pyarrow.Table` or a `polars.DataFrame`; never raises for what it holds.

        Raises:
            TypeError: it is neither.
        """
        table = _as_arrow(table)
        n = table.num_rows
        frame = cls(n, dict.fromkeys(COLUMNS, [None] * n), {}, [], np.zeros(n, dtype=np.bool_), None)
        for i, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
            if name not in frame.values or name in table.column_names[:i]:
                frame.unknown.append(name if name not in frame.values else f"{name} (a second time)")
                frame.suspect[:] = True
            else:
                frame._read_column(name, _plain(column))
        return frame

    def _read_column(self, name: str, column: pa.ChunkedArray) -> None:
        kind = column.type
        if column.null_count == self.n:
            return
        if name == "occurred_at" and pa.types.is_timestamp(kind):
            self._read_timestamps(column)
        elif name == "attributes":
            self._read_attributes(column)
        elif name in INT_COLUMNS and pa.types.is_integer(kind):
            self.values[name] = self.raw[name] = self._integers(column)
        elif name not in INT_COLUMNS and _is_string(kind):
            self._read_strings(name, column)
        else:
            self.raw[name] = _foreign(column)
            self._doubt(pc.is_valid(column))

    def _read_strings(self, name: str, column: pa.ChunkedArray) -> None:
        if not _is_utf8(column):
            self.raw[name] = [None if b is None else b.decode("utf-8", "surrogateescape") for b in _bytes(column)]
            self._doubt(pc.is_valid(column))
            return
        self.values[name] = self.raw[name] = column.to_pylist()
        if name == "materiality":
            self._doubt(pc.invert(pc.is_in(column, pa.array(MATERIALITIES, column.type), skip_nulls=False)), column)
        elif name != "occurred_at":
            length = pc.fill_null(pc.utf8_length(column).cast(pa.int64()), _ONE).to_numpy()
            self.suspect |= (length == 0) | (length > MAX_STRING)

    def _integers(self, column: pa.ChunkedArray) -> list[Any]:
        """What `to_pylist` gives, in a quarter of its time; doubts what is not an int64 from 0 on."""
        if pa.types.is_uint64(column.type) and _mask(pc.greater(column, _MAX_INT64)).any():
            self._doubt(pc.greater(column, _MAX_INT64))
            exact: list[Any] = column.to_pylist()
            return exact
        numbers = pc.fill_null(column.cast(pa.int64()), _ZERO).to_numpy()
        self.suspect |= numbers < 0
        values: list[Any] = numbers.tolist()
        if column.null_count:
            for i in np.flatnonzero(~_mask(pc.is_valid(column))).tolist():
                values[i] = None
        return values

    def _read_timestamps(self, column: pa.ChunkedArray) -> None:
        """Times as int microseconds; rows with a null, naive, finer or absurd time are left to the precise check."""
        per_second = _UNITS_PER_SECOND[column.type.unit]
        valid = _mask(pc.is_valid(column))
        units = pc.fill_null(column.cast(pa.int64()), _ZERO).to_numpy()
        seconds, rest = np.divmod(units, per_second)
        known = (seconds >= _MIN_SECOND) & (seconds <= _MAX_SECOND)
        exact = rest % 1_000 == 0 if per_second > 1_000_000 else np.ones(self.n, dtype=np.bool_)
        micros = rest // 1_000 if per_second > 1_000_000 else rest * (1_000_000 // per_second)
        us = np.where(known & valid, seconds, 0) * 1_000_000 + micros
        aware = column.type.tz is not None
        fine = valid & known & exact & aware
        self.suspect |= ~fine
        self.times_us = us.tolist()
        self.values["occurred_at"] = format_many_us(self.times_us)
        raw: list[Any] = list(self.values["occurred_at"])
        for i in np.flatnonzero(~fine).tolist():
            raw[i] = _time_text(int(us[i]), int(units[i]), bool(known[i]), aware) if valid[i] else None
            if known[i] and valid[i] and not exact[i]:
                raw[i] = f"{raw[i].removesuffix('Z')}{int(rest[i]) % 1_000:03}{'Z' if aware else ''}"
        self.raw["occurred_at"] = raw

    def _read_attributes(self, column: pa.ChunkedArray) -> None:
        # a list of pairs, or of texts of two characters, would make a dict as well as a map does
        given = column.to_pylist() if not _is_list(column.type) and _is_utf8(column) else _foreign(column)
        read = functools.lru_cache(maxsize=1024)(_Texts().read)  # attributes of neighbours are often the same text
        raw, values = [], []
        for i, item in enumerate(given):
            value = None
            try:
                if isinstance(item, str):
                    item = value = dict(read(item))
                elif item is not None:
                    item = _attributes(item)
                    value = msgspec.convert(item, Attributes)
            except (msgspec.MsgspecError, UnicodeEncodeError):
                item = _attributes(item) if isinstance(item, str) else item
                self.suspect[i] = True
            raw.append(item)
            values.append(value)
        self.raw["attributes"], self.values["attributes"] = raw, values

    def _doubt(self, doubtful: Any, where_valid: Any = None) -> None:
        mask = _mask(doubtful)
        self.suspect |= mask if where_valid is None else mask & _mask(pc.is_valid(where_valid))

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Any) -> Any:
        row = {name: values[index] for name, values in self.raw.items() if values[index] is not None}
        return {**row, **dict.fromkeys(self.unknown)}

    def blocks(self, size: int) -> Iterator[tuple[int, list[EventStruct], set[int], list[int] | None]]:
        """(start, structs, suspects counted from start, times) of each `size` rows; `occurred_at` is text."""
        columns = [self.values[c] for c in STRUCT_COLUMNS]
        for start in range(0, self.n, size):
            part = slice(start, start + size)
            structs = list(map(EventStruct, *(c[part] for c in columns)))
            suspects = set(np.flatnonzero(self.suspect[part]).tolist())
            yield start, structs, suspects, None if self.times_us is None else self.times_us[part]


class _Texts:
    """Attributes from JSON text whose types hold."""

    def __init__(self) -> None:
        self._decode, self._encode = msgspec.json.Decoder(Attributes).decode, encoder().encode

    def read(self, text: str) -> dict[str, Any]:
        value: dict[str, Any] = self._decode(text)
        if self._encode(value) != text.encode():  # not canonical: a duplicate key may hide in it
            value = msgspec.convert(_attributes(text), Attributes)
        return value


def _as_arrow(table: Any) -> pa.Table:
    if isinstance(table, pa.Table):
        return table
    to_arrow = getattr(table, "to_arrow", None)
    if to_arrow is None:
        raise TypeError(f"a frame is a pyarrow.Table or a polars.DataFrame, not a {type(table).__name__}")
    import polars as pl

    return to_arrow(compat_level=pl.CompatLevel.oldest())


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dictionaries and views decoded."""
    if pa.types.is_dictionary(column.type):
        column = pc.dictionary_decode(column)
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(is_one(kind) for is_one in lists)


def _mask(values: Any) -> _Mask:
    """An Arrow boolean, null as False, as a NumPy mask."""
    mask: _Mask = np.asarray(pc.fill_null(values, _FALSE).to_numpy(zero_copy_only=False), dtype=np.bool_)
    return mask


def _is_utf8(column: pa.ChunkedArray) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _bytes(column: pa.ChunkedArray) -> list[bytes | None]:
    values: list[bytes | None] = column.cast(pa.large_binary()).to_pylist()
    return values


def _foreign(column: pa.ChunkedArray) -> list[Any]:
    """Values of a wrong type, as the precise check would meet them in an object; exotic ones stand as their type."""
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or _is_string(kind):
        values: list[Any] = column.to_pylist()
        return values
    return [kind if valid else None for valid in pc.is_valid(column).to_pylist()]


def _time_text(us: int, units: int, known: bool, aware: bool) -> str:
    if not known:
        return f"{units} time units since 1970"
    return format_us(us) if aware else format_us(us)[:-1]


def _attributes(value: object) -> object:
    """Attributes from JSON text, a map (pairs) or a struct (its nulls are absent); what is neither stays as it is."""
    if isinstance(value, str):
        try:
            return strict_loads(value.encode(), max_bytes=_MAX_ATTRIBUTE_TEXT, max_depth=8)
        except EnrichError:
            return value
    if isinstance(value, list):
        try:
            pairs = dict(value)
        except (TypeError, ValueError):
            return value
        return pairs if len(pairs) == len(value) else value
    if isinstance(value, dict):
        return {k: v for k, v in value.items() if v is not None}
    return value
