"""Idempotency keys in memory, against a dict that forgets nothing."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.decisions import Answered, AnsweredKeys, Verdict
from enrich.decisions.answered import HELD_US, check_key
from enrich.errors import BadRequestError, BusyError

KEY = b"k" * 32
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
VERDICTS = st.builds(
    Verdict,
    st.sampled_from(["ALLOW", "REQUIRE_HUMAN", "DENY"]),
    JSON,
    st.sampled_from([None, "suspended", "history_unavailable", "evaluation_timeout", "malformed_decision"]),
)


def answered(n: int, at_us: int, verdict: Verdict | None = None) -> Answered:
    return Answered(n, at_us, "sha256:" + f"{n:064x}", str(UUID(int=n)), verdict or Verdict("ALLOW", True))


@given(VERDICTS, st.integers(0, 2**62), st.integers(0, 2**62))
def test_what_is_kept_comes_back(verdict: Verdict, seq: int, at_us: int) -> None:
    one = Answered(seq, at_us, "sha256:" + "ab" * 32, str(UUID(int=seq)), verdict)
    assert Answered.unpacked(one.packed()) == one


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, HELD_US)), max_size=40))
def test_a_key_is_held_for_a_day_and_not_longer(steps: list[tuple[int, int]]) -> None:
    keys, model, now = AnsweredKeys(KEY, 1000), dict[int, int](), 0
    for seq, (name, later) in enumerate(steps):
        now += later // 4
        tag = keys.tag("c", "p", str(name))
        found = keys.get(tag, now)
        known = model.get(name)
        assert (found is None) == (known is None or now - known >= HELD_US)
        if found is None:
            keys.check_room(now)
            keys.put(tag, answered(seq, now))
            model[name] = now
    keys.check_room(now)
    assert len(keys) == sum(now - at < HELD_US for at in model.values())


def test_keys_of_callers_and_paths_are_apart_and_say_nothing() -> None:
    keys = AnsweredKeys(KEY, 10)
    tags = {keys.tag(c, p, k) for c in (None, "", "a") for p in ("p", "p/k") for k in ("k", "p")}
    assert len(tags) == 12
    assert AnsweredKeys(b"other", 10).tag("a", "p", "k") not in tags


def test_a_large_answer_takes_the_room_of_several() -> None:
    keys = AnsweredKeys(KEY, 4)
    keys.put(keys.tag(None, "p", "k"), answered(1, 0, Verdict("ALLOW", "x" * 1000)))
    with pytest.raises(BusyError):
        keys.check_room(1)
    keys.check_room(HELD_US)
    assert len(keys) == 0


@pytest.mark.parametrize("key", [None, 7, "", "x" * 201, "\t", "a\u2028b", "\ud800"])
def test_what_is_no_key(key: object) -> None:
    with pytest.raises(BadRequestError):
        check_key(key)
    assert check_key("refund 4711/π") == "refund 4711/π"
