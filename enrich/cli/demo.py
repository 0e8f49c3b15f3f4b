"""`make demo`: real history, the service, and three requests that history decides.

It loads the shipped sample into a running `enrich serve`, picks agents by a query over that history, and shows for
three of them the input as sent, the history injected, the decision without and with it, and what each part took. At
the end a changed threshold is tried on the past.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import duckdb
import httpx
import orjson
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.progress import track
from rich.table import Table

from enrich.cli.demo_backtest import try_a_threshold
from enrich.cli.demo_service import demo_service
from enrich.cli.demo_view import Answered, decision_of, demo_console, print_answer, print_query
from enrich.context import canonical_json
from enrich.decisions import Defined, EmbeddedEvaluator, Outcome, Prepared, load_policies
from enrich.events import parse_rfc3339_us
from enrich.signals import prelude_sql
from enrich.sources import Mapped, load_sample, stretch

__all__ = ["main"]

STRETCH: Final = 2000
DATA: Final = Path("data/demo")
POLICY: Final = "gantral/authority"
_BATCH: Final = 1000
_DAY_US: Final = 86_400_000_000
#: each part is measured so many times
_CALLS: Final = 20

_Answer = TypeVar("_Answer")

PICK: Final = """\
SELECT agent_id,
       any_value(team_id) AS team_id, any_value(workflow_id) AS workflow_id,
       count(*) FILTER (
           WHERE outcome IN ('approved', 'overridden', 'rejected')) AS decided,
       count(*) FILTER (WHERE outcome = 'rejected')  AS rejected,
       wilson_lower(rejected, decided, 3.0)          AS surely_above,
       wilson_upper(rejected, decided, 3.0)          AS surely_below
FROM events
WHERE agent_id IS NOT NULL AND occurred_at > $now - INTERVAL 7 DAYS
GROUP BY agent_id
HAVING decided >= 10
"""


@dataclass(frozen=True)
class Request:
    """An agent to ask about, and why it was picked."""

    agent: str
    why: str
    document: dict[str, Any]


def main(arguments: Sequence[str] = ()) -> int:
    """Runs the demo; with `--serve` the service stays up until it is interrupted.

    Returns:
        0 when at least two of the three decisions differ because of history, else 1.
    """
    serve = "--serve" in arguments
    signal.signal(signal.SIGTERM, _end)
    console = demo_console()
    now_us = time.time_ns() // 1000 - 60_000_000
    mapped = load_sample()
    events = stretch(mapped.events, STRETCH, end_us=now_us)
    _introduce(console, mapped, events)
    shutil.rmtree(DATA, ignore_errors=True)
    with demo_service(DATA, port=None if serve else 0) as service:
        with httpx.Client(base_url=service.url, timeout=30, trust_env=False) as client:
            differ, asked = _ask(client, events, now_us, console)
            try_a_threshold(client, Path("policies"), f"{POLICY}/decision", now_us, console)
        console.rule()
        verdict = "green" if differ >= 2 else "red"
        console.print(f"[{verdict}]{differ} of {asked} decisions are different because of history[/]")
        if serve:
            console.print(f"serving {DATA} on {service.url}; end with Ctrl-C")
            try:
                return service.wait()
            except KeyboardInterrupt:
                return 0
    return 0 if differ >= 2 else 1


def _end(number: int, frame: object) -> NoReturn:
    """SIGTERM ends the demo as Ctrl-C does: with its service."""
    raise KeyboardInterrupt


def _introduce(console: Console, mapped: Mapped, events: Sequence[Mapping[str, Any]]) -> None:
    times_us = [parse_rfc3339_us(e["occurred_at"]) for e in events]
    days = (max(times_us) - min(times_us)) / _DAY_US
    unusable = {name: sum(d.field == name for d in mapped.doubts) for name in ("agent_id", "team_id")}
    console.rule("[bold]history that a real Gantral wrote")
    console.print(
        f"{len(events):,} authority events of {len({e.get('agent_id') for e in events} - {None})} agents. The run took "
        f"seven minutes; for this demo its time axis is [bold]stretched {STRETCH:,} times[/bold], to "
        f"{days:.1f} days that end a minute ago. {unusable['agent_id']} events name no agent, or one that can't be an "
        f"id, and {unusable['team_id']} no team: they count for what they do name.\n"
    )


def _ask(
    client: httpx.Client, events: Sequence[Mapping[str, Any]], now_us: int, console: Console
) -> tuple[int, int]:
    """Loads the events, picks three agents and asks about them: how many decisions differ, of how many."""
    _load(client, events, console)
    requests = _pick(events, now_us, console)
    policies = EmbeddedEvaluator().prepare(load_policies(Path("policies")))
    differ = 0
    try:
        for number, request in enumerate(requests, 1):
            console.rule(f"[bold]{number}. {request.agent}[/bold], surely {request.why}")
            answered = _answer(client, policies, request)
            print_answer(console, answered)
            differ += decision_of(answered.blind) != decision_of(answered.seen)
    finally:
        policies.close()
    return differ, len(requests)


def _load(client: httpx.Client, events: Sequence[Mapping[str, Any]], console: Console) -> None:
    accepted = 0
    began = time.perf_counter()
    for i in track(range(0, len(events), _BATCH), "POST /v1/events", console=console):
        answer = client.post("/v1/events", json=events[i : i + _BATCH])
        answer.raise_for_status()
        accepted += answer.json()["accepted"]
    console.print(f"{accepted:,} events accepted, durable and visible in {time.perf_counter() - began:.2f} s\n")


def _pick(events: Sequence[Mapping[str, Any]], now_us: int, console: Console) -> list[Request]:
    console.rule("[bold]whose history matters most, by query")
    print_query(console, PICK)
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(prelude_sql())
        names = ("agent_id", "team_id", "workflow_id", "outcome", "occurred_at")
        con.execute(
            "CREATE TABLE events (" + ", ".join(f"{n} VARCHAR" for n in names[:-1]) + ", occurred_at TIMESTAMPTZ)"
        )
        con.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", [[e.get(n) for n in names] for e in events])
        query = PICK.replace("$now", f"make_timestamptz({now_us})")
        worst = con.execute(f"FROM ({query}) ORDER BY surely_above DESC, decided DESC LIMIT 2").fetchall()
        best = con.execute(f"FROM ({query}) ORDER BY surely_below, decided DESC LIMIT 1").fetchall()
    table = Table("agent", "answers", "rejected", "surely within", "picked as surely", title="by humans, in 7 days")
    for column in table.columns:
        column.no_wrap = True
    found = []
    for row, why in [*((r, "rejected most") for r in worst), *((r, "rejected least") for r in best)]:
        agent, team, workflow, decided, rejected, low, high = row
        table.add_row(agent, str(decided), str(rejected), f"{low:.0%} to {high:.0%}", why)
        document = {
            "instance": {"workflow_id": workflow, "materiality": "MEDIUM", "owning_team_id": team},
            "identity": {"actor_id": agent, "roles": ["agent"]},
            "context": {"domain": team, "attributes": {}},
        }
        found.append(Request(agent, why, document))
    console.print(table)
    console.print()
    return found


def _answer(client: httpx.Client, policies: Prepared, request: Request) -> Answered:
    """Asks the service, and the policy alone; several times, so that what each part took is no matter of chance."""
    body, bare = {"input": request.document}, canonical_json(request.document)
    path = tuple(POLICY.split("/"))

    def enrich() -> httpx.Response:
        return client.post("/v1/enrich", json=body).raise_for_status()

    def decide(**parameters: str) -> httpx.Response:
        return client.post(f"/v1/data/{POLICY}/decision", json=body, params=parameters).raise_for_status()

    def rehearse() -> httpx.Response:
        """What is only measured must not count."""
        return decide(dry_run="true")

    def evaluate() -> Outcome:
        return policies.evaluate(path, bare)

    for ask in (enrich, rehearse, evaluate) * 2:
        ask()  # nothing that is measured starts cold
    before = _stages(client)
    enriched, enrich_us = _timed(enrich)
    _, decide_us = _timed(rehearse)
    after = _stages(client)
    reasons = client.post(f"/v1/data/{POLICY}/reasons", json=body).raise_for_status().json()["result"]
    decision = decide().json()["result"]
    without, without_us = _timed(evaluate)

    def took(route: str, stage: str) -> float:
        return (after.get((route, stage), 0.0) - before.get((route, stage), 0.0)) * 1e6 / _CALLS

    history = enriched.json()["input"]["history"]
    return Answered(
        document=request.document,
        history=history,
        history_bytes=len(orjson.dumps(history)),
        blind=without.value if isinstance(without, Defined) else {},
        seen={"decision": decision, "reasons": reasons},
        calls=_CALLS,
        took=[
            ("enriching, over HTTP, as this client saw it", enrich_us),
            ("  of it reading the request", took("enrich", "parse")),
            ("  of it computing the history", took("enrich", "context")),
            ("  of it writing the answer", took("enrich", "serialize")),
            ("deciding with history, over HTTP, unrecorded, likewise", decide_us),
            ("  of it reading the request", took("data", "parse")),
            ("  of it computing the history and evaluating the policy", took("data", "evaluate")),
            ("  of it writing the answer", took("data", "serialize")),
            ("evaluating the policy without history, in process", without_us),
        ],
    )


def _timed(ask: Callable[[], _Answer]) -> tuple[_Answer, float]:
    """The last answer, and the mean of the calls in microseconds."""
    began = time.perf_counter()
    for _ in range(_CALLS):
        answer = ask()
    return answer, (time.perf_counter() - began) * 1e6 / _CALLS


def _stages(client: httpx.Client) -> dict[tuple[str, str], float]:
    """The seconds that the service has spent so far, by route and stage."""
    text = client.get("/metrics").raise_for_status().text
    return {
        (sample.labels["route"], sample.labels["stage"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "enrich_stage_seconds_sum"
    }


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
