"""Enriched decisions against a bare OPA that is given the enriched input; what journal and projection cost."""

from __future__ import annotations

import http.client as http_client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from enrich import Engine
from enrich.engine.results import Decision
from enrich.settings import Settings
from tests.bench.data import AGENTS, document, table
from tests.bench.measure import Row, in_turns
from tests.bench.servers import Load, enrich_server, free_port, opa_server, wrk

__all__ = ["PATH", "POLICY", "decide"]

PATH = ("bench", "decision")
#: reads five signals of two windows, and says why
POLICY = """\
package bench

import rego.v1

default decision := {"decision": "REQUIRE_HUMAN", "reason": "no rule applies"}

decision := {"decision": "DENY", "reason": "fails too often"} if {
    day.executions >= 20
    day.failure_rate > 0.5
} else := {"decision": "ALLOW", "reason": "reliable"} if {
    day.failures < 1000000
    week.executions >= 0
    week.failure_rate <= 1
}

day := input.history.agent.last_24h

week := input.history.agent.last_7d
"""


def decide(root: Path, events: int = 1_000_000) -> list[Row]:
    """Every row of decisions; history is the same for all."""
    policies = root / "policies"
    policies.mkdir(parents=True)
    (policies / "bench.rego").write_text(POLICY)
    end = time.time_ns() // 1000 - 60_000_000
    with Engine.open(root / "data", queries="queries", policies=policies) as engine:
        engine.record(table(events, AGENTS, end_us=end))
    documents = [document(i) for i in range(64)]
    with _open(root, evaluator="wasm", projection=False) as engine:
        whole = [_enriched(engine, d) for d in documents]
    with _open(root, evaluator="wasm") as engine:
        enriched = [_enriched(engine, d) for d in documents]
        rows = [_bytes(enriched, whole)]
        with opa_server(policies) as opa:
            rows.append(_in_process(engine, documents, opa, enriched))
    with opa_server(policies) as opa, _serving(root, evaluator="wasm") as ours:
        rows.append(_over_http(root, ours, documents, opa, enriched))
        rows.append(_journal_cost(root, ours, documents))
    return rows + _real_opa(root, documents, enriched)


def _open(root: Path, **settings: Any) -> Any:
    @contextmanager
    def opened() -> Iterator[Engine]:
        with Engine.open(
            root / "data", queries="queries", policies=root / "policies", settings=Settings(**settings)
        ) as engine:
            yield engine

    return opened()


def _enriched(engine: Engine, asked: dict[str, Any]) -> bytes:
    """The very bytes that the policy saw."""
    decision = engine.decide(PATH, asked)
    if not isinstance(decision, Decision) or decision.cause is not None:
        raise SystemExit(f"no decision of the policy's own: {decision}")
    return orjson.dumps(engine.decision(decision.decision_id)["input"])


def _bytes(projected: list[bytes], whole: list[bytes]) -> Row:
    def injected(inputs: list[bytes]) -> int:
        return sum(len(orjson.dumps(orjson.loads(i)["history"])) for i in inputs) // len(inputs)

    few, all_ = injected(projected), injected(whole)
    ratio = few / all_
    return Row(
        "injected bytes with projection, a policy reading 5 signals", "<= 15 % of the whole catalog's", f"{ratio:.1%}",
        f"{few:,} of {all_:,} bytes", ratio <= 0.15,
    )  # fmt: skip


def _asking(connection: http_client.HTTPConnection, inputs: list[bytes]) -> Callable[[int], object]:
    """A bare keep-alive client of OPA."""
    bodies = [b'{"input":' + one + b"}" for one in inputs]
    where = "/v1/data/" + "/".join(PATH)

    def ask(i: int) -> object:
        connection.request("POST", where, bodies[i % len(bodies)], {"content-type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        if "decision" not in answer["result"]:
            raise SystemExit(f"OPA answers {answer}")
        return answer

    return ask


def _in_process(engine: Engine, documents: list[dict[str, Any]], opa: str, enriched: list[bytes]) -> Row:
    host, port = opa.removeprefix("http://").split(":")
    connection = http_client.HTTPConnection(host, int(port))
    ours, theirs = in_turns(
        [lambda i: engine.decide(PATH, documents[i % 64], dry_run=True), _asking(connection, enriched)]
    )
    connection.close()
    ratio = ours.p50 / theirs.p50
    return Row(
        "enriched decision in process (context, projection, wasm; no journal) against one bare OPA HTTP call on the "
        "already enriched input",
        "<= 0.7 x its p50", f"{ratio:.2f} x", f"{ours}; OPA {theirs}", ratio <= 0.7,
    )  # fmt: skip


def _over_http(root: Path, ours: str, documents: list[dict[str, Any]], opa: str, enriched: list[bytes]) -> Row:
    where = "/v1/data/" + "/".join(PATH)
    bodies = [json.dumps({"input": d}).encode() for d in documents]
    given = [b'{"input":' + one + b"}" for one in enriched]
    seen: dict[str, list[Load]] = {"ours": [], "opa": []}
    for _ in range(3):
        seen["opa"].append(wrk(opa + where, given, root, connections=4))
        seen["ours"].append(wrk(ours + where, bodies, root, connections=4))
    load, peer = (sorted(seen[k], key=lambda one: one.per_second)[1] for k in ("ours", "opa"))
    ratio = load.per_second / peer.per_second
    return Row(
        "`POST /v1/data` with history, wasm, gate and journal on, against OPA given the enriched input, wrk -c4",
        ">= 80 % of its requests/s", f"{ratio:.0%}", f"{load}; OPA {peer}; {load.errors} refused",
        ratio >= 0.80 and not load.errors,
    )  # fmt: skip


def _journal_cost(root: Path, ours: str, documents: list[dict[str, Any]]) -> Row:
    where = f"{ours}/v1/data/" + "/".join(PATH)
    bodies = [json.dumps({"input": d}).encode() for d in documents]
    with_, without = [], []
    for _ in range(3):
        without.append(wrk(where + "?dry_run=true", bodies, root, connections=64))
        with_.append(wrk(where, bodies, root, connections=64))
    load, peer = (sorted(seen, key=lambda one: one.per_second)[1] for seen in (with_, without))
    cost = 1 - load.per_second / peer.per_second
    return Row(
        "what the journal costs at 64 clients, against the same decisions as dry runs",
        "<= 25 % of requests/s", f"{cost:.0%}", f"{load}; dry runs {peer}", cost <= 0.25 and not load.errors,
    )  # fmt: skip


class _UnixConnection(http_client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


def _real_opa(root: Path, documents: list[dict[str, Any]], enriched: list[bytes]) -> list[Row]:
    """Through the `opa` evaluator, against asking an OPA on a Unix socket with the evaluator's own client."""
    from enrich.decisions._opa_client import Address, Connections
    from enrich.decisions.opa import _request

    rows = []
    for fsync, target in ((True, 4.0), (False, 2.5)):
        shutil.rmtree(root / "again", ignore_errors=True)
        shutil.copytree(root / "data", root / "again")
        settings = Settings(evaluator="opa", fsync=fsync)
        with (
            Engine.open(root / "again", queries="queries", policies=root / "policies", settings=settings) as engine,
            _opa_on_socket(root) as path,
        ):
            client = Connections(Address.of(f"unix://{path}"))
            asked = [_request(PATH, one, False) for one in enriched]
            ours, theirs = in_turns(
                [
                    lambda i, engine=engine: engine.decide(PATH, documents[i % 64]),  # type: ignore[misc]
                    lambda i, c=client, a=asked: orjson.loads(c.ask(a[i % 64], time.monotonic() + 5).body),  # type: ignore[misc]
                ],
                turns=20, calls=100, warm=200,
            )  # fmt: skip
            client.close()
        ratio = ours.p50 / theirs.p50
        rows.append(
            Row(
                "a recorded decision through a real OPA on a Unix socket against calling OPA bare, same client library"
                + ("" if fsync else ", without the journal's fsync"),
                f"<= {target:g} x its p50",
                f"{ratio:.1f} x",
                f"{ours}; bare {theirs}",
                ratio <= target,
            )
        )
    return rows


@contextmanager
def _opa_on_socket(root: Path) -> Iterator[Path]:
    path = root / f"opa-{free_port()}.sock"
    command = ["opa", "run", "--server", "--addr", f"unix://{path}", "--log-level", "error", str(root / "policies")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not path.exists():
            if time.monotonic() > deadline:
                raise SystemExit("OPA does not start")
            time.sleep(0.05)
        yield path
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _serving(root: Path, **settings: str) -> Iterator[str]:
    arguments = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    with enrich_server(root / "data", policies=root / "policies", arguments=arguments) as url:
        yield url
