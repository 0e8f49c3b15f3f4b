"""A real OPA beside the engine: what it answers, that it has the very policies, and what becomes of it if it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enrich.decisions import (
    Condition,
    Defined,
    EmbeddedEvaluator,
    Failed,
    OpaEvaluator,
    Outcome,
    PolicySet,
    Undefined,
    Watched,
    load_policies,
    policy_set,
)
from enrich.decisions.opa import OpaPolicies
from enrich.decisions.protocol import TIMED_OUT
from enrich.errors import ConfigError, PolicyError

from .opa_proxy import Proxy, proxied
from .opa_server import ask as ask_port
from .opa_server import opa_binary, paused, serve_opa

HEAD = "package p\n\nimport rego.v1\n\n"
RULES = """\
one := 1
applies if input.y
big := 9007199254740993 + input.n
product := input.n * 10000000000000000000
text := "é <b> \\" \\u0001"
twice := 1 if input.c
twice := 2 if input.c
number := to_number(input.t)
table := {"a\\"b": 1, "": {"c": 2}}
set contains x if some x in [3, 1]
is_true if input.y
says := {"decision": "ALLOW"} if input.y
slow if {
    input.y
    count([1 | some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); some k in [i, j]]) > 0
}
double(x) := x * 2
doubled := double(input.n)
"""
DATA = {"limits": {"refunds": 10, "rate": 0.25, "on": True, "list": [1, {"a": None}]}}
ALLOW = '{"decision":"ALLOW"}'


@pytest.fixture(scope="module")
def evaluator() -> OpaEvaluator:
    return OpaEvaluator(path=opa_binary())


@pytest.fixture(scope="module")
def managed(evaluator: OpaEvaluator) -> Iterator[OpaPolicies]:
    prepared = evaluator.prepare(policy_set({"p.rego": HEAD + RULES}, DATA))
    yield prepared
    prepared.watch.stop()


def ask(policies: OpaPolicies, rule: str, given: Any = None, *, strict: bool = False, limit: float = 20) -> Outcome:
    data = None if given is None else json.dumps(given).encode()
    path = ("p", *rule.split("/"))
    return policies.evaluate(path, data, strict_builtin_errors=strict, limit_seconds=limit)


def until(what: Callable[[], Any]) -> None:
    """Wait until something holds; a minute is for machines with other work."""
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def test_the_three_outcomes(managed: OpaPolicies) -> None:
    assert isinstance(managed, Watched)
    assert ask(managed, "one") == Defined(1)
    assert ask(managed, "applies", {}) == Undefined(has_rules=True)
    assert ask(managed, "nothing", {}) == Undefined(has_rules=False)
    assert ask(managed, "double", {}) == Undefined(has_rules=False)
    assert ask(managed, "one/below", {}) == Undefined(has_rules=True)
    conflict = ask(managed, "twice", {"c": 1})
    assert isinstance(conflict, Failed)
    assert (conflict.code, conflict.errors[0]["code"]) == ("eval_conflict_error", "eval_conflict_error")
    assert managed.condition().reasons == ()


def test_values_come_as_they_are(managed: OpaPolicies) -> None:
    assert ask(managed, "big", {"n": 2}) == Defined(9007199254740995)
    assert ask(managed, "product", {"n": 3}) == Defined(3 * 10**19)
    assert ask(managed, "text") == Defined('é <b> " \x01')
    assert ask(managed, "set", {}) == Defined([1, 3])
    assert managed.evaluate(("limits",), b"{}") == Defined(DATA["limits"])
    assert managed.evaluate(("limits", "list", "1", "a"), b"{}") == Defined(None)
    assert managed.evaluate(("limits", "list", "2"), b"{}") == Undefined(has_rules=False)
    assert ask(managed, 'table/a"b') == Defined(1)
    assert managed.evaluate(("p", "table", "", "c"), None) == Defined(2)
    assert managed.evaluate(("p", "table", "", "d"), None) == Undefined(has_rules=True)


def test_a_builtin_error_fails_only_when_strict(managed: OpaPolicies) -> None:
    assert ask(managed, "number", {"t": "z"}) == Undefined(has_rules=True)
    strict = ask(managed, "number", {"t": "z"}, strict=True)
    assert isinstance(strict, Failed)
    assert strict.code == "eval_builtin_error"


def test_rules_and_booleans_are_known_without_being_asked(managed: OpaPolicies) -> None:
    assert ("p", "says") in managed.rules
    assert ("p", "double") not in managed.rules
    assert {("p", "is_true"), ("p", "applies")} <= managed.booleans
    assert ("p", "says") not in managed.booleans


def test_a_policy_that_does_not_end_is_given_up_and_opa_lives(managed: OpaPolicies) -> None:
    before = managed.condition().abandoned
    outcome = ask(managed, "slow", {"y": 1}, limit=0.3)
    assert isinstance(outcome, Failed)
    assert outcome.code == TIMED_OUT
    assert ask(managed, "one") == Defined(1)
    assert managed.condition().abandoned == before + 1
    assert managed.condition().replaced == 0


REFUSED = [
    ("x := ", "rego_parse_error", 5),
    ("x := nothing.here(1)", "unknown_function", 5),
    ("x if y\n\ny if x", "recursion", 5),
    ("x if input.a == some_variable", "unsafe_variable", 5),
    ("x if print(w)", "invalid_policy", 5),
]


@pytest.mark.parametrize(("rule", "code", "line"), REFUSED)
def test_what_does_not_compile_is_refused_with_its_place(
    evaluator: OpaEvaluator, rule: str, code: str, line: int
) -> None:
    with pytest.raises(PolicyError) as caught:
        evaluator.prepare(policy_set({"sub/p.rego": HEAD + rule}))
    error = caught.value
    assert (error.error_code, error.detail["file"], error.detail["line"]) == (code, "sub/p.rego", line)
    assert error.message.startswith(f"sub/p.rego:{line}:")


def test_a_document_where_a_rule_is_and_a_name_that_leads_away_are_refused(evaluator: OpaEvaluator) -> None:
    with pytest.raises(PolicyError) as caught:
        evaluator.prepare(policy_set({"p.rego": HEAD + "x := 1"}, {"p": {"x": 2}}))
    assert caught.value.error_code == "data_conflict"
    with pytest.raises(PolicyError, match="no name of a module"):
        evaluator.prepare(policy_set({"../p.rego": HEAD + "x := 1"}))


def test_packages_without_rules_and_no_packages_at_all_are_no_matter(evaluator: OpaEvaluator) -> None:
    prepared = evaluator.prepare(policy_set({"p.rego": HEAD + "x := 1", "q.rego": "package q.r\n"}))
    assert prepared.evaluate(("p", "x"), b"{}") == Defined(1)
    prepared.watch.stop()
    empty = evaluator.prepare(policy_set({}, {"a": 1}))
    assert empty.evaluate((), None) == Defined({"a": 1})
    assert (empty.rules, empty.evaluate(("b",), None)) == (frozenset(), Undefined(has_rules=False))
    empty.watch.stop()


def test_every_rule_is_found_however_it_is_named(evaluator: OpaEvaluator) -> None:
    names = ["default a := 1", "b.c.d := 1", 'e["x/y"] := 1', "g[input.k].h := 1", "i contains 1", "f(x) := x"]
    prepared = evaluator.prepare(policy_set({"p.rego": HEAD + "\n\n".join(names)}))
    assert prepared.rules == {("p", *rule.split(".")) for rule in ("a", "b.c.d", "e.x/y", "g", "i")}
    prepared.watch.stop()


def test_the_shipped_policies_load(evaluator: OpaEvaluator) -> None:
    prepared = evaluator.prepare(load_policies(Path(__file__).parents[2] / "policies"))
    embedded = EmbeddedEvaluator().prepare(prepared.policies)
    assert (prepared.rules, prepared.booleans) == (embedded.rules, embedded.booleans)
    embedded.close()
    prepared.watch.stop()


@pytest.mark.parametrize("path", ["/nowhere/opa", "cat"])
def test_an_executable_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OpaEvaluator(path=path)
    assert caught.value.detail["setting"] == "opa_path"


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "unix:/x", "http://h:99999", "http://h/x", "h:1", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OpaEvaluator(path=opa_binary(), url=url)
    assert caught.value.detail["setting"] == "opa_url"


# -- managed ----------------------------------------------------------------------------------------------------------


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # a zombie whose parent has not looked yet is gone too
    return Path(f"/proc/{pid}/stat").exists() and ") Z" in Path(f"/proc/{pid}/stat").read_text()


def test_a_killed_opa_is_started_again_and_calls_wait_for_it(evaluator: OpaEvaluator) -> None:
    prepared = evaluator.prepare(policy_set({"p.rego": HEAD + RULES}))
    first = prepared.watch.pid
    assert first is not None
    outcomes: list[Outcome] = []
    asking = threading.Thread(target=lambda: outcomes.append(ask(prepared, "slow", {"y": 1})))
    asking.start()
    time.sleep(0.2)
    os.kill(first, signal.SIGKILL)
    asking.join()
    assert isinstance(outcomes[0], Failed)  # what it was in the middle of is lost
    assert outcomes[0].code == "evaluator_unavailable"
    assert ask(prepared, "says", {"y": 1}) == Defined({"decision": "ALLOW"})
    assert prepared.watch.pid not in (None, first)
    assert prepared.condition() == Condition(replaced=1)
    prepared.watch.stop()


def test_a_paused_opa_is_refused_within_the_time_given_and_asked_again_once_it_goes_on(
    evaluator: OpaEvaluator,
) -> None:
    prepared = evaluator.prepare(policy_set({"p.rego": HEAD + RULES}))
    pid = prepared.watch.pid
    assert pid is not None
    with paused(pid):
        outcome = ask(prepared, "says", {"y": 1}, limit=0.2)
        assert isinstance(outcome, Failed)
        assert outcome.code == TIMED_OUT
        until(lambda: prepared.condition().circuit == "open")
        assert "OPA does not answer" in prepared.condition().reasons[0]
        refused = ask(prepared, "says", {"y": 1}, limit=20)  # at once: nobody waits for what does not answer
        assert isinstance(refused, Failed)
        assert refused.code == "evaluator_unavailable"
    until(lambda: not prepared.condition().reasons)
    assert ask(prepared, "says", {"y": 1}) == Defined({"decision": "ALLOW"})
    assert prepared.condition().circuit == "closed"
    prepared.watch.stop()


def test_two_versions_stand_side_by_side_and_the_old_one_ends(evaluator: OpaEvaluator) -> None:
    old = evaluator.prepare(policy_set({"p.rego": HEAD + "x := 1"}))
    pid = old.watch.pid
    assert pid is not None
    new = evaluator.prepare(policy_set({"p.rego": HEAD + "x := 2"}))
    assert (ask(old, "x"), ask(new, "x")) == (Defined(1), Defined(2))
    old.close()
    assert ask(old, "x") == Defined(1)  # somebody read it before the new one took its place
    until(lambda: _gone(pid))
    assert isinstance(ask(old, "x"), Failed)
    assert ask(new, "x") == Defined(2)
    new.watch.stop()


def test_no_opa_is_left_behind_by_an_engine_that_is_killed(tmp_path: Path) -> None:
    script = f"""
import time
from enrich.decisions import OpaEvaluator, policy_set
prepared = OpaEvaluator(path={opa_binary()!r}).prepare(policy_set({{"p.rego": "package p\\nx := 1"}}))
print(prepared.watch.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as engine:  # fmt: skip
        assert engine.stdout is not None
        pid = next(int(line) for line in engine.stdout if line.strip().isdigit())
        assert not _gone(pid)
        engine.kill()
    until(lambda: _gone(pid))


def test_only_the_owner_gets_at_a_managed_opa(managed: OpaPolicies) -> None:
    link = managed.watch._link
    assert link is not None
    path = link.connections.address.path
    assert path is not None
    assert all(parent.stat().st_mode & 0o077 == 0 for parent in (path.parent, path.parent.parent))


# -- external ---------------------------------------------------------------------------------------------------------


def bundle(directory: Path, rules: str, revision: str | None = "r1", data: Any = None, **manifest: Any) -> PolicySet:
    directory.mkdir(exist_ok=True)
    (directory / "p.rego").write_text(HEAD + rules)
    if data is not None:
        (directory / "data.json").write_text(json.dumps(data))
    if revision is not None:
        (directory / ".manifest").write_text(json.dumps({"revision": revision, **manifest}))
    return load_policies(directory)


def external(url: str | int, policies: PolicySet) -> OpaPolicies:
    address = f"http://127.0.0.1:{url}" if isinstance(url, int) else url
    return OpaEvaluator(path=opa_binary(), url=address).prepare(policies)


def test_an_external_opa_with_the_same_bundle_is_believed(tmp_path: Path) -> None:
    policies = bundle(tmp_path / "a", RULES, data=DATA)
    assert policies.revision == "r1"
    with serve_opa(tmp_path / "a", ["--addr", f"unix://{tmp_path}/opa.sock"]) as port:
        for url in (port, f"unix://{tmp_path}/opa.sock"):
            prepared = external(url, policies)
            assert ask(prepared, "says", {"y": 1}) == Defined({"decision": "ALLOW"})
            assert prepared.condition() == Condition()
            prepared.watch.stop()


#: what the OPA is given, where the engine has RULES, DATA and revision r1
DIFFERENT: list[tuple[str, dict[str, Any], str]] = [
    ("another revision", {"revision": "r2"}, "revision `r2`"),
    ("no revision", {"revision": None}, "revision ``"),
    ("other policies under that revision", {"rules": RULES + "\nmore := 1\n"}, "policies are not those"),
    ("another number", {"data": {"limits": {**DATA["limits"], "refunds": 11}}}, "limits.refunds"),
    ("a number for a boolean", {"data": {"limits": {**DATA["limits"], "on": 1}}}, "limits.on"),
    ("one document more", {"data": {**DATA, "p": {"more": True}}}, "p.more"),
    ("one document less", {"data": {}}, "limits"),
    ("a bundle to which others may add", {"roots": ["p", "limits"]}, "own all of `data`"),
]


@pytest.mark.parametrize(("changes", "reason"), [d[1:] for d in DIFFERENT], ids=[d[0] for d in DIFFERENT])
def test_an_opa_that_holds_something_else_is_not_believed(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    policies = bundle(tmp_path / "ours", RULES, data=DATA)
    bundle(tmp_path / "theirs", **{"rules": RULES, "data": DATA, **changes})
    with serve_opa(tmp_path / "theirs") as port:
        prepared = external(port, policies)
        outcome = ask(prepared, "says", {"y": 1})
        assert isinstance(outcome, Failed)
        assert outcome.code == "evaluator_unavailable"
        assert reason in prepared.condition().reasons[0]
        prepared.watch.stop()


def test_policies_without_a_bundle_have_no_revision_and_are_not_believed(tmp_path: Path) -> None:
    policies = bundle(tmp_path / "ours", RULES)
    (tmp_path / "none").mkdir()
    with serve_opa(tmp_path / "none", ["--set", "decision_logs.console=false"]) as port:
        ask_port(port, "PUT", "/v1/policies/p", (HEAD + RULES).encode(), "text/plain")
        prepared = external(port, policies)
        assert isinstance(ask(prepared, "says", {"y": 1}), Failed)
        prepared.watch.stop()


def test_the_content_hash_is_the_revision_of_policies_that_name_none(tmp_path: Path) -> None:
    policies = bundle(tmp_path / "ours", RULES, revision=None)
    bundle(tmp_path / "theirs", RULES, revision=policies.version)
    with serve_opa(tmp_path / "theirs") as port:
        prepared = external(port, policies)
        assert ask(prepared, "says", {"y": 1}) == Defined({"decision": "ALLOW"})
        prepared.watch.stop()


def test_an_opa_that_takes_up_another_bundle_is_not_believed_from_its_first_answer_on(tmp_path: Path) -> None:
    policies = bundle(tmp_path / "a", "says := 1")
    with serve_opa(tmp_path / "a", ["--watch"]) as port:
        prepared = external(port, policies)
        assert ask(prepared, "says") == Defined(1)
        (tmp_path / "a/.manifest").write_text('{"revision": "r2"}')
        bundle(tmp_path / "a", "says := 2", "r2")
        until(lambda: ask_port(port, "POST", "/v1/data/p/says", b'{"input":1}')[2] == {"result": 2})
        assert isinstance(ask(prepared, "says"), Failed)
        assert prepared.condition().reasons
        newer = external(port, load_policies(tmp_path / "a"))
        assert ask(newer, "says") == Defined(2)
        bundle(tmp_path / "a", "says := 1", "r1")  # back again: the engine's own is right again
        until(lambda: not prepared.condition().reasons)
        assert ask(prepared, "says") == Defined(1)
        for one in (prepared, newer):
            one.watch.stop()


def test_an_opa_that_is_started_anew_with_other_policies_is_not_believed(tmp_path: Path) -> None:
    """Under the same revision, so that no answer of its own gives it away."""
    policies = bundle(tmp_path / "a", "says := 1")
    bundle(tmp_path / "b", "says := 2")
    address = f"unix://{tmp_path}/opa.sock"
    with serve_opa(tmp_path / "a", ["--addr", address]):
        prepared = external(address, policies)
        assert ask(prepared, "says") == Defined(1)
    with serve_opa(tmp_path / "b", ["--addr", address]):
        for _ in range(20):
            outcome = ask(prepared, "says", limit=0.5)
            assert isinstance(outcome, Failed), outcome
            time.sleep(0.05)
        until(lambda: "policies are not those" in "".join(prepared.condition().reasons))
    with serve_opa(tmp_path / "a", ["--addr", address]):
        until(lambda: not prepared.condition().reasons)
        assert ask(prepared, "says") == Defined(1)
    prepared.watch.stop()


def _sent(body: bytes, *, head: str = "Content-Length: {n}", status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\n{head.format(n=len(body))}\r\n\r\n".encode() + body


def _said(real: bytes, **changes: Any) -> bytes:
    return _sent(json.dumps({**json.loads(real), **changes}).encode())


#: from what OPA answered to what is sent instead
RUBBISH: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda real: b"",
    "no HTTP": lambda real: b"\x00\xff rubbish\r\n\r\n",
    "half a head": lambda real: b"HTTP/1.1 200 O",
    "a head alone": lambda real: b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
    "cut": lambda real: _sent(real)[:-5],
    "longer than it says": lambda real: _sent(real) + b"HTTP/1.1 200 OK\r\n",
    "of no length": lambda real: b"HTTP/1.1 200 OK\r\n\r\n" + real,
    "two lengths": lambda real: _sent(real, head="Content-Length: {n}\r\nContent-Length: 7"),
    "half a chunk": lambda real: _sent(b"ff\r\n" + real, head="Transfer-Encoding: chunked"),
    "no JSON": lambda real: _sent(real[:-4] + b"]"),
    "an array": lambda real: _sent(b"[" + real + b"]"),
    "two results": lambda real: _sent(real.rstrip()[:-1] + b',"result":' + ALLOW.encode() + b"}"),
    "two documents": lambda real: _sent(real + real),
    "no UTF-8": lambda real: _sent(real.replace(b"ALLOW", b"\xff")),
    "an allow of nobody's": lambda real: _sent(b'{"result":' + ALLOW.encode() + b"}"),
    "another version": lambda real: _said(
        real, provenance={**json.loads(real)["provenance"], "version": "0.1"}, result={"decision": "ALLOW"}
    ),
    "two bundles": lambda real: _said(
        real, provenance={"version": "1.22.2", "bundles": {"a": {"revision": "r1"}, "b": {"revision": "r1"}}}
    ),
    "a status of its own": lambda real: _sent(real, status="202 Accepted"),
    "an error that is none": lambda real: _sent(b'{"code":1}', status="500 Oops"),
    "an error with a result": lambda real: _sent(real, status="500 Oops"),
    "a deep one": lambda real: _sent(b'{"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "an endless one": lambda real: _sent(b"x" * (17 << 20)),
}


@pytest.fixture(scope="module")
def before_opa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, OpaPolicies]]:
    directory = tmp_path_factory.mktemp("proxied") / "a"
    policies = bundle(directory, RULES)
    with serve_opa(directory) as port, proxied(port) as proxy:
        prepared = external(proxy.url, policies)
        yield proxy, prepared
        prepared.watch.stop()


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_is_no_answer(before_opa: tuple[Proxy, OpaPolicies], rubbish: Callable[[bytes], bytes]) -> None:
    proxy, prepared = before_opa
    until(lambda: ask(prepared, "says", {"y": 1}) == Defined({"decision": "ALLOW"}))
    proxy.spoil = rubbish
    try:
        outcome = ask(prepared, "says", {"y": 1})
    finally:
        proxy.spoil = None
    assert isinstance(outcome, Failed), outcome
    assert outcome.code in ("evaluator_unavailable", "policies_unverified", "eval_error")


def test_after_some_rubbish_in_a_row_nobody_asks_any_more(before_opa: tuple[Proxy, OpaPolicies]) -> None:
    proxy, prepared = before_opa
    until(lambda: ask(prepared, "says", {"y": 1}) == Defined({"decision": "ALLOW"}))
    proxy.spoil = RUBBISH["no JSON"]
    try:
        asked = proxy.asked
        for _ in range(200):
            assert isinstance(ask(prepared, "says", {"y": 1}), Failed)
        assert proxy.asked - asked < 100
    finally:
        proxy.spoil = None
    until(lambda: ask(prepared, "says", {"y": 1}) == Defined({"decision": "ALLOW"}))
    assert prepared.condition() == Condition(abandoned=prepared.condition().abandoned)


def test_calls_at_once_do_not_wait_for_each_other(before_opa: tuple[Proxy, OpaPolicies]) -> None:
    proxy, prepared = before_opa
    until(lambda: ask(prepared, "says", {"y": 1}) == Defined({"decision": "ALLOW"}))
    proxy.delay_seconds, proxy.most_in_flight = 0.05, 0
    ready = threading.Barrier(16)
    outcomes: list[Outcome] = []

    def run(n: int) -> None:
        ready.wait()
        outcomes.extend([ask(prepared, "doubled", {"n": 100 * n + i}) for i in range(4)])

    threads = [threading.Thread(target=run, args=(n,)) for n in range(16)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        proxy.delay_seconds = 0.0
    # each got its own answer
    assert sorted(o.value for o in outcomes if isinstance(o, Defined)) == sorted(
        2 * (100 * n + i) for n in range(16) for i in range(4)
    )
    assert proxy.most_in_flight > 4


def test_one_that_refuses_connections_is_asked_again_when_it_is_there(tmp_path: Path) -> None:
    policies = bundle(tmp_path / "a", RULES)
    address = f"unix://{tmp_path}/opa.sock"
    prepared = external(address, policies)  # it comes later
    outcome = ask(prepared, "says", {"y": 1})
    assert isinstance(outcome, Failed)
    assert outcome.code == "evaluator_unavailable"
    assert "no connection" in prepared.condition().reasons[0]
    with serve_opa(tmp_path / "a", ["--addr", address]):
        until(lambda: not prepared.condition().reasons)
        assert ask(prepared, "says", {"y": 1}) == Defined({"decision": "ALLOW"})
    prepared.watch.stop()
