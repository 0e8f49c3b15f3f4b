"""The gate on a real OPA: limits hold, a fault of OPA's is a recorded refusal in time, and it mends by itself."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from enrich import Engine
from enrich.decisions.opa import OpaPolicies
from enrich.engine.results import Decision
from tests.decisions.opa_proxy import Proxy, proxied
from tests.decisions.opa_server import opa_binary, paused, serve_opa

from .gated import AT_MOST, decide, event_counts, open_gated, request, write_policy

LIMIT = 5
THREADS = 64
DENY = {"decision": "DENY"}


def open_with_opa(where: Path, policy: str | None = None, **settings: Any) -> Engine:
    return open_gated(where, policy, evaluator="opa", opa_path=opa_binary(), **settings)


def opa_of(engine: Engine) -> OpaPolicies:
    live = engine.live_policies
    assert live is not None
    assert isinstance(live.prepared, OpaPolicies)
    return live.prepared


@contextmanager
def limit(engine: Engine, seconds: float) -> Iterator[None]:
    """The longest that one evaluation may take; far from the deadline, however slow the machine."""
    prepared = opa_of(engine)
    before, prepared._limit_seconds = prepared._limit_seconds, seconds
    try:
        yield
    finally:
        prepared._limit_seconds = before


def at_once(calls: list[Callable[[], Decision]]) -> list[Decision]:
    ready = threading.Barrier(len(calls))

    def run(call: Callable[[], Decision]) -> Decision:
        ready.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def alone(i: int) -> dict[str, Any]:
    document = request(f"agent-{i}", f"team-{i}")
    document["instance"]["workflow_id"] = f"workflow-{i}"
    return document


def until(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def recorded(engine: Engine) -> list[dict[str, Any]]:
    return [dict(r.body or {}) for r in engine.journal.read() if r.type == "decision"]


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with open_with_opa(tmp_path_factory.mktemp("managed"), AT_MOST.format(agent=LIMIT, team=1000)) as engine:
        yield engine


def test_a_limit_holds_through_opa(managed: Engine) -> None:
    decisions = at_once([partial(decide, managed, request("busy"))] * THREADS)
    assert [d.decision for d in decisions].count("ALLOW") == LIMIT
    assert all(d.cause is None for d in decisions)
    assert event_counts(managed, "busy") == {"allowed": LIMIT, "denied": THREADS - LIMIT, "asked": 0}
    evaluator = recorded(managed)[-1]["evaluator"]
    assert evaluator["name"] == "opa"
    assert evaluator["version"].startswith("opa 1.")
    assert decide(managed, request("b"), path=("shop", "allow")).outcome.value is True


def test_an_opa_that_is_killed_is_a_refusal_at_most_and_back_by_itself(managed: Engine) -> None:
    pid = opa_of(managed).watch.pid
    assert pid is not None
    before = managed.stats()["evaluator"]["replaced_total"]
    os.kill(pid, signal.SIGKILL)
    first = decide(managed, request("killed"))
    assert (first.decision, first.cause) in (("ALLOW", None), ("DENY", "evaluation_failed"))
    until(lambda: decide(managed, request("killed-2"), dry_run=True).decision == "ALLOW")
    assert managed.health().ready
    assert managed.stats()["evaluator"] == {
        "ready": 1, "circuit": 0, "replaced_total": before + 1, "abandoned_total": 0,
    }  # fmt: skip


def test_a_paused_opa_is_a_refusal_in_time(managed: Engine) -> None:
    pid = opa_of(managed).watch.pid
    assert pid is not None
    with paused(pid):
        with limit(managed, 0.5):
            late = decide(managed, request("paused"))
        assert (late.decision, late.cause, late.outcome.value) == ("DENY", "evaluation_timeout", DENY)
        until(lambda: not managed.health().ready)
        assert managed.stats()["evaluator"]["circuit"] == 2
        refused = decide(managed, request("paused"))
        assert (refused.decision, refused.cause) == ("DENY", "evaluation_failed")
        assert event_counts(managed, "paused") == {"allowed": 0, "denied": 2, "asked": 0}
        assert [b["cause"] for b in recorded(managed)[-2:]] == ["evaluation_timeout", "evaluation_failed"]
    until(lambda: managed.health().ready)
    assert decide(managed, request("paused")).decision == "ALLOW"


def test_each_decision_is_of_the_policies_that_its_record_names_while_others_go_live(tmp_path: Path) -> None:
    def version(n: int) -> str:
        return f'package shop\n\ndecision := {{"decision": "ALLOW", "n": {n}}}\n'

    with open_with_opa(tmp_path, version(0), fsync=False) as engine:
        hashes, done = {opa_of(engine).policies.version: 0}, threading.Event()

        def ask(i: int) -> None:
            while not done.is_set():
                assert decide(engine, alone(i)).decision == "ALLOW"
                time.sleep(0.005)  # the reload has work to do meanwhile

        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(ask, i) for i in range(2)]
            for n in range(1, 3):
                write_policy(tmp_path, version(n))
                assert engine.reload().changed
                hashes[opa_of(engine).policies.version] = n
            done.set()
            for one in asking:
                one.result()
        assert decide(engine).outcome.value == {"decision": "ALLOW", "n": 2}
        bodies = recorded(engine)
        assert all(b["result"]["n"] == hashes[b["policy_hash"]] for b in bodies)
        before = opa_of(engine)
        assert not engine.reload().changed
        assert opa_of(engine) is before
        write_policy(tmp_path, "package shop\n\ndecision := nothing.at.all(1)\n")
        assert "shop.rego:3:13: undefined function" in engine.reload().problems[0]
        assert decide(engine).decision == "ALLOW"


@pytest.fixture(scope="module")
def external(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Proxy]]:
    """An engine on an OPA that others run, with something in between."""
    where = tmp_path_factory.mktemp("external")
    write_policy(where, AT_MOST.format(agent=1000, team=1000))
    (where / "policies" / ".manifest").write_text('{"revision": "r1"}')
    with (
        serve_opa(where / "policies") as port,
        proxied(port) as proxy,
        open_with_opa(where, opa_url=proxy.url) as engine,
    ):
        yield engine, proxy


def test_disjoint_agents_do_not_wait_for_each_other_before_a_slow_opa(external: tuple[Engine, Proxy]) -> None:
    engine, proxy = external
    proxy.delay_seconds, proxy.most_in_flight = 0.05, 0
    try:
        apart = at_once([partial(decide, engine, alone(i)) for i in range(16)])
        assert [d.decision for d in apart] == ["ALLOW"] * 16
        assert proxy.most_in_flight >= 8
        proxy.most_in_flight = 0
        together = at_once([partial(decide, engine, alone(0))] * 8)
        assert [d.decision for d in together] == ["ALLOW"] * 8
        assert proxy.most_in_flight == 1
    finally:
        proxy.delay_seconds = 0.0


def test_a_slow_opa_is_a_refusal_in_time(external: tuple[Engine, Proxy]) -> None:
    engine, proxy = external
    proxy.delay_seconds = 1.0
    try:
        with limit(engine, 0.5):
            late = decide(engine, request("slow"))
    finally:
        proxy.delay_seconds = 0.0
    assert (late.decision, late.cause) == ("DENY", "evaluation_timeout")
    assert engine.health().ready  # its health answers: the policy may be to blame
    assert decide(engine, request("slow")).decision == "ALLOW"


def test_rubbish_from_opa_is_a_recorded_refusal(external: tuple[Engine, Proxy]) -> None:
    engine, proxy = external
    allow = b'{"result":{"decision":"ALLOW"}}'
    proxy.spoil = lambda real: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(allow), allow)
    try:
        refused = [decide(engine, request("rubbish")) for _ in range(8)]
    finally:
        proxy.spoil = None
    assert {(d.decision, d.cause) for d in refused} == {("DENY", "evaluation_failed")}
    assert decide(engine, request("rubbish"), path=("shop", "allow")).outcome.value in (True, False)
    assert event_counts(engine, "rubbish")["denied"] >= 8
    until(lambda: decide(engine, request("rubbish"), dry_run=True).decision == "ALLOW")
    until(lambda: engine.health().ready)


def test_an_opa_of_another_revision_never_allows(tmp_path: Path) -> None:
    write_policy(tmp_path, AT_MOST.format(agent=9, team=9))
    (tmp_path / "policies" / ".manifest").write_text('{"revision": "r1"}')
    address = f"unix://{tmp_path}/opa.sock"
    with serve_opa(tmp_path / "policies", ["--addr", address]), open_with_opa(tmp_path, opa_url=address) as engine:
        assert decide(engine).decision == "ALLOW"
        # the engine is ahead of OPA
        (tmp_path / "policies" / ".manifest").write_text('{"revision": "r2"}')
        assert engine.reload().ok
        refused = decide(engine)
        assert (refused.decision, refused.cause) == ("DENY", "evaluation_failed")
        health = engine.health()
        assert not health.ready
        assert "`r1`, not `r2`" in health.reasons[-1]
    with open_with_opa(tmp_path, opa_url=address) as engine:  # nobody listens
        assert (decide(engine).decision, decide(engine).cause) == ("DENY", "evaluation_failed")
        assert not engine.health().ready
        with serve_opa(tmp_path / "policies", ["--addr", address]):
            until(lambda: engine.health().ready)
            assert decide(engine).decision == "ALLOW"
