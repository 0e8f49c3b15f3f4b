"""Documentation is a tested contract: every Python, SQL, Rego and console snippet runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from enrich.decisions import EmbeddedEvaluator, load_policies, policy_set
from enrich.decisions.replay import REASONS
from enrich.signals import load_catalog
from tests.decisions.opa_server import opa_binary

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^```(\w+)( [^\n]*)?\n(.*?)^```$", re.M | re.S)
#: commands that have a test of their own
_ELSEWHERE = {"make demo", "make test", "make serve", "make bench", "make setup"}


@dataclass(frozen=True)
class Snippet:
    file: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def _snippets(*languages: str) -> list[Snippet]:
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text()
        for match in _FENCE.finditer(text):
            if match[1] in languages:
                line = text.count("\n", 0, match.start()) + 1
                found.append(Snippet(str(path.relative_to(ROOT)), line, match[1], match[3]))
    return found


def _checkout(directory: Path) -> None:
    """What a snippet finds in the current directory."""
    for name in ("queries", "policies"):
        shutil.copytree(ROOT / name, directory / name)


def test_the_readme_has_snippets_of_every_kind() -> None:
    for language in ("python", "sql", "rego", "console"):
        assert any(s.file == "README.md" for s in _snippets(language)), language


@pytest.mark.parametrize("snippet", _snippets("python"), ids=str)
def test_python_runs_as_it_stands(snippet: Snippet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _checkout(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    try:
        exec(compile(snippet.text, str(snippet), "exec"), names)
    finally:
        engine = names.get("engine")
        if engine is not None:
            engine.close()


@pytest.mark.parametrize("snippet", [s for s in _snippets("sql") if s.text.startswith("-- entity:")], ids=str)
def test_signal_sets_compile(snippet: Snippet, tmp_path: Path) -> None:
    """On its own; a derived set beside the shipped ones, whose signals it reads."""
    derived = "FROM signals" in snippet.text
    shipped = {p.stem: p.read_text() for p in (ROOT / "queries").glob("*.sql")} if derived else {}
    load_catalog({**shipped, "snippet": snippet.text})


@pytest.mark.parametrize("snippet", [s for s in _snippets("rego") if s.text.startswith("package ")], ids=str)
def test_policies_load(snippet: Snippet) -> None:
    shipped = load_policies(ROOT / "policies")
    modules = {**shipped.modules, "snippet.rego": snippet.text}
    with_snippet = EmbeddedEvaluator().prepare(policy_set(modules, shipped.data))
    with_snippet.close()


@pytest.mark.parametrize("snippet", _snippets("console"), ids=str)
def test_commands_run(snippet: Snippet, tmp_path: Path) -> None:
    lines = [line.removeprefix("$ ") for line in snippet.text.splitlines() if line and not line.startswith("#")]
    lines = [line for line in lines if line not in _ELSEWHERE]
    if not lines:
        return
    if re.search(r"^opa |--evaluator opa", "\n".join(lines), re.MULTILINE):
        opa_binary()
    _checkout(tmp_path)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    if any(line.startswith("opa ") for line in lines):
        path += f":{Path(opa_binary()).parent}"
    environment = {**os.environ, "PATH": path}
    script = "set -euo pipefail\n" + "\n".join(lines)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{snippet}\n{done.stdout}\n{done.stderr}"


def test_the_reasons_of_replay_are_those_of_the_code() -> None:
    text = (ROOT / "docs/how-to/replay.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (VALID|INVALID|INCONCLUSIVE) \| (.+) \|$", text, re.M)
    assert [(code, (verdict, why)) for code, verdict, why in rows] == list(REASONS.items())
