"""The policy asked again, on the very bytes that it was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from enrich.decisions.policies import PolicySet
from enrich.decisions.projection import covers, projection
from enrich.decisions.protocol import TIMED_OUT, Evaluator, Failed, Prepared
from enrich.decisions.record import data_path
from enrich.decisions.redaction import redacted_read
from enrich.decisions.repeatable import UNREPEATABLE, unrepeatable
from enrich.decisions.replay.reasons import Reason, canonical
from enrich.decisions.replay.texts import Definitions, Shaping
from enrich.decisions.verdict import judge
from enrich.errors import EnrichError

__all__ = ["PolicyReplay"]

#: causes under which the policy was not asked; their refusal is checked with the record
_NOT_ASKED: Final = ("suspended", "history_unavailable")
#: failures that say something about the machine, not about the policy
_PASSING: Final = (TIMED_OUT, "eval_error")
#: enough for anything that was answered in time once
_LIMIT_SECONDS: Final = 30.0


class PolicyReplay:
    """Asks policies again; those that were prepared are kept, under the hash of their text. Not thread-safe.

    Args:
        evaluators: an evaluator by the name that a record has, or the nearest there is.
    """

    def __init__(self, evaluators: Callable[[str], Evaluator]) -> None:
        self._evaluators = evaluators
        self._made: dict[str, Evaluator] = {}
        self._prepared: dict[tuple[str, str], Prepared | Reason] = {}
        self._wanted: dict[tuple[str, ...], tuple[str, ...] | None] = {}

    def check(self, body: Mapping[str, Any], definitions: Definitions) -> tuple[list[Reason], bool]:
        """What replay of the policy says, and whether it was asked."""
        cause = body.get("cause")
        if cause in _NOT_ASKED:
            return [], False
        found = definitions.policies(body["policy_hash"])
        if found.value is None or found.reason is not None:
            return [found.reason or Reason.of("policy_gone")], False
        if cause == "evaluation_timeout":
            return [Reason.of("timeout_not_repeated")], False
        said = body["evaluator"]
        evaluator = self._evaluator(str(said.get("name")))
        prepared = self._prepare(evaluator, str(said.get("name")), found.value)
        if isinstance(prepared, Reason):
            return [prepared], False
        path = data_path(body["path"])
        reads = prepared.reads(path)
        if path in prepared.rules and unrepeatable(reads):
            called = sorted(UNREPEATABLE.keys() & reads.builtins.keys()) if reads is not None else []
            return [Reason.of("not_repeatable", ", ".join(called) or "perhaps", builtins=called)], False
        unseen = redacted_read(reads, body.get("redaction"))
        if unseen is not None:
            return [Reason.of("input_redacted", unseen, path=unseen)], False
        return self._ask(prepared, body, {"name": evaluator.name, "version": evaluator.version}), True

    def check_selection(
        self, body: Mapping[str, Any], definitions: Definitions, shaping: Shaping
    ) -> list[Reason]:
        """Whether the record holds all of the history that its policy can read: signals that were taken out of one
        contradict no event."""
        name = str(body["evaluator"]["name"])
        key = (name, body["policy_hash"], body["catalog"], body["settings_hash"], body["path"])
        if key not in self._wanted:
            policies, catalog = definitions.policies(body["policy_hash"]).value, definitions.catalog(body["catalog"])
            if policies is None or catalog.value is None or body.get("cause") in _NOT_ASKED:
                return []  # which is said elsewhere
            prepared = self._prepare(self._evaluator(name), name, policies)
            if isinstance(prepared, Reason):
                return []
            reads = prepared.reads(data_path(body["path"]))
            wanted = projection(reads, catalog.value, shaping.paths.history, project=shaping.project).select
            self._wanted[key] = wanted
        return [] if covers(body.get("selection"), self._wanted[key]) else [Reason.of("selection_differs")]

    def _ask(self, prepared: Prepared, body: Mapping[str, Any], evaluator: Mapping[str, str]) -> list[Reason]:
        path = data_path(body["path"])
        try:
            outcome = prepared.evaluate(
                path,
                canonical(body["input"]),
                strict_builtin_errors=bool(body.get("strict_builtin_errors")),
                limit_seconds=_LIMIT_SECONDS,
            )
        except Exception as error:  # noqa: BLE001 - an evaluator that breaks has said nothing of the policy
            return [Reason.of("not_evaluated", type(error).__name__)]
        cause = body.get("cause")
        if isinstance(outcome, Failed) and outcome.code in _PASSING:
            return [] if cause == "evaluation_failed" else [Reason.of("not_evaluated", outcome.code)]
        boolean = path[-1] == "allow" or path in prepared.booleans
        verdict = judge(outcome, boolean=boolean)
        same_cause = verdict.cause == cause and verdict.decision == body["decision"]
        same = same_cause and (cause is not None or canonical(verdict.result) == canonical(body["result"]))
        other = dict(body["evaluator"]) != dict(evaluator)
        about = {"recorded": body["decision"], "computed": verdict.decision}
        if same:
            return [Reason.of("other_evaluator_agrees", evaluator=dict(evaluator))] if other else []
        if cause == "evaluation_failed":
            return [Reason.of("failure_not_repeated", **about)]
        if other:
            return [Reason.of("evaluator_differs", evaluator=dict(evaluator), **about)]
        return [Reason.of("policy_differs", f"{body['decision']} recorded, {verdict.decision} computed", **about)]

    def _evaluator(self, name: str) -> Evaluator:
        if name not in self._made:
            self._made[name] = self._evaluators(name)
        return self._made[name]

    def _prepare(self, evaluator: Evaluator, name: str, policies: PolicySet) -> Prepared | Reason:
        key = (name, policies.version)
        if key not in self._prepared:
            try:
                self._prepared[key] = evaluator.prepare(policies)
            except EnrichError as error:
                self._prepared[key] = Reason.of("policy_unusable", error.message, policy_hash=policies.version)
        return self._prepared[key]

    def close(self) -> None:
        """Let go of what is prepared."""
        for one in self._prepared.values():
            if not isinstance(one, Reason):
                one.close()
        self._prepared.clear()
