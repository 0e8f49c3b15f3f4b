"""kill -9 around DuckDB's commit: data and position are there both or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from enrich.history import History

from .data import JOURNAL_ID, make_batch, to_sidecar

ROOT = Path(__file__).parents[2]

APPLY = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from enrich.history import History
from history.data import JOURNAL_ID, make_batch, records_of

directory, path = Path(sys.argv[1]), Path(sys.argv[2])
items = [make_batch(7, 1), path, "source", make_batch(5, 3), make_batch(11, 4)]
records = records_of(items, [7, 300, 1, 5, 11])
history = History.open(directory, journal_id=JOURNAL_ID)
for part in (records[:1], records[1:3], records[3:]):
    history.apply(part)
    print(history.position.seq, flush=True)
"""


def run(directory: Path, sidecar: Path, failpoint: str | None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "ENRICH_FAILPOINT"}
    if failpoint is not None:
        environment["ENRICH_FAILPOINT"] = failpoint
    return subprocess.run(
        [sys.executable, "-c", APPLY, str(directory), str(sidecar)],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("failpoint", "acknowledged", "position"),
    [
        ("history.before_commit:1", [], 0),
        ("history.after_commit:1", [], 7),
        ("history.before_commit:2", [7], 7),
        ("history.after_commit:2", [7], 308),
        ("history.before_commit:3", [7, 308], 308),
        ("history.after_commit:3", [7, 308], 324),
    ],
)
def test_a_kill_leaves_data_and_position_together(
    tmp_path: Path, failpoint: str, acknowledged: list[int], position: int
) -> None:
    sidecar = to_sidecar(tmp_path, make_batch(300, 2))
    killed = run(tmp_path, sidecar, failpoint)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [int(line) for line in killed.stdout.split()] == acknowledged

    def held() -> tuple[int, list[int], list[int]]:
        with History.open(tmp_path, journal_id=JOURNAL_ID) as history, history.cursor() as con:
            tables = [
                [r[0] for r in con.execute(f"SELECT seq FROM {t} ORDER BY seq").fetchall()]
                for t in ("events", "event_keys")
            ]
            return history.position.seq, tables[0], tables[1]

    expected = [s for s in range(1, position + 1) if s != 308]  # 308 is no event
    assert held() == (position, expected, expected)

    # the same records again: what is there is skipped, the rest applied, nothing doubled
    again = run(tmp_path, sidecar, None)
    assert again.returncode == 0, again.stderr
    everything = [s for s in range(1, 325) if s != 308]
    assert held() == (324, everything, everything)
