"""What replay says of decisions: those that still stand, those that can't have been so, and those it can't tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import polars as pl
import pytest

from enrich import Engine
from enrich.decisions import Defined, EmbeddedEvaluator, Failed, Outcome, PolicySet, Prepared, Undefined, policy_set
from enrich.decisions.protocol import TIMED_OUT
from enrich.decisions.replay import PolicyReplay, Replayed, evaluators_of
from enrich.decisions.replay.texts import Definitions
from enrich.errors import NotFoundError
from enrich.settings import Settings

from .gated import AT_MOST, decide, hold, open_gated, request
from .replayed import Made, codes, make
from .support import DAY_US, event, events, now_us

ALL_CHECKED = ("line", "chain", "copy", "hashes", "record", "policy", "signals")


@pytest.fixture(scope="module")
def policy() -> Iterator[PolicyReplay]:
    policy = PolicyReplay(evaluators_of(Settings()))
    yield policy
    policy.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, policy: PolicyReplay) -> Made:
    """Nobody may change it."""
    return make(tmp_path_factory.mktemp("made"), policy)


@pytest.fixture
def copied(tmp_path: Path, made: Made) -> Made:
    return made.copy(tmp_path)


def replay(engine: Engine, decision_id: str) -> Replayed:
    """One decision, however long DuckDB takes to follow."""
    engine.caught_up(60)
    return engine.replays.one(decision_id)


# -- what stands


def test_what_nobody_touched_is_valid_one_by_one_and_all_at_once(made: Made) -> None:
    report = made.all()
    assert report.counts() == {"VALID": 7, "INVALID": 0, "INCONCLUSIVE": 0}
    assert report.problems == ()
    for one in report.decisions:
        assert (one.reasons, one.checked) == ((), ALL_CHECKED)
        assert one.decision_id is not None
        assert made.one(one.decision_id) == one


def test_several_processes_say_what_one_says(made: Made) -> None:
    done: list[tuple[int, int]] = []
    report = made.all(processes=2, progress=lambda n, total: done.append((n, total)))
    assert report == made.all()
    assert done[-1] == (7, 7)


def test_a_running_engine_replays_what_it_decided(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        engine.record(events(0, 20))
        first, second = (decide(engine).decision_id for _ in range(2))
        assert replay(engine, first).verdict == "VALID"
        third = decide(engine)
        frame = engine.replays.all()
        assert frame.schema == {
            "seq": pl.Int64, "decision_id": pl.String, "as_of": pl.Datetime("us", "UTC"), "path": pl.String,
            "decision": pl.String, "verdict": pl.String, "reasons": pl.List(pl.String),
            "messages": pl.List(pl.String), "checked": pl.List(pl.String),
        }  # fmt: skip
        assert frame["decision_id"].to_list() == [first, second, third.decision_id]
        assert frame["verdict"].to_list() == ["VALID"] * 3
        assert frame["seq"].to_list() == sorted(frame["seq"])
        since = frame["as_of"].dt.epoch("us")[1]
        assert engine.replays.all(since=since)["decision_id"].to_list() == [second, third.decision_id]
        assert engine.replays.report(processes=2).frame().equals(frame)
        with pytest.raises(NotFoundError) as refused:
            replay(engine, "nobody")
        assert refused.value.error_code == "unknown_decision"


def test_history_that_arrives_late_changes_no_verdict(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        ids = [decide(engine).decision_id for _ in range(3)]
        engine.record(
            [event(n, kind="authority", outcome="allowed", duration_ms=None, ago_us=10_000_000 + n) for n in range(50)]
        )
        assert engine.context({"agent": "a"})["agent"]["last_1h"]["allowed"] == 53
        assert [replay(engine, i).verdict for i in ids] == ["VALID"] * 3
        assert engine.replays.all()["verdict"].to_list() == ["VALID"] * 3


def test_a_pair_an_approver_and_a_missing_id_are_computed_again(tmp_path: Path) -> None:
    queries = tmp_path / "queries"
    queries.mkdir()
    for entity in ("agent_team", "approver", "workflow"):
        text = f"-- entity: {entity}\n-- windows: 1h, 30d\n-- owner: tests\n-- description: Events.\n"
        columns = f"count(*) AS {entity}_events, -- events\n median(duration_ms) AS {entity}_median -- half are less"
        (queries / f"{entity}.sql").write_text(f"{text}SELECT {columns}\nFROM events\n")
    with open_gated(tmp_path) as engine:
        engine.record(events(0, 9))
        engine.record(events(20, 3, kind="authority", outcome="approved", actor_id="eve"))
        asked = request() | {"approval": {"candidate_ids": ["eve", "bob"]}}
        ids = [decide(engine, d).decision_id for d in (asked, request(team=None, workflow_id=None), asked)]
        assert [replay(engine, i).reasons for i in ids] == [(), (), ()]
        assert engine.replays.all()["verdict"].to_list() == ["VALID"] * 3


@pytest.mark.parametrize("facts", [None, {}, {"x": 1}, "absent", {"below": None}, {"below": {}}, {"below": {"y": 2}}])
def test_the_raw_input_is_found_under_a_history_path_of_its_own(facts: Any, tmp_path: Path) -> None:
    policy = AT_MOST.format(agent=5, team=5).replace("input.history", "input.facts.below.history")
    with open_gated(tmp_path, policy, input_history="facts.below.history") as engine:
        document = request() if facts == "absent" else {**request(), "facts": facts}
        assert replay(engine, decide(engine, document).decision_id).reasons == ()


# -- what can't have been so


def test_a_policy_that_says_something_else_is_noticed(tmp_path: Path) -> None:
    with open_gated(tmp_path, AT_MOST.format(agent=0, team=0)) as engine:
        held = hold(engine, {"decision": "ALLOW"})
        wrong = decide(engine).decision_id
        held.answer = None
        right = decide(engine).decision_id
        assert codes(replay(engine, wrong)) == ["policy_differs"]
        assert replay(engine, right).verdict == "VALID"
        assert engine.replays.all()["reasons"].to_list() == [["policy_differs"], []]


def forge_input(body: dict[str, Any]) -> None:
    """Other counts in the frozen context, with the hashes that fit them."""
    from tests.engine.test_gate_record import sha256

    body["input"]["history"]["agent"]["last_1h"]["allowed"] -= 1
    body["input_hash"], body["context_hash"] = sha256(body["input"]), sha256(body["input"]["history"])


def test_a_forger_of_the_whole_journal_is_caught_by_the_events(copied: Made) -> None:
    wanted = copied.ids[2]
    copied.forge(lambda kind, body: forge_input(body) if body.get("decision_id") == wanted else None)
    (copied.data / "history.duckdb.wal").unlink(missing_ok=True)
    found = {r.decision_id: codes(r) for r in copied.all().decisions}
    assert found[wanted] == ["copy_differs", "signals_differ"]
    assert all(reasons == [] for id_, reasons in found.items() if id_ != wanted)
    message = copied.one(wanted).reasons[1].message
    assert "agent.last_1h.allowed: " in message


def test_a_forger_of_a_result_is_caught_by_the_policy(copied: Made) -> None:
    wanted = copied.ids[0]

    def change(kind: str, body: dict[str, Any]) -> None:
        if body.get("decision_id") == wanted:
            assert body["decision"] == "ALLOW"
            body |= {"decision": "DENY", "result": {"decision": "DENY"}}
            body["event"]["outcome"] = "denied"

    copied.forge(change)
    assert codes(copied.one(wanted)) == ["copy_differs", "policy_differs"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"decision": "DENY"}, "record_inconsistent"),
        ({"decision": "PERHAPS"}, "record_inconsistent"),
        ({"context_seq": 10_000}, "record_inconsistent"),
        ({"as_of": "2001-01-01T00:00:00.000000Z"}, "record_inconsistent"),
        ({"as_of": "2101-01-01T00:00:00.000000Z"}, "record_inconsistent"),
        ({"cause": "suspended"}, "record_inconsistent"),
        ({"cause": "evaluation_failed"}, "record_inconsistent"),
        ({"suspensions": [{"scope": "all"}]}, "record_inconsistent"),
        ({"entities": {"agent": "z"}}, "record_inconsistent"),
        ({"event": {"outcome": "denied"}}, "record_inconsistent"),
        ({"request_hash": "sha256:0"}, "hash_differs"),
        ({"context_hash": "sha256:0"}, "hash_differs"),
        ({"input_hash": "sha256:0"}, "hash_differs"),
        ({"entities": None}, "record_inconsistent"),
        ({"catalog": "sha256:0"}, "record_inconsistent"),
        ({"policy_hash": "sha256:0"}, "policy_gone"),
        ({"settings_hash": "sha256:0"}, "settings_gone"),
    ],
)
def test_a_record_that_contradicts_itself(change: dict[str, Any], code: str, copied: Made) -> None:
    wanted = copied.ids[0]
    copied.forge(lambda kind, body: body.update(change) if body.get("decision_id") == wanted else None)
    for path in copied.data.glob("history.duckdb*"):
        path.unlink()
    assert code in codes(copied.one(wanted))
    assert copied.one(wanted).verdict != "VALID"


def test_a_copy_in_duckdb_that_was_changed_is_noticed(copied: Made) -> None:
    with duckdb.connect(str(copied.data / "history.duckdb")) as connection:
        connection.execute("UPDATE decisions SET body = replace(body, 'ALLOW', 'DENY') WHERE seq = 22")
    found = copied.all().decisions
    assert codes(found[0]) == ["copy_differs"]
    assert all(not r.reasons for r in found[1:])


def test_events_in_duckdb_that_were_changed_are_noticed(copied: Made) -> None:
    with duckdb.connect(str(copied.data / "history.duckdb")) as connection:
        connection.execute("UPDATE events SET outcome = 'denied' WHERE decision_id = ?", [copied.ids[0]])
    verdicts = {r.decision_id: codes(r) for r in copied.all().decisions}
    assert verdicts[copied.ids[0]] == []
    assert verdicts[copied.ids[2]] == ["signals_differ"] == codes(copied.one(copied.ids[2]))


# -- what can't be told


@pytest.mark.parametrize(("part", "code"), [("catalog", "catalog_gone"), ("policies", "policy_gone")])
def test_definitions_that_are_gone(part: str, code: str, copied: Made) -> None:
    def change(kind: str, body: dict[str, Any]) -> None:
        if kind == "definitions":
            body[part]["version"] = "sha256:0"

    copied.forge(change)
    for one in copied.all().decisions:
        assert codes(one) == [code]
        assert one.verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(("part", "code"), [("catalog", "catalog_unusable"), ("policies", "policy_gone")])
def test_definitions_whose_text_is_not_what_their_hash_names(part: str, code: str, copied: Made) -> None:
    def change(kind: str, body: dict[str, Any]) -> None:
        if kind == "definitions":
            texts = body[part]["sources" if part == "catalog" else "modules"]
            name = sorted(texts)[0]
            texts[name] = texts[name].replace("1h", "2h").replace("< 2", "< 9")

    copied.forge(change)
    assert {tuple(codes(one)) for one in copied.all().decisions} == {(code,)}


def test_history_past_retention_leaves_the_policy_to_be_checked(tmp_path: Path) -> None:
    with open_gated(tmp_path, AT_MOST.format(agent=2, team=100)) as engine:
        engine.record(events(0, 20, at_us=now_us() - 2 * DAY_US))
        held = hold(engine)
        first = decide(engine).decision_id
        held.answer = lambda _: Defined({"decision": "ALLOW"})
        decide(engine, request("c"))
        wrong = [decide(engine, request("c")).decision_id for _ in range(2)][-1]
        engine.history.prune(now_us() - 2 * DAY_US + 1)
        assert replay(engine, first).verdict == "VALID"  # no window reaches back so far
        engine.history.prune(now_us())
        pruned = replay(engine, first)
        assert (pruned.verdict, codes(pruned)) == ("INCONCLUSIVE", ["history_pruned"])
        assert "policy" in pruned.checked
        assert codes(replay(engine, wrong)) == ["policy_differs", "history_pruned"]
        assert engine.replays.all()["verdict"].to_list() == ["INCONCLUSIVE", "INCONCLUSIVE", "INCONCLUSIVE", "INVALID"]


def test_without_duckdb_the_rest_is_checked(copied: Made) -> None:
    for path in copied.data.glob("history.duckdb*"):
        path.unlink()
    for one in copied.all().decisions:
        assert codes(one) == ["history_missing"]
        assert "policy" in one.checked
        assert one.decision_id is not None
        assert copied.one(one.decision_id) == one


def test_a_duckdb_that_has_not_followed_yet(copied: Made) -> None:
    with duckdb.connect(str(copied.data / "history.duckdb")) as connection:
        connection.execute("UPDATE history_meta SET seq = 22")
        connection.execute("DELETE FROM events WHERE seq > 22")
        connection.execute("DELETE FROM decisions WHERE seq > 22")
    report = copied.all()
    assert [codes(r) for r in report.decisions] == [[], []] + [["history_behind"]] * 5
    assert codes(copied.one(copied.ids[-1])) == ["history_behind"]


class Other:
    """The embedded evaluator under another version; with `answer` it says nothing else."""

    name: ClassVar[str] = "embedded"

    def __init__(self, answer: Outcome | None) -> None:
        self.version = "regopy 0.0.1"
        self.answer = answer
        self._real = EmbeddedEvaluator(workers=1)

    def prepare(self, policies: PolicySet) -> Prepared:
        prepared = self._real.prepare(policies)
        if self.answer is not None:
            answer = self.answer
            prepared.evaluate = lambda *_, **__: answer  # type: ignore[method-assign]
        return prepared


@pytest.mark.parametrize(
    ("answer", "verdict", "code"),
    [
        (None, "VALID", "other_evaluator_agrees"),
        (Defined({"decision": "DENY"}), "INCONCLUSIVE", "evaluator_differs"),
        (Undefined(True), "INCONCLUSIVE", "evaluator_differs"),
        (Failed(TIMED_OUT, "slow"), "INCONCLUSIVE", "not_evaluated"),
    ],
)
def test_another_evaluator(answer: Outcome | None, verdict: str, code: str, made: Made) -> None:
    other = Other(answer)
    policy = PolicyReplay(lambda name: other)
    try:
        one = Made(made.data, made.ids, policy).one(made.ids[0])
    finally:
        policy.close()
    assert (one.verdict, codes(one)) == (verdict, [code])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Failed(TIMED_OUT, "slow"), ["timeout_not_repeated"]),
        (Failed("eval_error", "its process ended"), ["failure_not_repeated"]),
        (Undefined(True), ["policy_differs"]),
        (Defined({"verdict": "ok"}), ["policy_differs"]),
    ],
)
def test_refusals_that_do_not_come_again(answer: Outcome, expected: list[str], tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        hold(engine, lambda _: answer)
        one = replay(engine, decide(engine).decision_id)
        assert one.decision == "DENY"
        assert codes(one) == expected


@pytest.mark.parametrize(
    "text",
    [
        'decision := {"decision": "ALLOW"} if input.never',
        'decision := "maybe"',
        'decision := "ALLOW" if input.identity.actor_id == "a"\ndecision := "DENY" if input.identity',
    ],
)
def test_refusals_that_come_again_are_valid(text: str, tmp_path: Path) -> None:
    with open_gated(tmp_path, f"package shop\n\n{text}\n") as engine:
        decision = decide(engine)
        assert decision.verdict.cause is not None
        assert replay(engine, decision.decision_id).reasons == ()


def test_suspensions_are_attested(tmp_path: Path) -> None:
    with open_gated(tmp_path) as engine:
        engine.break_glass.suspend("agent", "a", reason="tests", until=None, by=None)
        one = replay(engine, decide(engine).decision_id)
        assert one.reasons == ()
        assert "policy" not in one.checked
        assert engine.replays.all()["verdict"].to_list() == ["VALID"]


def test_policies_that_read_a_clock_are_not_repeatable() -> None:
    policies = policy_set({"a.rego": "package a\n# rand.intn(1)\nallow if time.now_ns() > 0\n"}, {})
    quiet = policy_set({"a.rego": "package a\n# rand.intn(1)\nallow if true\n"}, {})
    definitions = Definitions()
    for one in (policies, quiet):
        definitions.add({"policies": {"version": one.version, "modules": dict(one.modules), "data": {}}})
    replay = PolicyReplay(evaluators_of(Settings()))
    body: Mapping[str, Any] = {
        "cause": None, "path": "a/allow", "input": {}, "decision": "ALLOW", "result": True,
        "evaluator": {"name": "embedded", "version": EmbeddedEvaluator().version},
    }  # fmt: skip
    reasons, asked = replay.check({**body, "policy_hash": policies.version}, definitions)
    assert ([r.code for r in reasons], asked) == (["not_repeatable"], False)
    assert replay.check({**body, "policy_hash": quiet.version}, definitions) == ([], True)
    replay.close()


