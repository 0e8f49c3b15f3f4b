"""The property test is no ornament: a few of its scenarios see each of five planted bugs, and none without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.exactness.seeded_bugs import BUGS, ROOT, Bug, plant


def scenarios(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.exactness.random_sets", "0", "12", "--stop"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_planted_bug_shows(bug: Bug, tmp_path: Path) -> None:
    plant(bug, tmp_path)
    found = scenarios(tmp_path)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "DuckDB" in found.stdout, found.stdout + found.stderr


def test_without_a_bug_the_same_scenarios_show_none() -> None:
    found = scenarios(ROOT)
    assert found.returncode == 0, found.stdout + found.stderr
