"""What Prometheus reads: latencies per stage, counts, and gauges taken from the engine when asked.

prometheus-client's own histogram takes two to three microseconds an observation, under a lock. Requests are measured
on the event loop only, so `StageHistogram` needs no lock and takes a third of one; a collector hands its counts over
when `/metrics` is read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

__all__ = ["STAGES", "Metrics", "StageHistogram"]

#: what a request's time is divided into; `durable` is the wait for the covering fsync;
#: route `decide` is the gate's part of a decision: waiting for others, context, policy, journal
STAGES: Final = ("parse", "lock", "context", "evaluate", "shadow", "order", "durable", "serialize", "total")
_BOUNDS_US: Final = (
    10, 25, 50, 75, 100, 150, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    10_000_000,
)  # fmt: skip


class StageHistogram:
    """Durations of one stage, in nanoseconds; for one thread."""

    __slots__ = ("bounds_ns", "counts", "sum_ns")

    def __init__(self) -> None:
        self.bounds_ns = [bound * 1_000 for bound in _BOUNDS_US]
        self.counts = [0] * (len(_BOUNDS_US) + 1)
        self.sum_ns = 0

    def observe(self, duration_ns: int) -> None:
        self.counts[bisect_left(self.bounds_ns, duration_ns)] += 1
        self.sum_ns += duration_ns

    def buckets(self) -> list[tuple[str, int]]:
        """Cumulative counts by upper bound in seconds, as Prometheus wants them."""
        total, rows = 0, []
        for bound, count in zip(_BOUNDS_US, self.counts, strict=False):
            total += count
            rows.append((str(bound / 1e6), total))
        rows.append(("+Inf", total + self.counts[-1]))
        return rows


class Metrics:
    """One service's measurements and its registry.

    Args:
        engine_stats: read at each scrape: name to number, or to a mapping of the same; see `Engine.stats`.
            What ends in `_total` is a counter.
    """

    def __init__(self, engine_stats: Callable[[], Mapping[str, Any]]) -> None:
        self.registry = CollectorRegistry()
        self.requests: Counter[tuple[str, int]] = Counter()
        self.refusals: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.reloads: Counter[str] = Counter()
        #: by fate, decision and cause
        self.decisions: Counter[tuple[str, str, str]] = Counter()
        #: by the live decision, the shadow's, and the shadow's cause
        self.shadow: Counter[tuple[str, str, str]] = Counter()
        self.definitions_stale = False
        self._stages: dict[tuple[str, str], StageHistogram] = {}
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._engine_stats = engine_stats
        self.registry.register(self)

    def stage(self, route: str, stage: str) -> StageHistogram:
        """The histogram of one stage of one route; ask once, keep it."""
        return self._stages.setdefault((route, stage), StageHistogram())

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Adds a gauge that is read at each scrape."""
        self._gauges[name] = (documentation, read)

    def exposition(self) -> tuple[bytes, bytes]:
        """The text for Prometheus and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST.encode()

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry must not scrape the engine to learn names."""
        return ()

    def collect(self) -> Iterable[Metric]:
        seconds = HistogramMetricFamily(
            "enrich_stage_seconds",
            "Time of a request by stage; `total` is arrival to last byte.",
            labels=("route", "stage"),
        )
        for (route, stage), histogram in sorted(self._stages.items()):
            if histogram.sum_ns:  # of two dozen routes most are never called
                seconds.add_metric((route, stage), histogram.buckets(), histogram.sum_ns / 1e9)
        yield seconds
        requests = CounterMetricFamily("enrich_requests", "Requests answered.", labels=("route", "status"))
        for (route, status), count in sorted(self.requests.items()):
            requests.add_metric((route, str(status)), count)
        yield requests
        yield _counter("enrich_refusals", "Requests refused, by error code.", "code", self.refusals)
        yield _counter("enrich_events", "Events offered, by what became of them.", "result", self.events)
        decisions = CounterMetricFamily(
            "enrich_decisions",
            "Decisions answered: recorded now, repeated under an idempotency key, or a dry run; `cause` is empty where "
            "the policy's own answer stands.",
            labels=("fate", "decision", "cause"),
        )
        for labels, count in sorted(self.decisions.items()):
            decisions.add_metric(labels, count)
        yield decisions
        shadow = CounterMetricFamily(
            "enrich_shadow_decisions",
            "Decisions beside which shadow policies were asked: `live` decided, `shadow` would have; it is empty where "
            "they were not asked to the end, and `cause` says why.",
            labels=("live", "shadow", "cause"),
        )
        for labels, count in sorted(self.shadow.items()):
            shadow.add_metric(labels, count)
        yield shadow
        yield _counter("enrich_reloads", "Reloads of definitions and policies, by outcome.", "outcome", self.reloads)
        yield GaugeMetricFamily(
            "enrich_definitions_stale",
            "1 while the directories hold definitions that did not load and older ones answer.",
            value=float(self.definitions_stale),
        )
        for name, (documentation, read) in sorted(self._gauges.items()):
            yield GaugeMetricFamily(name, documentation, value=read())
        for name, value in sorted(_flat("enrich", self._engine_stats())):
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield family(name, f"Engine figure `{name.removeprefix('enrich_')}`.", value=value)


def _counter(name: str, documentation: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, documentation, labels=(label,))
    for key, count in sorted(counts.items()):
        family.add_metric((key,), count)
    return family


def _flat(prefix: str, stats: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for key, value in stats.items():
        name = f"{prefix}_{key}"
        if isinstance(value, Mapping):
            yield from _flat(name, value)
        elif isinstance(value, bool | int | float):
            yield name, float(value)
