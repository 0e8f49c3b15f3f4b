"""Gantral: rows of its tables `instances`, `decisions` and `audit_events` to events of kind `authority`.

One audit row is one event. What Gantral does not hold is left out: how a run ended (ask where the agents run), how long
a human took (`created_at` is when a worker stored the row, so a difference is only a lower bound), which currency an
amount is in. What a row claims but can't be true of an event is left out and reported, never dropped silently.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from enrich.errors import BadRequestError, ConfigError, show
from enrich.events import strict_loads
from enrich.events.model import INT64_MAX
from enrich.events.refusals import clip, string_problem

__all__ = [
    "Doubt",
    "GantralMapping",
    "Mapped",
    "events_from_directory",
    "events_from_rows",
    "load_sample",
    "sample_directory",
]

_Row = Mapping[str, Any]
_CREATED: Final = {"RUNNING": "allowed", "WAITING_FOR_HUMAN": "required_human"}
_DECIDED: Final = {"APPROVE": "approved", "REJECT": "rejected", "OVERRIDE": "overridden"}
_TIMEOUT: Final = re.compile(r"Approval Timeout \(.+\) Exceeded")
_MATERIALITY: Final = re.compile(r"\bMateriality=(LOW|MEDIUM|HIGH)\b")
_MAX_ROW_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class GantralMapping:
    """Where in `trigger_context`, an object that callers fill by convention only, the parts of an event stand.

    `source` tells several Gantrals apart. `agent_fallback` is the agent id of rows that name none, or one that can't be
    an id; None leaves such events without an agent, so that they count for team and workflow only.
    """

    source: str = "gantral"
    agent_path: tuple[str, ...] = ("agent_id",)
    agent_fallback: str | None = None
    team_path: tuple[str, ...] = ("owning_team_id",)
    environment_path: tuple[str, ...] = ("environment",)
    amount_path: tuple[str, ...] = ("amount_cents",)
    attribute_paths: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"domain": ("domain",), "model": ("model",)}
    )


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something in the rows that the event of `event_id` does not say as it stands there.

    `value` is shortened; None when there was none. `reason` is one of a few fixed phrases, fit for counting.
    """

    event_id: str
    field: str
    value: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Mapped:
    """`events`: dicts for `EventParser`, in the order of the audit rows. `doubts`: what was left out, and why."""

    events: list[dict[str, Any]]
    doubts: list[Doubt]

    def summary(self) -> Counter[tuple[str, str]]:
        """How often each (field, reason) was in doubt."""
        return Counter((d.field, d.reason) for d in self.doubts)


def events_from_rows(
    instances: Iterable[_Row],
    decisions: Iterable[_Row],
    audit_events: Iterable[_Row],
    mapping: GantralMapping | None = None,
) -> Mapped:
    """Map audit rows to events, with what their instance and decision rows say.

    Args:
        instances: rows with id, workflow_id, trigger_context, policy_context, policy_version_id.
        decisions: rows with id, type, actor_id, role, justification.
        audit_events: rows with id, instance_id, event_type, payload, timestamp. Rows of other types become no event and
            are reported.
        mapping: where the parts stand; None for the convention of the integration guide.
    """
    by_instance = {row["id"]: row for row in instances}
    by_decision = {row["id"]: row for row in decisions}
    mapper = _Mapper(mapping or GantralMapping())
    for row in audit_events:
        mapper.add(row, by_instance, by_decision)
    return Mapped(mapper.events, mapper.doubts)


def events_from_directory(directory: Path, mapping: GantralMapping | None = None) -> Mapped:
    """The same from files `instances`, `decisions` and `audit_events`, each `.ndjson.gz` or `.ndjson`.

    Raises:
        ConfigError: a file is missing.
        BadRequestError: a line is not JSON.
    """
    instances, decisions, audit = (_read_table(directory, name) for name in ("instances", "decisions", "audit_events"))
    return events_from_rows(instances, decisions, audit, mapping)


def sample_directory() -> Path:
    """Where the shipped sample of real Gantral rows lies: inside the package."""
    return Path(__file__).resolve().parent / "sample" / "gantral"


def load_sample(mapping: GantralMapping | None = None) -> Mapped:
    """The events of the shipped sample: 5 904 of seven minutes; see `timeline.stretch` for days."""
    return events_from_directory(sample_directory(), mapping)


class _Mapper:
    def __init__(self, mapping: GantralMapping) -> None:
        self.mapping = mapping
        self.events: list[dict[str, Any]] = []
        self.doubts: list[Doubt] = []

    def add(self, row: _Row, instances: Mapping[str, _Row], decisions: Mapping[str, _Row]) -> None:
        event_id = row["id"]
        payload = row["payload"] if isinstance(row.get("payload"), Mapping) else {}
        instance = instances.get(row["instance_id"])
        if instance is None:
            self._doubt(event_id, "instance_id", row["instance_id"], "no such instance row")
            instance = {"workflow_id": payload.get("workflow_id")}
        event = {
            "source": self.mapping.source,
            "event_id": event_id,
            "occurred_at": row["timestamp"],
            "kind": "authority",
            "instance_id": row["instance_id"],
            "workflow_id": self._id(event_id, "workflow_id", instance.get("workflow_id")),
        }
        attributes: dict[str, Any] = {}
        if row["event_type"] == "INSTANCE_CREATED":
            event["outcome"] = _outcome(_CREATED, payload.get("state"))
            doubtful = payload.get("state")
        elif row["event_type"] == "DECISION_RECORDED":
            decision = decisions.get(str(payload.get("decision_id")))
            event |= self._decision(event_id, payload, decision, attributes)
            doubtful = payload.get("decision_type")
        else:
            self._doubt(event_id, "event_type", row["event_type"], "no event is made of this type")
            return
        if event["outcome"] is None:
            self._doubt(event_id, "outcome", doubtful, "no event is made of this outcome")
            return
        self._from_instance(event_id, event, instance, attributes)
        if attributes:
            event["attributes"] = attributes
        self.events.append({k: v for k, v in event.items() if v is not None})

    def _decision(
        self, event_id: str, payload: _Row, decision: _Row | None, attributes: dict[str, Any]
    ) -> dict[str, Any]:
        """What a human or the clock decided; the `decisions` table says what happened, the payload only repeats it."""
        decision_id = self._id(event_id, "decision_id", payload.get("decision_id"))
        if decision is None:
            self._doubt(event_id, "decision_id", payload.get("decision_id"), "no such decision row")
            decision = {"type": payload.get("decision_type"), "actor_id": payload.get("actor_id")}
        self._attribute(event_id, attributes, "role", decision.get("role"))
        return {
            "outcome": "timed_out" if _is_timeout(decision) else _outcome(_DECIDED, decision.get("type")),
            "decision_id": decision_id,
            "actor_id": self._id(event_id, "actor_id", decision.get("actor_id")),
        }

    def _from_instance(self, event_id: str, event: dict[str, Any], instance: _Row, attributes: dict[str, Any]) -> None:
        trigger, policy, m = instance.get("trigger_context"), instance.get("policy_context"), self.mapping
        agent = self._id(event_id, "agent_id", _at(trigger, m.agent_path))
        event["agent_id"] = m.agent_fallback if agent is None else agent
        event["team_id"] = self._id(event_id, "team_id", _at(trigger, m.team_path))
        if (environment := _at(trigger, m.environment_path)) is not None:
            event["environment"] = self._id(event_id, "environment", environment)
        event["declared_amount_minor"] = self._amount(event_id, _at(trigger, m.amount_path))
        reason = policy.get("reason") if isinstance(policy, Mapping) else None
        if isinstance(reason, str) and (found := _MATERIALITY.search(reason)):
            event["materiality"] = found[1]
        for name, path in m.attribute_paths.items():
            self._attribute(event_id, attributes, name, _at(trigger, path))
        self._attribute(event_id, attributes, "policy_version_id", instance.get("policy_version_id"))

    def _id(self, event_id: str, name: str, value: object) -> str | None:
        if value is None:
            problem: str | None = "absent"
        elif not isinstance(value, str):
            problem = "no string"
        else:
            problem = string_problem(value)
        if problem is None:
            return str(value)
        self._doubt(event_id, name, value, problem)
        return None

    def _amount(self, event_id: str, value: object) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= INT64_MAX:
            self._doubt(event_id, "declared_amount_minor", value, "no integer from 0 to 2^63 - 1")
            return None
        return value

    def _attribute(self, event_id: str, attributes: dict[str, Any], name: str, value: object) -> None:
        if value is None or value == "":
            return
        text = self._id(event_id, f"attributes.{name}", value)
        if text is not None:
            attributes[name] = text

    def _doubt(self, event_id: str, name: str, value: object, reason: str) -> None:
        self.doubts.append(Doubt(event_id, name, None if value is None else clip(value), reason))


def _outcome(outcomes: Mapping[str, str], value: object) -> str | None:
    return outcomes.get(value) if isinstance(value, str) else None


def _is_timeout(decision: _Row) -> bool:
    """All three, since anybody can call themselves SYSTEM."""
    justification = decision.get("justification")
    return (
        decision.get("type") == "REJECT"
        and decision.get("actor_id") == "SYSTEM"
        and decision.get("role") == "SYSTEM"
        and isinstance(justification, str)
        and _TIMEOUT.fullmatch(justification) is not None
    )


def _at(value: object, path: Sequence[str]) -> object:
    """What stands at a path of keys; None where there is nothing, jsonb null included."""
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def _read_table(directory: Path, name: str) -> list[_Row]:
    for path in (directory / f"{name}.ndjson.gz", directory / f"{name}.ndjson"):
        if path.is_file():
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            rows = [strict_loads(line, max_bytes=_MAX_ROW_BYTES) for line in data.splitlines() if line.strip()]
            if bad := [row for row in rows if not isinstance(row, dict)]:
                raise BadRequestError(f"{show(repr(bad[0]))} in {path.name} is no row", code="invalid_json")
            return rows
    raise ConfigError(f"{show(str(directory))} has no {name}.ndjson.gz")
