"""What one caller can take: time on the loop, memory, a worker, a connection."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .running import Running, definitions, event, serving

JSON = {"content-type": "application/json"}
MEGABYTE = 1 << 20


def test_no_body_holds_the_loop(service: Running) -> None:
    numbers = b"1e2," * (MEGABYTE * 7 // 4 // 4)
    bodies = [b'{"input":{"a":[' + numbers[: MEGABYTE - 100] + b"1]}}", b'{"input":{"a":[' + numbers[: MEGABYTE - 100]]
    for path, body in [("/v1/enrich", b) for b in bodies] + [("/v1/events", b"[" + b"1e2," * (7 * MEGABYTE // 4))]:
        done: list[int] = []

        def send(path: str = path, body: bytes = body, done: list[int] = done) -> None:
            done.append(service.http.post(path, content=body, headers=JSON).status_code)

        sender = threading.Thread(target=send)
        sender.start()
        longest = 0.0
        while sender.is_alive():
            started = time.monotonic()
            service.http.get("/health/live")
            longest = max(longest, time.monotonic() - started)
        sender.join()
        assert done[0] in (200, 400, 413)
        assert longest < 1.0


@pytest.mark.parametrize("path", ["/v1/enrich", "/v1/data/test/authority/decision", "/v0/data/test/authority", "/"])
def test_an_input_has_its_own_limit(service: Running, path: str) -> None:
    body = json.dumps({"input": {"a": "x" * MEGABYTE}}).encode()
    answer = service.http.post(path, content=body, headers=JSON)
    assert answer.status_code == 413
    assert "body_too_large" in answer.text
    small = json.dumps({"input": {"a": "x" * (MEGABYTE // 2)}}).encode()
    assert service.http.post("/v1/enrich", content=small, headers=JSON).json()["input"]["history"]


def test_too_many_events_are_refused_before_they_are_looked_at(service: Running) -> None:
    answer = service.http.post("/v1/events", content=b"[" + b"1e2," * 100_000 + b"0.1000000000000000055]", headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_events")


@pytest.mark.parametrize("select", [["agent.*"] * 257, ["x" * 201]], ids=["many", "long"])
def test_a_selection_is_bounded(service: Running, select: list[str]) -> None:
    answer = service.http.post("/v1/enrich", json={"input": {"identity": {"actor_id": "a"}}, "select": select})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_select")
    answer = service.http.get("/v1/entities/agent/a", params={"select": ",".join(select)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_select")


@pytest.mark.parametrize("path", ["/v1%2Fdata", "/v1%2Fenrich", "/%76%31/data", "/v1/data%2F"])
def test_a_path_is_taken_as_it_came(service: Running, path: str) -> None:
    answer = service.http.post(path, content=b"{}", headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_path")


@pytest.mark.parametrize("digits", ["9" * 5000, "9" * 19, "-" + "9" * 19, "+0", "007"])
@pytest.mark.parametrize("prefix", ["/v0/data/", "/v0/data/test/authority/asked/", "/v1/data/test/authority/"])
def test_a_number_in_a_path_may_be_of_any_length(service: Running, prefix: str, digits: str) -> None:
    answer = service.http.post(prefix + digits, content=b'{"input":{}}', headers=JSON)
    assert answer.status_code in (200, 404), answer.text


def test_a_cursor_does_not_lead_past_what_is_there(service: Running) -> None:
    for number in range(2):
        answer = service.http.post("/v1/events", json=event(f"walked-{number}", agent_id="walked"))
        assert answer.json()["accepted"] == 1
    walk = {"agent": "walked", "limit": "1"}
    given = service.http.get("/v1/events", params=walk).json()["next_cursor"]
    fields = json.loads(base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)))

    def cursor(at_seq: int) -> str:
        changed = json.dumps([fields[0], at_seq, *fields[2:]]).encode()
        return base64.urlsafe_b64encode(changed).decode().rstrip("=")

    assert service.http.get("/v1/events", params=walk | {"cursor": cursor(0)}).status_code == 200
    for at_seq in (-1, -(1 << 61), 1 << 61):
        answer = service.http.get("/v1/events", params=walk | {"cursor": cursor(at_seq)})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_cursor")


def _connect(service: Running) -> socket.socket:
    address = urlsplit(service.url)
    assert address.hostname is not None
    assert address.port is not None
    return socket.create_connection((address.hostname, address.port), timeout=20)


def _answer(connection: socket.socket, *parts: bytes) -> bytes:
    """What comes back before the service closes the connection."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        for part in parts:
            connection.sendall(part)
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            answer += part
    return answer


HEAD = b"POST /v1/enrich HTTP/1.1\r\nhost: localhost\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        (HEAD, b"a: b\r\n" * 101, b"\r\n"),
        (HEAD, b"a: " + b"x" * 66_000),
        (HEAD, b"a" * 66_000),
        (b"GET /" + b"x" * 66_000,),
        (CHUNKED + b"0\r\n", b"a: b\r\n\r\n"),
        (CHUNKED + b"0\r\n", b"a: " + b"x" * 500_000),
        (CHUNKED, b"1;" + b"x" * 500_000),
    ],
    ids=["fields", "value", "name", "target", "trailer", "long trailer", "chunk extension"],
)
def test_a_head_without_end_is_refused_and_its_connection_closed(service: Running, parts: tuple[bytes, ...]) -> None:
    with _connect(service) as connection:
        answer = _answer(connection, *parts)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 ")), answer[:100]
    if parts[0] == HEAD and parts[-1] == b"\r\n":
        assert answer.startswith(b"HTTP/1.1 431 ")
    assert service.http.get("/health/live").status_code == 200


def test_a_body_that_stands_still_is_given_up(service: Running) -> None:
    started = time.monotonic()
    with _connect(service) as connection:
        answer = _answer(connection, HEAD + b"content-length: 100\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body_timeout" in answer
    assert 8 < time.monotonic() - started < 15


def test_an_incomplete_body_does_not_delay_the_end(tmp_path: Path) -> None:
    with serving(definitions(tmp_path)) as running, _connect(running) as connection:
        connection.sendall(HEAD + b"content-length: 100\r\n\r\n{")
        time.sleep(0.2)
        started = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - started < 5
