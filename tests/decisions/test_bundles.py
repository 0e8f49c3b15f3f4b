"""Bundles are read as OPA reads them, or refused; nothing in between."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from pathlib import Path

import pytest

from enrich.decisions import (
    EmbeddedEvaluator,
    PolicySet,
    Verification,
    bundles,
    load_policies,
    load_source,
)
from enrich.errors import PolicyError
from tests.decisions.bundling import POLICY, build, opa_takes, pack, write_files

FILES = {
    "shop.rego": POLICY,
    "shop_test.rego": "package shop_test\n\ntest_it if true\n",
    "limits/data.json": '{"most": 100}',
    "README.md": "# Shop\n",
}
UNVERIFIED = Verification()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("shop"), FILES)


def load(path: Path) -> PolicySet:
    return load_source(path, UNVERIFIED)


def refused(path: Path, verification: Verification = UNVERIFIED) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        load_source(path, verification)
    return caught.value


def test_a_bundle_of_opa_is_its_directory_under_a_revision(source: Path, tmp_path: Path) -> None:
    built = load(build(source, tmp_path / "bundle.tar.gz", "--revision", "r-1"))
    directory = load(source)
    assert (built.modules, built.data, built.packages) == (directory.modules, directory.data, directory.packages)
    assert (built.version, built.revision) == (directory.version, "r-1")
    assert directory.revision is None
    other = load(build(source, tmp_path / "other.tar.gz", "--revision", "r-2"))
    assert (other.version, other.revision) == (built.version, "r-2")


def test_yaml_and_paths_as_tar_writes_them(tmp_path: Path) -> None:
    files = {"./shop.rego": POLICY, "./limits/data.yaml": "most: 100\n"}
    directory = tarfile.TarInfo("./limits")
    directory.type = tarfile.DIRTYPE
    found = load(pack(tmp_path / "b.tar.gz", files, [directory]))
    assert (found.modules, found.data, found.revision) == ({"shop.rego": POLICY}, {"limits": {"most": 100}}, "")


@pytest.mark.parametrize(
    ("manifest", "code", "text"),
    [
        ({"roots": ["shop"]}, "bundle_roots", "data at `limits/most`"),
        ({"roots": ["sho", "limits"]}, "bundle_roots", "package `shop`"),
        ({"roots": []}, "bundle_roots", "(none)"),
        ({"roots": ["shop", "limits", "shop/a"]}, "bundle_roots", "overlap"),
        ({"roots": ["", "limits"]}, "bundle_roots", "overlap"),
        ({"roots": "shop"}, "invalid_bundle", "roots"),
        ({"roots": [7]}, "invalid_bundle", "roots"),
        ({"revision": 7}, "invalid_bundle", "revision"),
        ({"Roots": ["shop"]}, "invalid_bundle", "Roots"),
        ({"rego_version": 0}, "bundle_unsupported", "`0`"),
        ({"rego_version": True}, "bundle_unsupported", "`True`"),
        ({"file_rego_versions": {"*.rego": 0}}, "bundle_unsupported", "`0`"),
        ({"file_rego_versions": []}, "invalid_bundle", "file_rego_versions"),
        ({"wasm": [{"entrypoint": "shop/decision", "module": "/policy.wasm"}]}, "bundle_unsupported", "WebAssembly"),
        ([], "invalid_data", ".manifest"),
    ],
)
def test_a_manifest_that_is_refused(tmp_path: Path, manifest: object, code: str, text: str) -> None:
    files = {"shop.rego": POLICY, "limits/data.json": '{"most": 1}', ".manifest": json.dumps(manifest)}
    error = refused(pack(tmp_path / "b.tar.gz", files))
    assert (error.error_code, text in error.message) == (code, True), error.message


def test_roots_are_those_of_opa(tmp_path: Path) -> None:
    for roots in (["shop", "limits"], ["/shop/", "limits/most"], [""], ["shop"], ["shop", "limit"], ["sho"]):
        manifest = json.dumps({"revision": "r", "roots": roots})
        files = {"/shop.rego": POLICY, "/limits/data.json": '{"most": 1}', "/.manifest": manifest}
        bundle = pack(tmp_path / "b.tar.gz", files)
        try:
            load(bundle)
            taken = True
        except PolicyError:
            taken = False
        assert taken == opa_takes(bundle), roots


def info(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


@pytest.mark.parametrize(
    "name", ["../shop.rego", "a/../shop.rego", "//shop.rego", "a//b.rego", "a/./b.rego", "a\\b.rego", "a\tb.rego", ".."]
)
def test_paths_with_tricks_are_refused(tmp_path: Path, name: str) -> None:
    assert refused(pack(tmp_path / "b.tar.gz", {name: POLICY})).error_code == "invalid_bundle"


@pytest.mark.parametrize(
    "entry",
    [
        info("a.rego", tarfile.SYMTYPE, "/etc/passwd"),
        info("a.rego", tarfile.LNKTYPE, "shop.rego"),
        info("a.rego", tarfile.FIFOTYPE),
        info("a.rego", tarfile.CHRTYPE),
        info("/shop.rego", tarfile.REGTYPE),
    ],
)
def test_links_devices_and_duplicates_are_refused(tmp_path: Path, entry: tarfile.TarInfo) -> None:
    error = refused(pack(tmp_path / "b.tar.gz", {"shop.rego": POLICY}, [entry]))
    assert (error.error_code, error.detail["file"]) == ("invalid_bundle", entry.name.removeprefix("/"))


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"patch.json": '{"data": []}'}, "bundle_unsupported"),
        ({".manifest.pb": "x"}, "bundle_unsupported"),
        ({"plan.json": "{}"}, "bundle_unsupported"),
        ({"policy.wasm": b"\0asm", "shop.rego": POLICY}, "bundle_unsupported"),
        ({"a/.manifest": "{}"}, "invalid_bundle"),
        ({"a.manifest": "{}"}, "invalid_bundle"),
        ({".manifest": "{}", "a/.signatures.json": "{}"}, "invalid_bundle"),
        ({".a/data.json": "{}"}, "invalid_bundle"),
        ({"data.json": "[]"}, "invalid_data"),
        ({"data.json": '{"a": 1, "a": 2}'}, "invalid_data"),
        ({"data.json": '{"a": 1}', "a/data.json": '{"b": 1}'}, "data_conflict"),
        ({"shop.rego": b"package shop\xff"}, "invalid_utf8"),
    ],
)
def test_what_else_is_refused(tmp_path: Path, files: dict[str, bytes | str], code: str) -> None:
    assert refused(pack(tmp_path / "b.tar.gz", files)).error_code == code


def test_compiled_rules_are_refused(source: Path, tmp_path: Path) -> None:
    bundle = build(source, tmp_path / "b.tar.gz", "-t", "wasm", "-e", "shop/decision", "--revision", "w")
    error = refused(bundle)
    assert (error.error_code, error.detail["file"]) == ("bundle_unsupported", "policy.wasm")
    with tarfile.open(bundle) as archive:  # why: the Rego beside them lacks them
        module = archive.extractfile("/shop.rego")
        assert module is not None
        assert b"decision :=" not in module.read()


def test_a_plan_beside_its_rego_is_no_matter(source: Path, tmp_path: Path) -> None:
    built = load(build(source, tmp_path / "b.tar.gz", "-t", "plan", "-e", "shop/decision"))
    assert built.version == load(source).version


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = pack(tmp_path / "b.tar.gz", {"shop.rego": POLICY, "a.rego": "package a\n", "zeros": bytes(100_000)})
    size = bundle.stat().st_size
    assert load(bundle).modules.keys() == {"shop.rego", "a.rego"}
    for bound, value in (("MAX_BYTES", size - 1), ("MAX_UNPACKED_BYTES", 99_999), ("MAX_FILES", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(bundles, bound, value)
            assert refused(bundle).error_code == "bundle_too_large"


def test_what_is_no_bundle(tmp_path: Path) -> None:
    whole = pack(tmp_path / "b.tar.gz", {"shop.rego": POLICY, "a.rego": "package a\n"}).read_bytes()
    bad = tmp_path / "bad.tar.gz"
    for content in (b"", b"no gzip", whole[:-1], whole + b"\0", whole + whole, gzip.compress(b"no tar" * 200)):
        bad.write_bytes(content)
        assert refused(bad).error_code == "invalid_bundle", content[:20]
    assert refused(tmp_path / "none.tar.gz").error_code == "not_found"


@pytest.mark.parametrize("end", [b"", bytes(512), b"x" * 1024, b"x" * 512 + bytes(1024)])
def test_an_archive_has_to_end_where_its_files_do(tmp_path: Path, end: bytes) -> None:
    """A damaged header must not hide the files behind it."""
    assert refused(pack(tmp_path / "b.tar.gz", {"shop.rego": POLICY}, end=end)).error_code == "invalid_bundle"


def changed(content: bytes, bits: int, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]


def test_a_flipped_byte_is_refused_or_says_nothing(source: Path, tmp_path: Path) -> None:
    """Nothing is read from time and system in gzip's head, and a few bytes can be packed in more than one way."""
    bundle = build(source, tmp_path / "b.tar.gz", "--revision", "r-1")
    whole, good, target = bundle.read_bytes(), load(bundle), tmp_path / "flipped.tar.gz"
    same = 0
    for at in range(len(whole)):
        target.write_bytes(changed(whole, 1 << (at % 8), at))
        try:
            assert load(target) == good, at
            same += 1
        except PolicyError as error:
            assert error.error_code == "invalid_bundle"  # noqa: PT017 - either is right
    assert same < 20 < len(whole) // 10


def test_a_changed_header_of_the_archive_never_loses_a_file(tmp_path: Path) -> None:
    bundle = pack(tmp_path / "b.tar.gz", {"a.rego": "package a\n", "b.rego": "package b\n"})
    tar, good = zlib.decompress(bundle.read_bytes(), 31), load(bundle)
    for at in range(0, 2048, 7):
        bundle.write_bytes(gzip.compress(changed(tar, 0x41, at), 1))
        try:
            found = load(bundle)
        except PolicyError:
            continue
        # contents are covered by gzip's checksum only, which was made again here
        assert found.modules.keys() == good.modules.keys(), at


def test_a_directory_still_loads(source: Path) -> None:
    assert load(source) == load_policies(source)


def test_a_bundle_decides(source: Path, tmp_path: Path) -> None:
    prepared = EmbeddedEvaluator().prepare(load(build(source, tmp_path / "b.tar.gz")))
    try:
        allowed = prepared.evaluate(("shop", "decision"), b'{"amount":99}')
        denied = prepared.evaluate(("shop", "decision"), b'{"amount":100}')
        assert [getattr(o, "value", None) for o in (allowed, denied)] == [{"decision": "ALLOW"}, {"decision": "DENY"}]
    finally:
        prepared.close()


def test_contents_of_long_names_are_theirs(tmp_path: Path) -> None:
    """Names beyond 100 bytes stand in a header of their own."""
    long = "a" * 120 + "/" + "b" * 120 + ".rego"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
            head = tarfile.TarInfo(long)
            head.size = len(POLICY)
            archive.addfile(head, io.BytesIO(POLICY.encode()))
        (tmp_path / "b.tar.gz").write_bytes(gzip.compress(packed.getvalue()))
        assert load(tmp_path / "b.tar.gz").modules == {long: POLICY}
