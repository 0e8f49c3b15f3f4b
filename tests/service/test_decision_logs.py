"""`POST /v1/logs`, by hand and from a real OPA whose decision logs are uploaded here."""

from __future__ import annotations

import gzip
import json
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.decisions.opa_server import ask, serve_opa

from .running import Running, definitions, serving

TOKEN = "token-of-ingest"
POLICY = """\
package shop

default decision := {"decision": "DENY"}

decision := {"decision": "ALLOW"} if input.amount < 10

decision := {"decision": "REQUIRE_HUMAN"} if input.amount == 10

other := 1
"""


@pytest.fixture(scope="module")
def taking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = definitions(tmp_path_factory.mktemp("taking"))
    tokens = {"ENRICH_TOKENS_INGEST": TOKEN, "ENRICH_TOKENS_READ": "reader"}
    with serving(directory, "--max-body-bytes", "200000", environment=tokens) as running:
        yield running


def entry(agent: str = "a-1", **fields: Any) -> dict[str, Any]:
    return {
        "decision_id": str(uuid.uuid4()),
        "path": "shop/decision",
        "input": {"identity": {"actor_id": agent}},
        "result": {"decision": "ALLOW"},
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime(time.time() - 5)),
    } | fields


def post(running: Running, body: bytes, path: str = "/v1/logs", **headers: str) -> httpx.Response:
    sent = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"} | headers
    return running.http.post(path, content=body, headers=sent)


def outcomes(running: Running, agent: str) -> list[str]:
    page = running.http.get(
        "/v1/events", params={"agent": agent, "limit": 1000}, headers={"authorization": "Bearer reader"}
    ).json()
    assert all((e["source"], e["kind"]) == ("opa", "authority") for e in page["events"])
    return sorted(e["outcome"] for e in page["events"])


def test_an_upload_is_counted_once_and_tells_of_every_entry(taking: Running) -> None:
    entries = [
        entry("hand"),
        entry("hand", result={"decision": "REQUIRE_HUMAN", "why": 1e308}),
        entry("hand", result=False),
        entry("hand", error={"code": "eval_conflict_error"}, result=True),
        {k: v for k, v in entry("hand").items() if k != "result"},
        entry("hand", path="shop/other"),
        entry("hand", input={}),
        entry("hand", timestamp="2031-01-01T00:00:00Z"),
    ]
    body = json.dumps(entries).encode()
    for fresh, sent in ((5, body), (0, gzip.compress(body))):
        packed = {"content-encoding": "gzip"} if sent is not body else {}
        answer = post(taking, sent, "/v1/logs" if fresh else "/v1/logs/eu", **packed)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert (told["accepted"], told["duplicates"], told["ignored"], told["own"]) == (fresh, 5 - fresh, 1, 0)
        assert [(r["index"], r["code"], r["field"]) for r in told["rejected"]] == [
            (6, "missing_agent", "input.identity.actor_id"), (7, "in_future", "timestamp")
        ]  # fmt: skip
    assert outcomes(taking, "hand") == ["allowed", "denied", "denied", "denied", "required_human"]
    changed = json.dumps([entries[0] | {"result": False}]).encode()
    assert post(taking, changed).json()["rejected"][0]["code"] == "event_conflict"


@pytest.mark.parametrize(
    ("body", "encoding", "status", "code"),
    [
        (b"{}", "identity", 400, "invalid_entries"),
        (b"[", "identity", 400, "invalid_json"),
        (b"[]", "gzip", 400, "invalid_gzip"),
        (gzip.compress(b"[]", mtime=0)[:-4], "gzip", 400, "invalid_gzip"),
        (gzip.compress(b" " * 10_000_000 + b"[]", mtime=0), "gzip", 413, "body_too_large"),
        (b" " * 200_001, "identity", 413, "body_too_large"),
        (b"[" + b"0," * 99_998 + b"0]", "identity", 200, ""),
        (b"[]", "br", 415, "unsupported_media_type"),
    ],
)
def test_what_is_no_upload_is_refused(taking: Running, body: bytes, encoding: str, status: int, code: str) -> None:
    answer = post(taking, body, **{"content-encoding": encoding})
    assert (answer.status_code, answer.json().get("error", {}).get("code", "")) == (status, code)
    assert post(taking, b"[]", **{"content-type": "text/plain"}).status_code == 415


class _Between:
    """Passes uploads on, and loses the answers of the first ones: OPA has to send them again."""

    def __init__(self, target: str, lose: int) -> None:
        self.uploads: list[bytes] = []
        between = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                between.uploads.append(body)
                kept = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length")}
                answer = httpx.post(target + self.path, content=body, headers=kept, timeout=30)
                lost = len(between.uploads) <= lose
                self.send_response(503 if lost else answer.status_code)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_n_queries_of_a_real_opa_are_n_events_though_answers_are_lost_and_it_restarts(
    taking: Running, tmp_path: Path
) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "shop.rego").write_text(POLICY)
    between = _Between(taking.url, lose=2)
    config = tmp_path / "opa.json"
    config.write_text(
        json.dumps(
            {
                "services": {"enrich": {"url": f"{between.url}/v1", "credentials": {"bearer": {"token": TOKEN}}}},
                "decision_logs": {
                    "service": "enrich",
                    "reporting": {"min_delay_seconds": 1, "max_delay_seconds": 1},
                },
            }
        )
    )
    asked = 0
    try:
        for life in range(2):
            with serve_opa(tmp_path / "policies", ("--config-file", str(config))) as port:
                for amount in range(20):
                    given = json.dumps({"input": {"identity": {"actor_id": "real"}, "amount": amount}}).encode()
                    assert ask(port, "POST", "/v1/data/shop/decision", given)[0] == 200
                    assert ask(port, "POST", "/v1/data/shop/other", given)[0] == 200
                    asked += 1
                deadline = time.monotonic() + 60
                while len(outcomes(taking, "real")) < asked or (not life and len(between.uploads) < 3):
                    assert time.monotonic() < deadline, (len(outcomes(taking, "real")), between.uploads)
                    time.sleep(0.2)
        for body in between.uploads:
            again = post(taking, body, **{"content-encoding": "gzip"}).json()
            assert (again["accepted"], again["rejected_count"]) == (0, 0)
    finally:
        between.server.shutdown()
        between.server.server_close()
    assert outcomes(taking, "real") == ["allowed"] * 20 + ["denied"] * 18 + ["required_human"] * 2
