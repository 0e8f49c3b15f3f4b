"""Minimum and maximum of any range: pieces of 512 values, and a sparse table over the pieces' own extremes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Extreme"]

_PIECE = 512
_DIRECT = 2_048  # up to here one native reduction of the slice is as fast


class Extreme:
    """Range minimum (or maximum) over `values`: at most three native reductions of bounded length per question.

    `table[level][i]` is the extreme of pieces i .. i + 2^level - 1.
    """

    def __init__(self, values: npt.NDArray[Any], biggest: bool) -> None:
        self.values = values
        self._reduce = np.maximum.reduce if biggest else np.minimum.reduce
        join = np.maximum if biggest else np.minimum
        pieces = len(values) // _PIECE
        self.table: list[npt.NDArray[Any]] = []
        if pieces:
            level = self._reduce(values[: pieces * _PIECE].reshape(pieces, _PIECE), axis=1)
            self.table.append(level)
            width = 1
            while 2 * width <= pieces:
                level = join(level[:-width], level[width:])
                self.table.append(level)
                width *= 2

    def over(self, lo: int, hi: int) -> int:
        """The extreme of values[lo:hi], which is not empty."""
        if hi - lo <= _DIRECT:
            return int(self._reduce(self.values[lo:hi]))
        first, last = -(-lo // _PIECE), hi // _PIECE
        level = (last - first).bit_length() - 1
        row = self.table[level]
        found = [row[first], row[last - (1 << level)]]
        if lo < first * _PIECE:
            found.append(self._reduce(self.values[lo : first * _PIECE]))
        if last * _PIECE < hi:
            found.append(self._reduce(self.values[last * _PIECE : hi]))
        return int(self._reduce(found))

    def nbytes(self) -> int:
        """Bytes held beside the values."""
        return sum(level.nbytes for level in self.table)
