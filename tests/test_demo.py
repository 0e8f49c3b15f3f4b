"""`make demo` as a newcomer runs it, in a copy of what a checkout holds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_demo_shows_history_changing_real_decisions(tmp_path: Path) -> None:
    for name in ("queries", "policies"):
        shutil.copytree(ROOT / name, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-m", "enrich.cli.demo"],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "140"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stretched 2,000 times" in done.stdout.replace("\n", " ")
    assert "5,904 events accepted" in done.stdout
    assert done.stdout.count("input as sent") == 3
    assert "decisions are different because of history" in done.stdout


def test_the_demo_fails_when_history_changes_nothing(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "queries", tmp_path / "queries")
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "always.rego").write_text(
        'package gantral.authority\n\nimport rego.v1\n\ndecision := {"decision": "ALLOW"}\n\nreasons := []\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "enrich.cli.demo"],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 of 3 decisions" in done.stdout
