"""docs/reference/events.md is a contract: its tables and its example are checked against the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

from enrich.events import COLUMNS, REFUSAL_CODES
from enrich.events.files import MAX_LINE_BYTES
from enrich.events.model import AUTHORITY_OUTCOMES, MAX_ATTRIBUTE_BYTES, MAX_ATTRIBUTES, MAX_STRING, RUN_OUTCOMES

from .data import NOW_US, parser

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "events.md").read_text()


def _section(title: str) -> str:
    return re.split(r"^## ", PAGE.split(f"## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_the_table_of_refusals_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", _section("Refusals"), re.MULTILINE)
    assert dict(rows) == dict(REFUSAL_CODES)
    assert len(rows) == len(REFUSAL_CODES)


def test_the_table_of_fields_is_that_of_the_code() -> None:
    names = re.findall(r"^\| `(\w+)` \|", _section("Fields"), re.MULTILINE)
    assert sorted(names) == sorted(COLUMNS)


def test_outcomes_and_limits_are_those_of_the_code() -> None:
    fields = _section("Fields")
    assert ", ".join(f"`{o}`" for o in RUN_OUTCOMES) in fields
    assert ", ".join(f"`{o}`" for o in AUTHORITY_OUTCOMES) in re.sub(r"\s+", " ", fields)
    limits = _section("Types and limits")
    assert f"1 to {MAX_STRING} characters" in limits
    assert f"at most {MAX_ATTRIBUTES} keys and {MAX_ATTRIBUTE_BYTES} bytes" in limits
    assert f"{MAX_LINE_BYTES // 1024} KiB" in _section("Files")


def test_the_example_is_accepted() -> None:
    example = re.search(r"```json\n(.+?)```", PAGE, re.DOTALL)
    assert example is not None
    assert parser().parse([json.loads(example[1])], NOW_US).rejected == []
