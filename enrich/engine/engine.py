"""Engine: the rooms wired together. No HTTP in it, and no rule of its own that a room could hold."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from enrich.context import PAIRS, InputPaths, canonical_json
from enrich.engine import maintenance, startup
from enrich.engine.anchors import durable_anchor
from enrich.engine.asked import Moment, entity_keys, moment_us
from enrich.engine.backtests import Backtests
from enrich.engine.backups import make_backup
from enrich.engine.breakglass import BreakGlass
from enrich.engine.check import check_live
from enrich.engine.contexts import Contexts
from enrich.engine.gate import Gate
from enrich.engine.live import Live
from enrich.engine.ordering import Ordering
from enrich.engine.outcomes import Outcomes
from enrich.engine.policies import LivePolicies, evaluator_stats
from enrich.engine.readiness import readiness
from enrich.engine.recorder import Events, Recorder
from enrich.engine.reload import reload
from enrich.engine.replays import Replays
from enrich.engine.results import CheckReport, Decision, Evaluation, Readiness, RecordResult, ReloadReport
from enrich.engine.retention import prune, prune_bodies
from enrich.engine.state import State
from enrich.engine.suspended import save_register
from enrich.errors import (
    BadRequestError,
    BusyError,
    EnrichError,
    HistoryBehindError,
    IndexNotReadyError,
    InvalidEntityIdError,
    NotFoundError,
    show,
)
from enrich.events import ENTITY_KEYS, EventParser
from enrich.history import DecisionFilter, DecisionsPage, EventsPage
from enrich.journal import Anchor, Position
from enrich.journal.backup import Backup
from enrich.settings import Settings
from enrich.signals import Catalog, sql_for

__all__ = ["Engine"]

_CATCH_UP_SECONDS: Final = 60.0


class Engine:
    """The policy-context engine over one data directory. Thread-safe; open one per directory and process.

    Example:
        >>> engine = Engine.open("data", queries="queries")
        >>> engine.record([{"source": "ci", "event_id": "1", ...}])
        >>> engine.context({"agent": "deployer-7"})
    """

    def __init__(self, parts: startup.Parts) -> None:
        self.settings = parts.settings
        self.directory = parts.directory
        self.journal = parts.journal
        self.history = parts.history
        self.follower = parts.follower
        self.keys = parts.keys
        self.paths = InputPaths.of(
            parts.settings.input_paths(), parts.settings.input_approvers, parts.settings.input_history
        )
        self._parts = parts
        self._state = State(
            parts.live,
            parts.parser,
            parts.policies_live,
            parts.journal.head,
            parts.observed_since_us,
            parts.suspensions,
            parts.members,
            parts.in_flight,
        )
        self._state.pruned_us = parts.history.pruned_before_us()
        ordering = Ordering(parts, self._state)
        self._recorder = Recorder(parts, self._state, ordering)
        self.break_glass = BreakGlass(parts, self._state)
        max_behind_us = parts.settings.max_clock_skew_seconds * 1_000_000
        self._contexts = Contexts(parts.journal, self._state, max_behind_us)
        self.gate = Gate(parts, self._state, self._contexts, ordering, self.paths)
        self.replays = Replays(self)
        self.outcomes = Outcomes(parts, self._state, ordering, self.gate.caller_hash)
        self.backtests = Backtests(self)
        self._reloading = threading.Lock()
        self._problems: tuple[str, ...] = ()
        self._waiting = 0
        self._waiting_lock = threading.Lock()
        self._maintenance = maintenance.Maintenance(self)
        self._maintenance.start()

    @classmethod
    def open(
        cls,
        data: Path | str | None = None,
        *,
        queries: Path | str,
        policies: Path | str | None = None,
        settings: Settings | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Engine:
        """Open a data directory: verify the journal's tail, let DuckDB and the index catch up, check the definitions.

        Args:
            data: the directory; None makes one that is removed on `close`.
            queries: directory of signal sets.
            policies: directory of Rego policies, or an OPA bundle; without it `decide` refuses.
            progress: called with (what, done, total) while a long start goes on.

        Raises:
            LockedError: another process holds the directory.
            DefinitionErrors: a signal set does not compile, or differs from DuckDB.
            JournalCorruptError, JournalBehindError, NewerFormatError: the directory needs an operator.
        """
        temporary = None
        if data is None:
            temporary = tempfile.TemporaryDirectory(prefix="enrich-")
            data = temporary.name
        try:
            parts = startup.open_parts(
                Path(data),
                Path(queries),
                None if policies is None else Path(policies),
                settings or Settings(),
                progress or (lambda what, done, total: None),
            )
        except BaseException:
            if temporary is not None:
                temporary.cleanup()
            raise
        parts.temporary = temporary
        try:
            return cls(parts)
        except BaseException:
            with contextlib.suppress(EnrichError):  # what went wrong first is what is told
                startup.close_parts(parts, parts.live, parts.policies_live, None, threading.Lock())
            raise

    # -- events -----------------------------------------------------------------------------------------------------

    def record(self, events: Events) -> RecordResult:
        """Validate, store and index events; returns when they are durable and visible.

        Args:
            events: mappings as in the event reference, or an Arrow table or Polars frame of its columns. Up to
                `max_request_events` are one record, all or nothing; more become several.

        Raises:
            JournalFullError, JournalFailedError: nothing of the last, unfinished part was acknowledged.
            BusyError: DuckDB is too far behind for bulk ingest.
        """
        result = self._recorder.record_all(events, two_threads=True)
        self.durable(result.seq)
        return result

    def submit(self, events: Events, done: Callable[[RecordResult | EnrichError], None]) -> None:
        """Like `record`, without waiting: the events are ordered and visible when this returns, and `done` is called,
        perhaps from the journal's thread, once they are durable.

        Raises:
            BusyError: too many answers wait for the disk.
        """
        self._refuse_busy()
        result = self._recorder.record_all(events)
        self._tell_durable(result.seq, lambda error: done(result if error is None else error))

    def submit_each(
        self, requests: Sequence[Sequence[Any]], done: Callable[[Sequence[RecordResult] | EnrichError], None]
    ) -> None:
        """Like `submit` for several small requests that become one record; `done` gets one result for each, in order.

        Raises:
            BusyError: too many answers wait for the disk; none of the requests was taken.
        """
        self._refuse_busy()
        results = self._recorder.record_each(requests)
        seq = max(result.seq for result in results)
        self._tell_durable(seq, lambda error: done(results if error is None else error))

    def _refuse_busy(self) -> None:
        if self._waiting >= self.settings.max_waiting:
            raise BusyError(f"{self._waiting} answers wait for the disk")

    def _tell_durable(self, seq: int, tell: Callable[[EnrichError | None], None]) -> None:
        with self._waiting_lock:
            self._waiting += 1

        def durable(error: EnrichError | None) -> None:
            with self._waiting_lock:
                self._waiting -= 1
            tell(error)

        self.journal.on_durable(seq, durable)

    # -- context ----------------------------------------------------------------------------------------------------

    def context(
        self,
        entities: Mapping[str, Any],
        *,
        as_of: Moment | None = None,
        select: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """The `history` object of the given entities.

        Args:
            entities: entity name to id (None when it is missing), pairs as a tuple or list of two ids; `approvers` to a
                list of ids.
            as_of: microseconds, RFC 3339 or an aware datetime; default: now, by the engine's clock.
            select: what to compute, such as `agent.last_24h.failure_rate` or `team.*`; default: everything.

        Raises:
            InvalidEntityIdError, NotFoundError (`unknown_entity`), BadRequestError (`unknown_signal`, `invalid_time`).
        """
        keys, approvers = entity_keys(entities)
        return self._contexts.take(keys, approvers, None if as_of is None else moment_us(as_of), select).history

    def enrich(self, document: Mapping[str, Any], *, select: Sequence[str] | None = None) -> dict[str, Any]:
        """The input with `history` put in. The caller's objects are not changed.

        Raises:
            HistoryForgedError: the input brings its own history.
            InvalidEntityIdError, BadRequestError.
        """
        if type(document) is not dict and not isinstance(document, Mapping):
            raise BadRequestError(f"the input is {show(document)}, not an object", field="input")
        paths = self.paths
        paths.refuse_forged(document)
        keys = paths.entity_ids(document)
        approvers = paths.approver_ids(document)
        return paths.put(document, self._contexts.take(keys, approvers, None, select).history)

    def entity(
        self,
        entity: str,
        ids: Sequence[str],
        *,
        as_of: Moment | None = None,
        select: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """One entity's object as it stands under `history.<entity>`, plus as_of, seq and status.

        Args:
            ids: one id; of a pair two.
            select: see `context`; it has to name something of this entity.

        Raises:
            NotFoundError: `unknown_entity`, no signals are kept for it.
            InvalidEntityIdError: an id that can't be one, or more or fewer ids than the entity has.
            BadRequestError: `unknown_signal`, `invalid_select`, `invalid_time`.
        """
        columns = ENTITY_KEYS.get(entity)
        live = self._state.live
        if columns is None or entity not in live.entities:
            raise NotFoundError(
                f"no signals are kept for entity {show(entity)}",
                code="unknown_entity",
                hint=f"entities with signals: {', '.join(sorted(live.entities))}",
            )
        if len(ids) != len(columns):
            raise InvalidEntityIdError(
                f"entity {show(entity)} has {len(columns)} id(s), {len(ids)} given", entity=entity
            )
        value: Any = ids[0] if len(columns) == 1 else tuple(ids)
        name = entity
        wanted: dict[str, Any] = {entity: value}
        if entity == "approver":
            name, wanted = "approvers", {"approvers": [value]}
        elif entity in PAIRS:
            # the other half of a derived set's request: a pair brings its parts
            wanted |= dict(zip(PAIRS[entity], ids, strict=True))
        history = self.context(wanted, as_of=as_of, select=select)
        if name not in history:
            raise BadRequestError(f"`select` names nothing of {show(entity)}", code="invalid_select", field="select")
        body = history[name][value] if entity == "approver" else history[name]
        return {**body, "as_of": history["as_of"], "seq": history["seq"], "status": history["status"]}

    @property
    def clock_behind(self) -> bool:
        """Whether the system clock lies so far behind the journal's time that nobody can say what the last hour is."""
        return self._contexts.clock_behind

    # -- decisions --------------------------------------------------------------------------------------------------

    def decide(
        self,
        path: Sequence[str],
        document: Mapping[str, Any] | None,
        *,
        idempotency_key: str | None = None,
        caller: str = "",
        deadline: float | None = None,
        strict_builtin_errors: bool = False,
        dry_run: bool = False,
        wait: bool = True,
    ) -> Decision | Evaluation:
        """Ask the policies at `path` on the enriched input; a decision path goes through the gate.

        Args:
            path: its segments, such as `("gantral", "authority", "decision")`.
            document: the input; None when there is none at all, so that `input` is undefined.
            idempotency_key, caller, dry_run: of a decision; see `Gate.decide`.
            deadline: of a decision, on `time.monotonic`'s clock; default: `deadline_ms` from now.
            strict_builtin_errors: see `Prepared.evaluate`.
            wait: return when a decision is durable; False: the caller waits for its `seq` before anybody hears of it.

        Returns:
            A `Decision`, recorded and counted; or an `Evaluation`, which is neither.

        Raises:
            NotFoundError: `no_policies`.
            BadRequestError: `decision_path_required`, for what lies above or below a decision path; `missing_agent`,
                `invalid_idempotency_key`; the input can't be enriched.
            HistoryForgedError, InvalidEntityIdError, NumberNotExactError: the input can't be enriched.
            ConflictError, BusyError, JournalFullError, JournalFailedError: see `Gate.decide`.
        """
        policies = self._state.policies
        if policies is None:
            raise NotFoundError("the engine was opened without policies", code="no_policies")
        asked = tuple(path)
        if not policies.decisions.gated(asked):
            enriched = None if document is None else self.enrich(document)
            data = None if enriched is None else canonical_json(enriched)
            outcome = policies.prepared.evaluate(asked, data, strict_builtin_errors=strict_builtin_errors)
            return Evaluation(outcome, enriched, policies.provenance)
        if document is None:
            document = {}  # which has no agent
        elif not isinstance(document, Mapping):
            raise BadRequestError(f"the input is {show(document)}, not an object", field="input")
        if deadline is None:
            deadline = time.monotonic() + self.settings.deadline_ms / 1000
        decision = self.gate.decide(
            asked,
            document,
            idempotency_key=idempotency_key,
            caller=caller,
            deadline=deadline,
            strict_builtin_errors=strict_builtin_errors,
            dry_run=dry_run,
        )
        if wait:
            self.durable(decision.seq)
        return decision

    # -- reading ----------------------------------------------------------------------------------------------------

    def events(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        cursor: str | None = None,
        limit: int = 100,
        **filters: str | None,
    ) -> EventsPage:
        """A page of the events behind the numbers, newest first.

        Args:
            since, until: bounds of occurred_at, both inclusive.
            filters: `agent`, `team`, `workflow`, `org`, `approver`, `kind`, `outcome`.

        Raises:
            HistoryBehindError: DuckDB did not catch up with what is durable within a second.
        """
        return self.history.events_page(
            at_seq=self.caught_up(1.0),
            since_us=None if since is None else moment_us(since),
            until_us=None if until is None else moment_us(until),
            cursor=cursor,
            limit=limit,
            **filters,
        )

    def decisions(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        cursor: str | None = None,
        limit: int = 100,
        **filters: str | None,
    ) -> DecisionsPage:
        """A page of the decisions that were recorded, newest first; `decision` has the whole record of one.

        Args:
            since, until: bounds of as_of, both inclusive.
            filters: `agent`, `team`, `workflow`, `org`, `decision`, `path` (as in a URL, `gantral/authority/decision`),
                `shadow` (`agrees` or `differs`: how the shadow policies decide).

        Raises:
            HistoryBehindError: DuckDB did not catch up with what is durable within a second.
        """
        wanted = DecisionFilter.of(
            None if since is None else moment_us(since), None if until is None else moment_us(until), **filters
        )
        return self.history.decisions_page(wanted, at_seq=self.caught_up(1.0), cursor=cursor, limit=limit)

    def decision(self, decision_id: str) -> dict[str, Any]:
        """The whole record of a decision, with its seq.

        Raises:
            NotFoundError: `unknown_decision`.
            HistoryBehindError: DuckDB did not catch up with what is durable within a second.
        """
        self.caught_up(1.0)
        found = self.history.decision(decision_id)
        if found is None:
            raise NotFoundError(f"no decision {show(decision_id)}", code="unknown_decision")
        return found

    def caught_up(self, timeout: float) -> int:
        """Wait until DuckDB has applied what is durable now; returns that seq."""
        seq = int(self.journal.durable.seq)
        if not self.follower.wait_applied(seq, timeout):
            raise HistoryBehindError(f"history has applied {self.follower.applied.seq} of {seq}", needed=seq)
        return seq

    def sql(self, set_name: str, ids: Sequence[str], window: str | None, *, as_of: Moment | None = None) -> str:
        """Prelude and query to paste into DuckDB, for one set, entity and window."""
        at = self.journal.now_us() if as_of is None else moment_us(as_of)
        return sql_for(self.catalog, set_name, tuple(ids), window, at)

    @property
    def catalog(self) -> Catalog:
        return self._state.live.catalog

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the enriched input: of everything in it only the history is said, at its path."""
        history = self.catalog.json_schema()
        schema = {name: value for name, value in history.items() if name != "$schema"}
        for key in reversed(self.paths.history):
            schema = {"type": "object", "required": [key], "properties": {key: schema}}
        return {"$schema": history["$schema"], "title": "input", **schema}

    def signals(self) -> dict[str, Any]:
        """The catalog, for people: sets, signals, types, windows, parameters, documentation."""
        return self.catalog.describe()

    # -- durability -------------------------------------------------------------------------------------------------

    @property
    def seq(self) -> int:
        """What a context computed now has seen."""
        return self._state.seq

    @property
    def durable_seq(self) -> int:
        return int(self.journal.durable.seq)

    def durable(self, seq: int, timeout: float | None = None) -> None:
        """Wait until the journal is durable up to `seq`."""
        self.journal.wait_durable(seq, timeout)

    def on_durable(self, seq: int, callback: Callable[[EnrichError | None], None]) -> None:
        self.journal.on_durable(seq, callback)

    def anchor(self) -> Anchor:
        """The last durable record, to be kept elsewhere: see `durable_anchor`."""
        return durable_anchor(self.journal)

    def backup(self, target: Path | str, *, history: bool = False) -> Backup:
        """Back up the data directory up to what is durable now: see `make_backup`."""
        now_us = self.journal.now_us()
        return make_backup(self.directory, Path(target), self.anchor(), now_us=now_us, history=history)

    # -- definitions ------------------------------------------------------------------------------------------------

    def reload(self) -> ReloadReport:
        """Load the directories again. What does not load, or differs from DuckDB, leaves the old version live."""
        with self._reloading:
            self._state.check_open()
            report = reload(self, self._parts, self._state)
            self._problems = tuple(report.problems)
            return report

    @property
    def live(self) -> Live:
        """The live definitions and their index."""
        return self._state.live

    @property
    def parser(self) -> EventParser:
        """The parser of the live definitions."""
        return self._state.parser

    @property
    def live_policies(self) -> LivePolicies | None:
        """The live policies; None without."""
        return self._state.policies

    def check(self, entities: int = 8, moments: int = 4) -> CheckReport:
        """Compare the live signals with DuckDB on a sample of the history at hand, at one sequence number."""
        return check_live(self, self._state, entities, moments)

    # -- state ------------------------------------------------------------------------------------------------------

    def health(self) -> Readiness:
        """Ready when every answer can be exact; a bad reload or a lagging DuckDB shows as a warning."""
        return readiness(self, self._state, self._problems, self._maintenance.failure)

    def stats(self) -> dict[str, Any]:
        """Figures for metrics: sequence numbers, queue depths, index and follower."""
        return {
            "seq": self._state.seq,
            "durable_seq": self.durable_seq,
            "applied_seq": self.follower.applied.seq,
            "waiting": self._waiting,
            "waiting_decisions": self.gate.waiting,
            "idempotency_keys": len(self.gate.answered),
            "lag_events": max(0, self._state.seq - self.follower.applied.seq),
            "keys": len(self.keys),
            "evaluator": evaluator_stats(self._state.policies),
            "index": self._state.live.index.stats(),
        }

    def merge_step(self, *, idle: bool = False) -> bool:
        """One step of background merging; whether there is more to do. `idle`: no events arrive at the moment."""
        more = self._state.live.index.merge_step(self._state.pruned_us, idle)
        with self._state.live.index.lock:
            more = self._state.in_flight.step(self.journal.now_us()) or more
        return self.keys.merge_step() or more

    def save_index(self) -> None:
        """Save the index for a quick start, at a position that is durable.

        Raises:
            IndexNotReadyError: a record could not be applied, or a reload replaced the index meanwhile.
        """
        state = self._state
        live = state.live  # read once: what is saved and what is asked for its position must be the same
        startup.save_index(self._parts, live, self._saved_position(live), state.order)
        save_register(self.directory, self.journal, state)

    def _saved_position(self, live: Live) -> Callable[[], Position]:
        """What `live` has seen, asked under its index's lock.

        INVARIANT: an index that holds part of a record, or that is not linked to any more, is never saved.
        """

        def position() -> Position:
            if self._state.broken is not None:
                raise self._state.broken
            if self._state.live is not live:
                raise IndexNotReadyError("other definitions went live while the index was being saved")
            return self._state.position

        return position

    def prune(self) -> None:
        """Let go of what is older than retention, by a record in the journal, which itself keeps bodies as long as
        `keep_events_days` and `keep_decisions_days` say.

        DuckDB deletes when it applies the record, keys expire now, the index drops rows as it merges; what reaches back
        before the cutoff is no longer `complete`. Nothing happens while all history is younger.
        """
        seq = prune(self, self._state)
        if seq is not None:
            self.durable(seq)
            self.caught_up(_CATCH_UP_SECONDS)
        prune_bodies(self, self._state)

    @property
    def pruned_before_us(self) -> int | None:
        """Events that occurred before this moment were let go of; None when none ever were."""
        return self._state.pruned_us

    def close(self) -> None:
        """Stop taking events, make everything durable, let DuckDB catch up, save the index."""
        state = self._state
        with state.order:
            if state.closed:
                return
            state.closed = True
        self._maintenance.stop()
        self.replays.close()
        position = None if state.broken else self._saved_position(state.live)
        if position is not None:
            with contextlib.suppress(EnrichError, OSError):  # the journal has it all, and what follows tells the error
                save_register(self.directory, self.journal, state)
        startup.close_parts(self._parts, state.live, state.policies, position, state.order)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
