"""Decisions that OPA makes elsewhere, from its decision logs: each counted once, as an `authority` event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from enrich.context.inputs import split_path
from enrich.decisions import Defined, Failed, Outcome, judge
from enrich.decisions.protocol import Undefined
from enrich.decisions.verdict import OUTCOMES
from enrich.engine.results import RecordResult
from enrich.settings import Settings
from enrich.sources.opa_logs import MappedLogs, OpaLogMapping, events_from_entries

if TYPE_CHECKING:
    from enrich.engine.engine import Engine

__all__ = ["LogsResult", "OpaLogs"]


@dataclass(frozen=True, slots=True)
class LogsResult:
    """What became of the entries of an upload: those that are events, and those that are not."""

    recorded: RecordResult
    mapped: MappedLogs

    def body(self, limit: int = 100) -> dict[str, Any]:
        """The answer of `POST /v1/logs`."""
        rejected = self.mapped.with_refused(self.recorded.rejected)
        told = RecordResult(
            self.recorded.accepted,
            self.recorded.duplicates,
            rejected,
            len(rejected),
            self.recorded.dropped_attributes,
            self.recorded.seq,
        )
        return {**told.body(limit), "ignored": self.mapped.ignored, "own": self.mapped.own}


class OpaLogs:
    """Takes decision logs for one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._mapping = _mapping(engine.settings)

    def record(self, entries: Sequence[object]) -> LogsResult:
        """Record the decisions among the entries; durable on return.

        Raises:
            JournalFullError, JournalFailedError, BusyError, IndexNotReadyError: OPA has to send them again.
        """
        mapped = events_from_entries(entries, self._mapping)
        return LogsResult(self._engine.record(mapped.events), mapped)


def _mapping(settings: Settings) -> OpaLogMapping:
    named = frozenset(name for name in settings.decision_paths if "." not in name)
    whole = frozenset(tuple(name.split(".")) for name in settings.decision_paths if "." in name)
    return OpaLogMapping(
        decides=lambda path: path in whole or path[-1] in named,
        outcome=_outcome,
        ids={entity: split_path(path) for entity, path in settings.input_paths().items()},
        instance=split_path(settings.input_instance),
        materiality=split_path(settings.input_materiality),
        history=split_path(settings.input_history),
        asks_opa=str(settings.evaluator) == "opa",
    )


def _outcome(entry: Mapping[str, Any]) -> str:
    """As the gate reads an answer: whatever is not clearly an ALLOW or a REQUIRE_HUMAN gave no authority."""
    answered: Outcome = Undefined(has_rules=True)
    if entry.get("error") is not None:
        answered = Failed("eval_error", "OPA logged an error")
    elif "result" in entry:
        answered = Defined(entry["result"])
    return OUTCOMES[judge(answered, boolean=False).decision]
