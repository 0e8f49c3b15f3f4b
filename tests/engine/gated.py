"""An engine with a gate: signals that count decisions, policies that limit them, and an evaluator that tests hold."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import orjson

from enrich import Engine
from enrich.decisions import DataPath, Defined, Outcome, PolicySet, Prepared, Reads
from enrich.engine.results import Decision
from enrich.settings import Settings

__all__ = ["AT_MOST", "PATH", "Held", "decide", "event_counts", "hold", "open_gated", "request", "write_policy"]

PATH: Final[DataPath] = ("shop", "decision")
_COUNTS: Final = """\
-- entity: {entity}
-- windows: 1h
-- owner: tests
-- description: Decisions about the {entity}.
SELECT
    count(*) FILTER (WHERE outcome = 'allowed') AS {p}allowed, -- allowed
    count(*) FILTER (WHERE outcome = 'denied') AS {p}denied, -- denied
    count(*) FILTER (WHERE outcome = 'required_human') AS {p}asked -- put before a human
FROM events
WHERE kind = 'authority'
"""
#: at most so many per hour for an agent, and for its team
AT_MOST: Final = """\
package shop

default decision := {{"decision": "DENY"}}

decision := {{"decision": "ALLOW"}} if {{
    input.history.agent.last_1h.allowed < {agent}
    input.history.team.last_1h.team_allowed < {team}
}}

default allow := false

allow if input.history.agent.last_1h.allowed < {agent}

asked := input.identity.actor_id
"""


def write_policy(where: Path, text: str) -> None:
    (where / "policies").mkdir(parents=True, exist_ok=True)
    (where / "policies" / "shop.rego").write_text(text)


def open_gated(where: Path, policy: str | None = None, **settings: Any) -> Engine:
    """The engine on `where/data`; without a policy the one that is there, or one that allows a hundred an hour."""
    (where / "queries").mkdir(parents=True, exist_ok=True)
    for entity, prefix in (("agent", ""), ("team", "team_")):
        (where / "queries" / f"{entity}.sql").write_text(_COUNTS.format(entity=entity, p=prefix))
    if policy is not None or not (where / "policies").exists():
        write_policy(where, policy or AT_MOST.format(agent=100, team=100))
    return Engine.open(
        where / "data",
        queries=where / "queries",
        policies=where / "policies",
        settings=Settings(**({"disk_low_bytes": 0, "deadline_ms": 20_000} | settings)),
    )


def request(agent: str | None = "a", team: str | None = "t", **instance: Any) -> dict[str, Any]:
    """An input about the agent."""
    return {"identity": {"actor_id": agent}, "instance": {"owning_team_id": team, "workflow_id": "w", **instance}}


def decide(
    engine: Engine, document: Mapping[str, Any] | None = None, path: DataPath = PATH, **options: Any
) -> Decision:
    """A decision; without a document about agent `a` of team `t`."""
    decision = engine.decide(path, request() if document is None else document, **options)
    assert isinstance(decision, Decision)
    return decision


def event_counts(engine: Engine, agent: str = "a") -> dict[str, int]:
    """How often an agent was allowed, denied and put before a human."""
    counts = engine.context({"agent": agent})["agent"]["last_1h"]
    return {name: counts[name] for name in ("allowed", "denied", "asked")}


class Held:
    """Policies whose evaluations a test watches, delays and replaces."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self.policies: PolicySet = prepared.policies
        self.rules = prepared.rules
        self.booleans = prepared.booleans
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self.sleep_seconds = 0.0
        self.answer: Callable[[Any], Outcome] | None = None
        self.seen: list[bytes] = []
        self.closed = False

    def evaluate(
        self,
        path: DataPath,
        input_json: bytes | None,
        *,
        strict_builtin_errors: bool = False,
        limit_seconds: float | None = None,
    ) -> Outcome:
        self.seen.append(input_json or b"")
        self.arrived.release()
        time.sleep(self.sleep_seconds)
        assert self.gate.wait(20)
        if self.answer is not None:
            return self.answer(orjson.loads(input_json or b"null"))
        return self._prepared.evaluate(
            path, input_json, strict_builtin_errors=strict_builtin_errors, limit_seconds=limit_seconds
        )

    def reads(self, path: DataPath) -> Reads | None:
        return self._prepared.reads(path)

    def close(self) -> None:
        self.closed = True
        self._prepared.close()


def hold(engine: Engine, answer: Any = None) -> Held:
    """Puts `Held` before the engine's policies; with `answer` they say nothing else."""
    live = engine.live_policies
    assert live is not None
    held = Held(live.prepared)
    if answer is not None:
        held.answer = answer if callable(answer) else lambda _: Defined(answer)
    engine._state.policies = replace(live, prepared=held)
    return held
