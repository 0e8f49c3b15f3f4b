"""A journal that somebody has been at: what was touched is never VALID, and what was not is not said to be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from enrich.decisions.replay import PolicyReplay, evaluators_of
from enrich.settings import Settings

from .replayed import Made, codes, make, tampered


@pytest.fixture(scope="module")
def policy() -> Iterator[PolicyReplay]:
    policy = PolicyReplay(evaluators_of(Settings()))
    yield policy
    policy.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, policy: PolicyReplay) -> Made:
    """Nobody may leave it changed."""
    return make(tmp_path_factory.mktemp("whole"), policy)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, whole: Made) -> Made:
    """The same journal without DuckDB: nothing but the files says what was there."""
    made = whole.copy(tmp_path_factory.mktemp("bare"))
    (made.data / "history.duckdb").unlink()
    return made


@examples(deadline=None, max_examples=30)
@given(st.data())
def test_a_decision_with_a_flipped_byte_is_never_valid(whole: Made, bare: Made, data: Any) -> None:
    made = bare if data.draw(st.booleans()) else whole
    n = data.draw(st.integers(0, len(made.ids) - 1))
    segment, _, line = made.of(made.ids[n])
    at = data.draw(st.integers(0, len(line) - 1))
    bit = data.draw(st.integers(0, 7))
    with tampered(segment) as before:
        where = before.index(line) + at
        segment.write_bytes(before[:where] + bytes([before[where] ^ 1 << bit]) + before[where + 1 :])
        if made is whole and data.draw(st.booleans()):
            assert made.one(made.ids[n]).verdict == "INVALID"
            return
        found = {r.decision_id: r for r in made.all().decisions}
        touched = found.get(made.ids[n])
        if made is whole:
            assert touched is not None
            assert touched.verdict == "INVALID"
        assert touched is None or touched.verdict != "VALID"
        for m, other in enumerate(made.ids):
            if other in found and abs(m - n) > 1:
                assert found[other].verdict != "INVALID", codes(found[other])


@pytest.mark.parametrize("kept", ["whole", "bare"])
@pytest.mark.parametrize("n", [0, 3, 6])
def test_a_removed_decision_is_never_valid(n: int, kept: str, request: pytest.FixtureRequest) -> None:
    made: Made = request.getfixturevalue(kept)
    segment, _, line = made.of(made.ids[n])
    with tampered(segment) as before:
        segment.write_bytes(before.replace(line, b""))
        report = made.all()
        found = {r.decision_id: r for r in report.decisions}
        if kept == "whole":
            assert codes(found[made.ids[n]]) == ["not_in_journal"]
            assert codes(made.one(made.ids[n])) == ["not_in_journal"]
        assert found.keys() - {made.ids[n]} == set(made.ids) - {made.ids[n]}
        last = n == len(made.ids) - 1
        assert not any(r.verdict == "VALID" for r in report.decisions)
        assert last or "line_displaced" in codes(found[made.ids[n + 1]]) or n == len(made.ids) - 2


@pytest.mark.parametrize("n", [0, 4])
def test_reordered_decisions_are_never_valid(n: int, whole: Made) -> None:
    segment, _, first = whole.of(whole.ids[n])
    _, _, second = whole.of(whole.ids[n + 1])
    with tampered(segment) as before:
        segment.write_bytes(before.replace(first, b"\0").replace(second, first).replace(b"\0", second))
        found = {r.decision_id: r for r in whole.all().decisions}
        for touched in whole.ids[n : n + 2]:
            assert found[touched].verdict == "INVALID"
            assert "line_displaced" in codes(found[touched])
            assert whole.one(touched).verdict == "INVALID"


def test_a_chain_broken_elsewhere_leaves_a_decision_without_its_proof(whole: Made) -> None:
    segment, _, line = whole.of(whole.ids[3])
    with tampered(segment) as before:
        segment.write_bytes(before.replace(line, line.replace(b'"v":1', b'"v":7', 1)))
        found = {r.decision_id: r for r in whole.all().decisions}
        assert [found[i].verdict for i in whole.ids] == ["INCONCLUSIVE"] * 3 + ["INVALID"] + ["INCONCLUSIVE"] * 3
        assert "before it" in found[whole.ids[5]].reasons[0].message
        assert "behind it" in found[whole.ids[0]].reasons[0].message


def test_a_missing_segment_is_reported_per_decision(tmp_path: Path, policy: PolicyReplay) -> None:
    made = make(tmp_path, policy, decisions=12, segment_bytes=65_536 // 4)
    assert len(made.segments) > 2
    lost = {i for i in made.ids if made.of(i)[0] == made.segments[1]}
    made.segments[1].unlink()
    report = made.all()
    assert any("the file is missing" in p for p in report.problems)
    for one in report.decisions:
        assert codes(one)[0] == "not_in_journal" if one.decision_id in lost else one.verdict != "VALID"
    assert lost
    assert made.one(next(iter(lost))).verdict == "INVALID"


@pytest.mark.parametrize("name", ["journal.json", "hash.key"])
def test_a_journal_whose_identity_can_not_be_read_proves_nothing(name: str, whole: Made) -> None:
    path = whole.data / "journal" / name
    with tampered(path) as before:
        path.write_bytes(before[:10] + bytes([before[10] ^ 1]) + before[11:])
        report = whole.all()
        assert report.problems
        assert len(report.decisions) == len(whole.ids)


def test_what_lies_after_the_last_newline_is_no_decision(whole: Made) -> None:
    segment, _, line = whole.of(whole.ids[-1])
    with tampered(segment) as before:
        segment.write_bytes(before + line[:200])
        assert whole.all().counts() == {"VALID": 7, "INVALID": 0, "INCONCLUSIVE": 0}
