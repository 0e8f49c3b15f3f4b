"""Every notebook runs from top to bottom as a script."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda p: p.stem)
def test_a_notebook_runs_as_a_script(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_there_is_a_notebook() -> None:
    assert list((ROOT / "notebooks").glob("*.py"))


def test_the_plot_shows_what_the_text_below_it_says() -> None:
    """Three agents that end in red; the last one is above the line at the end, was red, and is no more."""
    app = runpy.run_path(str(ROOT / "notebooks" / "rejections.py"))["app"]
    _, found = app.run()
    course = {agent: rows for (agent,), rows in found["course"].sort("days").group_by("agent", maintain_order=True)}
    *worst, last = found["shown"]
    assert {course[agent]["state"][-1] for agent in worst} == {"significant"}
    assert (course[last]["state"][-1], course[last]["rate"][-1] > 0.15) == ("in order", True)
    assert "significant" in course[last]["state"].to_list()
