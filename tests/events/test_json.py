"""Strict JSON: what is decoded is what was sent, or it is refused by code."""

from __future__ import annotations

import datetime
import json
import time
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from enrich.errors import BadRequestError, EnrichError, NumberNotExactError
from enrich.events import canonical_json, strict_loads

REFUSED = [
    (b"", "invalid_json"), (b"[", "invalid_json"), (b"nul", "invalid_json"), (b"[1,]", "invalid_json"),
    (b"{'a':1}", "invalid_json"), (b"01", "invalid_json"), (b"[1] x", "invalid_json"), (b"{}{}", "invalid_json"),
    (b"1\x00", "invalid_json"), (b'"a\nb"', "invalid_json"), (b'"\\ud800"', "invalid_json"),
    (b'"\\udc00\\ud800"', "invalid_json"),
    (b'{"\\ud83d":1}', "invalid_json"), (b"\xef\xbb\xbf{}", "invalid_json"), (b"// c\n1", "invalid_json"),
    ('{"a":1}'.encode("utf-16"), "invalid_utf8"), (b'"\xff"', "invalid_utf8"), (b'"\xed\xa0\x80"', "invalid_utf8"),
    (b'{"a":1,"a":1}', "duplicate_key"), (b'{"a":1,"\\u0061":1}', "duplicate_key"),
    (b'[{"b":{"a":1, "a":2}}]', "duplicate_key"),
    (b'{"":1,"":2}', "duplicate_key"),
    (b"[NaN]", "number_not_finite"), (b"-Infinity", "number_not_finite"), (b'{"a":Infinity}', "number_not_finite"),
    (b"1e400", "number_not_exact"), (b"-1e400", "number_not_exact"), (b"1e-400", "number_not_exact"),
    (b"18446744073709551616", "number_not_exact"), (b"-9223372036854775809", "number_not_exact"),
    (b"1" * 5000, "number_not_exact"), (b"0.1000000000000000055511151231257827", "number_not_exact"),
    (b"9007199254740993.0", "number_not_exact"), (b"1e99999999999999999999", "number_not_exact"),
    (b"[" * 65 + b"]" * 65, "too_deep"), (b'{"a":' * 65 + b"1" + b"}" * 65, "too_deep"),
    (b"[" * 200_000, "too_deep"), (b"[" * 1_500 + b"]" * 1_500, "too_deep"),
    (b'"' + b"x" * 300_000 + b'"', "body_too_large"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "code"), REFUSED, ids=[f"{c} {d[:20]!r}" for d, c in REFUSED])
def test_refused_by_code(data: bytes, code: str) -> None:
    with pytest.raises(EnrichError) as error:
        strict_loads(data, max_bytes=250_000)
    assert (error.value.error_code, error.value.status) == (code, 400)
    assert len(error.value.message) < 300


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (
            b" [ 1.10 , 1E2 , -0, 1e22, 18446744073709551615, -9223372036854775808 ]\n",
            [1.1, 100.0, 0, 1e22, 2**64 - 1, -(2**63)],
        ),
        (b'{"a":"\\u00e9\\ud83e\\udd16\\/"}', {"a": "é🤖/"}),
        (b'{"a":{"a":1},"b":[{"a":1},{"a":1}]}', {"a": {"a": 1}, "b": [{"a": 1}, {"a": 1}]}),
        (b"0.30000000000000004", 0.30000000000000004),
        (b"0.3000000000000000", 0.3),
        (b"[" * 64 + b"]" * 64, None),
        (b"null", None),
        (bytearray(b"true"), True),
        (memoryview(b'"x"'), "x"),
    ],
)
def test_accepted(data: Any, value: Any) -> None:
    result = strict_loads(data, max_bytes=250_000)
    if value is not None:
        assert result == value
        assert repr(result) == repr(value)


def test_an_error_says_where() -> None:
    with pytest.raises(BadRequestError) as error:
        strict_loads(b'{"a": 1,\n "b" 2}', max_bytes=100)
    assert (error.value.detail["line"], error.value.detail["column"]) == (2, 6)


def test_depth_counts_nesting_not_brackets() -> None:
    wide = orjson.dumps([[i] for i in range(1_000)])
    assert len(strict_loads(wide, max_bytes=100_000, max_depth=2)) == 1_000
    with pytest.raises(BadRequestError):
        strict_loads(wide, max_bytes=100_000, max_depth=1)


MIB = 1 << 20


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"[" + b"1e2," * (2 * MIB) + b"1]", None),
        (b"[" + b"1e2," * (2 * MIB) + b"1", "invalid_json"),
        (b"[" + b"1e2," * (2 * MIB) + b"1e999]", "number_not_exact"),
        (b"[" + b'"\\u00e9",' * MIB + b"1]", None),
        (b'{"a":1.0,"b":[' + b'{"\\u0061":1},' * (MIB // 2) + b'1],"a":2}', "duplicate_key"),
        (b"[" + b"0.3000000000000000," * (MIB // 4) + b"1]", None),
    ],
    ids=["numbers", "cut", "last number", "strings", "duplicate", "long decimals"],
)
def test_no_document_takes_long(data: bytes, code: str | None) -> None:
    started = time.process_time()
    try:
        strict_loads(data, max_bytes=10 * MIB)
        found = None
    except EnrichError as error:
        found = error.error_code
    assert found == code
    assert time.process_time() - started < 2.0  # a decoder in Python took seven


def test_what_is_refused_by_the_value_alone_is_refused_first() -> None:
    def no_more_than_two(value: Any) -> None:
        if len(value) > 2:
            raise BadRequestError("too many", code="too_many")

    with pytest.raises(BadRequestError) as error:
        strict_loads(b"[1,2,0.1000000000000000055]", max_bytes=100, check=no_more_than_two)
    assert error.value.error_code == "too_many"


_leaf = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
_json = st.recursive(
    _leaf, lambda c: st.lists(c, max_size=4) | st.dictionaries(st.text(max_size=3), c, max_size=4), max_leaves=15
)
_writers = st.sampled_from(
    [orjson.dumps, lambda v: orjson.dumps(v, option=orjson.OPT_INDENT_2), lambda v: json.dumps(v).encode(),
     lambda v: json.dumps(v, ensure_ascii=False, indent=1).encode(),
     lambda v: json.dumps(v, separators=(",", ":")).encode()]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(_json, _writers)
def test_whoever_wrote_it_it_is_read_back(value: Any, write: Any) -> None:
    try:
        data = write(value)
    except UnicodeEncodeError:
        assume(False)
    result = strict_loads(data, max_bytes=1 << 20)
    assert result == value
    assert repr(result) == repr(value) or "-0.0" in repr(value)


_numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


@settings(max_examples=500, deadline=None)
@given(_numbers)
def test_a_number_is_exact_or_refused(text: str) -> None:
    try:
        value = strict_loads(text.encode(), max_bytes=1000)
    except NumberNotExactError:
        integer = not set(text) & set(".eE")
        inexact = not -(2**63) <= int(text) < 2**64 if integer else Decimal(repr(float(text))) != Decimal(text)
        assert inexact
        return
    assert Decimal(repr(value)) == Decimal(text)
    assert Decimal(canonical_json(value).decode()) == Decimal(text)


_pieces = st.sampled_from(
    [*'{}[]:,"\\ \n', '"a"', '"b"', "1", "1.0", "1e5", "null", "true", "\\u0061", "NaN", "-", '"a":1', "\ud83d"]
)


def _dict_of_distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)


@settings(max_examples=600, deadline=None)
@given(st.lists(_pieces, max_size=12).map("".join))
def test_anything_is_decoded_losslessly_or_refused(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    try:
        value = strict_loads(data, max_bytes=1000)
    except EnrichError:
        return
    assert value == json.loads(text, object_pairs_hook=_dict_of_distinct_keys)


def test_canonical_json_sorts_by_code_point_and_keeps_number_forms() -> None:
    assert canonical_json({"é": 1, "z": 1.0, "a": {"y": [True, None], "x": -0.0}, "\U0001f916": 2, "\uffff": 3}) == (
        '{"a":{"x":-0.0,"y":[true,null]},"z":1.0,"é":1,"\uffff":3,"\U0001f916":2}'.encode()
    )


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": [{"b": float("-inf")}]}])
def test_canonical_json_never_turns_a_number_into_null(value: object) -> None:
    with pytest.raises(BadRequestError) as error:
        canonical_json(value)
    assert error.value.error_code == "number_not_finite"


@pytest.mark.parametrize("value", [{1: 2}, {"a": {3}}, "\ud800", datetime.datetime(2026, 1, 1), object()])
def test_canonical_json_refuses_what_is_no_json(value: object) -> None:
    with pytest.raises(BadRequestError) as error:
        canonical_json(value)
    assert error.value.error_code == "invalid_json"


def test_canonical_json_refuses_integers_beyond_64_bits() -> None:
    with pytest.raises(NumberNotExactError):
        canonical_json({"a": 2**64})
