"""What is accepted, what is refused and how it is told, and that speed changes no answer."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.errors import EventError
from enrich.events import REFUSAL_CODES, Unreadable, canonical_event, parse_rfc3339_us
from enrich.events._check import Bounds, check_event
from enrich.events.model import COLUMNS, INT_COLUMNS, STRING_COLUMNS

from .data import EVENT, NOW_US, event, nearly_events, parser

CASES = json.loads((Path(__file__).parent / "refusals.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=[f"{c['code']}: {c['reason']}" for c in CASES])
def test_refused_with_code_and_field(case: dict[str, Any]) -> None:
    parsed = parser().parse([event(**case["change"])], NOW_US)
    assert [(r.index, r.code, r.field) for r in parsed.rejected] == [(0, case["code"], case["field"])]
    assert parsed.batch.n == 0
    message = parsed.rejected[0].message
    assert message[0] == "`" or message[0].islower()
    assert not message.endswith(".")


def test_every_code_of_the_parser_has_a_golden_case() -> None:
    of_lines = {"invalid_json", "invalid_utf8", "duplicate_key", "too_deep", "number_not_finite", "number_not_exact"}
    assert {c["code"] for c in CASES} | of_lines | {"line_too_long", "not_an_object"} == set(REFUSAL_CODES)


def test_an_accepted_event_becomes_columns() -> None:
    batch = parser().parse([EVENT], NOW_US).batch
    assert tuple(batch.columns) == COLUMNS
    row = dict(next(batch.rows()))
    assert row == EVENT | {"occurred_at": parse_rfc3339_us("2026-11-23T09:00:00.5Z")}
    assert batch.canonical == [
        b'{"agent_id":"payments-refunder-03","attributes":{"final":true,"model":"m","retries":2},"duration_ms":1200,'
        b'"event_id":"run-1","kind":"execution","occurred_at":"2026-11-23T09:00:00.500000Z","outcome":"failed",'
        b'"source":"temporal","team_id":"payments"}'
    ]
    assert [len(h) for h in batch.keys + batch.contents] == [16, 16]


def test_nothing_of_a_batch_is_shared_with_the_caller() -> None:
    attributes = {"model": "m"}
    batch = parser().parse([event(attributes=attributes)], NOW_US).batch
    attributes["model"] = "other"
    assert batch.columns["attributes"] == [{"model": "m"}]


@pytest.mark.parametrize("place", [0, 1, 511, 512, 513, 1023, 1024, 1299])
def test_good_neighbours_of_a_bad_event_are_kept(place: int) -> None:
    events = [event(event_id=f"e{i}") for i in range(1300)]
    events[place] = event(agent_id="a\x7f")
    parsed = parser().parse(events, NOW_US)
    expected = [i for i in range(1300) if i != place]
    assert parsed.indices == expected
    assert parsed.batch.columns["event_id"] == [f"e{i}" for i in expected]
    assert [(r.index, r.code, r.value) for r in parsed.rejected] == [(place, "invalid_id", "a\\x7f")]


@pytest.mark.parametrize("thing", [None, 1, "event", [EVENT], b"{}", object()])
def test_what_is_no_object_is_one_refused_event(thing: object) -> None:
    parsed = parser().parse([EVENT, thing], NOW_US)
    assert [(r.index, r.code, r.field) for r in parsed.rejected] == [(1, "not_an_object", None)]
    assert parsed.indices == [0]


def test_an_unreadable_line_is_refused_by_its_own_code() -> None:
    parsed = parser().parse([Unreadable("duplicate_key", "`a` stands twice"), EVENT], NOW_US)
    assert [(r.index, r.code, r.message) for r in parsed.rejected] == [(0, "duplicate_key", "`a` stands twice")]


@pytest.mark.parametrize("when", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
@pytest.mark.parametrize("good", [1, 700])
def test_a_time_outside_the_years_1_to_9999_in_utc_is_one_refused_event(when: str, good: int) -> None:
    events = [event(event_id=f"e{i}") for i in range(good)]
    for odd in (when, datetime.fromisoformat(when)):
        parsed = parser().parse([*events, event(occurred_at=odd)], NOW_US)
        assert parsed.indices == list(range(good))
        assert [(r.index, r.code, r.field) for r in parsed.rejected] == [(good, "invalid_time", "occurred_at")]
    table = pa.table(
        {name: [e[name] for e in [*events, event(occurred_at=when)]] for name in EVENT if name != "attributes"}
    )
    framed = parser().parse_frame(table, NOW_US)
    assert framed.indices == list(range(good))
    assert [(r.index, r.code) for r in framed.rejected] == [(good, "invalid_time")]


def test_no_events_make_an_empty_batch() -> None:
    parsed = parser().parse([], NOW_US)
    assert (parsed.batch.n, parsed.indices, parsed.rejected) == (0, [], [])
    assert all(column == [] for column in parsed.batch.columns.values())


def test_mappings_enums_and_aware_datetimes_of_python_callers_are_accepted() -> None:
    class Kind(StrEnum):
        STEP = "step"

    class Name(str):
        pass

    when = datetime.fromisoformat("2026-11-23T10:00:00.5+01:00")
    given_so = MappingProxyType(event(kind=Kind.STEP, occurred_at=when, agent_id=Name("a")))
    parsed = parser().parse([given_so], NOW_US)
    plain = parser().parse([event(kind="step", agent_id="a")], NOW_US)
    assert parsed.rejected == []
    assert parsed.batch == plain.batch


def test_absent_null_and_empty_attributes_are_the_same_content() -> None:
    bare = {k: v for k, v in EVENT.items() if k != "attributes"}
    batch = parser().parse(
        [bare, event(attributes=None), event(attributes={}), event(action=None, attributes={})], NOW_US
    )
    assert len(set(batch.batch.contents)) == 1
    assert batch.batch.columns["attributes"] == [None] * 4


def test_the_same_moment_in_another_zone_is_the_same_content() -> None:
    times = ["2026-11-23T09:00:00.5Z", "2026-11-23T10:00:00.500000+01:00", "2026-11-23t09:00:00.5000000z"]
    batch = parser().parse([event(occurred_at=t) for t in times], NOW_US).batch
    assert len(set(batch.contents)) == 1


def test_contents_differ_when_any_field_differs() -> None:
    events = [EVENT, *(event(**{c: "other"}) for c in STRING_COLUMNS if c not in ("kind", "outcome", "materiality"))]
    events += [event(**{c: 5}) for c in INT_COLUMNS]
    events += [event(kind="step"), event(outcome="succeeded"), event(materiality="LOW"), event(attributes={"a": 1})]
    events += [event(attributes={"a": True}), event(attributes={"a": "1"}), event(occurred_at="2026-11-23T09:00:00Z")]
    batch = parser().parse(events, NOW_US).batch
    assert len(set(batch.contents)) == len(events)


def test_keys_tell_source_and_event_id_apart() -> None:
    events = [event(source="ab", event_id="c"), event(source="a", event_id="bc"), event(source="a", event_id="bc")]
    keys = parser().parse(events, NOW_US).batch.keys
    assert keys[0] != keys[1] == keys[2]
    assert parser(hash_key=b"another key").parse(events, NOW_US).batch.keys[0] != keys[0]


def test_attributes_that_nobody_reads_are_dropped_counted_and_still_hashed() -> None:
    whole = parser().parse([EVENT, event(attributes={"x": 1}), event(attributes=None)], NOW_US)
    kept = parser(attribute_keys=frozenset({"model"})).parse(
        [EVENT, event(attributes={"x": 1}), event(attributes=None)], NOW_US
    )
    assert kept.batch.columns["attributes"] == [{"model": "m"}, None, None]
    assert kept.dropped_attributes == 3
    assert kept.batch.contents == whole.batch.contents
    assert kept.batch.canonical == [canonical_event(row) for row in kept.batch.rows()]


def test_a_long_value_is_shortened_in_the_refusal() -> None:
    rejection = parser().parse([event(agent_id="x" * 1_000_000)], NOW_US).rejected[0]
    assert rejection.value is not None
    assert len(rejection.value) < 100
    assert len(rejection.message) < 200


def test_objects_that_hold_themselves_are_refused_not_followed() -> None:
    ring: list[object] = []
    ring.append(ring)
    looped: dict[str, object] = {}
    looped["attributes"] = looped
    odd = [event(occurred_at=ring), event(attributes={"a": ring}), event(agent_id=looped), looped]
    codes = [r.code for r in parser().parse([*odd, event(attributes=looped)], NOW_US).rejected]
    assert codes == ["wrong_type", "invalid_attributes", "wrong_type", "missing_field", "invalid_attributes"]


def test_ids_compare_by_code_point() -> None:
    keys = parser().parse([event(event_id="e\u0301"), event(event_id="\u00e9")], NOW_US).batch.keys
    assert keys[0] != keys[1]


def test_every_space_and_control_character_of_unicode_is_judged_alike_in_bulk() -> None:
    odd = [
        chr(i) for i in range(0x110000) if chr(i).isspace() or unicodedata.category(chr(i)) in ("Cc", "Zs", "Zl", "Zp")
    ]
    assert len(odd) > 80
    ids = [text for c in odd for text in (c, f"{c}a", f"a{c}", f"a{c}a", f"é{c}", f"{c}支")]
    subject = parser()
    for action in ("a", "支"):
        events = [event(event_id=i, action=action) for i in ids]
        parsed = subject.parse(events, NOW_US)
        accepted = [i for i, e in enumerate(events) if not isinstance(_judged(e, subject.bounds(NOW_US)), EventError)]
        assert parsed.indices == accepted
        assert [subject.parse([e], NOW_US).batch.n for e in events] == [
            int(i in set(accepted)) for i in range(len(events))
        ]


def _reference_canonical(row: dict[str, Any]) -> bytes:
    """Canonical form by the standard library."""
    us = row["occurred_at"]
    iso = datetime.fromtimestamp(us // 1_000_000, tz=UTC)
    plain = row | {"occurred_at": f"{iso:%Y-%m-%dT%H:%M:%S}.{us % 1_000_000:06d}Z"}
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _judged(given_event: object, bounds: Bounds) -> dict[str, Any] | EventError:
    try:
        return check_event(given_event, bounds)
    except EventError as e:
        return e


@settings(max_examples=600, deadline=None)
@given(st.lists(nearly_events(), min_size=1, max_size=4))
def test_any_event_is_accepted_canonically_or_refused_by_a_code(events: list[Any]) -> None:
    subject = parser()
    parsed = subject.parse(events, NOW_US)
    assert sorted(parsed.indices + [r.index for r in parsed.rejected]) == list(range(len(events)))
    refused = {r.index: r for r in parsed.rejected}
    rows = dict(zip(parsed.indices, parsed.batch.rows(), strict=True))
    assert parsed.batch.canonical is not None
    canonical = dict(zip(parsed.indices, parsed.batch.canonical, strict=True))
    for i, given_event in enumerate(events):
        row = _judged(given_event, subject.bounds(NOW_US))
        if isinstance(row, EventError):
            refusal = (row.error_code, row.detail.get("field"), row.message)
            assert (refused[i].code, refused[i].field, refused[i].message) == refusal
            assert refused[i].code in REFUSAL_CODES
            (refused[i].message + str(refused[i].value)).encode()
            continue
        assert rows[i] == row
        assert canonical[i] == canonical_event(row) == _reference_canonical(row)
        again = subject.parse([json.loads(canonical[i])], NOW_US)
        assert again.batch.canonical == [canonical[i]]


@settings(max_examples=60, deadline=None)
@given(st.lists(nearly_events(), min_size=48, max_size=60), st.integers(0, 600))
def test_an_event_s_answer_does_not_depend_on_its_neighbours(events: list[Any], ahead: int) -> None:
    subject = parser(attribute_keys=frozenset({"model", "k"}))
    together = subject.parse([EVENT] * ahead + events, NOW_US)
    alone = [subject.parse([e], NOW_US) for e in events]
    assert together.indices[ahead:] == [ahead + i for i, p in enumerate(alone) if p.indices]
    assert together.batch.contents[ahead:] == [c for p in alone for c in p.batch.contents]
    assert together.batch.canonical is not None
    assert together.batch.canonical[ahead:] == [c for p in alone for c in p.batch.canonical or ()]
    assert [(r.index - ahead, r.code) for r in together.rejected] == [
        (i, p.rejected[0].code) for i, p in enumerate(alone) if p.rejected
    ]
