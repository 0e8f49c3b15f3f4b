"""A forger who makes all hashes anew: what no hash finds, the record itself, the policy or the events contradict."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from enrich.decisions.replay import DefinitionsIndex, PolicyReplay, evaluators_of
from enrich.errors import NotFoundError
from enrich.settings import Settings

from .gated import decide, open_gated, request, write_policy
from .replayed import Made, codes, make
from .support import HOUR_US, events, now_us

Change = Callable[[dict[str, Any], dict[str, Any]], object]


@pytest.fixture(scope="module")
def policy() -> Iterator[PolicyReplay]:
    policy = PolicyReplay(evaluators_of(Settings()))
    yield policy
    policy.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, policy: PolicyReplay) -> Made:
    """Nobody may change it."""
    return make(tmp_path_factory.mktemp("made"), policy)


def sha256(value: Any) -> str:
    return "sha256:" + hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def forged(made: Made, where: Path, decision_id: str, change: Change) -> list[str]:
    """The reasons, besides that DuckDB has another record, for which a forged decision is not VALID; the same for one
    and for all.

    Args:
        change: called with the record's body and its history; the hashes in it are made anew.
    """
    copy = made.copy(where)

    def rewrite(kind: str, body: dict[str, Any]) -> None:
        if kind == "decision" and body["decision_id"] == decision_id:
            change(body, body["input"]["history"])
            document = {name: value for name, value in body["input"].items() if name != "history"}
            body["input_hash"], body["context_hash"] = sha256(body["input"]), sha256(body["input"]["history"])
            body["request_hash"] = sha256({"input": document, "path": body["path"]})

    copy.forge(rewrite)
    one = copy.one(decision_id)
    [other] = [r for r in copy.all().decisions if r.decision_id == decision_id]
    assert codes(one) == codes(other)
    return [code for code in codes(one) if code != "copy_differs"]


def test_a_journal_that_was_written_anew_without_a_change_stands(made: Made, tmp_path: Path) -> None:
    assert forged(made, tmp_path, made.ids[2], lambda body, history: None) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda body, history: body["event"].update(declared_amount_minor=7),
        lambda body, history: body["event"].update(actor_id="b"),
        lambda body, history: body["event"].pop("workflow_id"),
        lambda body, history: body.pop("result"),
        lambda body, history: body.update(lease=1),
        lambda body, history: body.update(lease="1"),
        lambda body, history: body.update(selection="agent.*"),
        lambda body, history: body.update(selection=[1, {}]),
        lambda body, history: body.update(evaluator={}),
        lambda body, history: body.update(redaction={"salt": "00", "paths": []}),
        lambda body, history: body.update(redaction="x"),
        lambda body, history: body.update(strict_builtin_errors=1),
        lambda body, history: body.update(as_of=body["as_of"].replace("Z", "+00:00")),
        lambda body, history: history.pop("status"),
        lambda body, history: history.update(status="stale"),
        lambda body, history: history.pop("seq"),
        lambda body, history: history.pop("suspended"),
        lambda body, history: history.update(trusted=True),
        lambda body, history: history.update(approvers=5),
        lambda body, history: history.update(agent=5),
        lambda body, history: history["agent"].update(in_flight=3),
    ],
)
def test_a_record_that_no_gate_writes(change: Change, made: Made, tmp_path: Path) -> None:
    assert "record_inconsistent" in forged(made, tmp_path, made.ids[2], change)


@pytest.mark.parametrize("as_of", ["2020-01-01T00:00:00.000000Z", "long ago", 5])
def test_a_record_that_says_it_is_older_is_not_overlooked(as_of: object, made: Made, tmp_path: Path) -> None:
    copy, wanted = made.copy(tmp_path), made.ids[2]
    copy.forge(lambda kind, body: body.update(as_of=as_of) if body.get("decision_id") == wanted else None)
    (copy.data / "history.duckdb").unlink()
    report = copy.all(since_us=now_us() - HOUR_US)
    assert {r.decision_id: r.verdict for r in report.decisions}[wanted] == "INVALID"
    assert report.frame().height == len(made.ids)


UNLESS = """\
package shop

default decision := {"decision": "ALLOW"}

decision := {"decision": "DENY"} if input.history.agent.last_1h.asked > 2

decision := {"decision": "DENY"} if input.history.agent.in_flight.count > 2
"""


def _without(body: dict[str, Any], history: dict[str, Any], kept: tuple[str, ...]) -> None:
    """What speaks against it is gone, and with it the denial."""
    history["agent"] = {name: history["agent"][name] for name in kept}
    body |= {"decision": "ALLOW", "result": {"decision": "ALLOW"}}
    body["event"]["outcome"] = "allowed"


@pytest.mark.parametrize(
    ("kept", "selection", "expected"),
    [
        (("id", "known"), None, "signals_differ"),
        (("id", "known", "last_1h"), None, "in_flight_differs"),
        (("id", "known", "last_1h"), ["agent.last_1h.asked"], "selection_differs"),
        (("id", "known"), ["agent.known"], "selection_differs"),
        (("id", "known"), [], "selection_differs"),
        (("id", "known"), ["agent.unknown"], "record_inconsistent"),
    ],
)
def test_history_that_was_taken_out_of_a_record_is_missed(
    kept: tuple[str, ...], selection: list[str] | None, expected: str, tmp_path: Path, policy: PolicyReplay
) -> None:
    where = tmp_path / "made"
    with open_gated(where, UNLESS) as engine:
        engine.record(events(0, 5, kind="authority", outcome="required_human", duration_ms=None))
        engine.record(events(5, 5, kind="authority", outcome="allowed", duration_ms=None, decision_id=None))
        id_ = decide(engine, request()).decision_id
        engine.caught_up(20)
    made = Made(where / "data", [id_], policy)
    assert made.one(id_).verdict == made.all().decisions[0].verdict == "VALID"

    def change(body: dict[str, Any], history: dict[str, Any]) -> None:
        _without(body, history, kept)
        if len(kept) == 3:
            history["agent"]["last_1h"]["asked"] = 5
        body["selection"] = body["selection"] if selection is None else selection

    assert expected in forged(made, tmp_path, id_, change)


def test_a_decision_that_names_another_one_in_its_input_is_not_taken_for_it(tmp_path: Path) -> None:
    with open_gated(tmp_path, UNLESS) as engine:
        id_ = decide(engine, {**request(), "follows": {"decision_id": "a-decision-of-another-time"}}).decision_id
        engine.caught_up(20)
        with pytest.raises(NotFoundError):
            engine.replays.one("a-decision-of-another-time")
        assert engine.replays.one(id_).verdict == "VALID"


def test_definitions_are_found_in_a_segment_that_was_pruned_after_a_part_of_it_was_read(tmp_path: Path) -> None:
    with open_gated(tmp_path, segment_bytes=32 << 10) as engine:
        for n in range(8):
            decide(engine, request(f"agent-{n}"))
        index = DefinitionsIndex(engine.journal.directory)
        first = index.refresh()
        write_policy(tmp_path, UNLESS)
        engine.reload()
        id_ = decide(engine, request("new")).decision_id
        engine.caught_up(20)
        body = engine.history.decision(id_) or {}
        assert not first.has(body)
        while not engine.journal.closed_segments:
            decide(engine, request("more"))
        segment = engine.journal.closed_segments[0]
        ranges = engine.journal.prepare_prune(segment, {"decision"})
        done = engine.journal.append(engine.journal.prepare("prune", {"seqs": ranges}))
        engine.journal.wait_durable(done.last_seq)
        engine.journal.prune_segment(segment)
        assert index.refresh().has(body)
