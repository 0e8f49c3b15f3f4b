"""What the embedded interpreter answers otherwise than OPA is refused when policies load.

What the refusals tell to write instead is answered as OPA answers it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from enrich.decisions import Defined, EmbeddedEvaluator, Undefined, policy_set
from enrich.errors import PolicyError

HEAD = "package p\n\nimport rego.v1\n\n"

#: a call, and what OPA 1.22 answers where the interpreter answers something else
REFUSED = [
    ("max([9, 10])", 10),
    ("min({9, 10})", 9),
    ("abs(-0.0583333333)", 0.0583333333),
    ("sort([9, 10])", [9, 10]),
    ("sort(input.xs)", [9, 10]),
    ('json.remove({"a": 1}, ["/a"])', {}),
    ('json.filter({"a": 1}, ["/a"])', {"a": 1}),
    ('object.union({"a": {"b": 1}}, {"a": {"c": 2}})', {"a": {"b": 1, "c": 2}}),
    ('object.union_n([{"a": {"b": 1}}, {"a": {"c": 2}}])', {"a": {"b": 1, "c": 2}}),
    ("format_int(-255, 2)", "-11111111"),
    ('time.parse_rfc3339_ns("1970-01-01T00:00:00Z")', 0),
    ('time.parse_ns("2006-01-02", "1970-01-01 and more")', None),
    ('uri.is_valid("http://user name@example.com/")', False),
    ('uri.parse("http://a<b@example.com/")', None),
    ('urlquery.decode("a+b")', "a b"),
    ('urlquery.encode_object({"b": "1", "a": "x y"})', "a=x+y&b=1"),
    ("time.format(0)", "1970-01-01T00:00:00Z"),
    ("time.diff(1700000000000000000, 1600000000000000000)", [3, 2, 1, 9, 46, 40]),
    ('hex.encode("é")', "c3a9"),
    ('urlquery.encode("a b")', "a+b"),
    ('yaml.marshal({"a": ""})', 'a: ""\n'),
    ('rand.intn("a", 5)', None),
    ('sprintf("%d", [5000000000])', "5000000000"),
    ('sprintf("%q", ["a"])', '"a"'),
    ('sprintf("%5s|", ["a"])', "    a|"),
    ('sprintf("%[1]v", ["a"])', "a"),
    ('regex.match("(?i)PROD", "prod")', True),
    ('regex.match(`\\pL`, "a")', True),
    ('regex.match("^.é$", "aé")', True),
    ('regex.match(`(a)\\1`, "aa")', None),
    ('regex.replace("a", "a**", "b")', None),
    ('regex.split("(?=a)", "ba")', None),
]


def prepare(rule: str) -> Any:
    return EmbeddedEvaluator().prepare(policy_set({"p.rego": HEAD + rule}))


@pytest.mark.parametrize(("call", "theirs"), REFUSED)
def test_a_built_in_that_answers_otherwise_is_refused(call: str, theirs: Any) -> None:
    with pytest.raises(PolicyError) as caught:
        prepare(f"x := {call}")
    assert caught.value.error_code == "refused_function"
    assert f"`{call.partition('(')[0]}` is refused: " in caught.value.message
    assert (caught.value.detail["line"], caught.value.detail["column"]) == (5, 6)


def test_a_constant_is_found_behind_a_variable() -> None:
    with pytest.raises(PolicyError) as caught:
        prepare('deny if {\n\tpattern := "(?i)prod"\n\tregex.match(pattern, input.env)\n}')
    assert (caught.value.error_code, caught.value.detail["line"]) == ("refused_function", 7)


@pytest.mark.parametrize(
    ("call", "theirs"),
    [
        (r'regex.match(`^[a-z]+(?:-\d{1,3})?\.(x|y)$`, "ab-12.x")', True),
        (r'regex.match("^\\w+@\\[a\\]\\bx?", "me@[a]x")', True),
        ("sort({x | some x in [10, 9, 9.5]})", [9, 9.5, 10]),
        ('sort({"b"} | {"a"})', ["a", "b"]),
        ("[x | some x in [9, 10]; every y in [9, 10] { y <= x }]", [10]),
        ("[x | some x in [9, 10]; every y in [9, 10] { y >= x }]", [9]),
        ('object.remove({"a": 1}, ["a"])', {}),
        ('sprintf("%v of %s, %.2f, %f %%", [5000000000, "a", 0.125, 1.5])', "5000000000 of a, 0.12, 1.500000 %"),
    ],
)
def test_what_is_said_instead_is_answered_as_opa_answers_it(call: str, theirs: Any) -> None:
    prepared = prepare(f"x := {call}")
    assert prepared.evaluate(("p", "x"), b"{}") == Defined(theirs)
    prepared.close()


@pytest.mark.parametrize("text", ["caf\\u00e9", "a\\/b", "\\\\\\u0041", "\\u000B"])
@pytest.mark.parametrize("rule", ['deny if input.s == "%s"', 'deny if input["%s"]', 'deny if {"%s": 1}[input.s]'])
def test_a_text_that_is_escaped_otherwise_than_the_input_is_refused(text: str, rule: str) -> None:
    with pytest.raises(PolicyError) as caught:
        prepare(rule % text)
    assert caught.value.error_code == "refused_string"
    assert caught.value.detail["line"] == 5


@pytest.mark.parametrize("text", ["café", "a/b", "\\\\u00e9", '\\"', "\\t\\n", "\\u000b\\u0000", "\\\\/"])
def test_a_text_that_is_escaped_like_the_input_equals_it(text: str) -> None:
    prepared = prepare(f'deny if input.s == "{text}"')
    given = json.dumps({"s": json.loads(f'"{text}"')}, ensure_ascii=False).encode()
    assert prepared.evaluate(("p", "deny"), given) == Defined(True)
    assert prepared.evaluate(("p", "deny"), b'{"s":"other"}') == Undefined(has_rules=True)
    prepared.close()
