"""The built-ins that the engine answers for policies as WASM, each beside the real OPA, on what comes along."""

from __future__ import annotations

import base64
import hmac
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from enrich.decisions import Defined, Failed, Undefined, WasmEvaluator, policy_set
from enrich.decisions._builtins import BUILTINS, Asked, BuiltinError, NoAnswerError, PerEvaluation
from enrich.decisions._terms import parse_term, plain, term_text
from enrich.errors import PolicyError
from tests.conformance.judge import equal
from tests.decisions.opa_server import ask, opa_binary, serve_opa

Call = tuple[str, list[Any]]
NOTHING = "undefined"
#: how many arguments each takes
CALLED = {
    "glob.quote_meta": 1, "graphql.parse_query": 1, "graphql.parse_schema": 1, "graphql.schema_is_valid": 1,
    "io.jwt.decode": 1, "io.jwt.decode_verify": 2, "io.jwt.encode_sign": 3, "io.jwt.encode_sign_raw": 3,
    "io.jwt.verify_eddsa": 2, "io.jwt.verify_es256": 2, "io.jwt.verify_hs256": 2, "io.jwt.verify_ps256": 2,
    "io.jwt.verify_rs256": 2, "json.marshal_with_options": 2, "providers.aws.sign_req": 3, "regex.find_n": 3,
    "regex.replace": 3, "regex.split": 2, "regex.template_match": 4, "strings.split_n": 3, "uri.is_valid": 1,
    "uri.parse": 1, "units.parse_bytes": 1, "uuid.parse": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    at = tmp_path_factory.mktemp("builtins")
    rules = [
        f'answered[i] := x if {{\n\tsome i, c in input\n\tc[0] == "{name}"\n'
        f"\tx := {name}({', '.join(f'c[1][{n}]' for n in range(count))})\n}}\n"
        for name, count in CALLED.items()
    ]
    (at / "calls.rego").write_text("\n".join(["package calls\n\nimport rego.v1\n", *rules]))
    with serve_opa(at) as port:
        yield port


def compared(port: int, calls: list[Call]) -> int:
    """Asks both, and tells how many have an answer that is no "undefined"; one that OPA alone has is none of ours."""
    status, _, answer = ask(port, "POST", "/v1/data/calls/answered", json.dumps({"input": calls}).encode())
    assert status == 200, answer
    expected = answer["result"]
    answered = 0
    for number, (name, arguments) in enumerate(calls):
        try:
            got = ours(name, *arguments)
        except NoAnswerError:
            continue
        wanted = expected.get(str(number), NOTHING)
        assert equal(got, wanted), (name, arguments, got, wanted)
        answered += got != NOTHING
    return answered


def ours(name: str, *arguments: Any) -> Any:
    function = BUILTINS[name]
    given = [parse_term(json.dumps(a)) for a in arguments]
    try:
        if isinstance(function, PerEvaluation):
            got = function.function(Asked(), *given)
        else:
            got = function(*given)
        return plain(parse_term(term_text(got).encode().decode())) if term_text_fits(got) else NOTHING
    except BuiltinError:
        return NOTHING
    except UnicodeError as error:
        raise NoAnswerError(str(error)) from error


def term_text_fits(value: Any) -> bool:
    """Whether it is a value: "undefined" is none."""
    return type(value).__name__ != "_Undefined"


def texts(chance: random.Random, pieces: list[str], most: int) -> str:
    return "".join(chance.choice(pieces) for _ in range(chance.randrange(most + 1)))


URI_PIECES = [
    "http", "https", "a+b", "1x", "//", "/", "///", "?", "#", ":", "@", "[", "]", "::1", "1.2.3.4", "ex.com", "%20",
    "%2F", "%C3%A9", "%zz", "%", "é", " ", "\x7f", "80", "p!w", "<", '"', "*", "..", "&", "=", "+", "{", "|", "^", "'",
    "(", "~", "\\", "%41", "%25", "%ff", "fe80::1", "::ffff:1.2.3.4", "01.2.3.4",
]  # fmt: skip
PATTERNS = [
    "a", "b", ".", "*", "+", "?", "(", ")", "[", "]", "|", "^", "$", "\\b", "\\d", "\\w", "{2}", "{1,3}", "{,2}", "x*",
    "(?i)", "(?s)", "(?m)", "(?:", "(?P<n>", "(?<m>", "[^a]", "[a-c]", "[[:alpha:]]", "\\A", "\\z", "\\Z", "\\Q",
    "\\E", "\\.", "\\_", "\\8", "é", "\\x41", "\\x{e9}", "??", "*?", "-", "\\n", "(a|ab)(c|bcd)", "\\B", "(?U)",
    "{1001}", "[z-a]", "[]a]",
]  # fmt: skip
TEXTS = ["a", "b", "c", "ab", "abcd", "foo", "\n", " ", "é", "A", "1", ".", "-", "$", "_"]
REPLACEMENTS = ["$1", "${1}", "$n", "${n}", "$0", "$$", "$", "x", "${", "$1x", "\\1", "$2", "${1}x", "é"]


def test_uris(port: int) -> None:
    chance = random.Random(1)
    found = [texts(chance, URI_PIECES, 6) for _ in range(300)]
    found += [chance.choice(["http://", "https://", "x://", "//"]) + texts(chance, URI_PIECES, 5) for _ in range(500)]
    calls: list[Call] = [(name, [text]) for text in found for name in ("uri.parse", "uri.is_valid")]
    assert compared(port, calls) > 800


def test_regular_expressions(port: int) -> None:
    chance = random.Random(2)
    calls: list[Call] = []
    for _ in range(500):
        pattern, text = texts(chance, PATTERNS, 4), texts(chance, TEXTS, 6)
        calls.append(("regex.find_n", [pattern, text, chance.choice([-1, -1, 0, 1, 2, -3])]))
        calls.append(("regex.split", [pattern, text]))
        calls.append(("regex.replace", [text, pattern, texts(chance, REPLACEMENTS, 2)]))
        start, end = chance.choice([("{", "}"), ("<", ">"), ('"', '"'), ("é", "}"), ("", "")])
        parts = [*TEXTS, start, end, "[a-z]+", ".*"]
        calls.append(("regex.template_match", [texts(chance, parts, 5), text, start, end]))
    assert compared(port, calls) > 800


def test_texts_and_their_like(port: int) -> None:
    chance = random.Random(3)
    options: dict[str, list[Any]] = {"prefix": ["", "--", 1], "indent": ["", " ", True], "pretty": [True, False, 1]}
    values = [None, 1, 1.5, "a<b>&\u2028", [], {}, [1, [2, {}]], {"b": 1, "a": [True, {"z": None}]}, '\x00"\\\x7f']
    calls: list[Call] = []
    for _ in range(150):
        given = {k: chance.choice(v) for k, v in options.items() if chance.random() < 0.4}
        calls.append(("json.marshal_with_options", [chance.choice(values), given]))
        split = [texts(chance, TEXTS, 4), chance.choice(["", "a", "b", "é", "--"]), chance.randrange(-4, 6)]
        calls.append(("strings.split_n", split))
        calls.append(("glob.quote_meta", [texts(chance, [*"*?\\[]{}!-,aé"], 5)]))
    number = "00000000-0000-4000-8000-000000000001"
    calls += [("uuid.parse", [t]) for t in (f"{{{number}}}", f"x{number}y", f"é{number}", f"{number}  ", "{" * 38)]
    calls += [("units.parse_bytes", [f"{n}{u}"]) for n in (1, 10, 17, 1.5, 0.1, 2**63) for u in ("", "k", "eb", "ei")]
    assert compared(port, calls) > 300


HEADERS = [
    b'{"alg":"HS256"}', b'{"alg":"HS256","typ":"JWT"}', b'{"alg":"none"}', b'{"alg":"HS384"}', b"{}", b"[]", b"x",
    b'{"alg":1}', b'{"alg":"HS256","crit":["x"],"x":1}', b'{"alg":"HS256","crit":[]}', b'{"alg":"HS256","kid":"a"}',
    b'{"alg":"HS256","crit":[1,"x"],"x":1}', b'{"alg":"HS256","enc":"x"}', b'{"alg":"HS256","cty":"jwt"}', b"\xff",
    b'{"alg":"HS256","alg":"HS512"}', b'{"alg":"RS256"}', b'{"alg":"FOO"}',
]  # fmt: skip
PAYLOADS = [
    b'{"a":1}', b'{"iss":"x"}', b'{"exp":5}', b'{"exp":"5"}', b'{"nbf":5}', b'{"nbf":6.5,"exp":7}', b'{"aud":"y"}',
    b'{"aud":["y",1]}', b'{"aud":1}', b'{"aud":""}', b"[]", b"", b'{"a":1e400}', b'{"a":"\\ud800"}', b"NaN",
    b'{"a":-0,"b":1.50}', b'{"exp":5.0000000001}', b"\xef\xbb\xbf{}",
]  # fmt: skip


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_tokens(port: int) -> None:
    chance = random.Random(4)
    options: dict[str, list[Any]] = {
        "iss": ["x", ""], "aud": ["y", ""], "alg": ["HS256", "RS256", ""], "cert": ["x", '{"keys":[]}'], "foo": [1],
    }  # fmt: skip
    secrets = ['{"kty":"oct","k":"aw"}', '{"keys":[]}', '{"kty":"oct"}', "x", '{"kty":"foo"}']
    calls: list[Call] = []
    for _ in range(400):
        header, payload = chance.choice(HEADERS[: chance.choice([2, 18])]), chance.choice(PAYLOADS)
        signed = f"{encoded(header)}.{encoded(payload)}"
        signature = hmac.digest(b"k", signed.encode(), chance.choice(["sha256", "sha256", "sha384"]))
        token = f"{signed}.{encoded(signature)}{chance.choice([*([''] * 12), '=', chr(10), '.x', '!'])}"
        given: dict[str, Any] = {"secret": "k", "time": chance.choice([5e9, 6e9, 5000000000, 0])}
        for name, said in options.items():
            if chance.random() < (0.03 if name in ("foo", "cert") else 0.2):
                given[name] = chance.choice(said)
        calls += [("io.jwt.decode", [token]), ("io.jwt.verify_hs256", [token, "k"])]
        calls.append(("io.jwt.decode_verify", [token, given]))
        plain_texts = [header.decode("latin1"), payload.decode("latin1"), chance.choice(secrets)]
        calls.append(("io.jwt.encode_sign_raw", plain_texts))
    assert compared(port, calls) > 300


@pytest.fixture(scope="module")
def keys() -> dict[str, tuple[Any, dict[str, Any]]]:
    """A private key for each kind of signature, and the JWK of it."""
    small, curved = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    edwards = ed25519.Ed25519PrivateKey.generate()
    return {
        "RS256": (small, RSAAlgorithm.to_jwk(small, as_dict=True)),
        "PS256": (small, RSAAlgorithm.to_jwk(small, as_dict=True)),
        "ES256": (curved, ECAlgorithm.to_jwk(curved, as_dict=True)),
        "EdDSA": (edwards, OKPAlgorithm.to_jwk(edwards, as_dict=True)),
    }


def test_each_verifies_what_the_other_signed(port: int, keys: dict[str, tuple[Any, dict[str, Any]]]) -> None:
    calls: list[Call] = []
    whole: list[list[Any]] = []
    for alg, (private, jwk) in keys.items():
        jwk = {k: v for k, v in jwk.items() if k != "key_ops"}
        signing: Call = ("io.jwt.encode_sign", [{"alg": alg}, {"a": 1}, jwk])
        _, _, answer = ask(port, "POST", "/v1/data/calls/answered", json.dumps({"input": [signing]}).encode())
        pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        public = {k: v for k, v in jwk.items() if k in ("kty", "n", "e", "crv", "x", "y")}
        named = {"keys": [{**public, "kid": "other", "alg": "RS512"}, {**public, "kid": "k", "alg": alg}]}
        for token in (ours(*[signing[0], *signing[1]]), answer["result"]["0"], f"{encoded(b'{}')}.e30.AAAA"):
            good = [pem, json.dumps(public), json.dumps(named), json.dumps(jwk)]
            whole += [[token, {"cert": key}] for key in good]
            for key in (*good, pem + "x", pem[:-9], "{}"):
                calls.append((f"io.jwt.verify_{alg.lower()}", [token, key]))
                calls.append(("io.jwt.decode_verify", [token, {"cert": key}]))
    assert compared(port, calls) > 80
    # by the PEM, the JWK and the set of each, whoever signed
    assert sum(ours("io.jwt.decode_verify", *c)[0] is True for c in whole) == 2 * 4 * 4


QUERIES = [
    "{ a }", "# c\nquery Q($a: [Int!]! = 1 @d, $b: T) @x(y: $a) { f(a: $b, c: [1, 2.5e3, {k: \"\\u00e9\"}]) { ...F } }",
    "mutation { a: b ... on T @skip(if: true) { c # d\n } ... { e } }", "fragment F($x: Int) on T { a }", "", "{",
    '{ a(b: """\n   x\n     \\""" y\n  """) }', "{ a(b: -0, c: 1.) }", "{ a(b: 01) }", "query Q { }", "{ a: }", "on",
    "subscription S { # one\n # two\n a(x: null, y: E, z: true) }", '{ a(b: "x\ny") }', "{ ...on }", "\ufeff{a,b}",
]  # fmt: skip
SCHEMAS = [
    "type Query { a: Int }", '"about" type T implements A & B @d { "f" a(x: Int = 1 @x): [String!]! @deprecated }',
    "interface A { a: Int } interface B implements A { a: Int } type T implements A & B { a: Int! }",
    "interface A { a: A } type T implements A { a: T }", "type T implements T { a: Int }", "union U = | A | B",
    "type A { a: Int } union U = A | A", "enum E { A B # c\n C } # end", "enum E { true }", "input I { a: I! }",
    "input I { a: I b: [I!]! = [] }", "scalar S @specifiedBy(url: \"x\")", "scalar S @specifiedBy",
    "directive @a(b: Int! @a) repeatable on FIELD | OBJECT", "directive @a on OBJECT type T @a @a { a: Int }",
    "schema { query: Q } type Q { a: Int }", "schema { query: Q }", "extend schema @x", "extend type Q { a: Q }",
    "extend type Q", "extend enum String { A }", '"x" extend type Q { a: Int }', "type __T { a: Int }",
    "type T { a(b: T): Int }", "type T { a: Int a: Int }", "type String { a: Int }", "type T { a: Nothing }",
    "# one\n# two\ntype T { # three\n a: Int # four\n } # five\n", '""" # no """ # c\n"x"', "directive @a on NOWHERE",
]  # fmt: skip


def test_graphql(port: int) -> None:
    names = ("graphql.parse_query", "graphql.parse_schema", "graphql.schema_is_valid")
    calls: list[Call] = [(name, [text]) for text in QUERIES + SCHEMAS for name in names]
    chance = random.Random(5)
    for text in (QUERIES + SCHEMAS) * 6:
        words = [
            w + chance.choice(["\n# c\n", "!", "{", "}", "x", '"s"']) * (chance.random() < 0.15) for w in text.split()
        ]
        calls += [(name, [" ".join(words)]) for name in names]
    assert compared(port, calls) > 350


def test_requests_for_aws(port: int) -> None:
    config = {"aws_service": "s3", "aws_access_key": "A", "aws_secret_access_key": "B", "aws_region": "r"}
    requests: list[Any] = [
        {"method": "get", "url": "https://ex.com/a b/%2F?x=1&y"}, {"method": "get", "url": "*"}, {"url": "x"},
        {"method": "put", "url": "http://u@ex.com:80", "body": {"a": [1.0, "<"]},
         "headers": {"X-A": "b", "User-Agent": "c"}},
        {"method": "put", "url": "http://ex.com/é", "raw_body": "x", "headers": {"Authorization": "z", "n": 1}},
        {"method": "get", "url": "http://[bad"}, {"method": 1, "url": "x"}, {"method": "get", "url": "x", "other": 1},
    ]  # fmt: skip
    configs = [config, {**config, "aws_service": "ec2", "aws_session_token": "t"}, {**config, "aws_region": 1},
               {**config, "disable_payload_signing": True}, {**config, "disable_payload_signing": 1}, {}]  # fmt: skip
    times = [1451347200000000000, 0, -1, 1.5, 2**64, "x"]
    calls: list[Call] = [("providers.aws.sign_req", [r, c, t]) for r in requests for c in configs for t in times]
    assert compared(port, calls) > 30


POLICY = """package p

import rego.v1

same if time.now_ns() == time.now_ns()

now := time.now_ns()

drawn := [rand.intn("a", 1000000000), rand.intn("a", 1000000000), rand.intn("b", 1000000000)]

marked := [uuid.rfc4122("a"), uuid.rfc4122("a"), uuid.rfc4122("b")]

nothing := rand.intn("a", 0)
"""


def test_one_evaluation_has_one_moment_and_draws_once() -> None:
    prepared = WasmEvaluator(opa_path=opa_binary(), limit_seconds=60).prepare(policy_set({"p.rego": POLICY}, {}))

    def asked(rule: str) -> Any:
        outcome = prepared.evaluate(("p", rule), None)
        return outcome.value if isinstance(outcome, Defined) else outcome

    assert asked("same") is True
    assert asked("now") < asked("now")
    for rule in ("drawn", "marked"):
        first = asked(rule)
        assert first[0] == first[1] != first[2]
        assert asked(rule) != first
    assert asked("nothing") == 0
    prepared.close()


def test_an_integer_that_opa_would_find_as_a_text_is_refused() -> None:
    evaluator: Callable[..., Any] = WasmEvaluator(opa_path=opa_binary(), limit_seconds=60).prepare
    text = "package p\n\nimport rego.v1\n\nlimit := data.limits[2]\n\nother if {\n\tx := data.limits\n\tx[2]\n}\n"
    with pytest.raises(PolicyError) as caught:
        evaluator(policy_set({"p.rego": text}, {"limits": {"2": 5}}))
    detail = caught.value.detail
    assert (caught.value.error_code, detail["file"], detail["line"]) == ("refused_reference", "p.rego", 5)
    for limits, wanted in (({"3": 5}, Undefined(has_rules=True)), ([1, 2, 3], Defined(3))):
        prepared = evaluator(policy_set({"p.rego": text}, {"limits": limits}))
        assert prepared.evaluate(("p", "limit"), None) == wanted
        prepared.close()


@pytest.mark.parametrize(
    ("text", "unknown", "known"),
    [
        (
            "package p\n\np.q.f(x) := x\n\none := 1\n",
            ["p/p", "p/p/q"],
            {"p": {"one": 1, "p": {"q": {}}}, "p/p/q/f": None},
        ),
        ("package p\n\ndefault p.q.f(x) := 1\n", ["p", "p/p"], {"p/p/q/f": None, "x": None}),
        ("package p\n\nf(x) := x\n", [], {"p": {}}),
    ],
)
def test_a_document_of_which_opa_shows_more_is_no_value(text: str, unknown: list[str], known: dict[str, Any]) -> None:
    prepared = WasmEvaluator(opa_path=opa_binary(), limit_seconds=60).prepare(policy_set({"p.rego": text}, {}))
    for path in unknown:
        assert isinstance(prepared.evaluate(tuple(path.split("/")), None), Failed), path
    for path, value in known.items():
        outcome = prepared.evaluate(tuple(path.split("/")), None)
        assert (outcome.value if isinstance(outcome, Defined) else None) == value, path
    prepared.close()
