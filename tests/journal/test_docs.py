"""docs/reference/journal.md names every record type, header field, manifest field, failpoint and error of the room."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from enrich.errors import JournalCorruptError, JournalFailedError, JournalFullError, LockedError, NewerFormatError
from enrich.failpoints import FAILPOINTS
from enrich.journal.format import TYPES
from enrich.journal.segment import Manifest
from tests.journal.samples import fill, open_journal

PAGE = (Path(__file__).parents[2] / "docs/reference/journal.md").read_text()


def test_the_page_names_what_there_is() -> None:
    named = set(re.findall(r"`([^`\n]+)`", PAGE))
    errors = (JournalCorruptError, JournalFailedError, JournalFullError, LockedError, NewerFormatError)
    assert named >= TYPES | set(FAILPOINTS) | {e.code for e in errors}
    fields = {f.name for f in dataclasses.fields(Manifest)} - {"number"}
    assert named >= fields


def test_the_page_shows_a_line_as_it_is_written(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1])
    line = (tmp_path / "journal" / "00000001.ndjson").read_text().partition(',"body":{')[0]
    shown = re.search(r"^\{\"v\".*$", PAGE, re.M)
    assert shown is not None
    assert re.findall(r'"([a-z_0-9]+)":', line) == re.findall(r'"([a-z_0-9]+)":', shown[0].partition(',"body":{')[0])
