"""`make demo`: real history, the service, and three requests that history decides.

It loads the shipped sample into a running `enrich serve`, picks agents by a query over that history, and shows for
three of them the input as sent, the history injected, the decision without and with it, and what each part took.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import httpx
import orjson
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.progress import track
from rich.syntax import Syntax
from rich.table import Table

from enrich.context import canonical_json
from enrich.decisions import Defined, EmbeddedEvaluator, Prepared, load_policies
from enrich.signals import prelude_sql
from enrich.sources import load_sample, stretch

__all__ = ["main"]

STRETCH: Final = 2000
DATA: Final = Path("data/demo")
POLICY: Final = "gantral/authority"
_BATCH: Final = 1000
_SHOWN: Final = (
    "known",
    "enough_decisions",
    "rejected_significantly",
    "rejection_change_z",
)
_SHOWN_7D: Final = ("complete", "allowed", "human_decisions", "rejections", "rejection_rate", "rejection_rate_low")

PICK: Final = """\
SELECT agent_id, any_value(team_id) AS team_id, any_value(workflow_id) AS workflow_id,
       count(*) FILTER (WHERE outcome IN ('approved', 'overridden', 'rejected'))   AS decided,
       count(*) FILTER (WHERE outcome = 'rejected')                                AS rejected,
       wilson_lower(rejected, decided, 3.0) AS surely_above, wilson_upper(rejected, decided, 3.0) AS surely_below
FROM events
WHERE agent_id IS NOT NULL AND occurred_at > $now::TIMESTAMPTZ - INTERVAL 7 DAYS
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
    console = Console(width=max(110, min(Console().width, 150)))
    now_us = time.time_ns() // 1000 - 60_000_000
    mapped = load_sample()
    events = stretch(mapped.events, STRETCH, end_us=now_us)
    console.rule("[bold]history that a real Gantral wrote")
    console.print(
        f"{len(events):,} authority events of {len({e.get('agent_id') for e in events} - {None})} agents. The run took "
        f"seven minutes; for this demo its time axis is [bold]stretched {STRETCH:,} times[/bold], to "
        f"{_days(events):.1f} days that end a minute ago. {len(mapped.doubts)} values in it could not be used "
        "(agents without an id that can be one); those events count for team and workflow only.\n"
    )
    shutil.rmtree(DATA, ignore_errors=True)
    with _service(keep="--serve" in arguments) as url, httpx.Client(base_url=url, timeout=30) as client:
        _load(client, events, console)
        requests = _pick(events, now_us, console)
        with_policies = EmbeddedEvaluator().prepare(load_policies(Path("policies")))
        try:
            differ = sum(_show(client, with_policies, r, i, console) for i, r in enumerate(requests, 1))
        finally:
            with_policies.close()
        console.rule()
        verdict = "green" if differ >= 2 else "red"
        console.print(f"[{verdict}]{differ} of {len(requests)} decisions are different because of history[/]")
        if "--serve" in arguments:
            console.print(f"serving {DATA} on {url}; end with Ctrl-C")
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                return 0
    return 0 if differ >= 2 else 1


def _days(events: Sequence[Mapping[str, Any]]) -> float:
    times = [e["occurred_at"] for e in events]
    with duckdb.connect() as con:
        row = con.execute(
            "SELECT epoch(max(t::TIMESTAMPTZ)) - epoch(min(t::TIMESTAMPTZ)) FROM unnest($1) u(t)", [times]
        )
        return float(row.fetchall()[0][0]) / 86_400


@contextmanager
def _service(*, keep: bool) -> Iterator[str]:
    port = "8686" if keep else "0"
    command = [sys.executable, "-m", "enrich", "serve", "--data", str(DATA), "--queries", "queries"]
    command += ["--policies", "policies", "--port", port, "--log-level", "warning"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"})
    try:
        if process.stderr is None:
            raise RuntimeError("no pipe from the service")
        url = ""
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("listening on "):
                url = line.removeprefix("listening on ").strip()
                break
        if not url:
            raise SystemExit("the service did not start:\n" + "".join(lines))
        yield url
    finally:
        process.terminate()
        process.wait(30)


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
    console.print(Syntax(PICK, "sql", background_color="default"))
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
    table = Table("agent", "decided by humans in 7 days", "rejected", "rejected surely in", "picked as")
    found = []
    for row, why in [
        *((r, "one of the two most surely rejected") for r in worst),
        *((r, "the most surely trusted") for r in best),
    ]:
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


def _show(client: httpx.Client, policies: Prepared, request: Request, number: int, console: Console) -> bool:
    console.rule(f"[bold]{number}. {request.agent}[/bold], {request.why}")
    began = time.perf_counter()
    enriched = client.post("/v1/enrich", json={"input": request.document})
    enrich_us = (time.perf_counter() - began) * 1e6
    history = enriched.raise_for_status().json()["input"]["history"]
    began = time.perf_counter()
    answer = client.post(f"/v1/data/{POLICY}?metrics=true", json={"input": request.document}).raise_for_status().json()
    decide_us = (time.perf_counter() - began) * 1e6
    began = time.perf_counter()
    without = policies.evaluate(tuple(POLICY.split("/")), canonical_json(request.document))
    without_us = (time.perf_counter() - began) * 1e6
    blind = without.value if isinstance(without, Defined) else {}
    seen = answer["result"]
    agent = history["agent"]
    shown = {
        "agent": {
            **{n: agent[n] for n in _SHOWN if n in agent},
            "last_7d": {n: agent["last_7d"][n] for n in _SHOWN_7D if n in agent["last_7d"]},
        },
        **{k: history[k] for k in ("as_of", "seq", "status")},
    }
    bytes_injected = len(orjson.dumps(history))
    console.print(
        Columns(
            [
                Panel(_json(request.document), title="input as sent", width=48),
                Panel(_json(shown), title=f"history injected (of {bytes_injected:,} bytes)", width=58),
            ]
        )
    )
    table = Table("", "decision", "because")
    table.add_row("without history", _colored(blind), "; ".join(blind.get("reasons", [])))
    table.add_row("with history", _colored(seen), "; ".join(seen.get("reasons", [])))
    console.print(table)
    timers = {k: v for k, v in answer.get("metrics", {}).items() if k.startswith("timer_")}
    parts = ", ".join(f"{k.removeprefix('timer_').removesuffix('_ns')} {v / 1e3:,.0f} us" for k, v in timers.items())
    console.print(
        f"took: enriching over HTTP {enrich_us:,.0f} us; deciding over HTTP {decide_us:,.0f} us"
        + (f" (of it {parts})" if parts else "")
        + f"; the same policy in process without history {without_us:,.0f} us\n"
    )
    return bool(_decision(blind) != _decision(seen))


def _decision(document: Mapping[str, Any]) -> str:
    return str(document.get("decision", {}).get("decision", "undefined"))


def _colored(document: Mapping[str, Any]) -> str:
    color = {"ALLOW": "green", "DENY": "red"}.get(_decision(document), "yellow")
    return f"[bold {color}]{_decision(document)}[/]"


def _json(document: Mapping[str, Any]) -> Syntax:
    return Syntax(
        json.dumps(document, indent=1, ensure_ascii=False), "json", background_color="default", word_wrap=True
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
