"""kill -9 under eight writers: every record answered as durable is there after the restart, with its hash, once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from enrich.failpoints import VARIABLE
from enrich.journal import verify
from tests.journal.samples import open_journal

ROOT = Path(__file__).parents[2]


def run_and_kill(directory: Path, seed: int, failpoint: str | None, lines: int) -> list[tuple[str, ...]]:
    """Start the writers, kill them (the failpoint, or this test after so many answers); what they were answered."""
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE}
    if failpoint is not None:
        environment[VARIABLE] = failpoint
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.journal.crash_writer", str(directory), str(seed), "fsync" if seed % 2 else "no"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    answers: list[tuple[str, ...]] = []
    with process, process.stdout as out:
        for line in out:
            if line.endswith("\n") and line != "open\n":
                answers.append(tuple(line.split()))
            if failpoint is None and len(answers) >= lines:
                process.send_signal(signal.SIGKILL)
                answers += [tuple(rest.split()) for rest in out if rest.endswith("\n")]
                break
    assert process.returncode == -signal.SIGKILL
    return answers


def check(directory: Path, answered: dict[str, tuple[str, ...]]) -> None:
    assert verify(directory).ok
    with open_journal(directory) as journal:
        records = list(journal.read())
    found = {str(r.seq): (str(r.seq), str(r.count), r.type, r.hash) for r in records}
    batches = [r.batch for r in records]
    lost = [a for seq, a in answered.items() if found.get(seq) != a]
    assert not lost
    keys = [k for b in batches if b is not None for k in b.keys]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    "failpoint",
    [
        None, "journal.write:1", "journal.write:97", "journal.before_fsync:1", "journal.before_fsync:40",
        "journal.after_fsync:25", "journal.rotate.created:1", "journal.rotate.created:2", "journal.rotate.closed:1",
        "journal.rotate.closed:3", "sidecar.written:1", "sidecar.written:14",
    ],
)  # fmt: skip
def test_nothing_answered_is_lost_to_kill_9(tmp_path: Path, failpoint: str | None) -> None:
    answered: dict[str, tuple[str, ...]] = {}
    for seed in (1, 2):  # the second run begins with what the first one left
        for answer in run_and_kill(tmp_path, seed, failpoint, 150):
            assert answer[0] not in answered
            answered[answer[0]] = answer
        check(tmp_path, answered)


@pytest.mark.slow
def test_forty_crashes_in_a_row_at_random_places(tmp_path: Path) -> None:
    random_ = random.Random(5)
    answered: dict[str, tuple[str, ...]] = {}
    names = ["journal.write", "journal.before_fsync", "journal.after_fsync", "journal.rotate.closed", "sidecar.written"]
    for seed in range(40):
        name = random_.choice(names)
        last = 3 if "rotate" in name else 60
        failpoint = None if seed % 2 else f"{name}:{random_.randint(1, last)}"
        for answer in run_and_kill(tmp_path, seed, failpoint, random_.randint(1, 200)):
            answered[answer[0]] = answer
        check(tmp_path, answered)
    assert verify(tmp_path).ok
    assert len(answered) > 500
