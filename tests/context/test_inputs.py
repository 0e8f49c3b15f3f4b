"""Reading ids from an input, refusing forged history, and putting history in."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.context import MAX_APPROVERS, InputPaths, check_id
from enrich.errors import BadRequestError, HistoryForgedError, InvalidEntityIdError

PATHS = InputPaths.of(
    {"agent": "identity.actor_id", "team": "instance.owning_team_id"}, "approval.candidate_ids", "history"
)
STRICT = InputPaths.of({"agent": "identity.actor_id"}, "approval.candidate_ids", "context.attributes.history")


def test_ids_are_read_at_their_paths() -> None:
    document = {"identity": {"actor_id": "a"}, "instance": {"owning_team_id": "t"}}
    assert PATHS.entity_ids(document) == {"agent": "a", "team": "t"}


@pytest.mark.parametrize("document", [{}, {"identity": None}, {"identity": {}}, {"identity": {"actor_id": None}}])
def test_a_missing_or_null_id_is_none(document: dict[str, Any]) -> None:
    assert PATHS.entity_ids(document)["agent"] is None


@pytest.mark.parametrize(
    "value", ["", " a", "a ", "a" * 201, "a\x00b", "a\nb", "\x85a", "\ud800", 1, True, 1.5, [], {}, ["a"]]
)
def test_what_cannot_be_an_id_is_refused_with_its_path(value: object) -> None:
    with pytest.raises(InvalidEntityIdError) as caught:
        PATHS.entity_ids({"identity": {"actor_id": value}})
    assert caught.value.error_code == "invalid_entity_id"
    assert caught.value.status == 400
    assert caught.value.detail["field"] == "identity.actor_id"


@pytest.mark.parametrize("value", ["a", "a" * 200, "агент", "équipe-réfund-🤖", "a b", "支払い"])
def test_any_text_can_be_an_id(value: str) -> None:
    assert check_id(value, "agent", "x") == value


@pytest.mark.parametrize("between", ["text", 1, True, []])
def test_something_that_is_no_object_on_the_way_is_refused(between: object) -> None:
    with pytest.raises(InvalidEntityIdError):
        PATHS.entity_ids({"identity": between})


def test_approvers_are_read_once_each_in_order() -> None:
    assert PATHS.approver_ids({"approval": {"candidate_ids": ["b", "a", "b"]}}) == ["b", "a"]
    assert PATHS.approver_ids({}) == []
    assert PATHS.approver_ids({"approval": {"candidate_ids": None}}) == []


@pytest.mark.parametrize("value", ["a", {"a": 1}, [1], ["a", None], [""], ["x"] * (MAX_APPROVERS + 1)])
def test_bad_approvers_are_refused(value: object) -> None:
    with pytest.raises(InvalidEntityIdError):
        PATHS.approver_ids({"approval": {"candidate_ids": value}})


@pytest.mark.parametrize("value", [None, {}, {"agent": {}}, 1, ""])
def test_a_callers_history_is_refused_whatever_it_is(value: object) -> None:
    with pytest.raises(HistoryForgedError) as caught:
        PATHS.refuse_forged({"history": value})
    assert caught.value.error_code == "history_forged"
    with pytest.raises(HistoryForgedError):
        STRICT.refuse_forged({"context": {"attributes": {"history": value}}})
    with pytest.raises(HistoryForgedError):
        STRICT.refuse_forged({"history": value})


@pytest.mark.parametrize(
    "document",
    [{}, {"context": None}, {"context": {"attributes": {}}}, {"context": {"history": 1}}, {"a": "history"}],
)
def test_other_inputs_are_not_taken_for_forged(document: dict[str, Any]) -> None:
    STRICT.refuse_forged(document)


def test_history_is_put_without_changing_the_callers_objects() -> None:
    document = {"context": {"domain": "x", "attributes": {"amount": 1}}, "identity": {"actor_id": "a"}}
    before = copy.deepcopy(document)
    enriched = STRICT.put(document, {"seq": 1})
    assert document == before
    assert enriched["context"]["attributes"] == {"amount": 1, "history": {"seq": 1}}
    assert enriched["context"]["domain"] == "x"
    assert enriched["identity"] is document["identity"]


def test_missing_parents_are_created() -> None:
    assert STRICT.put({}, {"seq": 1}) == {"context": {"attributes": {"history": {"seq": 1}}}}
    assert STRICT.put({"context": None}, {"seq": 1}) == {"context": {"attributes": {"history": {"seq": 1}}}}


@pytest.mark.parametrize("between", ["text", 1, []])
def test_history_is_not_put_under_something_else(between: object) -> None:
    with pytest.raises(BadRequestError):
        STRICT.put({"context": between}, {})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["identity", "actor_id", "x"]), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["identity", "instance", "approval"]), _JSON))
def test_any_input_gives_ids_or_a_refusal(document: dict[str, Any]) -> None:
    before = copy.deepcopy(document)
    try:
        ids = PATHS.entity_ids(document)
        PATHS.approver_ids(document)
    except InvalidEntityIdError:
        pass
    else:
        assert all(v is None or isinstance(v, str) for v in ids.values())
    assert document == before
