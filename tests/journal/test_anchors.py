"""A chain that was replaced as a whole proves itself; what was carried away before does not let it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from enrich.errors import BadRequestError, JournalCorruptError, LockedError
from enrich.journal import Anchor, directory_anchor, newest_anchors, parse_anchor, read_anchors, verify
from tests.journal.samples import fill, fill_segments, open_journal


def written(directory: Path, seed: int, sizes: tuple[int, ...] = (1, 2, 5, 1)) -> Path:
    with open_journal(directory, segment_bytes=3000, sidecar_rows=4) as journal:
        fill(journal, sizes, seed=seed)
        fill_segments(journal, 2)
    return directory


def open_one(data: Path) -> Path:
    """The segment that the last record stands in."""
    return max(p for p in (data / "journal").glob("*.ndjson") if p.stat().st_size)


def rewritten(directory: Path, to: Path, seed: int) -> Path:
    """Another journal under the id and secret of the one that is there: every hash in it is right."""
    (to / "journal").mkdir(parents=True)
    for name in ("journal.json", "hash.key"):
        shutil.copy(directory / "journal" / name, to / "journal" / name)
    return written(to, seed)


def codes(directory: Path, *anchors: Anchor) -> list[str]:
    report = verify(directory, anchors=anchors)
    assert not report.problems
    assert report.anchors == len(anchors)
    assert report.ok == (not report.anchor_problems)
    return [problem.code for problem in report.anchor_problems]


def test_an_anchor_is_the_head_and_stays_true_while_the_journal_grows(tmp_path: Path) -> None:
    data = written(tmp_path, 1)
    first = directory_anchor(data)
    with open_journal(data) as journal:
        assert (first.journal_id, first.seq, first.hash) == (journal.journal_id, *journal.head)
        fill(journal, [3, 1], seed=2)
    second = directory_anchor(data)
    assert second.seq == first.seq + 4
    assert codes(data, first, second) == []


def test_a_chain_that_was_replaced_verifies_and_is_not_the_anchored_one(tmp_path: Path) -> None:
    data = written(tmp_path / "data", 1)
    anchor = directory_anchor(data)
    other = rewritten(data, tmp_path / "other", 2)
    assert verify(other).ok
    assert codes(other, anchor) == ["anchor_replaced"]


def test_a_journal_that_was_cut_has_lost_the_anchored_record(tmp_path: Path) -> None:
    data = written(tmp_path, 1)
    anchor = directory_anchor(data)
    open_segment = open_one(data)
    lines = open_segment.read_bytes().splitlines(keepends=True)
    open_segment.write_bytes(b"".join(lines[:-1]))
    assert codes(data, anchor) == ["anchor_lost"]


def test_another_journal_is_told_as_such(tmp_path: Path) -> None:
    anchor = directory_anchor(written(tmp_path / "a", 1))
    assert codes(written(tmp_path / "b", 1), anchor) == ["anchor_other_journal"]


def test_a_seq_within_a_record_is_no_record(tmp_path: Path) -> None:
    data = written(tmp_path, 1, (5,))
    assert codes(data, replace(directory_anchor(data), seq=3)) == ["anchor_replaced"]


def test_torn_bytes_are_not_anchored(tmp_path: Path) -> None:
    data = written(tmp_path, 1)
    anchor = directory_anchor(data)
    open_segment = open_one(data)
    with open_segment.open("ab") as file:
        file.write(b'{"v":1,"seq":')
    assert directory_anchor(data) == anchor


def test_who_holds_the_directory_has_to_be_asked(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1])
        with pytest.raises(LockedError):
            directory_anchor(tmp_path)


def test_what_has_nothing_to_anchor(tmp_path: Path) -> None:
    with pytest.raises(JournalCorruptError):
        directory_anchor(tmp_path / "nowhere")
    open_journal(tmp_path).close()
    with pytest.raises(BadRequestError) as refused:
        directory_anchor(tmp_path)
    assert refused.value.error_code == "nothing_recorded"


ANCHOR = Anchor("0" * 32, 7, "f" * 64, "2026-11-20T10:00:00.123456Z")


def test_anchors_are_read_as_they_are_written() -> None:
    later = replace(ANCHOR, seq=9)
    assert read_anchors(ANCHOR.encode() + b"\n \n" + later.encode(), "a") == [ANCHOR, later]
    assert parse_anchor(orjson.loads(ANCHOR.encode())) == ANCHOR


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seq": 0}, "seq `0`"),
        ({"seq": True}, "seq `True`"),
        ({"seq": "7"}, "seq `7`"),
        ({"hash": "F" * 64}, "hash"),
        ({"journal_id": 5}, "journal_id `5`"),
        ({"at": "yesterday"}, "at `yesterday`"),
        ({"more": 1}, "not an object of at, hash, journal_id, seq"),
    ],
)
def test_what_is_no_anchor_is_refused_with_its_line(change: dict[str, object], said: str) -> None:
    bad = orjson.dumps(ANCHOR.body() | change)
    with pytest.raises(BadRequestError, match="a, line 2") as refused:
        read_anchors(ANCHOR.encode() + bad, "a")
    assert refused.value.error_code == "invalid_anchor"
    assert said in refused.value.message


def test_a_line_cut_short_is_refused() -> None:
    with pytest.raises(BadRequestError, match="line 1 is no JSON"):
        read_anchors(ANCHOR.encode()[:-9], "a")


def test_the_newest_of_each_journal_speak_for_the_others() -> None:
    other = replace(ANCHOR, journal_id="1" * 32, seq=3)
    forked = replace(ANCHOR, seq=9, hash="e" * 64)
    assert newest_anchors([ANCHOR, replace(ANCHOR, seq=9), other, forked, forked]) == [
        replace(ANCHOR, seq=9), other, forked
    ]  # fmt: skip
