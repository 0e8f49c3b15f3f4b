"""Never a 5xx, never another body than the documented error, whatever comes."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .running import Running, event

PATHS = ["/v1/events", "/v1/enrich", "/v1/data/test/authority/decision", "/v0/data/test/authority/decision", "/"]
QUIET = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True
)

SEEDS = [
    json.dumps(event("fuzz", attributes={"tool": "x", "n": 1})).encode(),
    json.dumps([event("fuzz-1"), event("fuzz-2", outcome="?")]).encode(),
    json.dumps(
        {
            "input": {"identity": {"actor_id": "a"}, "instance": {"workflow_id": "w"}, "x": [1, 2.5, None, True]},
            "select": ["agent.*"],
        }
    ).encode(),
    json.dumps({"input": {"approval": {"candidate_ids": ["p1", "p2"]}}}).encode(),
]

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["input", "select", "history", "identity", "actor_id", "source", "event_id", "occurred_at", "kind", "attributes"]
)
DOCUMENTS = st.dictionaries(FIELDS, JSON_VALUES | st.dictionaries(FIELDS, JSON_VALUES, max_size=4), max_size=5)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid body with bytes removed, doubled or replaced."""
    body = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = min(len(body), start + draw(st.integers(0, 6)))
        body[start:end] = draw(
            st.binary(max_size=4)
            | st.sampled_from([b"null", b"[", b"}", b'"', b"1e999", b"-0", b"\\u0000", b'"history":{},', b"NaN"])
        )
    return bytes(body)


def check(answer: httpx.Response) -> None:
    assert answer.status_code < 500, (answer.status_code, answer.text)
    if answer.status_code >= 400:
        body: dict[str, Any] = answer.json()
        error = body.get("error", body)
        assert isinstance(error["code"], str)
        assert isinstance(error["message"], str)
        assert error["code"] != "internal_error"


@pytest.mark.parametrize("path", PATHS)
@QUIET
@given(body=st.binary(max_size=200) | mutated() | DOCUMENTS.map(lambda d: json.dumps(d).encode()))
def test_any_body(service: Running, path: str, body: bytes) -> None:
    check(service.http.post(path, content=body, headers={"content-type": "application/json"}))


@QUIET
@given(lines=st.lists(mutated() | st.binary(max_size=40), max_size=6))
def test_any_ndjson(service: Running, lines: list[bytes]) -> None:
    body = b"\n".join(lines)
    answer = service.http.post("/v1/events", content=body, headers={"content-type": "application/x-ndjson"})
    check(answer)
    assert answer.status_code == 200
    result = answer.json()
    entries = sum(1 for line in body.split(b"\n") if line and not line.isspace())
    assert result["accepted"] + result["duplicates"] + result["rejected_count"] == entries


@QUIET
@given(body=st.binary(max_size=120) | st.text(max_size=120).map(lambda t: t.encode("utf-8", "replace")))
def test_any_yaml(service: Running, body: bytes) -> None:
    check(service.http.post(PATHS[2], content=body, headers={"content-type": "application/yaml"}))


SEGMENTS = st.text(max_size=12) | st.sampled_from(["agent", "agent_workflow", "events", "..", "%2F", "%00", "%ff", ""])


@QUIET
@given(
    prefix=st.sampled_from(["/v1/entities/", "/v1/signals/", "/v1/data/", "/v1/", "/"]),
    segments=st.lists(SEGMENTS, max_size=4),
    query=st.text(max_size=30) | st.sampled_from(["as_of=1", "input=%7B%7D", "as_of=&as_of=", "limit=-1", "%", "&&"]),
)
def test_any_path_and_query(service: Running, prefix: str, segments: list[str], query: str) -> None:
    from urllib.parse import quote

    path = prefix + "/".join(quote(s, safe="%") for s in segments)
    check(service.http.get(f"{service.url}{path}?{quote(query, safe='=&%')}"))


@QUIET
@given(
    name=st.sampled_from(["content-type", "authorization", "content-encoding", "accept", "x-request-id", "expect"]),
    value=st.binary(max_size=40).map(lambda b: bytes(c for c in b if c >= 0x20 and c != 0x7F).strip()),
)
def test_any_header(service: Running, name: str, value: bytes) -> None:
    headers = {name.encode(): value}
    check(service.http.post("/v1/enrich", content=b'{"input":{}}', headers=headers))
