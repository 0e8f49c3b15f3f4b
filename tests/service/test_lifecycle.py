"""Start, reload, drain, kill."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from .running import AGENT_SET, Running, definitions, enrich, event, serving

BROKEN_SET = AGENT_SET.replace("count(*) FILTER", "cuont(*) FILTER")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return definitions(tmp_path)


def eventually(holds: Callable[[], Any], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def executions(service: Running, agent: str) -> int:
    return int(service.http.get(f"/v1/entities/agent/{agent}").json()["last_24h"]["executions"])


def test_what_was_acknowledged_survives_a_kill(directory: Path) -> None:
    with serving(directory) as service:
        seq = service.http.post("/v1/events", json=[event(f"k-{i}", agent_id="k") for i in range(300)]).json()["seq"]
        for i in range(20):
            seq = service.http.post("/v1/events", json=event(f"k-single-{i}", agent_id="k")).json()["seq"]
        assert service.stop(signal.SIGKILL) == -signal.SIGKILL
    with serving(directory) as service:
        assert executions(service, "k") == 320
        again = service.http.post("/v1/events", json=event("k-single-19", agent_id="k")).json()
        assert (again["duplicates"], again["rejected"]) in ((1, []), (0, again["rejected"]))
        assert again["accepted"] == 0
        assert service.http.post("/v1/events", json=event("k-new", agent_id="k")).json()["seq"] > seq


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_0(directory: Path, number: int) -> None:
    with serving(directory) as service:
        acknowledged: list[str] = []
        refused: list[Exception] = []
        go_on = threading.Event()

        def send(writer: int) -> None:
            with httpx.Client(base_url=service.url, timeout=30) as client:
                for i in range(10_000):
                    try:
                        answer = client.post("/v1/events", json=event(f"w{writer}-{i}", agent_id="drained"))
                    except httpx.TransportError as error:  # the listener is closed: nothing was acknowledged
                        refused.append(error)
                        return
                    assert answer.status_code == 200, answer.text
                    acknowledged.append(f"w{writer}-{i}")
                    if len(acknowledged) > 50:
                        go_on.set()

        writers = [threading.Thread(target=send, args=(n,)) for n in range(8)]
        for writer in writers:
            writer.start()
        assert go_on.wait(20)
        assert service.stop(number) == 0
        for writer in writers:
            writer.join(20)
        assert len(refused) == 8
        said = service.log.read_text()
        assert "drained" in said
        assert "leaked" not in said, "what the garbage collector was kept off is still there at the interpreter's end"
    with serving(directory) as service:
        assert executions(service, "drained") >= len(acknowledged)


def test_a_request_whose_body_is_not_complete_is_dropped_at_the_end(directory: Path) -> None:
    with serving(directory) as service:
        body = b'[{"source":"tests","event_id":"slow"}]'
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body))
            connection.sendall(body[:10])
            time.sleep(0.3)
            service.process.send_signal(signal.SIGTERM)
            connection.settimeout(10)
            assert connection.recv(100) == b""  # nothing of it was stored: whoever sent it sends it again
        assert service.stop() == 0


def test_a_second_process_on_the_directory_is_refused_with_what_to_do(directory: Path) -> None:
    with serving(directory) as service:
        service.http.post("/v1/events", json=event("held"))
        second = enrich("serve", "--data=data", "--queries=queries", "--port=0", cwd=directory)
        assert second.returncode == 1
        assert "a running service holds `data`" in second.stderr
        assert "--url" in second.stderr


def test_a_port_in_use_is_refused_by_name(directory: Path) -> None:
    with serving(directory) as service:
        port = service.url.rpartition(":")[2]
        second = enrich("serve", "--data=other", "--queries=queries", f"--port={port}", cwd=directory)
        assert second.returncode == 1
        assert f"can't listen on `127.0.0.1:{port}`" in second.stderr
        assert "Traceback" not in second.stderr


def test_a_unix_socket_is_served_and_a_stale_one_replaced(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--uds", "s.sock")
    monkeypatch.chdir(directory)  # a socket's path has room for some 100 characters, which a test's directory can pass
    with serving(directory, arguments=arguments) as service:
        assert service.url == "unix:s.sock"
        assert service.http.get("/health").json() == {}
        assert enrich("context", "agent", "a", "--url", "unix:s.sock", cwd=directory).returncode == 0
        service.stop(signal.SIGKILL)
    assert (directory / "s.sock").is_socket()
    with serving(directory, arguments=arguments) as service:
        assert service.http.get("/health").json() == {}
        assert service.stop() == 0
    assert not (directory / "s.sock").exists()


def _change(service: Running, text: str) -> None:
    (service.directory / "queries" / "agent_runs.sql").write_text(text)


@pytest.mark.parametrize("how", ["file change", "SIGHUP", "call"])
def test_definitions_reload(directory: Path, how: str) -> None:
    environment = {} if how == "file change" else {"ENRICH_RELOAD_WATCH": "false"}
    with serving(directory, environment=environment) as service:
        service.http.post("/v1/events", json=event("r", agent_id="r"))
        before = service.http.get("/v1/signals").json()

        def reload() -> None:
            if how == "SIGHUP":
                service.process.send_signal(signal.SIGHUP)
            elif how == "call":
                service.http.post("/v1/reload")

        _change(service, AGENT_SET.replace("AS failure_rate", "AS mishaps"))  # no policy reads that one
        reload()
        eventually(lambda: "mishaps" in service.http.get("/v1/entities/agent/r").json()["last_24h"])
        changed = service.http.get("/v1/signals").json()
        assert changed != before

        _change(service, BROKEN_SET)
        reload()
        eventually(lambda: service.metric("enrich_definitions_stale") == 1)
        assert service.http.get("/v1/signals").json() == changed
        ready = service.http.get("/health/ready")
        assert ready.status_code == 200
        assert [w["code"] for w in ready.json()["warnings"]] == ["definitions_refused"]
        assert str(directory) not in ready.text
        assert "cuont" not in ready.text  # who holds no token may read it
        assert service.metric('enrich_reloads_total{outcome="refused"}') >= 1

        _change(service, AGENT_SET)
        reload()
        eventually(lambda: service.metric("enrich_definitions_stale") == 0)
        assert service.http.get("/health/ready").json()["warnings"] == []


def test_a_bad_reload_by_call_is_a_400_with_the_place(directory: Path) -> None:
    with serving(directory, environment={"ENRICH_RELOAD_WATCH": "false"}) as service:
        _change(service, BROKEN_SET)
        answer = service.http.post("/v1/reload")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "reload_refused")
        assert "agent_runs.sql:7:" in answer.json()["error"]["detail"]["problems"][0]
        policy = service.directory / "policies" / "authority.rego"
        _change(service, AGENT_SET)
        policy.write_text("package test.authority\n\ndecision := {")
        answer = service.http.post("/v1/reload")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "reload_refused")
        decided = service.http.post(
            "/v1/data/test/authority/decision", json={"input": {"identity": {"actor_id": "a-1"}}}
        )
        assert decided.json()["result"] == {"decision": "ALLOW"}


def test_a_bad_definition_at_start_is_an_error_with_the_place(directory: Path) -> None:
    (directory / "queries" / "agent_runs.sql").write_text(BROKEN_SET)
    answer = enrich("serve", "--data=data", "--queries=queries", "--port=0", cwd=directory)
    assert answer.returncode == 1
    assert "agent_runs.sql:7:" in answer.stderr
    assert "^" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_service_whose_log_cannot_be_written_goes_on(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ENRICH_")}
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("enrich")), "serve", "--data=data", "--queries=queries", "--uds=t.sock"],
        env=environment,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        while b"listening on" not in process.stderr.readline():
            pass
        process.stderr.close()
        with httpx.Client(transport=httpx.HTTPTransport(uds="t.sock")) as client:
            for _ in range(3):
                assert client.post("http://enrich/v1/enrich", content=b"{").status_code == 400
    finally:
        process.kill()
        process.wait()
