"""Whatever a caller sends: a 4xx with the one error body, never a 5xx, never a partial write."""

from __future__ import annotations

import gzip
import json
import socket
import time
from typing import Any

import httpx
import pytest

from .running import Running, event

JSON = {"content-type": "application/json"}
MEGABYTE = 1 << 20

#: name to body, for every call that reads JSON; the codes are the strict reader's
BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "invalid_json"),
    "blank": (b"   ", "invalid_json"),
    "cut": (b'{"input":{"a":1', "invalid_json"),
    "trailing": (b'{"input":{}} {}', "invalid_json"),
    "single quotes": (b"{'input':{}}", "invalid_json"),
    "comment": (b'{"input":{}/**/}', "invalid_json"),
    "NaN": (b'{"input":{"x":NaN}}', "number_not_finite"),
    "Infinity": (b'{"input":{"x":-Infinity}}', "number_not_finite"),
    "duplicate key": (b'{"input":{"a":1,"a":2}}', "duplicate_key"),
    "duplicate key, escaped": (b'{"input":{"a":1,"\\u0061":2}}', "duplicate_key"),
    "duplicate input": (b'{"input":{},"input":{}}', "duplicate_key"),
    "not UTF-8": (b'{"input":{"a":"\xff"}}', "invalid_utf8"),
    "UTF-16": ('{"input":{}}'.encode("utf-16"), "invalid_utf8"),
    "byte order mark": (b'\xef\xbb\xbf{"input":{}}', "invalid_json"),
    "lone surrogate": (b'{"input":{"a":"\\ud800"}}', "invalid_json"),
    "NUL": (b'{"input":{"a":"\x00"}}', "invalid_json"),
    "depth of 100": (b'{"input":{"a":' + b"[" * 100 + b"]" * 100 + b"}}", "too_deep"),
    "depth of 100 000": (b'{"input":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "too_deep"),
    "depth of 1 000 000, open": (b"[" * 1_000_000, "too_deep"),
    "huge integer": (b'{"input":{"x":' + b"9" * 5_000 + b"}}", "number_not_exact"),
    "not exact": (b'{"input":{"x":0.1000000000000000055}}', "number_not_exact"),
    "beyond double": (b'{"input":{"x":1e999}}', "number_not_exact"),
    "gzip": (gzip.compress(b'{"input":{}}'), "invalid_utf8"),
}


def refusal(answer: httpx.Response) -> dict[str, Any]:
    """The one error body, checked for its shape."""
    body = answer.json()
    assert set(body) == {"error"}, body
    assert set(body["error"]) == {"code", "message", "detail"}, body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert len(answer.content) < 4096, "an error that carries the input back"
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize("path", ["/v1/enrich", "/v1/events"])
@pytest.mark.parametrize("name", BODIES)
def test_what_is_no_exact_json_is_refused_by_name_and_stores_nothing(service: Running, path: str, name: str) -> None:
    body, code = BODIES[name]
    before = service.metric("enrich_seq")
    answer = service.http.post(path, content=body, headers=JSON)
    assert answer.status_code == 400, answer.text
    assert refusal(answer)["code"] == code
    assert service.metric("enrich_seq") == before


@pytest.mark.parametrize("path", ["/v1/enrich", "/v1/events"])
def test_ten_megabytes_are_too_many(service: Running, path: str) -> None:
    body = b'{"input":{"a":"' + b"x" * (10 * MEGABYTE) + b'"}}'
    answer = service.http.post(path, content=body, headers=JSON)
    assert answer.status_code == 413
    assert refusal(answer)["code"] == "body_too_large"


@pytest.mark.parametrize("path", ["/v1/enrich", "/v1/events", "/v1/reload"])
def test_a_chunked_body_is_counted_as_it_arrives(service: Running, path: str) -> None:
    def chunks() -> Any:
        for _ in range(10):
            yield b"x" * MEGABYTE

    answer = service.http.post(path, content=chunks(), headers=JSON)
    assert answer.status_code == 413
    assert refusal(answer)["code"] == "body_too_large"


def test_a_content_length_that_promises_too_much_is_refused_before_the_body(service: Running) -> None:
    answer = raw(service, b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n[")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer


@pytest.mark.parametrize("path", ["/v1/enrich", "/v1/events"])
def test_a_connection_that_ends_within_its_body_stores_nothing(service: Running, path: str) -> None:
    before = service.metric("enrich_seq")
    whole = json.dumps([event("cut-off")]).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(whole)}\r\n\r\n".encode()
    assert raw(service, head + whole[:-1], hang_up=True) == b""
    assert service.http.get("/health/live").status_code == 200
    assert service.metric("enrich_seq") == before


@pytest.mark.parametrize("path", ["/v1/enrich", "/v1/events"])
@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 200),
        ("application/json", 200),
        ("Application/JSON ; charset=UTF-8", 200),
        ('application/json; charset="utf-8"', 200),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/yaml", 415),
        ("application/json, text/plain", 415),
        ("", 415),
        ("ä", 415),
    ],
)
def test_content_types(service: Running, path: str, content_type: str | None, status: int) -> None:
    body = b'{"input":{}}' if path == "/v1/enrich" else b"[]"
    headers = {} if content_type is None else {"content-type": content_type.encode("utf-8")}
    answer = service.http.post(path, content=body, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == status, answer.text
    if status == 415:
        assert refusal(answer)["code"] == "unsupported_media_type"


def test_a_compressed_body_is_refused(service: Running) -> None:
    headers = JSON | {"content-encoding": "gzip"}
    answer = service.http.post("/v1/events", content=gzip.compress(b"[]"), headers=headers)
    assert (answer.status_code, refusal(answer)["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("agent_id", "x" * MEGABYTE, "invalid_id"),
        ("agent_id", "", "invalid_id"),
        ("agent_id", " a", "invalid_id"),
        ("agent_id", "a\nb", "invalid_id"),
        ("agent_id", 7, "wrong_type"),
        ("duration_ms", True, "wrong_type"),
        ("duration_ms", -1, "out_of_range"),
        ("duration_ms", 2**63, "out_of_range"),
        ("duration_ms", 1.0, "wrong_type"),
        ("occurred_at", "2026-11-20T10:00:00", "invalid_time"),
        ("occurred_at", "2999-01-01T00:00:00Z", "in_future"),
        ("occurred_at", "2001-01-01T00:00:00Z", "too_old"),
        ("source", "enrich", "reserved_source"),
        ("colour", "red", "unknown_field"),
        ("attributes", {"a": {"b": 1}}, "invalid_attributes"),
        ("attributes", {str(i): i for i in range(65)}, "invalid_attributes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_field_is_named_in_the_answer(service: Running, field: str, value: Any, code: str) -> None:
    answer = service.http.post("/v1/events", json=event("field") | {field: value})
    assert answer.status_code == 200
    rejected = answer.json()["rejected"]
    assert [(r["code"], r["field"]) for r in rejected] == [(code, field)]
    assert len(answer.content) < 4096


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 405, None),
        ("GET", "/v1", 404, "no_such_path"),
        ("GET", "/v1/nothing", 404, "no_such_path"),
        ("GET", "/v1/events/", 404, "no_such_path"),
        ("GET", "//v1/events", 404, "no_such_path"),
        ("DELETE", "/v1/events", 405, "method_not_allowed"),
        ("PUT", "/v1/enrich", 405, "method_not_allowed"),
        ("GET", "/v1/enrich", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/enrich", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("GET", "/docs", 404, "no_such_path"),
        ("GET", "/v1/query", 404, "no_such_path"),
        ("POST", "/v1/compile", 404, "no_such_path"),
        ("GET", "/%ff%fe", 404, "no_such_path"),
    ],
)
def test_no_such_path_or_method(service: Running, method: str, path: str, status: int, code: str | None) -> None:
    answer = service.http.request(method, path)
    assert answer.status_code == status, answer.text
    if code is not None:
        assert refusal(answer)["code"] == code
    if status == 405:
        assert answer.headers["allow"]


def test_what_is_no_http_is_answered_400_in_the_one_error_body(service: Running) -> None:
    for request in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/enrich HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/enrich HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
    ):
        head, _, body = raw(service, request).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 "), request
        assert json.loads(body)["error"]["code"] == "invalid_http", request
    assert service.http.get("/health/live").status_code == 200


def test_a_refused_head_does_not_take_the_place_of_an_earlier_answer(service: Running) -> None:
    body = json.dumps(event("before-the-noise")).encode()
    head = b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
    answered = raw(service, head + body + b"\x00\x01\r\n\r\n")
    assert answered.startswith(b"HTTP/1.1 200 ")
    assert b'"accepted":1' in answered
    assert b" 400 " not in answered


@pytest.mark.parametrize("offer", [b"h2c", b"websocket"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_an_offer_to_upgrade_does_not_lose_the_body(service: Running, offer: bytes, chunked: bool) -> None:
    body = b'{"input":{"identity":{"actor_id":"offered"}}}'
    framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    length = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % len(body)
    head = (
        b"POST /v1/enrich HTTP/1.1\r\nhost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"HTTP2-Settings: AAEAAEAAAAIAAAAB\r\nUpgrade: " + offer + b"\r\n" + length + b"\r\n\r\n"
    )
    answered = raw(service, head + framed + head + framed + b"GET /health/live HTTP/1.1\r\n\r\n")
    assert answered.count(b"HTTP/1.1 200 ") == 3
    assert answered.count(b'"id":"offered"') == 2
    assert answered.endswith(b'{"status":"live"}')
    # in two parts: the head first
    asked = b"POST /v1/data/test/authority/decision HTTP/1.1\r\n" + head.partition(b"\r\n")[2]
    answered = raw(service, asked, framed)
    assert b'"result":{"decision":"ALLOW"}' in answered
    assert b"warning" not in answered


def test_refusals_are_counted_by_code_and_logged_without_the_input(service: Running) -> None:
    line = 'enrich_refusals_total{code="history_forged"}'
    before = service.metric(line)
    service.http.post("/v1/enrich", json={"input": {"history": {"agent": "a-secret-of-the-caller"}}})
    assert service.metric(line) == before + 1
    log = service.log.read_text()
    assert '"code": "history_forged"' in log
    assert "a-secret-of-the-caller" not in log


def raw(service: Running, request: bytes, rest: bytes = b"", *, hang_up: bool = False) -> bytes:
    """Sends bytes over a bare socket; returns what comes back until the connection ends or nothing more comes."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(request)
        if rest:
            time.sleep(0.1)
            connection.sendall(rest)
        if hang_up:
            return b""
        connection.settimeout(1)
        received = b""
        try:
            while part := connection.recv(65_536):
                received += part
        except TimeoutError:
            pass
        return received
