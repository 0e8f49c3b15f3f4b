"""Header comments, parameters and column comments."""

from __future__ import annotations

import pytest

from enrich.signals import Catalog, DefinitionErrors, load_catalog

BODY = "SELECT count(*) AS n FROM events\n"


def load(text: str) -> Catalog:
    return load_catalog({"set": text})


def problem(text: str) -> str:
    with pytest.raises(DefinitionErrors) as caught:
        load(text)
    return caught.value.pretty()


def test_a_header_says_for_whom_over_which_windows_and_by_whom() -> None:
    (one,) = load(
        "-- entity: team\n-- windows: 7d, 90s, 5m, 24h\n-- owner: risk\n-- description: What it is:\n"
        "--     and a second line.\n-- a remark without a key\n" + BODY
    ).sets
    assert (one.entity, one.header.owner) == ("team", "risk")
    assert [(w.name, w.us, w.key) for w in one.header.windows] == [
        ("90s", 90_000_000, "last_90s"),
        ("5m", 300_000_000, "last_5m"),
        ("24h", 86_400_000_000, "last_24h"),
        ("7d", 604_800_000_000, "last_7d"),
    ]
    assert one.header.description == "What it is: and a second line."


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("-- windows: 1h\n", "names no entity"),
        ("-- entity: agnet\n-- windows: 1h\n", "unknown entity `agnet`"),
        ("-- entity: agent\n", "names no windows"),
        ("-- entity: agent\n-- windows: 1w\n", "a window is `1w`"),
        ("-- entity: agent\n-- windows: 0h\n", "a window is `0h`"),
        ("-- entity: agent\n-- windows: 1d, 24h\n", "as long as `1d`"),
        ("-- entity: agent\n-- windows: 1h\n-- ownr: me\n", "did you mean `owner`?"),
        ("-- entity: agent\n-- windows: 1h\n-- entity: team\n", "stands twice"),
        ("-- entity: agent\n-- windows: 1h\n-- param x: 1 + 1\n", "has the value `1 + 1`"),
        ("-- entity: agent\n-- windows: 1h\n-- param x: 1\n", "parameter `x` is not used"),
        ("-- entity: agent\n-- windows: 1h\n-- param kind: 1\n", "a column of events"),
        ("-- entity: agent\n-- windows: 1h\n-- param X: 1\n", "a parameter's name is `X`"),
        ("-- entity: agent\n-- windows: 1h\n-- param n: 1\n", "`n` is"),
    ],
)
def test_a_header_is_refused(header: str, shown: str) -> None:
    assert shown in problem(header + BODY)


def test_a_parameter_is_a_constant_of_the_set() -> None:
    text = (
        "-- entity: agent\n-- windows: 1h\n-- param tolerated: 0.05e0\n-- param least: -2\n-- param word: 'it''s'\n"
        "SELECT count(*) AS n, n > tolerated AS a, n - least AS b, -- tolerated stands in a comment too\n"
        "  count(*) FILTER (WHERE action = word AND action <> 'least') AS c\nFROM events\n"
    )
    (one,) = load(text).sets
    assert "n > 0.05e0 AS a, n - (-2) AS b, -- tolerated stands" in one.sql
    assert "action = 'it''s' AND action <> 'least'" in one.sql
    assert {p.name: p.literal for p in one.header.params.values()} == {
        "tolerated": "0.05e0",
        "least": "-2",
        "word": "'it''s'",
    }


def test_a_place_behind_a_parameter_is_that_of_the_file() -> None:
    text = (
        "-- entity: agent\n-- windows: 1h\n-- param p: 123456789\n"
        "SELECT count(*) AS n, n > p AS a, mode(outcome) AS b\nFROM events\n"
    )
    assert text.split("\n")[3].index("mode") + 1 == 35
    assert "set.sql:4:35: unsupported" in problem(text)


def test_a_named_argument_and_a_function_are_no_parameters() -> None:
    (one,) = load(
        "-- entity: agent\n-- windows: 1h\n-- param z: 3.0\nSELECT wilson_lower(1, count(*), z := z) AS a FROM events\n"
    ).sets
    assert "z := 3.0" in one.sql
    (one,) = load(
        "-- entity: agent\n-- windows: 1h\n-- param z: 3.0\nSELECT wilson_lower(1, count(*), z => z) AS a FROM events\n"
    ).sets
    assert "z => 3.0" in one.sql


def test_a_comment_belongs_to_the_column_before_it() -> None:
    (one,) = load(
        "-- entity: agent\n-- windows: 1h\nSELECT -- the list\n"
        "    count(*) AS a, -- first\n"
        "    count(*) FILTER (WHERE action = '-- no comment') AS b -- second,\n"
        "                                -- continued\n"
        "    , max(duration_ms) IS DISTINCT FROM 3\n       AS c -- third\nFROM events -- not this\n-- nor this\n"
    ).sets
    assert [(s.name, s.comment) for s in one.signals] == [("a", "first"), ("b", "second, continued"), ("c", "third")]


def test_the_version_is_that_of_the_meaning() -> None:
    head = "-- entity: agent\n-- windows: 1h\n-- param p: 3\n"

    def version(text: str) -> str:
        return load(text).sets[0].version

    first = version(head + "SELECT count(*) > p AS n FROM events")
    assert version(head + "select COUNT( * ) > p as n -- a comment\n  from events;\n") == first
    assert version(head.replace("3", "4") + "SELECT count(*) > p AS n FROM events") != first
    assert version(head.replace("1h", "2h") + "SELECT count(*) > p AS n FROM events") != first
    assert version(head + "SELECT count(*) >= p AS n FROM events") != first
    assert version(head + "SELECT count(*) > p AND 'A' = 'a' AS n FROM events") != version(
        head + "SELECT count(*) > p AND 'a' = 'a' AS n FROM events"
    )


def test_a_carriage_return_ends_a_comment_as_it_does_in_duckdb() -> None:
    def one(code: str) -> str:
        return (
            load(
                f"-- entity: agent\n-- windows: 1h\n-- param p: 5\nSELECT count(*) -- all{code}\n + p AS n FROM events"
            )
            .sets[0]
            .sql
        )

    assert one("\r + p").endswith("+ 5\n + 5 AS n FROM events")
    assert load(f"-- entity: agent\r-- windows: 1h\r{BODY}").sets[0].entity == "agent"
    plain, more = (
        f"-- entity: agent\n-- windows: 1h\nSELECT count(*) -- all\r{code} AS n FROM events" for code in ("", "+ 1")
    )
    assert load(plain).sets[0].version != load(more).sets[0].version
