"""Asks the changed policies what they would have decided.

INVARIANT: what came before a policy, a suspension or history that could not be relied on, stays as it was: no policy
was asked, and none would be.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from enrich.context import canonical_json
from enrich.decisions.backtest.asked import AskedPolicies
from enrich.decisions.backtest.flips import json_text, kind_of, moved
from enrich.decisions.backtest.jobs import Against, Count, Job, Tested
from enrich.decisions.backtest.rules import changed_rules
from enrich.decisions.protocol import DataPath, Prepared
from enrich.decisions.record import data_path
from enrich.decisions.verdict import Verdict
from enrich.errors import PayloadTooLargeError
from enrich.events.times import parse_rfc3339_us

__all__ = ["Tester"]

#: decided without asking a policy
_UNASKED: Final = ("suspended", "history_unavailable")


class Tester:
    """Tests jobs one after the other.

    Args:
        after: the changed policies.
        before: the live ones; without them nobody says which rules made a flip.
        history: where the history stands in an input.
        rules_of: of so many flips at most it is found out which rules made them.
        limit_seconds: the longest that one evaluation may take.
        deadline: until when, on `time.monotonic`'s clock; None: however long it takes.
    """

    def __init__(
        self,
        after: Prepared,
        before: Prepared | None,
        history: Sequence[str],
        *,
        against: Against = "recorded",
        rules_of: int = 10_000,
        limit_seconds: float = 5.0,
        deadline: float | None = None,
    ) -> None:
        self._after = AskedPolicies(after, limit_seconds)
        self._before = None if before is None else AskedPolicies(before, limit_seconds)
        self._history = tuple(history)
        self._against = against
        self._rules_left = rules_of
        self._deadline = deadline

    def test(self, jobs: Sequence[Job]) -> Tested:
        """What would be decided on each.

        Raises:
            PayloadTooLargeError: `backtest_too_long`, the deadline passed.
        """
        tested = Tested()
        for job in jobs:
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise PayloadTooLargeError(
                    "the backtest takes longer than one call may",
                    code="backtest_too_long",
                    hint="narrow it by since, until or agent, or run `enrich backtest` on the data directory",
                )
            self._test(job, tested)
        return tested

    def close(self) -> None:
        """Let go of both policies."""
        self._after.prepared.close()
        if self._before is not None:
            self._before.prepared.close()

    def _test(self, job: Job, tested: Tested) -> None:
        body: dict[str, Any] = orjson.loads(job.body)
        path_text, strict = body["path"], bool(body.get("strict_builtin_errors", False))
        path = data_path(path_text)
        given = canonical_json(body["input"])
        if "input_hash" in body and body["input_hash"] != "sha256:" + hashlib.sha256(given).hexdigest():
            tested.refused[path_text, "the recorded input is not the one that was decided on"] += 1
            return
        document = body["input"]
        changed = document if job.input_after is None else orjson.loads(job.input_after)
        if self._after.in_flight(path) and not self._has_in_flight(changed):
            tested.refused[path_text, "the policy reads what is in flight, and the record does not say it"] += 1
            return
        before = Verdict(body["decision"], body["result"], body["cause"])
        if before.cause in _UNASKED:
            after = before
        else:
            if self._against == "live" and self._before is not None:
                before = self._before.verdict(path, document, strict=strict)
            after = self._after.verdict(path, changed, strict=strict)
        count = Count(path_text, job.basis, job.input, before.decision, after.decision, after.cause)
        tested.counts[count] += 1
        if before.decision != after.decision:
            tested.flips.append(self._row(job, body, path, before, after, (document, changed, strict)))
        elif job.input == "recorded" and before.result != after.result:
            tested.changed_results += 1

    def _row(
        self,
        job: Job,
        body: Mapping[str, Any],
        path: DataPath,
        before: Verdict,
        after: Verdict,
        asked: tuple[Mapping[str, Any], Mapping[str, Any], bool],
    ) -> tuple[Any, ...]:
        given, changed, strict = asked
        entities = body["entities"]
        signals: list[dict[str, str | None]] = []
        if job.input_after is not None:
            old, new = (self._after.readable(path, document) for document in (given, changed))
            signals = moved(self._history_of(old), self._history_of(new))
        return (
            body["decision_id"], job.seq, parse_rfc3339_us(body["as_of"]),
            entities.get("agent"), entities.get("team"), entities.get("workflow"), body["path"],
            before.decision, after.decision, kind_of(before.decision, after.decision), before.cause, after.cause,
            json_text(before.result), json_text(after.result),
            signals, self._rules(body, path, given, changed, strict), job.basis, job.input,
        )  # fmt: skip

    def _rules(
        self,
        body: Mapping[str, Any],
        path: DataPath,
        given: Mapping[str, Any],
        changed: Mapping[str, Any],
        strict: bool,
    ) -> list[dict[str, str | None]] | None:
        """The rules that made a flip; None when that is not found out: other policies than the live ones decided, a
        package can't be evaluated as a whole, or too many were asked already."""
        before = self._before
        if before is None or self._rules_left <= 0:
            return None
        if self._against == "recorded" and body.get("policy_hash") != before.version:
            return None
        self._rules_left -= 1
        old = before.rules(given, strict=strict)
        new = self._after.rules(changed, strict=strict)
        return None if old is None or new is None else changed_rules(old, new, path)

    def _has_in_flight(self, document: Any) -> bool:
        agent = self._history_of(document).get("agent")
        return isinstance(agent, Mapping) and "in_flight" in agent

    def _history_of(self, document: Any) -> Mapping[str, Any]:
        for key in self._history:
            document = document.get(key) if isinstance(document, Mapping) else None
        return document if isinstance(document, Mapping) else {}
