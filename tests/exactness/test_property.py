"""Random definitions over random histories: what the real index answers is what DuckDB has.

A case is one distinct (SQL of one column, history, as_of); it is compared for several entities and windows at once.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.exactness.random_sets import Tally, run

CASES: Final = 20_000
SCENARIOS: Final = 100


@pytest.fixture(scope="module")
def tally() -> Tally:
    found = Tally()
    for seed in range(SCENARIOS):
        run(seed, found)
    return found


def test_random_definitions_over_random_histories_are_duckdbs(tally: Tally) -> None:
    print(f"\n{len(tally.cases)} cases, {tally.values} values compared, {tally.there} of them there")
    assert not tally.differences, "\n\n".join(tally.differences[:5])


def test_there_are_as_many_cases_as_promised(tally: Tally) -> None:
    assert len(tally.cases) >= CASES
    assert tally.there > tally.values // 2
