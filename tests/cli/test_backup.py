"""`enrich backup` beside a running service, `enrich restore`, and both killed on the way."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.service.running import definitions, enrich, event, serving


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = definitions(tmp_path)
    (directory / "e.ndjson").write_text("".join(json.dumps(event(f"e-{i}")) + "\n" for i in range(5)))
    return directory


def test_a_backup_beside_a_running_service_is_restored(directory: Path) -> None:
    with serving(directory) as running:
        assert enrich("ingest", "e.ndjson", "--url", running.url, cwd=directory).returncode == 0
        refused = enrich("backup", "b0", "--data", "data", cwd=directory)
        assert (refused.returncode, "data_dir_locked" in refused.stderr) == (1, True)
        assert not (directory / "b0").exists()
        made = enrich("backup", "b1", "--data", "data", "--url", running.url, "--json", cwd=directory)
        assert made.returncode == 0, made.stderr
        head = json.loads(made.stdout)["head"]
        assert head == running.http.get("/v1/journal/anchor").json()
    assert (directory / "b1").stat().st_mode & 0o777 == 0o700
    restored = enrich("restore", "b1", "new", cwd=directory)
    assert restored.stdout.startswith(f"restored up to seq 6 of journal {head['journal_id']}: 2 records, 5 events")
    page = enrich("events", "--data", "new", "--json", cwd=directory)
    assert {e["event_id"] for e in json.loads(page.stdout)["events"]} == {f"e-{i}" for i in range(5)}
    held = enrich("journal", "verify", "--data", "new", "--anchor", "-", cwd=directory, stdin=json.dumps(head))
    assert held.returncode == 0, held.stderr
    again = enrich("restore", "b1", "new", cwd=directory)
    assert (again.returncode, "target_not_empty" in again.stderr) == (1, True)
    for command in (("serve", "--data", "b1", "--port", "0"), ("journal", "verify", "--data", "b1")):
        assert "backup_not_restored" in enrich(*command, cwd=directory).stderr


def test_killed_they_leave_nothing_that_passes_as_whole(directory: Path) -> None:
    assert enrich("ingest", "e.ndjson", cwd=directory).returncode == 0
    killed = enrich("backup", "b0", cwd=directory, environment={"ENRICH_FAILPOINT": "backup.written"})
    assert killed.returncode == -signal.SIGKILL
    assert "backup_incomplete" in enrich("restore", "b0", "new", cwd=directory).stderr
    assert not (directory / "new").exists()
    assert enrich("backup", "b1", cwd=directory).returncode == 0
    killed = enrich("restore", "b1", "new", cwd=directory, environment={"ENRICH_FAILPOINT": "restore.identity"})
    assert killed.returncode == -signal.SIGKILL
    assert "restore_incomplete" in enrich("events", "--data", "new", cwd=directory).stderr
