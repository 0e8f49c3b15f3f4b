"""Wavelet matrices: order statistics and rank counts of any range in as many steps as the values have bits.

Level by level, from the highest bit that differs, the values' bits are stored in the order that the level above
left them (zeros first, then ones, both stable). A range of positions stays a range on every level, found by two
rank look-ups. Bits stand 32 to a word of 64, the word's upper half being the number of ones before it: one read per
look-up.

Values are unsigned (code + 2^63), so matrices of different blocks have their bits aligned and one descent can walk
several of them, and a sorted list beside them, at once: see `select`. Source: Claude, Navarro, Ordonez, "The wavelet
matrix", Information Systems 47 (2015).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from enrich.windows.codes import Int64s, view

__all__ = ["OFFSET", "Wavelet", "WaveletBuilder", "WaveletSet", "select"]

OFFSET = 1 << 63
_MASK = tuple((1 << i) - 1 for i in range(32))

UInt64s = npt.NDArray[np.uint64]


class Wavelet:
    """The values of one entity in one block; positions are the block's compact ones, `start` the entity's first."""

    __slots__ = ("length", "levels", "prefix", "start", "stride", "words", "zeros")

    def __init__(self, start: int, length: int, prefix: int, zeros: Sequence[int], words: Any) -> None:
        self.start, self.length, self.prefix, self.zeros, self.words = start, length, prefix, tuple(zeros), words
        self.levels = len(self.zeros)
        self.stride = length // 32 + 1

    def kth(self, lo: int, hi: int, k: int, both: bool = False) -> tuple[int, int]:
        """The k-th smallest code (0-based) of positions lo..hi-1, and the one after it if `both` (else the same)."""
        words, mask, stride, value = self.words, _MASK, self.stride, self.prefix
        lo -= self.start
        hi -= self.start
        at = 0
        above = None  # the nearest larger codes that were passed by: the next code is the smallest of them
        for level, zeros in enumerate(self.zeros, 1):
            x = words[at + (lo >> 5)]
            y = words[at + (hi >> 5)]
            a = (x >> 32) + (x & mask[lo & 31]).bit_count()
            b = (y >> 32) + (y & mask[hi & 31]).bit_count()
            left = hi - lo - b + a
            value <<= 1
            at += stride
            if k < left:
                if a != b:
                    above = level, zeros + a, zeros + b, value | 1
                lo -= a
                hi -= b
            else:
                k -= left
                lo = zeros + a
                hi = zeros + b
                value |= 1
        if not both or k + 1 < hi - lo or above is None:
            return value - OFFSET, value - OFFSET
        return value - OFFSET, self._smallest(*above) - OFFSET

    def _smallest(self, level: int, lo: int, hi: int, value: int) -> int:
        """The smallest value of a range found at `level`, `value` being the bits above."""
        words, mask, stride = self.words, _MASK, self.stride
        at = level * stride
        for zeros in self.zeros[level:]:
            x = words[at + (lo >> 5)]
            y = words[at + (hi >> 5)]
            a = (x >> 32) + (x & mask[lo & 31]).bit_count()
            b = (y >> 32) + (y & mask[hi & 31]).bit_count()
            value <<= 1
            at += stride
            if hi - lo > b - a:
                lo -= a
                hi -= b
            else:
                lo = zeros + a
                hi = zeros + b
                value |= 1
        return value

    def less(self, lo: int, hi: int, code: int) -> int:
        """How many of positions lo..hi-1 hold a code below `code`."""
        target = code + OFFSET
        top = target >> self.levels
        if top != self.prefix:
            return hi - lo if top > self.prefix else 0
        words, mask, stride = self.words, _MASK, self.stride
        lo -= self.start
        hi -= self.start
        at = below = 0
        bit = self.levels
        for zeros in self.zeros:
            if lo == hi:
                break
            x = words[at + (lo >> 5)]
            y = words[at + (hi >> 5)]
            a = (x >> 32) + (x & mask[lo & 31]).bit_count()
            b = (y >> 32) + (y & mask[hi & 31]).bit_count()
            bit -= 1
            if target >> bit & 1:
                below += hi - lo - b + a
                lo = zeros + a
                hi = zeros + b
            else:
                lo -= a
                hi -= b
            at += stride
        return below


def select(
    ranges: Sequence[tuple[Wavelet, int, int]], others: Sequence[int], k: int, both: bool = False
) -> tuple[int, int]:
    """The k-th smallest code of several ranges and a sorted sequence of codes together, and the one after it if `both`
    (else the same)."""
    if len(ranges) == 1 and not len(others):
        wavelet, lo, hi = ranges[0]
        return wavelet.kth(lo, hi, k, both)
    ends = (others[0] + OFFSET, others[-1] + OFFSET) if len(others) else ()
    floor = min([w.prefix << w.levels for w, _, _ in ranges] + list(ends[:1]))
    ceiling = max([(w.prefix + 1 << w.levels) - 1 for w, _, _ in ranges] + list(ends[1:]))
    bits = (floor ^ ceiling).bit_length()
    spans = [(w, lo - w.start, hi - w.start) for w, lo, hi in ranges]
    code, follow, above = _descend(bits, spans, others, 0, len(others), floor >> bits, k)
    if not both or follow or above is None:
        return code, code
    bit, spans, first, last, value = above
    return code, _descend(bit, spans, others, first, last, value, 0)[0]


_Spans = list[tuple[Wavelet, int, int]]


def _descend(
    bits: int, spans: _Spans, others: Sequence[int], first: int, last: int, value: int, k: int
) -> tuple[int, int, tuple[int, _Spans, int, int, int] | None]:
    """From `value`, the bits above the lowest `bits`, down to one code: (the code, how many equal ones follow the k-th,
    where to go on for the next larger code)."""
    mask = _MASK
    nearest = None
    for bit in range(bits - 1, -1, -1):
        value <<= 1
        middle = first
        if first != last:
            middle = bisect_left(others, ((value | 1) << bit) - OFFSET, first, last)
        left = middle - first
        below: _Spans = []
        above: _Spans = []
        for w, lo, hi in spans:
            level = w.levels - 1 - bit
            if level < 0:
                if w.prefix >> -level - 1 & 1:
                    above.append((w, lo, hi))
                else:
                    below.append((w, lo, hi))
                    left += hi - lo
                continue
            words = w.words
            at = level * w.stride
            x = words[at + (lo >> 5)]
            y = words[at + (hi >> 5)]
            a = (x >> 32) + (x & mask[lo & 31]).bit_count()
            b = (y >> 32) + (y & mask[hi & 31]).bit_count()
            if lo - a != hi - b:
                below.append((w, lo - a, hi - b))
                left += hi - lo - b + a
            if a != b:
                zeros = w.zeros[level]
                above.append((w, zeros + a, zeros + b))
        if k < left:
            if above or middle != last:
                nearest = bit, above, middle, last, value | 1
            spans, last = below, middle
        else:
            k -= left
            spans, first = above, middle
            value |= 1
    return value - OFFSET, sum(hi - lo for _, lo, hi in spans) + last - first - k - 1, nearest


class WaveletSet:
    """The matrices of one column's hot entities, by entity number, in arrays that can be saved as they are."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.arrays = dict(arrays)
        self.at: dict[int, Wavelet] = {}
        words = view(self.arrays["words"])
        zeros = self.arrays["zeros"].tolist()
        word_at = zero_at = 0
        for number, start, length, levels, prefix in zip(
            *(self.arrays[a].tolist() for a in ("ids", "starts", "lengths", "levels", "prefixes")), strict=True
        ):
            size = levels * (length // 32 + 1)
            self.at[number] = Wavelet(
                start, length, prefix, zeros[zero_at : zero_at + levels], words[word_at : word_at + size]
            )
            word_at += size
            zero_at += levels

    def nbytes(self) -> int:
        """Bytes held in arrays."""
        return sum(a.nbytes for a in self.arrays.values())


class WaveletBuilder:
    """Collects one entity after the other into a `WaveletSet`."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._starts: list[int] = []
        self._lengths: list[int] = []
        self._levels: list[int] = []
        self._prefixes: list[int] = []
        self._zeros: list[int] = []
        self._words: list[UInt64s] = []

    def add(self, number: int, start: int, codes: Int64s) -> None:
        """The codes (int64, in row order) of entity `number`, the first one at compact position `start`."""
        u = codes.view(np.uint64) ^ np.uint64(OFFSET)
        low, high = int(u.min()), int(u.max())
        levels = (low ^ high).bit_length()
        n = len(u)
        stride = n // 32 + 1
        packed = np.zeros(stride * 4, np.uint8)
        for bit in range(levels - 1, -1, -1):
            ones = (u >> np.uint64(bit) & np.uint64(1)).astype(np.bool_)
            bits = np.packbits(ones, bitorder="little")
            packed[: len(bits)] = bits
            words = packed.view(np.uint32)
            before = np.cumsum(np.bitwise_count(words), dtype=np.uint64)
            total = int(before[-1])
            before[1:] = before[:-1]
            before[0] = 0
            self._words.append(before << np.uint64(32) | words)
            self._zeros.append(n - total)
            u = np.concatenate([u[~ones], u[ones]])
        self._ids.append(number)
        self._starts.append(start)
        self._lengths.append(n)
        self._levels.append(levels)
        self._prefixes.append(low >> levels)

    def finish(self) -> WaveletSet | None:
        """The set, None when there was no entity."""
        if not self._ids:
            return None
        words = np.concatenate(self._words) if self._words else np.zeros(0, np.uint64)
        self._words = []
        arrays: dict[str, npt.NDArray[Any]] = {
            "ids": np.array(self._ids, np.int64),
            "starts": np.array(self._starts, np.int64),
            "lengths": np.array(self._lengths, np.int64),
            "levels": np.array(self._levels, np.int64),
            "prefixes": np.array(self._prefixes, np.uint64),
            "zeros": np.array(self._zeros, np.int64),
            "words": words,
        }
        return WaveletSet(arrays)
