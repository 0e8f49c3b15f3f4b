"""`POST /v1/events` and `GET /v1/events`."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import pytest

from .running import Running, event


def post(service: Running, body: Any, **options: Any) -> httpx.Response:
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    headers = {"content-type": "application/json"} | options.pop("headers", {})
    return service.http.post("/v1/events", content=content, headers=headers, **options)


def test_one_event_is_accepted_and_again_a_duplicate_at_the_same_seq(service: Running) -> None:
    one = event("one")
    first = post(service, one).json()
    assert first == {
        "accepted": 1,
        "duplicates": 0,
        "rejected": [],
        "rejected_count": 0,
        "dropped_attributes": 0,
        "seq": first["seq"],
    }
    again = post(service, one).json()
    assert (again["accepted"], again["duplicates"], again["seq"]) == (0, 1, first["seq"])


def test_other_content_under_the_same_key_is_a_conflict(service: Running) -> None:
    post(service, event("conflict"))
    answer = post(service, event("conflict", outcome="succeeded")).json()
    assert answer["accepted"] == 0
    assert [r["code"] for r in answer["rejected"]] == ["event_conflict"]


def test_a_bad_event_leaves_its_neighbours_alone(service: Running) -> None:
    answer = post(service, [event("n-0"), event("n-1", outcome="broken"), event("n-2"), 7]).json()
    assert answer["accepted"] == 2
    assert answer["rejected_count"] == 2
    assert [(r["index"], r["code"], r["field"]) for r in answer["rejected"]] == [
        (1, "invalid_outcome", "outcome"),
        (3, "not_an_object", None),
    ]


def test_a_bad_ndjson_line_is_one_rejected_entry(service: Running) -> None:
    body = "\n".join([json.dumps(event("l-0")), "", "{broken", json.dumps(event("l-1")), '{"a":1,"a":2}', ""])
    answer = post(service, body, headers={"content-type": "application/x-ndjson"}).json()
    assert answer["accepted"] == 2
    assert [(r["index"], r["code"]) for r in answer["rejected"]] == [(1, "invalid_json"), (3, "duplicate_key")]


def test_a_body_past_the_inline_size_goes_the_other_way_to_the_same_answer(service: Running) -> None:
    events = [event(f"large-{i}") for i in range(2_000)]
    answer = post(service, [*events, event("large-bad", kind="x")]).json()
    assert (answer["accepted"], answer["rejected_count"]) == (2_000, 1)
    again = post(service, "\n".join(map(json.dumps, events)), headers={"content-type": "application/x-ndjson"}).json()
    assert (again["duplicates"], again["seq"]) == (2_000, answer["seq"])


def test_the_list_of_rejections_holds_a_hundred(service: Running) -> None:
    answer = post(service, [event(f"many-{i}", kind="x") for i in range(150)]).json()
    assert (len(answer["rejected"]), answer["rejected_count"]) == (100, 150)


def test_nothing_to_record_is_no_error(service: Running) -> None:
    assert post(service, []).json()["accepted"] == 0
    assert post(service, "\n\n", headers={"content-type": "application/x-ndjson"}).json()["accepted"] == 0


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson"])
def test_more_events_than_one_record_holds_are_several_and_found_again(service: Running, content_type: str) -> None:
    before = service.metric("enrich_seq")
    lines = [json.dumps(event(f"{content_type}-{i}")) for i in range(10_050)]
    lines[10_020] = json.dumps(event("bad", kind="x"))
    body = "\n".join(lines) if content_type.endswith("ndjson") else f"[{','.join(lines)}]"
    for accepted, duplicates in ((10_049, 0), (0, 10_049)):
        answer = post(service, body, headers={"content-type": content_type}).json()
        assert (answer["accepted"], answer["duplicates"], answer["rejected_count"]) == (accepted, duplicates, 1)
        assert answer["rejected"][0]["index"] == 10_020
        assert answer["seq"] == before + 10_049


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson"])
def test_too_many_events_are_refused_whole(service: Running, content_type: str) -> None:
    before = service.metric("enrich_seq")
    lines = ['{"source": "tests"}'] * 100_001
    body = "\n".join(lines) if content_type.endswith("ndjson") else f"[{','.join(lines)}]"
    answer = post(service, body, headers={"content-type": content_type})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_many_events"
    assert service.metric("enrich_seq") == before


def test_an_accepted_event_is_in_the_next_context(service: Running) -> None:
    for i in range(3):
        post(service, event(f"visible-{i}", agent_id="visible"))
        answer = service.http.get("/v1/entities/agent/visible").json()
        assert answer["last_1h"]["failures"] == i + 1


def test_events_are_read_back_newest_first_at_a_stated_seq(service: Running) -> None:
    seqs = [post(service, event(f"read-{i}", agent_id="reader")).json()["seq"] for i in range(5)]
    page = service.http.get("/v1/events", params={"agent": "reader", "limit": 2}).json()
    assert [e["event_id"] for e in page["events"]] == ["read-4", "read-3"]
    assert page["seq"] >= seqs[-1]
    rest: list[str] = []
    while page["next_cursor"]:
        page = service.http.get(
            "/v1/events", params={"agent": "reader", "limit": 2, "cursor": page["next_cursor"]}
        ).json()
        rest += [e["event_id"] for e in page["events"]]
    assert rest == ["read-2", "read-1", "read-0"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_parameter"),
        ("limit=1001", "invalid_parameter"),
        ("limit=%D9%A3", "invalid_parameter"),
        ("colour=red", "unknown_parameter"),
        ("agent=a&agent=b", "repeated_parameter"),
        ("agent=%FF", "invalid_utf8"),
        ("since=yesterday", "invalid_time"),
        ("since=2026-01-01T00:00:00", "invalid_time"),
        ("cursor=nonsense", None),
        ("kind=unheard-of", None),
    ],
)
def test_a_bad_query_is_a_400(service: Running, query: str, code: str | None) -> None:
    answer = service.http.get(f"/v1/events?{query}")
    assert answer.status_code in ((400,) if code else (200, 400)), answer.text
    if code:
        assert answer.json()["error"]["code"] == code


def test_posts_that_became_one_record_each_get_their_own_answer(service: Running) -> None:
    """Pipelined requests are read in one turn: good, bad, twice the same, conflicting, with dropped attributes."""
    post(service, event("t-known", agent_id="together"))
    bodies = [
        [event("t-0", agent_id="together")],
        [event("t-bad", kind="x"), event("t-1", agent_id="together"), event("t-bad-2", outcome="x")],
        [event("t-known", agent_id="together")],
        [event("t-2", agent_id="together"), event("t-2", agent_id="together")],
        [event("t-2", agent_id="together", outcome="succeeded")],
        [event("t-3", agent_id="together", attributes={"unread": 1, "too": "x"})],
        [],
    ]
    answers: dict[int, dict[str, Any]] = {}

    def send(i: int) -> None:
        with httpx.Client(base_url=service.url) as client:
            ready.wait()
            answers[i] = client.post("/v1/events", json=bodies[i]).json()

    ready = threading.Barrier(len(bodies))
    threads = [threading.Thread(target=send, args=(i,)) for i in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = [
        (a["accepted"], a["duplicates"], [(r["index"], r["code"]) for r in a["rejected"]], a["dropped_attributes"])
        for _, a in sorted(answers.items())
    ]
    assert counts[0] == (1, 0, [], 0)
    assert counts[1] == (1, 0, [(0, "invalid_kind"), (2, "invalid_outcome")], 0)
    assert counts[2] in ((0, 1, [], 0), (0, 0, [(0, "event_conflict")], 0))  # the clock ticked between the two
    # whichever of the two contents of t-2 came first holds the key
    assert counts[3][:2] in ((1, 1), (0, 0))
    assert counts[3][0] + counts[4][0] == 1
    assert counts[5] == (1, 0, [], 2)
    assert counts[6] == (0, 0, [], 0)


def test_concurrent_posts_of_one_event_store_it_once(service: Running) -> None:
    one = event("raced", agent_id="raced")
    answers: list[dict[str, Any]] = []

    def send() -> None:
        with httpx.Client(base_url=service.url) as client:
            answers.append(client.post("/v1/events", json=one).json())

    threads = [threading.Thread(target=send) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(a["accepted"] for a in answers) == [0] * 15 + [1]
    assert sum(a["duplicates"] for a in answers) == 15
    assert len({a["seq"] for a in answers}) == 1
    assert service.http.get("/v1/entities/agent/raced").json()["last_1h"]["executions"] == 1
