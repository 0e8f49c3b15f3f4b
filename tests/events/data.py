"""A valid event, a parser, a moment, and strategies for events that are nearly valid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from enrich.events import EventParser, parse_rfc3339_us
from enrich.events.model import COLUMNS, INT64_MAX, INT_COLUMNS, STRING_COLUMNS

NOW_US = parse_rfc3339_us("2026-11-23T12:00:00Z")
DAY_US = 86_400_000_000
RETENTION_US = 90 * DAY_US
HASH_KEY = b"0123456789abcdef0123456789abcdef"

EVENT: dict[str, Any] = {
    "source": "temporal",
    "event_id": "run-1",
    "occurred_at": "2026-11-23T10:00:00.5+01:00",
    "kind": "execution",
    "outcome": "failed",
    "agent_id": "payments-refunder-03",
    "team_id": "payments",
    "duration_ms": 1200,
    "attributes": {"model": "m", "retries": 2, "final": True},
}


def parser(**changes: Any) -> EventParser:
    arguments: dict[str, Any] = {"hash_key": HASH_KEY, "retention_us": RETENTION_US, "attribute_keys": None}
    return EventParser(**(arguments | changes))


def event(**changes: Any) -> dict[str, Any]:
    return EVENT | changes


_nasty = st.sampled_from(list(' \t\n"\\/\x00\x1f\x7f\x80\x85\x9f\xa0\u1680\u2003\u2028\u205f\u3000\ud800\udfffaé支🤖'))
texts = st.one_of(
    st.text(_nasty, max_size=4),
    st.text(st.one_of(_nasty, st.characters()), max_size=8),
    st.integers(198, 202).map("x".__mul__),
    st.sampled_from(["execution", "authority", "failed", "allowed", "HIGH", "a b", "支払い-返金-03", "enrich"]),
)
integers = st.one_of(
    st.integers(-2, 2),
    st.integers(INT64_MAX - 1, INT64_MAX + 1),
    st.integers(2**64 - 1, 2**64),
    st.integers(),
    st.booleans(),
)
_odd = st.one_of(
    st.none(), st.booleans(), integers, st.floats(), texts, st.binary(max_size=3),
    st.lists(st.integers(), max_size=2), st.just({}), st.just(timedelta(1)), st.just(10**5000),
)  # fmt: skip
times = st.one_of(
    st.sampled_from(
        [
            "2026-11-23T12:01:00Z", "2026-11-23T12:01:00.000001Z", "2026-11-23T11:59:59.123456Z",
            "2026-08-25T12:00:00Z", "2026-08-25T12:00:00.000001Z", "1999-12-31T23:59:59.999999Z",
            "2000-01-01T00:00:00Z", "2026-11-23t10:00:00z", "2026-11-23 10:00:00Z",
            "2026-11-23T10:00:00", "2026-11-23T10:00Z", "2026-11-23",
            "2026-02-30T00:00:00.000000Z", "2026-11-23T10:00:60Z", "2026-11-23T24:00:00Z", "2026-11-23T10:00:00,5Z",
            "2026-11-23T10:00:00.1234567Z", "2026-11-23T10:00:00.1234560000Z", "2026-11-23T10:00:00.Z",
            "2026-11-23T10:00:00+24:00", "2026-11-23T10:00:00-00:00", "2026-11-23T10:00:00+0100",
            "2026-W48-1T10:00:00Z", "0001-01-01T00:00:00+23:59", "９026-11-23T10:00:00Z",
            "2026-11-23T10:00:00Z\n", " 2026-11-23T10:00:00Z", "",
        ]
    ),
    st.datetimes(datetime(2026, 8, 20), datetime(2026, 11, 25)).map(lambda d: d.isoformat() + "Z"),
    st.datetimes(datetime(2026, 8, 20), datetime(2026, 11, 25), timezones=st.just(timezone(timedelta(hours=-5)))),
    st.datetimes(datetime(2026, 10, 20), datetime(2026, 11, 25)),
    st.datetimes(datetime(2026, 10, 20), datetime(2026, 11, 23), timezones=st.just(UTC)).map(
        lambda d: d.isoformat(timespec="microseconds").replace("+00:00", "Z")
    ),
)  # fmt: skip
attributes = st.one_of(
    st.dictionaries(texts, st.one_of(texts, integers, st.booleans()), max_size=3),
    st.dictionaries(st.text("abc", min_size=1, max_size=2), _odd, max_size=2),
    st.integers(63, 66).map(lambda n: {f"k{i}": i for i in range(n)}),
    st.integers(8_170, 8_190).map(lambda n: {"k": "x" * n}),
    st.integers(4_080, 4_096).map(lambda n: {"k": "\\" * n}),
    st.integers(2_720, 2_735).map(lambda n: {"k": "支" * n}),
    _odd,
)
_names = st.one_of(st.sampled_from([*COLUMNS]), st.text(max_size=3), st.just("seq"))


@st.composite
def nearly_events(draw: st.DrawFn) -> Any:
    """A valid event with up to three fields changed, removed or added; now and then no object at all."""
    if draw(st.integers(0, 30)) == 0:
        return draw(_odd)
    changed: dict[Any, Any] = dict(EVENT)
    for _ in range(draw(st.integers(0, 3))):
        name = draw(_names)
        kind = draw(st.integers(0, 5))
        if kind == 0:
            changed.pop(name, None)
        elif kind == 1:
            changed[name] = draw(_odd)
        elif name == "occurred_at":
            changed[name] = draw(times)
        elif name == "attributes":
            changed[name] = draw(attributes)
        elif name in STRING_COLUMNS:
            changed[name] = draw(texts)
        elif name in INT_COLUMNS:
            changed[name] = draw(integers)
        else:
            changed[name] = draw(_odd)
    return changed
