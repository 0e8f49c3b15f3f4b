from __future__ import annotations

import numpy as np
import pytest

from enrich.windows.digest import digest


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 40_000])
def test_every_byte_counts(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    good = digest(data)
    assert digest(data.copy()) == good
    for at in range(0, size, max(1, size // 97)):
        for bit in (1, 128):
            data[at] ^= bit
            assert digest(data) != good
            data[at] ^= bit
    assert digest(np.append(data, np.uint8(0))) != good


def test_the_order_of_words_and_pages_counts() -> None:
    words = np.random.default_rng(1).integers(0, 2**63, 4 * 512, dtype=np.uint64)
    good = digest(words.view(np.uint8))
    for a, b in ((0, 1), (0, 511), (3, 600), (512, 1024)):
        swapped = words.copy()
        swapped[[a, b]] = swapped[[b, a]]
        assert digest(swapped.view(np.uint8)) != good
    pages = words.reshape(4, 512)[[1, 0, 2, 3]]
    assert digest(np.ascontiguousarray(pages).reshape(-1).view(np.uint8)) != good


def test_pages_of_nothing_are_something() -> None:
    assert digest(np.zeros(4096, np.uint8)) != digest(np.zeros(8192, np.uint8))
