"""Policies asked about many inputs, each distinct question once: what a rule can't read makes no other question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import orjson

from enrich.context import canonical_json
from enrich.decisions.backtest.pruned import Pruner
from enrich.decisions.backtest.rules import RuleValues, rule_values
from enrich.decisions.protocol import DataPath, Prepared
from enrich.decisions.verdict import Verdict, judge, refuse
from enrich.errors import EnrichError

__all__ = ["AskedPolicies"]

_IN_FLIGHT: Final = "in_flight"
#: answers kept; past it all are let go of, which bounds memory and costs little
_KEPT: Final = 20_000

T = TypeVar("T")


class AskedPolicies:
    """One set of policies. For one thread.

    Args:
        limit_seconds: the longest that one evaluation may take.
    """

    def __init__(self, prepared: Prepared, limit_seconds: float) -> None:
        self.prepared = prepared
        self._limit_seconds = limit_seconds
        self._pruners: dict[DataPath, Pruner | None] = {}
        self._answers: dict[tuple[DataPath, bool, bytes], Any] = {}

    @property
    def version(self) -> str:
        """What identifies their text."""
        return self.prepared.policies.version

    def verdict(self, path: DataPath, document: Mapping[str, Any], *, strict: bool) -> Verdict:
        """What the gate would make of their answer; `result` as a record would hold it."""
        return self._once(path, document, strict, lambda given: self._verdict(path, given, strict))

    def rules(self, document: Mapping[str, Any], *, strict: bool) -> RuleValues | None:
        """See `rule_values`."""
        return self._once((), document, strict, lambda given: rule_values(self.prepared, given, strict=strict))

    def readable(self, path: DataPath, document: Mapping[str, Any]) -> Any:
        """What a rule can read of an input; all of it when nobody knows."""
        pruner = self._pruner(path)
        return document if pruner is None else pruner.prune(document)

    def in_flight(self, path: DataPath) -> bool:
        """Whether a rule is seen to read what is in flight."""
        reads = self.prepared.reads(path)
        return reads is not None and any(_IN_FLIGHT in read for read in reads.whole | reads.touched)

    def _verdict(self, path: DataPath, input_json: bytes, strict: bool) -> Verdict:
        boolean = path[-1] == "allow" or path in self.prepared.booleans
        outcome = self.prepared.evaluate(
            path, input_json, strict_builtin_errors=strict, limit_seconds=self._limit_seconds
        )
        verdict = judge(outcome, boolean=boolean)
        try:
            return Verdict(verdict.decision, orjson.loads(canonical_json(verdict.result)), verdict.cause)
        except EnrichError:
            return refuse("malformed_decision", boolean=boolean)

    def _once(self, path: DataPath, document: Mapping[str, Any], strict: bool, ask: Callable[[bytes], T]) -> T:
        pruner = self._pruner(path)
        if pruner is None:
            return ask(canonical_json(document))
        given = canonical_json(pruner.prune(document))
        key = (path, strict, given)
        if key not in self._answers:
            if len(self._answers) >= _KEPT:
                self._answers.clear()
            answer = ask(given)
            # a policy that was cut off in its time may be quicker the next time
            if isinstance(answer, Verdict) and answer.cause == "evaluation_timeout":
                return answer
            self._answers[key] = answer
        found: T = self._answers[key]
        return found

    def _pruner(self, path: DataPath) -> Pruner | None:
        """What a rule can read, or all rules, for the empty path; None when nobody knows."""
        if path not in self._pruners:
            rules = [path] if path else sorted(self.prepared.rules)
            reads = [self.prepared.reads(rule) for rule in rules]
            known = [one for one in reads if one is not None]
            self._pruners[path] = Pruner(known) if len(known) == len(rules) else None
        return self._pruners[path]
