"""Backtests: changed policies, changed signals, or both, on the decisions that were made.

A recorded decision is tested at its own (as_of, context_seq): on the very input of its record where that holds the
signals asked for, else on one whose history is recomputed. A decision that is known only as an `authority` event, as
imported history has them, is tested on what is known now of the time before it, on an input made of the event.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from enrich.context import canonical_json
from enrich.decisions import (
    DataPath,
    DecisionPaths,
    PolicySet,
    Prepared,
    Verification,
    evaluator_of,
    load_source,
    path_text,
)
from enrich.decisions.backtest import AGAINST, Against, Backtest, InputMapping, Job, Tester
from enrich.decisions.backtest.changes import policy_changes, text_changes
from enrich.decisions.backtest.crew import Plan, crew
from enrich.decisions.backtest.result import Found
from enrich.decisions.backtest.selected import holds
from enrich.decisions.backtest.slowdown import Sample, measure
from enrich.decisions.backtest.synthesis import DECIDED, missing
from enrich.decisions.record import SOURCE, data_path
from enrich.decisions.redaction import redacted_read
from enrich.decisions.repeatable import check_repeatable
from enrich.engine.asked import Moment, moment_us
from enrich.engine.past import PRUNED, PastContexts
from enrich.engine.startup import check_retention
from enrich.engine.unknown_paths import check_history_paths
from enrich.errors import BadRequestError, NotFoundError, PayloadTooLargeError, show
from enrich.history import DecisionFilter, EventFilter
from enrich.history.past import Places, Seqs, decision_places, decision_records, told_decisions, told_places
from enrich.signals import Catalog, load_catalog

if TYPE_CHECKING:
    from enrich.engine.engine import Engine

__all__ = ["Backtests"]

_CATCH_UP_SECONDS: Final = 60.0
_BATCH: Final = 256
#: fewer decisions are tested before another process has started
_ALONE: Final = 1_000
_MOST_PROCESSES: Final = 16
#: how many decisions the slowdown is measured on
_SAMPLES: Final = 200
_EVENT_FILTERS: Final = ("agent", "team", "workflow", "org")

Progress = Callable[[int, int], None]


class Backtests:
    """Tries definitions on the past of one engine. Nothing that is live changes, and nothing is recorded."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(
        self,
        *,
        policies: Path | str | PolicySet | None = None,
        queries: Path | str | Mapping[str, str] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        against: Against = "recorded",
        mapping: Mapping[str, str] | None = None,
        processes: int | None = None,
        limit: int | None = None,
        deadline: float | None = None,
        progress: Progress | None = None,
        **filters: str | None,
    ) -> Backtest:
        """What changed definitions would have decided.

        Args:
            policies: a directory of policies, or a set; None for the live ones.
            queries: a directory of signal sets, or texts by name; None for the live ones.
            since, until: bounds of as_of (of an event, of occurred_at), both inclusive.
            against: `recorded` compares with what was decided, `live` with what the live policies say of it now.
            mapping: columns of events to paths of the input, dotted, besides those that the settings name: for
                decisions that are known only as events.
            processes: how many test beside each other, when there is enough to do; 0: none but this one. Default: as
                many as there are cores.
            limit: refuse to test more decisions than this.
            deadline: give up then, on `time.monotonic`'s clock.
            progress: called with (done, total).
            filters: `agent`, `team`, `workflow`, `org`, `path` (as in a URL), `decision` (as it was recorded). `path`
                also says which rule is asked about decisions that are known only as events.

        Raises:
            PolicyError, ConfigError, DefinitionErrors: the definitions do not load.
            NotFoundError: `no_policies`, neither changed nor live ones.
            BadRequestError: `invalid_parameter`, `invalid_time`, `invalid_mapping`.
            PayloadTooLargeError: `too_many_decisions`, more than `limit`; `backtest_too_long`, past the deadline.
            HistoryBehindError: DuckDB did not catch up with what is durable.
        """
        if against not in AGAINST:
            raise BadRequestError(f"against {show(against)} is none of {', '.join(AGAINST)}", code="invalid_parameter")
        since_us, until_us = (None if moment is None else moment_us(moment) for moment in (since, until))
        wanted = DecisionFilter.of(since_us, until_us, **filters)
        run = _Run(self._engine, policies, queries, wanted, against, mapping, limit, deadline, progress)
        try:
            return run.test(processes)
        finally:
            run.close()


@dataclass(slots=True)
class _Sides:
    """Live definitions and changed ones. `before` is None without live policies."""

    catalog_before: Catalog
    catalog: Catalog
    after: Prepared
    before: Prepared | None
    decisions: DecisionPaths = field(init=False)


class _Run:
    """One backtest."""

    def __init__(
        self,
        engine: Engine,
        policies: Path | str | PolicySet | None,
        queries: Path | str | Mapping[str, str] | None,
        wanted: DecisionFilter,
        against: Against,
        mapping: Mapping[str, str] | None,
        limit: int | None,
        deadline: float | None,
        progress: Progress | None,
    ) -> None:
        self._engine = engine
        self._settings = engine.settings
        self._wanted = wanted
        self._against = against
        self._limit = limit
        self._deadline = deadline
        self._progress = progress
        self._mapping = InputMapping.of(engine.settings, mapping)
        self._found = Found()
        self._samples: list[Job] = []
        self._sides = self._load(policies, queries)
        self._told_path = self._path_of_told()

    def _load(
        self, policies: Path | str | PolicySet | None, queries: Path | str | Mapping[str, str] | None
    ) -> _Sides:
        engine = self._engine
        live = engine.live_policies
        if policies is None:
            if live is None:
                raise NotFoundError("there are neither live policies nor others to try", code="no_policies")
            policies = live.prepared.policies
        chosen = policies
        if not isinstance(chosen, PolicySet):
            chosen = load_source(Path(chosen), Verification.of(self._settings))
        catalog_before = engine.catalog
        catalog = catalog_before
        if queries is not None:
            catalog = load_catalog(queries if isinstance(queries, Mapping) else Path(queries))
            check_retention(catalog, self._settings)
            self._check_attributes(catalog, catalog_before)
        if self._against == "live" and live is None:
            raise NotFoundError("there are no live policies to hold the changed ones against", code="no_policies")
        after = evaluator_of(self._settings).prepare(chosen)
        sides = _Sides(catalog_before, catalog, after, None)
        try:
            sides.decisions = DecisionPaths(self._settings.decision_paths, after.rules)
            # INVARIANT: what would not load is not tried
            check_history_paths(after, catalog, engine.paths.history)
            if not self._settings.allow_unrepeatable:
                check_repeatable(after, sides.decisions.paths)
            if live is not None:
                sides.before = evaluator_of(self._settings).prepare(live.prepared.policies)
        except BaseException:
            after.close()
            raise
        return sides

    def _check_attributes(self, catalog: Catalog, live: Catalog) -> None:
        """INVARIANT: signals are not tried on attributes that were thrown away when events came: they would count
        nothing, and look as if nothing had happened."""
        lost = catalog.attribute_keys - live.attribute_keys - set(self._settings.attributes_allow)
        if lost:
            raise BadRequestError(
                f"the signals read attributes that are not kept: {', '.join(map(show, sorted(lost)))}",
                code="attributes_not_kept",
                hint="put them into attributes_allow and try the signals once events have come with them",
            )

    def _path_of_told(self) -> DataPath | None:
        """Which rule is asked about decisions that are known only as events; None when nobody says."""
        path = self._wanted.values.get("path")
        if path is not None:
            return next((p for p in self._sides.decisions.paths if path_text(p) == path), None)
        paths = self._sides.decisions.paths
        return next(iter(paths)) if len(paths) == 1 else None

    def close(self) -> None:
        self._sides.after.close()
        if self._sides.before is not None:
            self._sides.before.close()

    def test(self, processes: int | None) -> Backtest:
        """Everything, and what came of it."""
        engine, sides = self._engine, self._sides
        seq = engine.caught_up(_CATCH_UP_SECONDS)
        with engine.history.cursor() as con:
            places = decision_places(
                con, self._wanted, at_seq=seq, catalog=sides.catalog.version, enough=self._holds
            )
            told = told_places(con, self._events_wanted(), at_seq=seq, own=SOURCE) if self._tells() else places.seq[:0]
        total = len(places) + len(told)
        if self._limit is not None and total > self._limit:
            raise PayloadTooLargeError(
                f"{total} decisions are more than the {self._limit} that are tested in one call",
                code="too_many_decisions",
                hint="narrow it by since, until or agent, or run `enrich backtest` on the data directory",
            )
        if total < _ALONE:
            processes = 0
        elif processes is None:
            processes = min(os.cpu_count() or 1, _MOST_PROCESSES)
        self._every = max(1, total // _SAMPLES)
        batches = chain(self._recorded(places), self._told(told, seq))
        done = 0
        with crew(self._plan(), processes, self._tester()) as testers:
            for tested in testers.test(batches):
                self._found.add(tested)
                done = sum(tested.counts.values()) + done
                if self._progress is not None:
                    self._progress(min(total, done + sum(self._found.refused.values())), total)
        if self._progress is not None:
            self._progress(total, total)
        return self._result(seq, bool(len(told)))

    def _holds(self, path: str, selection: Sequence[str] | None) -> bool:
        """Whether records of a path with this selection hold all that the changed policies read there, and, where it
        is asked what the live ones say, all that those read."""
        rule = data_path(path)
        sides = [self._sides.after, *([self._sides.before] if self._against == "live" else [])]
        return all(
            side is None or holds(selection, side.reads(rule), self._engine.paths.history) for side in sides
        )

    def _plan(self) -> Plan:
        before = self._sides.before
        # neither tokens nor anything else that only a service needs travels
        settings = self._settings.model_copy(
            update={name: () for name in type(self._settings).model_fields if name.startswith("tokens_")}
        )
        return Plan(
            settings,
            self._sides.after.policies,
            None if before is None else before.policies,
            self._engine.paths.history,
            self._against,
            deadline=self._deadline,
        )

    def _tester(self) -> Tester:
        return Tester(
            self._sides.after,
            self._sides.before,
            self._engine.paths.history,
            against=self._against,
            deadline=self._deadline,
        )

    def _tells(self) -> bool:
        """Whether decisions that are known only as events are asked for: a filter that no event answers leaves them
        out."""
        return set(self._wanted.values) <= {*_EVENT_FILTERS, "path", "decision"}

    def _events_wanted(self) -> EventFilter:
        values = {name: v for name, v in self._wanted.values.items() if name in _EVENT_FILTERS}
        decision = self._wanted.values.get("decision")
        if decision is not None:
            values["outcome"] = next((o for o, d in DECIDED.items() if d == decision), decision)
        return EventFilter(values, self._wanted.since_us, self._wanted.until_us)

    # -- recorded decisions -----------------------------------------------------------------------------------------

    def _recorded(self, places: Places) -> Iterator[list[Job]]:
        engine = self._engine
        contexts: PastContexts | None = None
        with engine.history.cursor() as con:
            for at in range(0, len(places), _BATCH):
                some = slice(at, at + _BATCH)
                seqs, whole = places.seq[some], places.whole[some]
                if contexts is None and not whole.all():
                    start = int(places.context_seq[at])
                    contexts = PastContexts(engine.history, self._sides.catalog, self._settings, at_seq=start)
                bodies = decision_records(con, seqs)
                jobs: list[Job] = []
                for seq, unchanged in zip(seqs.tolist(), whole.tolist(), strict=True):
                    if seq not in bodies:
                        continue  # pruned meanwhile
                    if '"redaction":{' in bodies[seq] and self._unseen(bodies[seq]):
                        continue
                    if unchanged or contexts is None:
                        jobs.append(Job(seq, bodies[seq]))
                    else:
                        jobs += self._recomputed(seq, bodies[seq], contexts)
                yield self._sampled(jobs)

    def _unseen(self, text: str) -> bool:
        """Whether the policies can read what the record does not keep; counted if so."""
        body: dict[str, Any] = orjson.loads(text)
        for prepared in (self._sides.after, *((self._sides.before,) if self._against == "live" else ())):
            if prepared is None:
                continue
            unseen = redacted_read(prepared.reads(data_path(body["path"])), body.get("redaction"))
            if unseen is not None:
                self._found.refused[body["path"], f"the policy reads {unseen}, which is redacted"] += 1
                return True
        return False

    def _recomputed(self, seq: int, text: str, contexts: PastContexts) -> Iterator[Job]:
        body: dict[str, Any] = orjson.loads(text)
        recorded: Any = body["input"]
        for key in self._engine.paths.history:
            recorded = recorded[key]
        time.sleep(0)  # in a service, whoever waits for the interpreter comes first
        history = contexts.of_record(body, recorded)
        if history is None:
            self._found.refused[body["path"], PRUNED] += 1
            return
        yield Job(seq, text, input_after=canonical_json(self._engine.paths.put(body["input"], history)))

    # -- decisions that are known only as events --------------------------------------------------------------------

    def _told(self, seqs: Seqs, at_seq: int) -> Iterator[list[Job]]:
        if not len(seqs):
            return
        path = self._told_path
        text = "" if path is None else path_text(path)
        reason = self._not_testable(path)
        if path is None or reason is not None:
            self._found.refused[text, reason or "no decision path is named for them"] += len(seqs)
            return
        needed = self._columns(path)
        sides, engine = self._sides, self._engine
        after = PastContexts(engine.history, sides.catalog, self._settings, at_seq=at_seq)
        before = after
        if self._against == "live" and sides.catalog is not sides.catalog_before:
            before = PastContexts(engine.history, sides.catalog_before, self._settings, at_seq=at_seq)
        with engine.history.cursor() as con:
            for at in range(0, len(seqs), _BATCH):
                jobs: list[Job] = []
                for event in told_decisions(con, seqs[at : at + _BATCH].tolist()):
                    lacking = self._lacking(event, needed)
                    if lacking is not None:
                        self._found.refused[text, lacking] += 1
                        continue
                    jobs += self._synthesised(event, text, before, after, at_seq)
                yield self._sampled(jobs)

    def _synthesised(
        self, event: Mapping[str, Any], path: str, before: PastContexts, after: PastContexts, at_seq: int
    ) -> Iterator[Job]:
        document = self._mapping.document(event)
        paths = self._engine.paths
        keys = paths.entity_ids(document)
        approvers = paths.approver_ids(document)
        history = after.before_event(keys, approvers, event["us"], at_seq)
        was = history if before is after else before.before_event(keys, approvers, event["us"], at_seq)
        if history is None or was is None:
            self._found.refused[path, PRUNED] += 1
            return
        body = {
            "decision_id": event.get("decision_id") or event["event_id"],
            "as_of": event["occurred_at"],
            "path": path,
            "entities": keys,
            "input": paths.put(document, was),
            "decision": DECIDED[event["outcome"]],
            "result": None,
            "cause": None,
        }
        changed = None if was is history else canonical_json(paths.put(document, history))
        yield Job(event["seq"], orjson.dumps(body), "event_time", "synthesised", changed)

    def _not_testable(self, path: DataPath | None) -> str | None:
        """Why no event can be tested at all; None when some may."""
        if path is None:
            return None
        history = self._engine.paths.history
        for prepared in (self._sides.after, *((self._sides.before,) if self._against == "live" else ())):
            reads = None if prepared is None else prepared.reads(path)
            if reads is None:
                return "what the policy reads of the input can't be told from its text"
            beyond = self._mapping.beyond(reads, history)
            if beyond:
                return f"the policy reads {', '.join(beyond)}, which no event tells"
        return None

    def _columns(self, path: DataPath) -> dict[str, str]:
        """The columns without which an event can't be tested, and what is read of each."""
        found: dict[str, str] = {}
        for prepared in (self._sides.after, *((self._sides.before,) if self._against == "live" else ())):
            reads = None if prepared is None else prepared.reads(path)
            if reads is not None:
                found |= self._mapping.columns_of(reads, self._engine.paths.history)
        return found

    def _lacking(self, event: Mapping[str, Any], needed: Mapping[str, str]) -> str | None:
        if "agent_id" not in event:
            return "the event names no agent"
        column = missing(event, needed)
        return None if column is None else f"the event has no {column}, and the policy reads {needed[column]}"

    # -- what came of it --------------------------------------------------------------------------------------------

    def _sampled(self, jobs: list[Job]) -> list[Job]:
        self._samples += jobs[:: self._every][: _SAMPLES - len(self._samples)]
        return jobs

    def _slowdown(self) -> Any:
        before = self._sides.before
        if before is None:
            return None
        samples = []
        for job in self._samples:
            body = orjson.loads(job.body)
            given = canonical_json(body["input"])
            path = data_path(body["path"])
            strict = bool(body.get("strict_builtin_errors", False))
            samples.append(Sample(path, strict, given, given if job.input_after is None else job.input_after))
        return measure(before, self._sides.after, samples)

    def _result(self, seq: int, told: bool) -> Backtest:
        sides = self._sides
        changes: list[str] = []
        if sides.before is not None:
            changes += policy_changes(sides.before.policies, sides.after.policies)
        changes += text_changes("signal set", sides.catalog_before.sources, sides.catalog.sources)
        return Backtest.of(
            self._found,
            slowdown=self._slowdown(),
            against=self._against,
            changes=changes,
            mapping=self._mapping.lines() if told else [],
            seq=seq,
            catalog=sides.catalog.version,
            policies=sides.after.policies.version,
        )
