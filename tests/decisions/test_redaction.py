"""Values that stand in the journal as hashes only."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.context import canonical_json
from enrich.decisions.redaction import Redaction

KEY = b"k" * 32
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
SECRET = "correct horse battery staple"


def places(at: Any, path: tuple[str, ...]) -> list[Any]:
    """The values at a path, arrays gone through."""
    if not path:
        return [at]
    if isinstance(at, list):
        return [found for one in at for found in places(one, path)]
    return places(at[path[0]], path[1:]) if isinstance(at, dict) and path[0] in at else []


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=3), st.lists(NAMES, min_size=1, max_size=3))
def test_what_lies_at_the_path_goes_and_all_else_stays(document: dict[str, Any], path: list[str]) -> None:
    redaction, before = Redaction([path], KEY), copy.deepcopy(document)
    done, said = redaction.redact(document)
    assert document == before
    values = places(document, tuple(path))
    assert (said is None) is (not values)
    if said is None:
        assert done == document
        return
    assert said["paths"] == [".".join(path)]
    salt = bytes.fromhex(said["salt"])
    hashes = places(done, tuple(path))
    assert hashes == [{"redacted": redaction.hash_of(value, salt)} for value in values]
    for one, value in zip(hashes, values, strict=True):  # put back, it is the same document again
        one.clear()
        one["back"] = value

    def restored(at: Any) -> Any:
        if isinstance(at, dict):
            return restored(at["back"]) if at.keys() == {"back"} else {k: restored(v) for k, v in at.items()}
        return [restored(one) for one in at] if isinstance(at, list) else at

    assert canonical_json(restored(done)) == canonical_json(document)


def test_equal_values_of_two_records_differ_and_another_secret_gives_another_hash() -> None:
    document = {"customer": {"email": SECRET, "id": 7}}
    redaction = Redaction([("customer", "email")], KEY)
    first, said = redaction.redact(document)
    second, _ = redaction.redact(document)
    assert first["customer"]["id"] == 7
    assert first != second
    assert SECRET not in str((first, second, said))
    assert said is not None
    salt = bytes.fromhex(said["salt"])
    assert Redaction([("customer", "email")], b"x" * 32).hash_of(SECRET, salt) != redaction.hash_of(SECRET, salt)


def test_nothing_there_is_nothing_said() -> None:
    document = {"customer": "just a text", "list": [1]}
    assert Redaction([("customer", "email"), ("list", "a")], KEY).redact(document) == (document, None)
    assert not Redaction([], KEY)


@pytest.mark.parametrize(
    "items",
    [
        [{"pin": SECRET}],
        [{"pin": 1}, {"pin": SECRET}],
        {"0": {"pin": SECRET}},
        [[{"pin": SECRET}]],
        [{"0": {"pin": SECRET}}],
    ],
)
def test_an_index_means_every_element(items: Any) -> None:
    done, said = Redaction([("items", "0", "pin")], KEY).redact({"items": items})
    assert SECRET not in canonical_json(done).decode()
    assert said is not None
    assert said["paths"] == ["items.0.pin"]


def test_an_index_at_the_end_leaves_no_element() -> None:
    done, _ = Redaction([("items", "1")], KEY).redact({"items": [SECRET, {"a": [SECRET]}]})
    assert [set(one) for one in done["items"]] == [{"redacted"}] * 2
