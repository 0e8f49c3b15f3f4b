"""A start is held against the anchors that the settings name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from enrich.errors import ConfigError, JournalBehindError
from enrich.journal import directory_anchor
from tests.engine.support import event, events, open_engine
from tests.journal.test_anchors import rewritten


def test_the_anchor_of_an_engine_is_its_durable_head(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        engine.record(events(0, 5))
        anchor = engine.anchor()
        assert (anchor.journal_id, anchor.seq, anchor.hash) == (engine.journal.journal_id, *engine.journal.durable)
    assert directory_anchor(tmp_path / "data") == anchor


def test_a_journal_that_bears_its_anchors_out_starts_and_grows(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"")
    for n in range(3):
        with open_engine(tmp_path, anchors=kept) as engine:
            engine.record([event(n)])
            with kept.open("ab") as file:
                file.write(engine.anchor().encode())


def test_a_replaced_journal_does_not_start_though_nothing_else_knows_of_the_old_one(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        engine.record([event(1)])
        anchor = engine.anchor()
    other = tmp_path / "other"
    rewritten(tmp_path / "data", other / "data", 5)
    shutil.copytree(tmp_path / "queries", other / "queries")
    kept = tmp_path / "kept"
    kept.write_bytes(anchor.encode())
    with pytest.raises(JournalBehindError, match=f"record at {anchor.seq} is not the one that an anchor has"):
        open_engine(other, anchors=kept)
    open_engine(other).close()  # which shows that nothing else would have noticed


def test_a_shorter_journal_and_another_one_do_not_start(tmp_path: Path) -> None:
    with open_engine(tmp_path) as engine:
        engine.record([event(1)])
        anchor = engine.anchor()
    kept = tmp_path / "kept"
    kept.write_bytes(replace(anchor, seq=anchor.seq + 1).encode())
    with pytest.raises(JournalBehindError, match=f"have record {anchor.seq + 1}, the journal ends at {anchor.seq}"):
        open_engine(tmp_path, anchors=kept)
    kept.write_bytes(replace(anchor, journal_id="0" * 32).encode())
    with pytest.raises(JournalBehindError, match="the anchor is of journal"):
        open_engine(tmp_path, anchors=kept)


@pytest.mark.parametrize("content", [None, b"{}\n"])
def test_anchors_that_cannot_be_read_refuse_the_start(tmp_path: Path, content: bytes | None) -> None:
    kept = tmp_path / "kept"
    if content is not None:
        kept.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        open_engine(tmp_path, anchors=kept)
    assert refused.value.detail["setting"] == "anchors"
    assert not (tmp_path / "data").exists()
