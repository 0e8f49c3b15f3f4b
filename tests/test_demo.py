"""`make demo` and `make serve` as a newcomer runs them, in a copy of what a checkout holds."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[1]


def environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ENRICH_")}
    return {**clean, "NO_COLOR": "1", **more}


def demo(directory: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "enrich.cli.demo"],
        cwd=directory,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("queries", "policies"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("columns", [80, 140])
def test_the_demo_shows_history_changing_real_decisions(checkout: Path, columns: int) -> None:
    done = demo(checkout, COLUMNS=str(columns))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stretched 2,000 times" in done.stdout.replace("\n", " ")
    assert "5,904 events accepted" in done.stdout
    assert done.stdout.count("input as sent") == done.stdout.count("history injected") == 3
    assert done.stdout.count("what each part took") == done.stdout.count("computing the history and evaluating") == 3
    assert "decisions are different because of history" in done.stdout
    assert re.search(r"[1-9]\d* of [1-9]\d* decisions would be others", " ".join(done.stdout.split()))
    if columns == 80:
        nothing_is_cut_off_or_folded(done.stdout.splitlines())


def nothing_is_cut_off_or_folded(lines: list[str]) -> None:
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    side_by_side = [line for line in lines if line.startswith("│") and line.count("││") == 1]
    assert sum("actor_id" in line and "rejected_significantly" not in line for line in side_by_side) == 3
    query = lines[lines.index("SELECT agent_id,") : lines.index("HAVING decided >= 10")]
    assert all(line.startswith((" ", "SELECT", "FROM", "WHERE", "GROUP")) for line in query), query


def test_the_demo_fails_when_history_changes_nothing(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "queries", tmp_path / "queries")
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "always.rego").write_text(
        'package gantral.authority\n\nimport rego.v1\n\ndecision := {"decision": "ALLOW"}\n\nreasons := []\n'
    )
    done = demo(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 of 3 decisions" in done.stdout


def test_serve_keeps_the_service_up_and_takes_it_down_with_it(checkout: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "enrich.cli.demo", "--serve"],
        cwd=checkout,
        env=environment(ENRICH_PORT="0", COLUMNS="120", PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            found = (re.search(r"serving data/demo on (http://\S+);", line) for line in process.stdout or ())
            url = next(match[1] for match in found if match)
            assert httpx.get(f"{url}/health/ready").status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 0
        finally:
            process.kill()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health/live")
