"""The parts that need no engine: pool, bridge, histogram, requests, answers."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import orjson
import pytest
from starlette.requests import Request

from enrich.errors import BadRequestError, BusyError, EnrichError, JournalFailedError, MethodNotAllowedError
from enrich.service.answers import error_answer, unhandled_answer
from enrich.service.durable import LoopBridge
from enrich.service.metrics import Metrics, StageHistogram
from enrich.service.pool import BoundedPool
from enrich.service.requests import ClientGoneError, path_segments, query, read_body


def test_a_full_pool_refuses_and_has_room_again_when_a_call_ended() -> None:
    async def run() -> None:
        pool, gate = BoundedPool("test", threads=1, waiting=1), threading.Event()
        first = asyncio.ensure_future(pool.run(gate.wait))
        second = asyncio.ensure_future(pool.run(lambda: 2))
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="2 test requests are waiting"):
            await pool.run(lambda: 3)
        gate.set()
        assert (await first, await second) == (True, 2)
        assert await pool.run(lambda: 3) == 3
        await asyncio.sleep(0.01)
        assert pool.depth == 0
        pool.close()

    asyncio.run(run())


def test_a_pool_hands_exceptions_on() -> None:
    async def run() -> None:
        pool = BoundedPool("test", threads=1, waiting=1)
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 // 0)
        pool.close()

    asyncio.run(run())


def test_a_cancelled_request_keeps_its_place_until_its_call_ended() -> None:
    async def run() -> None:
        pool, gate = BoundedPool("test", threads=1, waiting=0), threading.Event()
        task = asyncio.ensure_future(pool.run(gate.wait))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.01)
        with pytest.raises(BusyError):
            await pool.run(lambda: 1)
        gate.set()
        await asyncio.sleep(0.05)
        assert await pool.run(lambda: 1) == 1
        pool.close()

    asyncio.run(run())


def test_the_bridge_completes_every_future_from_many_threads() -> None:
    async def run() -> None:
        bridge: LoopBridge[int] = LoopBridge(asyncio.get_running_loop())
        futures = [bridge.future() for _ in range(4_000)]

        def complete(part: list[tuple[int, asyncio.Future[int]]]) -> None:
            for i, future in part:
                bridge.complete(future, i if i % 7 else JournalFailedError("gone"))

        numbered = list(enumerate(futures))
        threads = [threading.Thread(target=complete, args=(numbered[n::8],)) for n in range(8)]
        for thread in threads:
            thread.start()
        results = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 20)
        assert all(isinstance(r, JournalFailedError) if i % 7 == 0 else r == i for i, r in enumerate(results))

    asyncio.run(run())


def test_the_bridge_passes_over_who_hung_up_and_a_closed_loop() -> None:
    bridges = []

    async def run() -> None:
        bridge: LoopBridge[int] = LoopBridge(asyncio.get_running_loop())
        gone, waiting = bridge.future(), bridge.future()
        gone.cancel()
        bridge.complete(gone, 1)
        bridge.complete(waiting, 2)
        assert await waiting == 2
        bridges.append((bridge, bridge.future()))

    asyncio.run(run())
    bridge, future = bridges[0]
    bridge.complete(future, 3)


def test_the_histogram_counts_into_the_right_buckets() -> None:
    histogram = StageHistogram()
    for us in (1, 10, 11, 1_000, 99_000_000):
        histogram.observe(us * 1_000)
    buckets = dict(histogram.buckets())
    assert (buckets["1e-05"], buckets["2.5e-05"], buckets["0.001"], buckets["10.0"], buckets["+Inf"]) == (2, 3, 4, 4, 5)


def test_metrics_are_exposed_with_the_engines_figures() -> None:
    metrics = Metrics(lambda: {"seq": 7, "index": {"blocks": 3, "name": "not a number"}, "ok": True})
    metrics.stage("enrich", "parse").observe(5_000)
    metrics.refusals["history_forged"] += 1
    metrics.gauge("enrich_depth", "Depth.", lambda: 4)
    text = metrics.exposition()[0].decode()
    for line in (
        "enrich_seq 7.0",
        "enrich_index_blocks 3.0",
        "enrich_ok 1.0",
        "enrich_depth 4.0",
        'enrich_refusals_total{code="history_forged"} 1.0',
        'enrich_stage_seconds_bucket{le="1e-05",route="enrich",stage="parse"} 1.0',
        'enrich_stage_seconds_sum{route="enrich",stage="parse"} 5e-06',
        "enrich_definitions_stale 0.0",
    ):
        assert line in text.splitlines(), text


def request(messages: list[dict[str, Any]], headers: list[tuple[bytes, bytes]] | None = None, **scope: Any) -> Request:
    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    return Request({"type": "http", "headers": headers or [], **scope}, receive)


def part(body: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def read(messages: list[dict[str, Any]], limit: int, headers: list[tuple[bytes, bytes]] | None = None) -> bytes:
    return asyncio.run(read_body(request(messages, headers), limit))


def test_a_body_comes_whole_however_it_is_cut() -> None:
    assert read([part(b"abc", False)], 3) == b"abc"
    assert read([part(b"a", True), part(b"", True), part(b"bc", False)], 3) == b"abc"


@pytest.mark.parametrize(
    ("messages", "headers"),
    [
        ([part(b"abcd", False)], []),
        ([part(b"ab", True), part(b"cd", True), part(b"", False)], []),
        ([part(b"", True)], [(b"content-length", b"4")]),
        ([part(b"abcd", False)], [(b"content-length", b"1")]),
    ],
)
def test_a_body_past_the_limit_is_refused(messages: list[dict[str, Any]], headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(EnrichError) as refused:
        read(messages, 3, headers)
    assert refused.value.error_code == "body_too_large"


def test_a_client_that_hangs_up_is_told_apart() -> None:
    for messages in ([{"type": "http.disconnect"}], [part(b"a", True), {"type": "http.disconnect"}]):
        with pytest.raises(ClientGoneError):
            read(messages, 3)


def test_segments_are_decoded_one_by_one() -> None:
    asked = request([], raw_path=b"/v1/entities/agent/a%2Fb/c%20d/", path="/v1/entities/agent/a/b/c d/")
    assert path_segments(asked, b"/v1/entities/") == ["agent", "a/b", "c d", ""]


def test_a_query_is_read_strictly() -> None:
    assert query(request([], query_string=b"a=1&b=%20x&c="), ("a", "b", "c")) == {"a": "1", "b": " x", "c": ""}
    for raw, code in ((b"d=1", "unknown_parameter"), (b"a=1&a=1", "repeated_parameter"), (b"a=\xff", "invalid_utf8")):
        with pytest.raises(BadRequestError) as refused:
            query(request([], query_string=raw), ("a", "b", "c"))
        assert refused.value.error_code == code


def test_errors_take_the_one_form_or_opas() -> None:
    error = BadRequestError("bad `x`", code="invalid_json", line=3)
    plain = error_answer(error, "r-1")
    assert orjson.loads(plain.body) == {"error": {"code": "invalid_json", "message": "bad `x`", "detail": {"line": 3}}}
    data = orjson.loads(error_answer(error, "r-1", data_api=True).body)
    assert (data["code"], data["message"]) == ("invalid_json", "bad `x`")
    assert (b"x-request-id", b"r-1") in plain.raw_headers
    busy = error_answer(BusyError("full"), "r-2")
    assert (busy.status_code, dict(busy.raw_headers)[b"retry-after"]) == (503, b"1")
    assert dict(error_answer(MethodNotAllowedError("no", allow="GET"), "r").raw_headers)[b"allow"] == b"GET"
    unhandled = unhandled_answer("r-3")
    assert unhandled.status_code == 500
    assert orjson.loads(unhandled.body)["error"]["detail"] == {"request_id": "r-3"}


def test_a_call_whose_turn_does_not_come_in_time_is_refused_and_let_go() -> None:
    async def run() -> None:
        pool, gate = BoundedPool("test", threads=1, waiting=2, deadline_seconds=0.05), threading.Event()
        first = asyncio.ensure_future(pool.run(gate.wait))
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match=r"waited 0\.05 s"):
            await pool.run(lambda: 2)
        await asyncio.sleep(0.01)
        assert pool.depth == 1
        gate.set()
        assert await first is True  # what has begun is not cut
        pool.close()

    asyncio.run(run())
