"""One value column of a block: the values of the rows that have the predicate, and what answers questions about them.

A column is compact: its position of a row is the running count of its predicate there, so no search is needed to
find a window's values. Up to `SLICE` values are looked at as they are, in one native call; entities with more get
structures of their own, so that no question costs more than O(log n).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from enrich.signals.plan import ValueColumn
from enrich.windows.codes import Int64s, view
from enrich.windows.extremes import Extreme
from enrich.windows.wavelet import WaveletBuilder, WaveletSet

__all__ = ["SLICE", "WITH_CODES", "BlockColumn", "build_column"]

#: uses that look at values, not only at where rows stand
WITH_CODES = frozenset({"order", "extreme", "distinct", "last"})
SLICE = 2_048  # the most values that are looked at one by one, in one native call

Int32s = npt.NDArray[np.int32]
Arrays = dict[str, npt.NDArray[Any]]


class BlockColumn:
    """Made of named arrays, which can be saved as they are:

    `codes` (int32 or int64, compact), `rows` (int32: compact position to row), `within` (int32: how many rows of the
    entity lie in the burst interval that ends at this one), `order.*` and `previous.*` (wavelet matrices of hot
    entities over codes, and over 1 + the place of the previous equal code, 0 when there is none, counted within the
    entity), `places` and `words` (hot entities one after the other: rank of the code << 32 | place within the
    entity, sorted; the distinct codes, sorted), `hot` (per hot entity: number, start, length in `places`, start and
    length in `words`).
    """

    def __init__(self, column: ValueColumn, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.arrays = dict(arrays)
        self.count = column.count
        self.codes = self.arrays.get("codes")
        rows = self.arrays.get("rows")
        self.rows: Any = None if rows is None else view(rows)
        self.smallest = self.largest = self.burst = None
        if "extreme" in column.uses and self.codes is not None:
            self.smallest, self.largest = Extreme(self.codes, False), Extreme(self.codes, True)
        if "within" in self.arrays:
            self.burst = Extreme(self.arrays["within"], True)
        self.order = self._wavelets("order")
        self.previous = self._wavelets("previous")
        self.words: dict[int, tuple[int, Int64s, npt.NDArray[Any]]] = {}
        if "hot" in self.arrays:
            places, words = self.arrays["places"], self.arrays["words"]
            for number, start, at, n, word_at, n_words in self.arrays["hot"].reshape(-1, 6).tolist():
                self.words[number] = (start, places[at : at + n], words[word_at : word_at + n_words])

    def _wavelets(self, name: str) -> WaveletSet | None:
        own = {k.partition(".")[2]: a for k, a in self.arrays.items() if k.startswith(name + ".")}
        return WaveletSet(own) if own else None

    def holds(self, number: int, lo: int, hi: int, codes: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """For each of `codes`, whether hot entity `number` has it at compact positions lo..hi-1."""
        start, places, words = self.words[number]
        rank = np.searchsorted(words, codes)
        known = rank < len(words)
        known[known] = words[rank[known]] == codes[known]
        key = rank << 32
        at = np.searchsorted(places, key + (lo - start))
        inside = at < len(places)
        inside[inside] = places[at[inside]] < (key + (hi - start))[inside]
        both: npt.NDArray[np.bool_] = known & inside
        return both

    def different(self, number: int, lo: int, hi: int) -> npt.NDArray[Any]:
        """The distinct codes of hot entity `number` at compact positions lo..hi-1, by the cheaper of two ways."""
        words = self.words[number][2]
        if len(words) < (hi - lo) // 16:
            mine: npt.NDArray[Any] = words[self.holds(number, lo, hi, words)]
            return mine
        assert self.codes is not None
        return _distinct(self.codes[lo:hi])

    def nbytes(self) -> int:
        """Bytes held in arrays."""
        tables = sum(e.nbytes() for e in (self.smallest, self.largest, self.burst) if e is not None)
        return tables + sum(a.nbytes for a in self.arrays.values())


def _distinct(codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The distinct values, sorted (np.unique holds the GIL)."""
    s = np.sort(codes)
    fresh: npt.NDArray[Any] = s[np.concatenate([np.ones(min(len(s), 1), np.bool_), s[1:] != s[:-1]])]
    return fresh


def build_column(
    column: ValueColumn,
    codes: npt.NDArray[Any] | None,
    records: npt.NDArray[Any],
    entities: Int32s,
    bounds: Int64s,
    times: Int64s,
    breathe: Callable[[], None],
) -> BlockColumn:
    """The column's structures over finished records (`codes`: compact, None when no use reads values)."""
    running = records[f"c{column.count}"]
    starts = running[bounds]
    arrays: Arrays = {}
    if codes is not None:
        arrays["codes"] = codes
    rows = np.flatnonzero(np.diff(running)).astype(np.int32)
    if column.uses & {"last", "break", "burst"}:
        arrays["rows"] = rows
    if "burst" in column.uses and column.burst_us is not None:
        arrays["within"] = _within(times[rows], starts, column.burst_us, breathe)
    if codes is not None and column.uses & {"order", "distinct"}:
        hot = np.flatnonzero(np.diff(starts) > SLICE)
        spans = list(zip(entities[hot].tolist(), starts[hot].tolist(), starts[hot + 1].tolist(), strict=True))
        if "order" in column.uses:
            orders = WaveletBuilder()
            for number, lo, hi in spans:
                orders.add(number, lo, codes[lo:hi].astype(np.int64))
                breathe()
            arrays |= _named("order", orders.finish())
        if "distinct" in column.uses and spans:
            arrays |= _distinct_arrays(codes, spans, breathe)
    return BlockColumn(column, arrays)


def _named(name: str, wavelets: WaveletSet | None) -> Arrays:
    return {} if wavelets is None else {f"{name}.{k}": a for k, a in wavelets.arrays.items()}


def _distinct_arrays(codes: npt.NDArray[Any], spans: list[tuple[int, int, int]], breathe: Callable[[], None]) -> Arrays:
    previous = WaveletBuilder()
    places: list[Int64s] = []
    words: list[npt.NDArray[Any]] = []
    hot = []
    at = word_at = 0
    for number, lo, hi in spans:
        own = codes[lo:hi]
        n = hi - lo
        order = np.argsort(own, kind="stable")
        ordered = own[order]
        fresh = np.concatenate([np.ones(1, np.bool_), ordered[1:] != ordered[:-1]])
        before = np.zeros(n, np.int64)
        before[order[1:]] = np.where(fresh[1:], 0, order[:-1] + 1)
        previous.add(number, lo, before)
        places.append((np.cumsum(fresh) - 1 << 32) + order)
        words.append(ordered[fresh])
        hot.append((number, lo, at, n, word_at, len(words[-1])))
        at += n
        word_at += len(words[-1])
        breathe()
    return {
        "places": np.concatenate(places),
        "words": np.concatenate(words),
        "hot": np.array(hot, np.int64),
    } | _named("previous", previous.finish())


def _within(t: Int64s, starts: npt.NDArray[Any], burst_us: int, breathe: Callable[[], None]) -> Int32s:
    """For each compact row the number of rows of its entity in (its time - burst_us, its time], itself the last."""
    out = np.empty(len(t), np.int32)
    for a, b, pieces in _groups(starts):
        gaps = np.empty(b - a, np.int64)
        np.subtract(t[a + 1 : b], t[a : b - 1], out=gaps[1:])
        gaps[(pieces - a)[:-1][np.diff(pieces) > 0]] = burst_us
        # a gap as long as the interval parts rows for good, however long it is: clamped, nothing overflows
        key = np.cumsum(np.minimum(gaps, burst_us))
        first = np.searchsorted(key, key - burst_us, side="right")
        out[a:b] = np.arange(1, b - a + 1) - first
        breathe()
    return out


def _groups(starts: npt.NDArray[Any]) -> Iterator[tuple[int, int, Int64s]]:
    """Runs of whole entities of about 64 k rows: (first, end, entity bounds)."""
    bounds = starts.astype(np.int64)
    i = 0
    while i < len(bounds) - 1:
        j = max(i + 1, int(np.searchsorted(bounds, bounds[i] + 65_536, side="right")) - 1)
        if bounds[j] > bounds[i]:
            yield int(bounds[i]), int(bounds[j]), bounds[i : j + 1]
        i = j
