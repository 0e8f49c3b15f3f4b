"""The register against a naive model, and each reason why a suspension covers a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.errors import BadRequestError, NotFoundError
from enrich.events import format_us
from enrich.journal import Position
from enrich.suspensions import (
    Members,
    Register,
    SavedSuspensions,
    Suspension,
    lift_body,
    read_saved,
    read_scope,
    suspend_body,
    write_saved,
)

NOW = 1_790_000_000_000_000
SECOND = 1_000_000


def suspended(*names: tuple[str, str], until_us: int | None = None) -> Register:
    register = Register()
    for i, (scope, id_) in enumerate(names):
        until = None if until_us is None else format_us(until_us)
        body = suspend_body(read_scope(scope), id_, reason="r", until=until, now_us=NOW)
        register.apply(body, i + 1, NOW + i)
    return register


def matches(register: Register, ids: dict[str, Any], members: Members | None = None) -> list[tuple[str, str, str]]:
    found = register.covering(ids, members or Members(), NOW + SECOND)
    return [(c.suspension.scope, c.suspension.id, c.match) for c in found]


REQUEST = {"agent": "a", "team": "t", "workflow": "w", "org": None}


def test_a_suspension_covers_who_it_names_and_nobody_else() -> None:
    assert matches(suspended(("agent", "a")), REQUEST) == [("agent", "a", "id")]
    assert matches(suspended(("agent", "b"), ("team", "u"), ("workflow", "x")), REQUEST) == []
    both = suspended(("team", "t"), ("all", ""))
    assert matches(both, REQUEST) == [("team", "t", "id"), ("all", "", "all")]
    assert matches(suspended(("all", "")), {}) == [("all", "", "all")]


def test_an_agent_does_not_escape_by_claiming_another_team() -> None:
    members = Members()
    members.add({("a", "payments", "acme"), ("a", "refunds", None), ("b", "payments", None)})
    claimed = {"agent": "a", "team": "harmless", "workflow": "w", "org": "other"}
    assert matches(suspended(("team", "payments")), claimed, members) == [("team", "payments", "known")]
    assert matches(suspended(("team", "refunds")), claimed, members) == [("team", "refunds", "known")]
    assert matches(suspended(("org", "acme")), claimed, members) == [("org", "acme", "known")]
    assert matches(suspended(("team", "elsewhere")), claimed, members) == []


def test_an_agent_does_not_escape_by_leaving_the_id_out() -> None:
    for scope in ("agent", "team", "workflow", "org"):
        register = suspended((scope, "x"))
        assert matches(register, {**REQUEST, scope: None}) == [(scope, "x", "unknown")]
        assert matches(register, {k: v for k, v in REQUEST.items() if k != scope}) == []  # nobody asked about it
    members = Members()
    members.add({("a", "t", None)})  # it is known where the agent belongs, and that is elsewhere
    assert matches(suspended(("team", "x")), {**REQUEST, "team": None}, members) == []


def test_one_that_is_over_covers_nobody_and_ends_at_the_very_microsecond() -> None:
    register = suspended(("agent", "a"), until_us=NOW + SECOND)
    assert register.covering(REQUEST, Members(), NOW + SECOND - 1)
    assert not register.covering(REQUEST, Members(), NOW + SECOND)
    assert not register.covering(REQUEST, Members(), NOW - 1)  # asked about a moment before it
    assert register.get("agent", "a", NOW) is not None
    assert register.get("agent", "a", NOW + SECOND) is None


def test_suspending_again_renews_reason_and_end_and_keeps_the_beginning() -> None:
    register = suspended(("agent", "a"))
    register.apply(suspend_body("agent", "a", reason="still", now_us=NOW), 9, NOW + 5)
    found = register.get("agent", "a", NOW + SECOND)
    assert found is not None
    assert (found.reason, found.since_us, found.seq) == ("still", NOW, 9)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"reason": ""}, "invalid_reason"),
        ({"reason": " padded "}, "invalid_reason"),
        ({"reason": "two\nlines"}, "invalid_reason"),
        ({"reason": "x" * 501}, "invalid_reason"),
        ({"reason": None}, "invalid_reason"),
        ({"reason": 1}, "invalid_reason"),
        ({"by": ""}, "invalid_by"),
        ({"by": True}, "invalid_by"),
        ({"until": "soon"}, "invalid_time"),
        ({"until": "2026-01-01T00:00:00"}, "invalid_time"),
        ({"until": 5}, "invalid_time"),
        ({"until": format_us(NOW)}, "invalid_time"),
    ],
)
def test_what_is_no_suspension_is_refused(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        suspend_body("agent", "a", **{"reason": "r", "now_us": NOW, **fields})
    assert caught.value.error_code == code


def test_an_unknown_scope_is_refused() -> None:
    with pytest.raises(NotFoundError) as caught:
        read_scope("Team")
    assert caught.value.error_code == "unknown_scope"


NAMES = st.sampled_from(["x", "y"])
SCOPE_IDS = st.one_of(
    st.just(("all", "")), st.tuples(st.sampled_from(["org", "team", "workflow", "agent"]), NAMES)
)
ACTIONS = st.lists(
    st.tuples(st.sampled_from(["suspend", "lift"]), SCOPE_IDS, st.integers(0, 5), st.none() | st.integers(1, 9)),
    max_size=12,
)
IDS = st.dictionaries(st.sampled_from(["agent", "team", "workflow", "org"]), st.none() | NAMES)
MEMBERS = st.sets(st.tuples(NAMES, st.none() | NAMES, st.none() | NAMES), max_size=4)


@given(ACTIONS, IDS, MEMBERS, st.integers(0, 40))
def test_it_agrees_with_a_list_read_from_its_end(
    actions: list[Any], ids: dict[str, str | None], members: set[Any], later: int
) -> None:
    register, at = Register(), NOW
    log: list[tuple[str, str, str, int, int | None]] = []
    for action, (scope, id_), wait, lasts in actions:
        at += wait
        if action == "suspend":
            until = None if lasts is None else format_us(at + lasts)
            body = suspend_body(read_scope(scope), id_, reason="r", until=until, now_us=at)
        else:
            body = lift_body(read_scope(scope), id_)
        register.apply(body, len(log) + 1, at)
        log.append((action, scope, id_, at, None if lasts is None else at + lasts))
    as_of = at + later
    known = Members()
    known.add(members)
    expected = set()
    for name in {(scope, id_) for _, scope, id_, _, _ in log}:
        action, scope, id_, _, until_us = next(e for e in reversed(log) if (e[1], e[2]) == name)
        if action == "lift" or (until_us is not None and until_us <= as_of):
            continue
        place = {"team": 1, "org": 2}.get(scope)
        belongs = {m[place] for m in members if m[0] == ids.get("agent") and m[place]} if place else set()
        if (
            scope == "all"
            or ids.get(scope) == id_
            or id_ in belongs
            or (scope in ids and ids[scope] is None and not belongs)
        ):
            expected.add(name)
    found = register.covering(ids, known, as_of)
    assert {(c.suspension.scope, c.suspension.id) for c in found} == expected
    assert [c.suspension for c in found] == sorted(
        (c.suspension for c in found), key=lambda s: (s.since_us, s.scope, s.id)
    )


def test_the_saved_form_comes_back_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "suspensions.json"
    held = (
        Suspension("team", "t", "why", NOW, None, None, 3),
        Suspension("all", "", "everything", NOW, NOW + SECOND, "oncall", 4),
    )
    saved = SavedSuspensions("journal", Position(7, "ab"), held)
    assert read_saved(path) is None
    write_saved(path, saved)
    assert read_saved(path) == saved
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert read_saved(path) is None, at
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert read_saved(path) is None
