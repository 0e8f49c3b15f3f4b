"""The service against an echo: enriching, single events acknowledged durable, and enriching while bulk ingest runs."""

from __future__ import annotations

import http.client as http_client
import json
import threading
import time
from pathlib import Path

import httpx

from enrich import Engine
from tests.bench.data import AGENTS, agent_name, document, table
from tests.bench.measure import Row
from tests.bench.servers import Load, echo_server, enrich_server, wrk

__all__ = ["http"]

_FIVE = [
    "agent.last_24h.executions",
    "agent.last_24h.failures",
    "agent.last_24h.failure_rate",
    "agent.last_7d.executions",
    "agent.last_7d.failure_rate",
]


def _median(loads: list[Load]) -> Load:
    return sorted(loads, key=lambda load: load.per_second)[len(loads) // 2]


def http(root: Path, events: int = 1_000_000) -> list[Row]:
    """Everything that goes over a socket; the echo answers the very bytes that the service answers."""
    end = time.time_ns() // 1000 - 60_000_000
    with Engine.open(root / "http", queries="queries", policies="policies") as engine:
        engine.record(table(events, AGENTS, end_us=end))
    rows: list[Row] = []
    documents = [document(i) for i in range(64)]
    with enrich_server(root / "http") as ours, echo_server("fastapi") as echo, echo_server("bare") as bare:
        for name, select, target in (("5 signals", _FIVE, 0.60), ("the whole catalog", None, 0.45)):
            bodies = [json.dumps({"input": d, **({"select": select} if select else {})}).encode() for d in documents]
            answers = [httpx.post(f"{ours}/v1/enrich", content=b).content for b in bodies]
            size = sum(map(len, answers)) // len(answers)
            seen: dict[str, list[Load]] = {"ours": [], "echo": [], "bare": []}
            for _ in range(3):
                seen["echo"].append(wrk(echo, answers, root, connections=4))
                seen["ours"].append(wrk(f"{ours}/v1/enrich", bodies, root, connections=4))
                seen["bare"].append(wrk(bare, answers, root, connections=4))
            load, peer, least = (_median(seen[k]) for k in ("ours", "echo", "bare"))
            _all_answered(load)
            ratio = load.per_second / peer.per_second
            rows.append(
                Row(
                    f"`POST /v1/enrich`, {name} ({size:,} bytes), against a FastAPI echo of the same bytes, wrk -c4",
                    f">= {target:.0%} of its requests/s",
                    f"{ratio:.0%}",
                    f"{load}; echo {peer.per_second:,.0f} req/s; without any framework {least.per_second:,.0f}",
                    ratio >= target,
                )
            )
        rows.append(_singles(root, ours, echo))
        rows += _beside_ingest(root, ours, documents, end)
    return rows


def _all_answered(load: Load) -> None:
    if load.errors:
        raise SystemExit(f"{load.errors} requests were refused")


def _singles(root: Path, ours: str, echo: str) -> Row:
    event = {
        "source": "bench-http",
        "event_id": "@@",
        "kind": "execution",
        "outcome": "succeeded",
        "team_id": "team-0001",
        "workflow_id": "workflow-001",
        "duration_ms": 1200,
        "cost_microusd": 900,
        "input_tokens": 2000,
        "output_tokens": 300,
    }
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000001Z", time.gmtime())
    bodies = [json.dumps({**event, "occurred_at": now, "agent_id": agent_name(i)}).encode() for i in range(64)]
    ours_seen, echo_seen = [], []
    for _ in range(3):
        echo_seen.append(wrk(echo, bodies, root, connections=64, unique=True))
        ours_seen.append(wrk(f"{ours}/v1/events", bodies, root, connections=64, unique=True))
    load, peer = _median(ours_seen), _median(echo_seen)
    _all_answered(load)
    ratio = load.per_second / peer.per_second
    return Row(
        "64 clients posting single events, each acknowledged durable, against the echo at -c64",
        ">= 45 % of its requests/s",
        f"{ratio:.0%}",
        f"{load}; echo {peer.per_second:,.0f} req/s",
        ratio >= 0.45,
    )


class _Ingest:
    """Bulk NDJSON, one request after the other, until it is stopped; `sent` counts what was accepted."""

    def __init__(self, url: str, end: int, first: int) -> None:
        self._url = url
        self._stop = threading.Event()
        self.sent = 0
        rows = table(200_000, AGENTS, end_us=end, first=first, seed=first).to_pylist()
        for row in rows:
            row["occurred_at"] = row["occurred_at"].isoformat()
        self._lines = [json.dumps({k: v for k, v in row.items() if v is not None}) for row in rows]
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with httpx.Client(timeout=60) as client:
            for i in range(0, len(self._lines), 5_000):
                if self._stop.is_set():
                    break
                body = "\n".join(self._lines[i : i + 5_000]).encode()
                answer = client.post(
                    f"{self._url}/v1/events", content=body, headers={"content-type": "application/x-ndjson"}
                )
                self.sent += int(answer.json()["accepted"]) if answer.status_code == 200 else 0

    def __enter__(self) -> _Ingest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _beside_ingest(root: Path, ours: str, documents: list[dict[str, object]], end: int) -> list[Row]:
    bodies = [json.dumps({"input": d, "select": _FIVE}).encode() for d in documents]
    quiet = wrk(f"{ours}/v1/enrich", bodies, root, connections=4)
    with _Ingest(ours, end, 50_000_000) as ingest:
        began = time.monotonic()
        busy = wrk(f"{ours}/v1/enrich", bodies, root, connections=4)
        rate = ingest.sent / (time.monotonic() - began)
    ratio = busy.p99_us / quiet.p99_us
    alone = _pauses(ours, bodies)
    with _Ingest(ours, end, 60_000_000) as ingest:
        beside = _pauses(ours, bodies)
    return [
        Row(
            "`POST /v1/enrich` while bulk ingest runs",
            "p99 <= 3 x quiet",
            f"{ratio:.1f} x",
            f"quiet {quiet}; beside {rate:,.0f} events/s: {busy}",
            ratio <= 3,
        ),
        Row(
            "the longest answer to one client that asks every 2 ms, beside bulk ingest: a pause of the service, not a "
            "wait for a core that load has taken",
            "<= 5 ms",
            f"{beside[-1]:.1f} ms",
            f"{len(beside):,} requests, p50 {beside[len(beside) // 2]:.2f} ms, "
            f"p99 {beside[len(beside) * 99 // 100]:.2f} ms; without ingest p50 {alone[len(alone) // 2]:.2f} ms, "
            f"longest {alone[-1]:.1f} ms",
            beside[-1] <= 5,
        ),
    ]


def _pauses(ours: str, bodies: list[bytes], requests: int = 2_000) -> list[float]:
    """Latencies in ms, sorted."""
    host = httpx.URL(ours)
    connection = http_client.HTTPConnection(host.host, host.port or 80)
    seen = []
    for i in range(requests):
        began = time.perf_counter_ns()
        connection.request("POST", "/v1/enrich", bodies[i % len(bodies)], {"content-type": "application/json"})
        connection.getresponse().read()
        seen.append((time.perf_counter_ns() - began) / 1e6)
        time.sleep(0.002)
    connection.close()
    return sorted(seen)
