from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from enrich.errors import ConfigError
from enrich.failpoints import FAILPOINTS, failpoint, from_environment


def test_off_it_does_nothing_and_costs_next_to_nothing() -> None:
    off = from_environment({})
    start = time.perf_counter()
    for _ in range(100_000):
        off("journal.write")
    assert time.perf_counter() - start < 0.2
    assert failpoint("engine.applied") is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize("value", ["journal.wrote", "journal.write:0", "journal.write:x", "journal.write:-1", ":1"])
def test_a_name_or_count_that_means_nothing_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="ENRICH_FAILPOINT"):
        from_environment({"ENRICH_FAILPOINT": value})


@pytest.mark.parametrize("name", FAILPOINTS)
def test_the_process_dies_at_the_nth_passing_of_that_name_only(name: str) -> None:
    other = next(n for n in FAILPOINTS if n != name)
    program = (
        "from enrich.failpoints import failpoint\n"
        f"for i in range(9): failpoint({other!r}); print(i, flush=True); failpoint({name!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"ENRICH_FAILPOINT": f"{name}:3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["0", "1", "2"]


def test_a_forked_process_arms_its_own() -> None:
    program = (
        "from enrich.failpoints import failpoint\n"
        "failpoint.arm({'ENRICH_FAILPOINT': 'journal.write:2'})\n"
        "for i in range(9): failpoint('journal.write'); print(i, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env={}, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["0"]
