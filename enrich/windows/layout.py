"""How running totals are packed into one record per row, so that one `unpack_from` reads them all.

A sum column has a *form*: the number of int64 fields ("limbs") it takes. The value is the sum of `limb[i] << 32 * i`.

| form | holds | used when |
|---|---|---|
| 1 | the value | the sum of magnitudes over the block stays below 2^63 |
| 2 | any int64 as (low 32 bits, the rest) | it might not |
| 4 | squares up to 2^126 | a square does not fit an int64 |

INVARIANT: no running limb overflows in a block of fewer than 2^29 rows, so every total is exact.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from enrich.windows.codes import Int64s

__all__ = ["Layout", "form_for", "limbs_of", "magnitudes", "square_limbs"]

_LOW = 0xFFFF_FFFF
_SAFE = float(2**63) * 0.999  # what a float64 estimate may reach without the true value passing 2^63

Record = tuple[int, ...]


class Layout:
    """The packing of one block's records: `n_counts` int32, then the limbs of each sum as int64, little-endian."""

    def __init__(self, n_counts: int, forms: Sequence[int]) -> None:
        self.n_counts = n_counts
        self.forms = tuple(forms)
        limbs = sum(self.forms)
        pad = "4x" if (n_counts % 2 and limbs) or not n_counts + limbs else ""
        packed = struct.Struct(f"<{n_counts}i{pad}{limbs}q")
        self.size = packed.size
        first = n_counts * 4 + (4 if pad else 0)
        names = [f"c{i}" for i in range(n_counts)]
        offsets = [4 * i for i in range(n_counts)]
        formats: list[str] = ["<i4"] * n_counts
        for s, form in enumerate(self.forms):
            for limb in range(form):
                names.append(f"s{s}.{limb}")
                offsets.append(first)
                formats.append("<i8")
                first += 8
        self.dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": self.size})
        #: (buffer, byte offset) -> counts and sums as exact ints
        self.read: Callable[[Any, int], Record] = packed.unpack_from
        if any(form != 1 for form in self.forms):
            self.read = self._wide_reader(packed.unpack_from)

    def _wide_reader(self, unpack: Callable[[Any, int], Record]) -> Callable[[Any, int], Record]:
        """A reader that puts limbs together; straight-line code over field numbers, since it runs per window."""
        terms = [f"r[{i}]" for i in range(self.n_counts)]
        at = self.n_counts
        for form in self.forms:
            terms.append(" + ".join(f"(r[{at + i}] << {32 * i})" if i else f"r[{at}]" for i in range(form)))
            at += form
        assemble = eval(f"lambda r: ({', '.join(terms)},)", {"__builtins__": {}})
        return lambda buffer, offset: assemble(unpack(buffer, offset))


def magnitudes(x: Int64s, squared: bool) -> tuple[float, int]:
    """(about the sum, exactly the maximum) of |x|, or of x squared, for choosing a form."""
    if not len(x):
        return 0.0, 0
    peak = max(abs(int(x.min())), abs(int(x.max())))
    f = np.abs(x.astype(np.float64))
    return (float(np.dot(f, f)), peak * peak) if squared else (float(f.sum()), peak)


def form_for(total: float, peak: int) -> int:
    """The smallest form for running sums of values whose magnitudes sum to about `total`, each at most `peak`."""
    if total < _SAFE:
        return 1
    return 2 if peak <= 2**63 else 4


def limbs_of(limbs: Sequence[Int64s], form: int) -> list[Int64s]:
    """The same values in a form that is at least as wide."""
    have = len(limbs)
    if have == form:
        return list(limbs)
    if have == 1:
        return limbs_of([limbs[0] & _LOW, limbs[0] >> 32], form)
    zero = np.zeros_like(limbs[0])
    return [limbs[0], limbs[1], zero, zero]


def square_limbs(x: Int64s, form: int) -> list[Int64s]:
    """The limbs of x squared in `form`, exact for every int64."""
    if form != 4:
        return limbs_of([x * x], form)
    u = np.where(x < 0, np.uint64(0) - x.view(np.uint64), x.view(np.uint64))
    low = np.uint64(_LOW)
    half = np.uint64(32)
    a, b = u >> half, u & low
    bb, ab, aa = b * b, a * b, a * a
    limbs: list[npt.NDArray[np.uint64]] = [
        bb & low,
        (bb >> half) + ((ab & low) << np.uint64(1)),
        ((ab >> half) << np.uint64(1)) + (aa & low),
        aa >> half,
    ]
    return [limb.view(np.int64) for limb in limbs]
