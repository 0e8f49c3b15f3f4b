"""`enrich serve` on a bundle that is replaced, by name, as releases do it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.decisions.bundling import build, keys, pack, replace_file, write_files
from tests.decisions.opa_server import ask, serve_opa

from .running import POLICY, Running, definitions, enrich, serving
from .test_lifecycle import eventually

PATH = "/v1/data/test/authority/decision?provenance=true"
ASKED = {"input": {"identity": {"actor_id": "a-1"}}}


def revision(service: Running) -> str:
    return str(service.http.post(PATH, json=ASKED).json()["provenance"]["bundles"]["bundle.tar.gz"]["revision"])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return definitions(tmp_path)


def test_a_signed_bundle_is_served_and_followed(directory: Path) -> None:
    private, public = keys(directory / "keys")
    release = ("--signing-key", str(private), "--revision")
    source, fresh = directory / "policies", directory / "fresh.tar.gz"
    bundle = build(source, directory / "bundle.tar.gz", *release, "r-1")
    flags = (f"--policies={bundle.name}", f"--bundle-verification-key={public}")
    with serving(directory, *flags) as service:
        assert revision(service) == "r-1"
        write_files(source, {"authority.rego": POLICY.replace('"ALLOW"', '"REQUIRE_HUMAN"')})
        build(source, fresh, *release, "r-2").replace(bundle)
        eventually(lambda: revision(service) == "r-2")
        assert service.http.post(PATH, json=ASKED).json()["result"] == {"decision": "REQUIRE_HUMAN"}
        replace_file(bundle, build(source, fresh).read_bytes())  # by somebody who has no key
        eventually(lambda: service.metric("enrich_definitions_stale") == 1)
        assert revision(service) == "r-2"
        assert [w["code"] for w in service.http.get("/health/ready").json()["warnings"]] == ["definitions_refused"]
        build(source, fresh, *release, "r-3").replace(bundle)
        eventually(lambda: service.metric("enrich_definitions_stale") == 0 and revision(service) == "r-3")
    found = enrich("check", f"--policies={bundle.name}", "--queries=queries", cwd=directory)
    assert (found.returncode, "bundle_key_missing" in found.stderr) == (1, True), found.stderr
    variable = {"ENRICH_BUNDLE_VERIFICATION_KEY": str(public)}
    found = enrich("check", f"--policies={bundle.name}", "--queries=queries", cwd=directory, environment=variable)
    assert (found.returncode, found.stdout[:2]) == (0, "ok"), found.stderr


def test_an_error_in_a_bundle_names_file_and_line(directory: Path) -> None:
    bundle = pack(directory / "bundle.tar.gz", {"authority.rego": "package test.authority\n\ndecision := {"})
    found = enrich("check", f"--policies={bundle.name}", "--queries=queries", cwd=directory)
    assert (found.returncode, "bundle.tar.gz/authority.rego:3" in found.stderr) == (1, True), found.stderr
    assert "Traceback" not in found.stderr


def test_provenance_has_the_form_of_opa(service: Running, tmp_path: Path) -> None:
    made = write_files(tmp_path / "shop", {"authority.rego": POLICY})
    with serve_opa(build(made, tmp_path / "b.tar.gz", "--revision", "r-1")) as port:
        path = PATH.replace("decision", "asked")
        _, _, theirs = ask(port, "POST", path, b'{"input":{"identity":{"actor_id":"a"}}}')
        ours = service.http.post(path, json={"input": {"identity": {"actor_id": "a"}}}).json()
        assert ours["provenance"].keys() == theirs["provenance"].keys()
        assert ours["provenance"]["bundles"] == {"policies": {"revision": ""}}
        assert [*theirs["provenance"]["bundles"].values()] == [{"revision": "r-1"}]
        for flag, there in (("false", False), ("", True), ("TRUE", True), ("x", False)):
            asked = path.replace("=true", f"={flag}")
            assert ("provenance" in ask(port, "POST", asked, b'{"input":{}}')[2]) == there
            assert ("provenance" in service.http.post(asked, json={"input": {}}).json()) == there
