"""`enrich journal cut`, from a byte that went wrong to a journal that works again."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.service.running import definitions, enrich, event, serving


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Seq 1 are the definitions, 2 to 6 and 7 to 11 are five events each."""
    directory = definitions(tmp_path)
    for first in (0, 5):
        assert ingest(directory, first).startswith("accepted 5,")
    return directory


def ingest(directory: Path, first: int) -> str:
    file = directory / "e.ndjson"
    at = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(time.time() - 86_400))  # the same when sent again
    made = [event(f"c-{i}", agent_id="c", occurred_at=at) for i in range(first, first + 5)]
    file.write_text("".join(json.dumps(one) + "\n" for one in made))
    answer = enrich("ingest", file, cwd=directory)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def break_last(directory: Path) -> None:
    segment = directory / "data/journal/00000001.ndjson"
    segment.write_bytes(segment.read_bytes().replace(b'"event_id":"c-8"', b'"event_id":"X-8"'))


def everything(directory: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in (directory / "data").rglob("*") if p.is_file() and p.name != "lock"}


def answered(directory: Path, answer: str, *arguments: str) -> tuple[int, str]:
    """Runs the command on a terminal on which somebody types `answer`; (exit code, what it showed)."""
    here, there = pty.openpty()
    os.write(here, answer.encode())
    done = subprocess.run(
        [Path(sys.executable).with_name("enrich"), *arguments], cwd=directory, stdin=there, capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(there)
    os.close(here)
    return done.returncode, done.stdout + done.stderr


def test_from_a_broken_record_to_a_journal_that_works(directory: Path) -> None:
    break_last(directory)
    for path in (directory / "data").glob("history.duckdb*"):
        path.unlink()  # what DuckDB has, the start would not read again
    started = enrich("events", cwd=directory)
    assert "journal_corrupt" in started.stderr
    assert "`enrich journal cut --after SEQ`" in started.stderr

    too_far = enrich("journal", "cut", "--data", "data", "--after", "11", "--yes", cwd=directory)
    assert too_far.returncode == 1
    assert "what verifies ends at 6: `enrich journal cut --after 6` keeps that" in too_far.stderr

    done = enrich("journal", "cut", "--data", "data", "--after", "6", "--yes", cwd=directory)
    assert (done.returncode, done.stdout) == (0, "cut after seq 6: 1 records, 5 events given up\n"), done.stderr
    for said in (
        "behind seq 6, this would be given up:", "1 records, 5 events", "from seq 7 to 11", "recorded 2",
        "file journal/00000001.ndjson", "index files (index), at seq 11: built again", "moved aside: data/index.cut",
    ):  # fmt: skip
        assert said in done.stderr, said

    assert enrich("journal", "verify", cwd=directory).stdout.startswith("ok:")
    page = json.loads(enrich("events", "--json", cwd=directory).stdout)
    assert {e["event_id"] for e in page["events"]} == {f"c-{i}" for i in range(5)}
    assert ingest(directory, 0).startswith("accepted 0, duplicate 5,")
    assert ingest(directory, 5).startswith("accepted 5, duplicate 0,")
    again = enrich("journal", "cut", "--after", "11", "--yes", cwd=directory)
    assert (again.returncode, again.stdout) == (0, "nothing lies behind seq 11: nothing was changed\n")


def test_it_asks_and_a_no_changes_nothing(directory: Path) -> None:
    before = everything(directory)
    arguments = ("journal", "cut", "--after", "6")
    refused = enrich(*arguments, cwd=directory)
    assert refused.returncode == 1
    assert "error: not_confirmed: " in refused.stderr
    assert "--yes" in refused.stderr
    code, said = answered(directory, "n\n", *arguments)
    assert code == 1
    assert "Cut the journal after seq 6? [y/N]" in said
    assert "nothing was changed" in said
    assert everything(directory) == before
    code, said = answered(directory, "y\n", *arguments)
    assert (code, "cut after seq 6: 1 records, 5 events given up" in said) == (0, True), said
    assert everything(directory) != before


@pytest.mark.parametrize(
    ("after", "said"),
    [("8", "around it they end at `6` and at `11`"), ("99", "the journal ends at `11`")],
)
def test_a_seq_within_a_record_is_refused_with_those_around(directory: Path, after: str, said: str) -> None:
    answer = enrich("journal", "cut", "--after", after, "--yes", cwd=directory)
    assert answer.returncode == 1
    assert "error: not_a_record_end: " in answer.stderr
    assert said in answer.stderr


@pytest.mark.parametrize("arguments", [(), ("--after", "-1"), ("--after", "x")])
def test_without_a_seq_it_is_called_wrongly(directory: Path, arguments: tuple[str, ...]) -> None:
    assert enrich("journal", "cut", *arguments, cwd=directory).returncode == 2


def test_a_running_service_is_not_cut(directory: Path) -> None:
    with serving(directory):
        answer = enrich("journal", "cut", "--after", "6", "--yes", cwd=directory)
    assert answer.returncode == 1
    assert "data_dir_locked: a running service holds `data`" in answer.stderr
    assert "stop it first" in answer.stderr


def test_where_there_is_no_journal_nothing_is_made(tmp_path: Path) -> None:
    answer = enrich("journal", "cut", "--data", "nowhere", "--after", "0", "--yes", cwd=tmp_path)
    assert answer.returncode == 1
    assert "`nowhere` has no journal" in answer.stderr
    assert not (tmp_path / "nowhere").exists()
