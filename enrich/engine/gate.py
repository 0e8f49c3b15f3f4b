"""The gate: a decision is made alone among those that read the same history, recorded, and counted at once.

One decision: locks, suspensions, context, evaluation, record, order; then the locks are released, and the answer
leaves once its record is durable.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b, sha256
from time import perf_counter_ns
from typing import Any, Final, cast
from uuid import uuid4

import structlog

from enrich.context import InputPaths, canonical_again, canonical_json
from enrich.context.inputs import split_path
from enrich.decisions import (
    Answered,
    AnsweredKeys,
    Cause,
    DataPath,
    DecisionName,
    Declaring,
    EntityLocks,
    Failed,
    Outcome,
    Question,
    ShadowVerdict,
    Verdict,
    check_key,
    decision_body,
    judge,
    refuse,
)
from enrich.decisions.answered import HELD_US
from enrich.decisions.locks import LockKey
from enrich.decisions.record import instance_and_materiality
from enrich.decisions.redaction import Redaction
from enrich.engine.contexts import Contexts, PoliciesChangedError, Taken
from enrich.engine.ordering import Ordering
from enrich.engine.policies import LivePolicies
from enrich.engine.results import Decision
from enrich.engine.startup import Parts
from enrich.engine.state import State
from enrich.errors import BadRequestError, BusyError, ConflictError, EnrichError, NotFoundError, show
from enrich.history import History
from enrich.journal import Appended, PreparedRecord

__all__ = ["Gate"]

#: of the time that is left when a policy is asked, this part at most, is kept for the record
_KEPT: Final = 0.1
_KEPT_SECONDS: Final = 0.05


class _SuspendedMeanwhileError(Exception):
    """A suspension came between the context and the order: nothing was appended."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question, and how it was asked."""

    question: Question
    deadline: float
    strict: bool
    key: str | None
    tag: bytes
    request_hash: str
    #: the document as it is recorded, and what the record says of what was taken out
    kept: Mapping[str, Any]
    redaction: Mapping[str, Any] | None


class Gate:
    """Makes decisions. Thread-safe: one that reads an entity's history waits for those that add to it, others don't."""

    def __init__(
        self, parts: Parts, state: State, contexts: Contexts, ordering: Ordering, paths: InputPaths
    ) -> None:
        settings = parts.settings
        self._journal = parts.journal
        self._keys = parts.keys
        self._state = state
        self._contexts = contexts
        self._ordering = ordering
        self._paths = paths
        self._instance = split_path(settings.input_instance)
        self._materiality = split_path(settings.input_materiality)
        self._redaction = Redaction(list(map(split_path, settings.journal_redact)), parts.journal.hash_key)
        self._declaring = Declaring(settings.declared_paths())
        self._lease_seconds = settings.lease_seconds
        self._agent_where = settings.input_agent
        self._settings_hash = "sha256:" + sha256(canonical_json(settings.shaping())).hexdigest()
        self._caller = blake2b(digest_size=16, key=parts.journal.hash_key, person=b"enrich.caller")
        self._locks = EntityLocks(settings.decision_queue)
        self.answered = AnsweredKeys(parts.journal.hash_key, settings.idempotency_keys)
        self._remember(parts.history)
        self._log = structlog.get_logger("enrich.gate")

    def _remember(self, history: History) -> None:
        """The keys of the last 24 hours; DuckDB has all of the journal when an engine opens."""
        for one in history.keyed_decisions(self._journal.now_us() - HELD_US):
            verdict = Verdict(cast("DecisionName", one.decision), one.result, cast("Cause | None", one.cause))
            self.answered.put(
                self.answered.tag(one.caller, one.path, one.idempotency_key),
                Answered(one.seq, one.as_of_us, one.request_hash, one.decision_id, verdict),
            )

    @property
    def waiting(self) -> int:
        """Decisions that wait for another one about the same entity."""
        return self._locks.waiting

    def decide(
        self,
        path: DataPath,
        document: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        caller: str = "",
        deadline: float,
        strict_builtin_errors: bool = False,
        dry_run: bool = False,
    ) -> Decision:
        """One decision, ordered and counted on return; nobody may hear of it before its `seq` is durable.

        Args:
            path: a decision path of the live policies.
            document: the input as it was sent.
            idempotency_key: 1 to 200 printable characters, the caller's own for this path: within 24 h the same request
                under it gets the recorded answer again.
            caller: who asks, however the caller of this method tells them apart.
            deadline: until when the record is appended, on `time.monotonic`'s clock.
            dry_run: decide, and leave no trace: no record, no event, no key.

        Raises:
            NotFoundError: `no_policies`.
            HistoryForgedError, InvalidEntityIdError, NumberNotExactError: the input can't be enriched.
            BadRequestError: `missing_agent`, `invalid_idempotency_key`, `invalid_declaration`; the input is no JSON.
            ConflictError: `idempotency_conflict`.
            BusyError: the deadline passed, or a queue is full. Nothing was appended, as with all the above.
            JournalFullError, JournalFailedError, IndexNotReadyError: it can't be recorded.
        """
        self._state.check_open()
        question = self._question(path, document, caller)
        request = question.request()  # which checks that the document has canonical bytes at all
        if dry_run:
            return self._dry_run(_Asked(question, deadline, strict_builtin_errors, None, b"", "", document, None))
        tag = b""
        if idempotency_key is not None:
            tag = self.answered.tag(question.caller, question.text, check_key(idempotency_key))
        kept: Mapping[str, Any] = document
        redaction: Mapping[str, Any] | None = None
        if self._redaction:
            kept, redaction = self._redaction.redact(document)
        # INVARIANT: no hash from which a redacted value could be guessed is written down
        hashed = self._redaction.request_hash(request) if redaction else "sha256:" + sha256(request).hexdigest()
        asked = _Asked(question, deadline, strict_builtin_errors, idempotency_key, tag, hashed, kept, redaction)
        while True:
            policies = self._policies()
            alone, shared = _lock_keys(asked, policies)
            started = perf_counter_ns()
            # INVARIANT: the locks are those of the policies that are evaluated; others that went live take their own
            with suppress(PoliciesChangedError), self._locks.hold(alone, deadline, shared=shared):
                return self._decide(asked, policies, {"lock": perf_counter_ns() - started})

    def _policies(self) -> LivePolicies:
        policies = self._state.policies
        if policies is None:
            raise NotFoundError("the engine was opened without policies", code="no_policies")
        return policies

    def _question(self, path: DataPath, document: Mapping[str, Any], caller: str) -> Question:
        paths = self._paths
        paths.refuse_forged(document)
        entities = paths.entity_ids(document)
        if entities["agent"] is None:
            raise BadRequestError(
                f"the input has no agent at `{self._agent_where}`: nobody's history would be decided on",
                code="missing_agent",
                field=self._agent_where,
            )
        instance, materiality = instance_and_materiality(document, self._instance, self._materiality)
        return Question(
            path,
            document,
            entities,
            paths.approver_ids(document),
            instance,
            materiality,
            self.caller_hash(caller),
            self._declaring.read(document),
        )

    def caller_hash(self, caller: str) -> str | None:
        """What stands for a caller in records; None for one that is not known."""
        if not caller:
            return None
        h = self._caller.copy()
        h.update(caller.encode("utf-8", "surrogatepass"))
        return h.hexdigest()

    def _decide(self, asked: _Asked, policies: LivePolicies, stages: dict[str, int]) -> Decision:
        """Under the locks.

        Raises:
            PoliciesChangedError: other policies went live before the context was taken; nothing was done.
        """
        question = asked.question
        while True:
            began = perf_counter_ns()
            taken = self._contexts.take(question.entities, question.approvers, decide=(policies, question.path))
            key = asked.key
            known = None if key is None else self.answered.get(asked.tag, taken.as_of_us)
            if known is not None:
                if not _withdrawn(taken, known, asked):
                    return self._again(known, asked, taken)
                # INVARIANT: a suspension comes before a recorded answer; this refusal is none of the key's answers
                key = None
            elif key is not None:
                self.answered.check_room(taken.as_of_us)
            stages["context"] = perf_counter_ns() - began
            verdict, input_json = self._judge(asked, policies, taken, stages)
            shadow = self._beside(policies, asked, verdict, input_json, stages)
            decision_id = str(uuid4())
            body = decision_body(
                question,
                verdict,
                decision_id=decision_id,
                idempotency_key=key,
                request_hash=asked.request_hash,
                as_of_us=taken.as_of_us,
                history=taken.history,
                input_json=self._recorded(asked, taken, input_json),
                policy_hash=policies.version,
                settings_hash=self._settings_hash,
                evaluator=policies.evaluator,
                selection=policies.projection(question.path).select,
                repeatable=policies.repeatable(question.path),
                strict_builtin_errors=asked.strict,
                shadow=shadow,
                lease_seconds=self._lease_seconds,
                redaction=asked.redaction,
            )
            began = perf_counter_ns()
            try:
                appended = self._order(self._journal.prepare("decision", body), asked, verdict)
            except _SuspendedMeanwhileError:
                continue
            stages["order"] = perf_counter_ns() - began
            if key is not None:
                self.answered.put(
                    asked.tag, Answered(appended.seq, taken.as_of_us, asked.request_hash, decision_id, verdict)
                )
            return Decision(decision_id, verdict, appended.last_seq, "recorded", stages, policies.provenance, shadow)

    def _recorded(self, asked: _Asked, taken: Taken, input_json: bytes) -> bytes:
        """What stands in the record of the bytes that the policy saw."""
        return input_json if asked.redaction is None else canonical_again(self._paths.put(asked.kept, taken.history))

    def _judge(
        self, asked: _Asked, policies: LivePolicies, taken: Taken, stages: dict[str, int]
    ) -> tuple[Verdict, bytes]:
        """The verdict, and the canonical bytes that it was made on."""
        path = asked.question.path
        input_json = canonical_again(self._paths.put(asked.question.document, taken.history))
        boolean = policies.boolean(path)
        if taken.covering:
            return refuse("suspended", boolean=boolean), input_json
        if not taken.reliable:
            return refuse("history_unavailable", boolean=boolean), input_json
        left = asked.deadline - time.monotonic()
        if left <= 0:
            raise _too_late()
        limit = left - min(left * _KEPT, _KEPT_SECONDS)
        began = perf_counter_ns()
        outcome = self._evaluate(policies, path, input_json, asked.strict, limit)
        stages["evaluate"] = perf_counter_ns() - began
        verdict = judge(outcome, boolean=boolean)
        try:
            canonical_json(verdict.result)
        except EnrichError:
            verdict = refuse("malformed_decision", boolean=boolean)
        return verdict, input_json

    def _evaluate(
        self, policies: LivePolicies, path: DataPath, input_json: bytes, strict: bool, limit: float
    ) -> Outcome:
        try:
            outcome = policies.prepared.evaluate(path, input_json, strict_builtin_errors=strict, limit_seconds=limit)
        except Exception as error:  # noqa: BLE001 - INVARIANT: however an evaluator breaks, the decision is a refusal
            # the text may hold a piece of a caller's input
            self._log.error("evaluator_failed", error=type(error).__name__)
            return Failed("eval_error", f"the evaluator failed: {show(type(error).__name__)}")
        if isinstance(outcome, Failed):
            self._log.warning("evaluation_failed", code=outcome.code, path=path)
        return outcome

    def _beside(
        self, policies: LivePolicies, asked: _Asked, verdict: Verdict, input_json: bytes, stages: dict[str, int]
    ) -> ShadowVerdict | None:
        """What the shadow policies say to the same bytes; None when there are none, or the live ones were not asked."""
        if policies.shadow is None or verdict.cause in ("suspended", "history_unavailable"):
            return None
        began = perf_counter_ns()
        left = asked.deadline - time.monotonic() - _KEPT_SECONDS
        path = asked.question.path
        said = policies.shadow.ask(path, input_json, strict=asked.strict, left_seconds=left)
        stages["shadow"] = perf_counter_ns() - began
        return said

    def _order(self, record: PreparedRecord, asked: _Asked, verdict: Verdict) -> Appended:
        """Give the record its place, on whatever index is live: the record names the catalog that it was made with.

        Raises:
            BusyError: the deadline passed.
            _SuspendedMeanwhileError: the request is covered by a suspension now.
        """
        state, batch = self._state, record.batch
        if batch is None:
            raise TypeError("a decision's record has an event")

        def unless() -> bool:
            if time.monotonic() > asked.deadline:
                raise _too_late()
            # INVARIANT: no ALLOW has a seq above that of an active suspension that covers it. Suspensions and members
            # change in ordered steps only, so that what is seen here holds for this seq.
            if verdict.cause != "suspended" and state.suspensions.covering(
                asked.question.entities, state.members, self._journal.now_us()
            ):
                raise _SuspendedMeanwhileError
            return False

        while True:
            live = state.live
            block = live.index.prepare(batch)
            reservation = self._keys.check_and_reserve(batch.keys, batch.contents)
            try:
                appended = self._ordering.place(batch, record, block, reservation, live, unless)
            except BaseException:
                self._keys.release(reservation)
                raise
            if appended is not None:
                return appended
            self._keys.release(reservation)  # other definitions went live

    def _again(self, known: Answered, asked: _Asked, taken: Taken) -> Decision:
        if known.request_hash != asked.request_hash:
            raise ConflictError(
                f"the idempotency key {show(asked.key)} belongs to another request",
                code="idempotency_conflict",
                hint="a key is for one request and its repetitions: take a new one for a new request",
            )
        return Decision(known.decision_id, known.verdict, max(known.seq, taken.seq), "repeated", {})

    def _dry_run(self, asked: _Asked) -> Decision:
        stages: dict[str, int] = {}
        question = asked.question
        while True:
            policies = self._policies()
            with suppress(PoliciesChangedError):
                taken = self._contexts.take(question.entities, question.approvers, decide=(policies, question.path))
                verdict, _ = self._judge(asked, policies, taken, stages)
                return Decision(str(uuid4()), verdict, taken.seq, "dry_run", stages, policies.provenance)


def _lock_keys(asked: _Asked, policies: LivePolicies) -> tuple[list[LockKey], list[LockKey]]:
    """What is held alone: every entity whose history the policy can read, and the idempotency key. What is shared:
    every other entity of the request, whose history the decision only adds to."""
    read = policies.projection(asked.question.path).read
    alone: list[LockKey] = []
    shared: list[LockKey] = []
    for entity, id_ in asked.question.entities.items():
        if id_ is not None:
            (alone if entity in read else shared).append((entity, id_))
    if "approver" in read:
        alone += (("approver", who) for who in asked.question.approvers)
    if asked.tag:
        alone.append(("idempotency_key", asked.tag.hex()))
    return alone, shared


def _withdrawn(taken: Taken, known: Answered, asked: _Asked) -> bool:
    """Whether a recorded answer may not be given (again) while a suspension covers the request."""
    return bool(taken.covering) and (known.verdict.decision != "DENY" or known.request_hash != asked.request_hash)


def _too_late() -> BusyError:
    return BusyError("the decision did not come to its record in time")
