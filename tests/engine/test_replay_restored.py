"""Decisions of a restored journal, made before it was restored, between two restores and since, still stand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from enrich.decisions.replay import PolicyReplay, evaluators_of
from enrich.engine.backups import make_backup, restore_backup
from enrich.journal import Disk, directory_anchor
from enrich.settings import Settings

from .gated import decide, open_gated
from .replayed import Made, make
from .support import now_us

DISK = Disk(fsync=False)


@pytest.fixture(scope="module")
def policy() -> Iterator[PolicyReplay]:
    policy = PolicyReplay(evaluators_of(Settings()))
    yield policy
    policy.close()


def restored(made: Made, where: Path) -> Made:
    """A backup of it restored, and another decision made there."""
    make_backup(made.data, where / "backup", directory_anchor(made.data), now_us=now_us(), disk=DISK)
    for name in ("queries", "policies"):
        shutil.copytree(made.data.parent / name, where / name)
    restore_backup(where / "backup", where / "data", now_us=now_us(), disk=DISK)
    with open_gated(where) as engine:
        ids = [*made.ids, decide(engine).decision_id]
        engine.caught_up(20)
        assert [engine.replays.one(id_).verdict for id_ in ids] == ["VALID"] * len(ids)
    return Made(where / "data", ids, made.policy)


def test_decisions_before_and_after_a_restore_are_valid(tmp_path: Path, policy: PolicyReplay) -> None:
    once = restored(make(tmp_path / "first", policy, decisions=2), tmp_path / "second")
    twice = restored(once, tmp_path / "third")
    for made in (once, twice):
        report = made.all()
        assert report.problems == ()
        assert [(r.decision_id, r.verdict) for r in report.decisions] == [(id_, "VALID") for id_ in made.ids]
        assert [made.one(id_).verdict for id_ in made.ids] == ["VALID"] * len(made.ids)


def test_a_restored_journal_that_lost_a_line_before_the_joint_proves_nothing(
    tmp_path: Path, policy: PolicyReplay
) -> None:
    made = restored(make(tmp_path / "first", policy, decisions=2), tmp_path / "second")
    segment = made.segments[0]
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[:-1]))
    report = made.all()
    assert report.problems
    assert "VALID" not in {r.verdict for r in report.decisions}
    assert made.one(made.ids[0]).verdict != "VALID"
