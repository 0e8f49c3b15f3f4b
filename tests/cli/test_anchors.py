"""`enrich journal anchor` and `enrich journal verify --anchor`, on a directory and on a running service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.service.running import definitions, enrich, event, serving


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = definitions(tmp_path)
    (directory / "e.ndjson").write_text(json.dumps(event("e-1")) + "\n")
    return directory


def test_a_service_is_anchored_and_held_against_what_was_kept(directory: Path) -> None:
    with serving(directory) as running:
        at = ("--url", running.url)
        for _ in range(2):
            assert enrich("journal", "anchor", "--out", "kept", *at, cwd=directory).stdout == ""
            assert enrich("ingest", "e.ndjson", *at, cwd=directory).returncode == 0
        assert enrich("journal", "anchor", *at, cwd=directory).stdout == (directory / "kept").read_text().splitlines(
            keepends=True
        )[-1]
        held = enrich("journal", "anchor", cwd=directory)
        assert (held.returncode, "data_dir_locked" in held.stderr) == (1, True)
        for where in ((), at):
            good = enrich("journal", "verify", "--anchor", "kept", *where, cwd=directory)
            assert (good.returncode, good.stdout[-12:]) == (0, ", 2 anchors\n"), good.stderr
            forged = (directory / "kept").read_text().replace('"seq":2', '"seq":99')
            bad = enrich("journal", "verify", "--anchor", "-", *where, cwd=directory, stdin=forged)
            assert bad.returncode == 3
            assert "anchor_lost: an anchor has record 99, the journal ends at 2" in bad.stderr
        bad_body = running.http.post("/v1/journal/verify", json={"anchors": [{}]})
        assert (bad_body.status_code, bad_body.json()["error"]["code"]) == (400, "invalid_anchor")
        assert running.http.post("/v1/journal/verify", json=[]).json()["error"]["code"] == "unexpected_body"


def test_what_does_not_verify_ends_with_1_whatever_the_anchors_say(directory: Path) -> None:
    assert enrich("ingest", "e.ndjson", cwd=directory).returncode == 0
    kept = enrich("journal", "anchor", cwd=directory).stdout
    segment = directory / "data/journal/00000001.ndjson"
    segment.write_bytes(segment.read_bytes().replace(b'"event_id":"e-1"', b'"event_id":"X-1"'))
    done = enrich("journal", "verify", "--json", "--anchor", "-", cwd=directory, stdin=kept)
    report = json.loads(done.stdout)
    assert (done.returncode, report["anchors"], report["anchor_problems"]) == (1, 1, [])


@pytest.mark.parametrize("content", ["", "{}\n", "no json\n"])
def test_anchors_that_are_none_are_no_reason_to_say_ok(directory: Path, content: str) -> None:
    done = enrich("journal", "verify", "--anchor", "-", cwd=directory, stdin=content)
    assert (done.returncode, "error: invalid_anchor: " in done.stderr) == (1, True)
