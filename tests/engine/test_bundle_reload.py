"""An engine on a bundle: whatever replaces it goes live whole, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from enrich import Engine
from enrich.errors import PolicyError
from enrich.settings import Settings
from tests.decisions.bundling import build, keys, pack, replace_file, write_files
from tests.engine.gated import decide, open_gated

ALLOW = 'package shop\n\ndecision := {"decision": "ALLOW"} if input.identity.actor_id\n'
DENY = ALLOW.replace("ALLOW", "DENY")


def bundle(where: Path, text: str, revision: str) -> Path:
    manifest = json.dumps({"revision": revision, "roots": ["shop"]})
    return pack(where / "bundle.tar.gz", {"/shop.rego": text, "/.manifest": manifest})


def open_on(where: Path, source: Path, **settings: Any) -> Engine:
    """A gated engine on other policies than its directory's."""
    open_gated(where).close()
    return Engine.open(
        where / "data", queries=where / "queries", policies=source, settings=Settings(disk_low_bytes=0, **settings)
    )


def texts(engine: Engine) -> list[Any]:
    return [(r.body or {})["policies"] for r in engine.journal.read() if r.type == "definitions"]


def test_a_bundle_that_is_replaced_goes_live(tmp_path: Path) -> None:
    source = bundle(tmp_path, ALLOW, "r-1")
    with open_on(tmp_path, source) as engine:
        first = decide(engine)
        assert (first.decision, first.provenance) == ("ALLOW", {"name": "bundle.tar.gz", "revision": "r-1"})
        assert not engine.reload().changed
        bundle(tmp_path, DENY, "r-2")
        assert engine.reload().changed
        assert (decide(engine).decision, engine.health().warnings) == ("DENY", ())
        bundle(tmp_path, DENY, "r-3")  # the same policies under another name
        report = engine.reload()
        assert (report.changed, report.problems) == (True, ())
        assert decide(engine).provenance == {"name": "bundle.tar.gz", "revision": "r-3"}
        journaled = texts(engine)
        assert [t["revision"] for t in journaled] == [None, "r-1", "r-2", "r-3"]
        assert journaled[-1]["modules"] == {"shop.rego": DENY}
        assert journaled[-1]["version"] == journaled[-2]["version"] == report.policies
    with open_on(tmp_path, source) as engine:
        assert decide(engine, dry_run=True).provenance == {"name": "bundle.tar.gz", "revision": "r-3"}


def test_a_bundle_that_does_not_load_leaves_the_old_one_live_and_shows(tmp_path: Path) -> None:
    source = bundle(tmp_path, ALLOW, "r-1")
    good = source.read_bytes()
    with open_on(tmp_path, source) as engine:
        for bad in (good[:-9], good.replace(good[60:64], b"none"), b""):
            replace_file(source, bad)
            report = engine.reload()
            assert (report.ok, report.changed) == (False, False)
            assert (engine.health().ready, len(engine.health().warnings)) == (True, 1)
            assert (decide(engine).decision, decide(engine).provenance) == (
                "ALLOW",
                {"name": "bundle.tar.gz", "revision": "r-1"},
            )
        source.unlink()
        assert not engine.reload().ok
        replace_file(source, good)
        assert engine.reload().ok
        assert engine.health().warnings == ()
        assert len(texts(engine)) == 2


def test_only_what_is_signed_goes_live(tmp_path: Path) -> None:
    private, public = keys(tmp_path / "keys")
    shop = write_files(tmp_path / "shop", {"shop.rego": ALLOW})
    signing = ("--signing-key", str(private), "--revision")
    source = build(shop, tmp_path / "bundle.tar.gz", *signing, "r-1")
    with open_on(tmp_path, source, bundle_verification_key=public) as engine:
        assert decide(engine).decision == "ALLOW"
        write_files(shop, {"shop.rego": DENY})
        build(shop, source)
        assert "no signature" in engine.reload().problems[0]
        assert decide(engine).decision == "ALLOW"
        build(shop, source, *signing, "r-2")
        assert engine.reload().ok
        assert decide(engine).decision == "DENY"
    with pytest.raises(PolicyError) as caught:
        open_on(tmp_path / "other", source)
    assert caught.value.error_code == "bundle_key_missing"
