"""How much longer the changed policies take: both asked in turns, so that a busy machine hits both."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from time import monotonic, perf_counter_ns
from typing import Final, NamedTuple

from enrich.decisions.backtest.result import Slowdown
from enrich.decisions.protocol import DataPath, Prepared

__all__ = ["Sample", "measure"]

_WARM: Final = 5
#: on slow policies fewer samples do
_SECONDS: Final = 3.0
_LEAST: Final = 10


class Sample(NamedTuple):
    """One question, as each side is asked it."""

    path: DataPath
    strict: bool
    input_before: bytes
    input_after: bytes


def measure(before: Prepared, after: Prepared, samples: Sequence[Sample]) -> Slowdown | None:
    """Medians over the samples, or as many as three seconds are enough for, each asked once of both, first of the one
    and then of the other in turns; None without any."""
    if not samples:
        return None
    for sample in samples[:_WARM]:
        _took_ns(before, sample, sample.input_before)
        _took_ns(after, sample, sample.input_after)
    olds: list[int] = []
    news: list[int] = []
    end = monotonic() + _SECONDS
    for n, sample in enumerate(samples):
        if n >= _LEAST and monotonic() > end:
            break
        sides = [(before, sample.input_before, olds), (after, sample.input_after, news)]
        for prepared, input_json, took in sides if n % 2 else reversed(sides):
            took.append(_took_ns(prepared, sample, input_json))
    old, new = median(olds), median(news)
    return Slowdown(new / old, old / 1000, new / 1000, len(olds))


def _took_ns(prepared: Prepared, sample: Sample, input_json: bytes) -> int:
    began = perf_counter_ns()
    prepared.evaluate(sample.path, input_json, strict_builtin_errors=sample.strict)
    return perf_counter_ns() - began
