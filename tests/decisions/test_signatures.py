"""A signed bundle is verified as OPA verifies it, with bundles that the real OPA signed."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml  # type: ignore[import-untyped]  # as in the package

from enrich.decisions import PolicySet, Verification, load_source
from enrich.decisions.signatures import _digest
from enrich.errors import ConfigError, EnrichError, PolicyError
from enrich.settings import Settings
from tests.decisions.bundling import POLICY, build, keys, opa_takes, pack, sign, write_files

TEXT = '"ä<>&\\u2028\\u007f\\u0001\\b\\f\\n\\"\\\\"'
FILES = {
    "shop.rego": POLICY,
    "limits/data.json": f'{{"most": 100, "e": 1E3, "f": 1.50, "s": {TEXT}, "z": [null, -0]}}',
    "README.md": "# Shop\n",
}
YAML = (
    "y: 1.0\nz: 1e3\nw: 0.00000012\nbig: 12345678901234567890\nhex: 0x1F\nv: yes\n3: num\nexp: 1e22\nneg: -0.0\n"
    "f: 0.5\n"
)


class Signed:
    """A directory that OPA signed with RS256, and its bundle."""

    def __init__(self, where: Path) -> None:
        self.private, self.public = keys(where / "keys")
        self.source = write_files(where / "shop", FILES)
        options = ("--signing-key", str(self.private), "--verification-key-id", "k-1", "--revision", "r-1")
        self.bundle = build(self.source, where / "bundle.tar.gz", *options)
        self.verification = Verification(key=self.public)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return Signed(tmp_path_factory.mktemp("signed"))


def contents(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def code(path: Path, verification: Verification) -> str:
    with pytest.raises(EnrichError) as caught:
        load_source(path, verification)
    return caught.value.error_code


def load(path: Path, verification: Verification) -> PolicySet:
    return load_source(path, verification)


def test_a_signed_bundle_loads_with_its_key_only(signed: Signed, tmp_path: Path) -> None:
    assert load(signed.bundle, signed.verification).revision == "r-1"
    assert load(signed.bundle, Verification(key=signed.public, key_id="k-1")).revision == "r-1"
    assert load(signed.bundle, Verification(skip=True)).revision == "r-1"
    assert code(signed.bundle, Verification()) == "bundle_key_missing"
    _, other = keys(tmp_path / "other")
    assert code(signed.bundle, Verification(key=other)) == "bundle_signature_invalid"
    assert code(signed.bundle, Verification(key=signed.public, key_id="k-2")) == "bundle_signature_invalid"
    assert code(signed.bundle, Verification(key=signed.public, scope="write")) == "bundle_signature_invalid"
    assert code(signed.bundle, Verification(key=signed.public, algorithm="PS256")) == "bundle_signature_invalid"


def test_what_nobody_signed_is_refused_where_a_key_is_set(signed: Signed, tmp_path: Path) -> None:
    assert code(build(signed.source, tmp_path / "b.tar.gz"), signed.verification) == "bundle_unsigned"
    assert code(signed.source, signed.verification) == "bundle_unsigned"
    assert code(tmp_path / "none", signed.verification) == "not_found"


@pytest.mark.parametrize("algorithm", ["RS512", "PS256", "ES256", "ES384", "ES512", "HS256", "HS512"])
def test_algorithms(tmp_path: Path, algorithm: str) -> None:
    private, public = keys(tmp_path / "keys", algorithm)
    source = write_files(tmp_path / "shop", FILES)
    bundle = build(source, tmp_path / "b.tar.gz", "--signing-key", str(private), "--signing-alg", algorithm)
    assert load(bundle, Verification(key=public, algorithm=algorithm)).modules.keys() == {"shop.rego"}
    assert code(bundle, Verification(key=keys(tmp_path / "other", algorithm)[1], algorithm=algorithm)) == (
        "bundle_signature_invalid"
    )
    named = algorithm.replace("512", "256") if algorithm.endswith("512") else f"{algorithm[:2]}512"
    if not algorithm.startswith("ES"):  # there the key would not fit
        assert code(bundle, Verification(key=public, algorithm=named)) == "bundle_signature_invalid"


@pytest.mark.parametrize("key", ["none", "private", "text", "curve", "short"])
def test_a_key_that_is_none_is_a_setting_that_is_wrong(signed: Signed, tmp_path: Path, key: str) -> None:
    (tmp_path / "text").write_text("no key")
    short, curve = tmp_path / "short", keys(tmp_path / "keys", "ES256")[1]
    short.write_text("secret")
    path = {"private": signed.private, "curve": curve}.get(key, tmp_path / key)
    bundle, algorithm = signed.bundle, "RS256"
    if key == "short":
        algorithm = "HS256"
        options = ("--signing-key", str(short), "--signing-alg", algorithm)
        bundle = build(signed.source, tmp_path / "b.tar.gz", *options)
    with pytest.raises(ConfigError) as caught:
        load(bundle, Verification(key=path, algorithm=algorithm))
    assert caught.value.detail["setting"] == "bundle_verification_key"


def test_every_file_has_to_be_there_and_as_it_was(signed: Signed, tmp_path: Path) -> None:
    shutil.copytree(signed.source, tmp_path / "shop")
    write_files(tmp_path / "shop", {"extra/data.yaml": YAML})
    sign(tmp_path / "shop", signed.private)
    files: dict[str, bytes | str] = {**contents(tmp_path / "shop")}
    assert ".signatures.json" in files

    def verdict(changes: dict[str, bytes | str | None], **options: Any) -> tuple[str, bool]:
        made = {n: c for n, c in {**files, **changes}.items() if c is not None}
        bundle = pack(tmp_path / "b.tar.gz", made)
        exclude = [f"--exclude-files-verify={e}" for e in options.get("exclude", ())]
        taken = opa_takes(bundle, "--verification-key", str(signed.public), *exclude)
        try:
            load(bundle, Verification(key=signed.public, **options))
        except PolicyError as error:
            return error.error_code, taken
        return "loads", taken

    bad = ("bundle_signature_invalid", False)
    assert verdict({}) == ("loads", True)
    assert verdict({"shop.rego": POLICY + "\n"}) == bad
    assert verdict({"shop.rego": None}) == bad
    assert verdict({"README.md": "# Another\n"}) == bad
    assert verdict({"more.rego": "package shop\n\ndecision := true\n"}) == bad
    assert verdict({".manifest": '{"revision": "mine"}'}) == bad
    assert verdict({"limits/data.json": '{"most": 101}'}) == bad
    assert verdict({"extra/data.yaml": YAML.replace("1.0", "1.5")}) == bad
    assert verdict({"extra/data.yaml": YAML.replace("1e3", "1000.0")}) == ("loads", True)  # the same number
    assert verdict({"limits/data.json": FILES["limits/data.json"].replace(", ", ",\n ")}) == ("loads", True)
    assert verdict({"limits/data.json": FILES["limits/data.json"].replace("1.50", "1.5")}) == bad  # written otherwise
    assert verdict({"limits/data.json": '{"most": 101}'}, exclude=("limits/*",)) == ("loads", True)
    assert verdict({"limits/data.json": '{"most": 101}'}, exclude=("*",)) == bad
    assert verdict({"limits/data.json": None}, exclude=("limits/data.?son",)) == bad


def test_scopes(signed: Signed, tmp_path: Path) -> None:
    claims = tmp_path / "claims.json"
    claims.write_text('{"scope": "write", "iss": "release"}')
    options = ("--signing-key", str(signed.private), "--claims-file", str(claims))
    bundle = build(signed.source, tmp_path / "b.tar.gz", *options)
    assert load(bundle, Verification(key=signed.public, scope="write")).modules
    assert code(bundle, signed.verification) == "bundle_signature_invalid"
    assert code(bundle, Verification(key=signed.public, scope="write", key_id="k-1")) == "bundle_signature_invalid"


def test_a_flipped_byte_of_the_token_is_refused(signed: Signed, tmp_path: Path) -> None:
    sign(shutil.copytree(signed.source, tmp_path / "shop"), signed.private)
    files = contents(tmp_path / "shop")
    token = json.loads(files[".signatures.json"])["signatures"][0]
    for at in range(0, len(token), 3):
        flipped = token[:at] + chr(ord(token[at]) ^ 1) + token[at + 1 :]
        files[".signatures.json"] = json.dumps({"signatures": [flipped]}).encode()
        bundle = pack(tmp_path / "b.tar.gz", {**files})
        assert code(bundle, signed.verification) == "bundle_signature_invalid", at


def test_a_flipped_byte_anywhere_is_refused_or_says_nothing(signed: Signed, tmp_path: Path) -> None:
    """Of the file, and of what is packed in it: then gzip's checksum holds, and the signature is all there is."""
    good, target = load(signed.bundle, signed.verification), tmp_path / "b.tar.gz"
    packed = signed.bundle.read_bytes()
    tar = gzip.decompress(packed)
    refusals = ("invalid_bundle", "invalid_data", "bundle_signature_invalid", "bundle_unsigned")
    same = 0
    for whole, step in ((packed, 5), (tar, 19)):
        for at in range(0, len(whole), step):
            flipped = whole[:at] + bytes([whole[at] ^ (1 << (at % 8))]) + whole[at + 1 :]
            target.write_bytes(flipped if whole is packed else gzip.compress(flipped, 1))
            try:
                assert load(target, signed.verification) == good, at
                same += 1
            except PolicyError as error:
                assert error.error_code in refusals  # noqa: PT017 - either is right
    assert same < len(tar) // 19  # padding says nothing


def signature(payload: Any, key: Path, algorithm: str = "RS256", **headers: Any) -> bytes:
    text = json.dumps(payload).encode()
    made = jwt.PyJWS().encode(text, key.read_bytes(), algorithm=algorithm, headers=headers)
    return json.dumps({"signatures": [made]}).encode()


def listed(name: str = "shop.rego", algorithm: str = "SHA-256", python: str = "sha256") -> dict[str, str]:
    return {"name": name, "hash": hashlib.new(python, POLICY.encode()).hexdigest(), "algorithm": algorithm}


@pytest.mark.parametrize(
    ("payload", "good"),
    [
        ({"files": [listed()]}, True),
        ({"files": [listed(algorithm="SHA-512-256", python="sha512_256")]}, True),
        ({"files": [listed(algorithm="MD5", python="md5")]}, False),
        ({"files": [listed(algorithm="SHA-1", python="sha1")]}, False),
        ({"files": [listed(algorithm="")]}, False),
        ({"files": [listed(), listed()]}, False),
        ({"files": [listed(), listed("gone.rego")]}, False),
        ({"files": [{**listed(), "hash": "x"}]}, False),
        ({"files": [7]}, False),
        ({"files": []}, False),
        ({"files": [listed()], "scope": 7}, False),
        ({}, False),
        ([], False),
    ],
)
def test_what_a_token_may_say(signed: Signed, tmp_path: Path, payload: Any, good: bool) -> None:
    files: dict[str, bytes | str] = {"shop.rego": POLICY, ".signatures.json": signature(payload, signed.private)}
    bundle = pack(tmp_path / "b.tar.gz", files)
    if good:
        assert load(bundle, signed.verification).modules.keys() == {"shop.rego"}
    else:
        assert code(bundle, signed.verification) == "bundle_signature_invalid"


def test_a_token_that_chooses_its_own_algorithm_is_refused(signed: Signed, tmp_path: Path) -> None:
    """The public key as a secret, and no algorithm at all: what anybody could have made."""
    good = json.loads(signature({"files": [listed()]}, signed.private))["signatures"][0]
    head, payload, _ = good.split(".")
    none = urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    secret = Path(tmp_path / "secret")
    secret.write_bytes(hashlib.sha512(signed.public.read_bytes()).digest())
    as_secret = json.loads(signature({"files": [listed()]}, secret, "HS256"))["signatures"][0]
    files: dict[str, bytes | str]
    for bodies in ([f"{none}.{payload}."], [f"{head}.{payload}."], [as_secret], [good, good], [], ["x"], [7]):
        files = {"shop.rego": POLICY, ".signatures.json": json.dumps({"signatures": bodies})}
        assert code(pack(tmp_path / "b.tar.gz", files), signed.verification) == "bundle_signature_invalid", bodies
    files = {"shop.rego": POLICY, ".signatures.json": json.dumps({"signatures": [good], "plugin": "mine"})}
    assert code(pack(tmp_path / "b.tar.gz", files), signed.verification) == "bundle_signature_invalid"


def made_up(chance: random.Random, depth: int = 0) -> Any:
    """A value with what JSON encoders do not agree on."""
    texts = ["", "a", "B", "é", "\u2028", "\U0001f600", '\n"\\', "<&>", "\x00\x1f\x7f", "\ufeff", "1e5", "no"]
    match chance.randrange(9 if depth < 4 else 7):
        case 0:
            return chance.choice([None, True, False])
        case 1:
            return chance.choice([0, -1, 2**53 + 1, 2**63, -(2**63), 2**64 - 1])
        case 2:
            return chance.choice([0.0, -0.0, 1.0, 1e21, 1e-6, 9.99e-7, 1e20, 1.5e300, 5e-324, 123456789012345680000.0])
        case 3:
            return round(chance.uniform(-1, 1) * 10.0 ** chance.randrange(-20, 25), chance.randrange(25))
        case 4:
            return chance.uniform(-1, 1) * 10.0 ** chance.randrange(-300, 300)
        case 5 | 6:
            return "".join(chance.choices(texts, k=chance.randrange(4)))
        case 7:
            return [made_up(chance, depth + 1) for _ in range(chance.randrange(5))]
        case _:
            names = ["k" + "".join(chance.choices(texts, k=2)) for _ in range(chance.randrange(5))]
            return {name: made_up(chance, depth + 1) for name in names}


def test_documents_hash_as_opa_hashes_them(tmp_path: Path) -> None:
    chance = random.Random(7)
    documents = [{"a": made_up(chance), "b": [made_up(chance) for _ in range(6)]} for _ in range(200)]
    files = {f"d{i}/data.json": json.dumps(d) for i, d in enumerate(documents)}
    files |= {f"y{i}/data.yaml": yaml.safe_dump(d, allow_unicode=True) for i, d in enumerate(documents)}
    # YAML knows neither DEL nor pairs of surrogates
    texts = map(json.dumps, documents)
    plain = [text for text in texts if "\x7f" not in text and "\\ud83d" not in text]
    files |= {f"j{i}/data.yaml": text for i, text in enumerate(plain)}
    files |= {"number/data.yaml": YAML, "limits/data.json": FILES["limits/data.json"]}
    private, _ = keys(tmp_path / "keys", "HS256")
    token = json.loads(sign(write_files(tmp_path / "files", files), private, "--signing-alg", "HS256"))["signatures"][0]
    payload = token.split(".")[1]
    hashed = {f["name"]: f["hash"] for f in json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["files"]}
    assert hashed.keys() == files.keys()
    other = [n for n, text in files.items() if _digest(n, text.encode(), "sha256").hex() != hashed[n]]
    assert [files[n] for n in other] == []


def test_layout_is_no_part_of_a_hash() -> None:
    chance = random.Random(8)
    for _ in range(200):
        document = {"a": made_up(chance)}
        tight, wide = json.dumps(document).encode(), json.dumps(document, indent=3, ensure_ascii=False).encode()
        assert _digest("a/data.json", tight, "sha256") == _digest("a/data.json", wide, "sha256")
        assert _digest("a/b.json", tight, "sha256") == hashlib.sha256(tight).digest()


def test_settings_that_would_do_nothing_are_refused() -> None:
    key = Path("key.pub")
    given = Settings(
        bundle_verification_key=key,
        bundle_verification_key_id="k",
        bundle_verification_scope="write",
        bundle_verification_exclude=("a/*",),
        bundle_verification_algorithm="ES256",
    )
    assert Verification.of(given) == Verification(key, "k", "ES256", "write", ("a/*",))
    refused: list[dict[str, Any]] = [
        {"bundle_verification_key_id": "k"},
        {"bundle_verification_scope": "write"},
        {"bundle_verification_exclude": ("a",)},
        {"bundle_verification_key": key, "bundle_skip_verification": True},
        {"bundle_verification_key": key, "bundle_verification_exclude": ("a[bc]",)},
        {"bundle_verification_key": key, "bundle_verification_algorithm": "none"},
    ]
    for bad in refused:
        with pytest.raises(ValueError, match="bundle_"):
            Settings(**bad)
