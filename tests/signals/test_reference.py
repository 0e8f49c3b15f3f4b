"""The language's reference page is a contract: its examples load, its refusals are refused, its rewrites load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from enrich.signals import DefinitionErrors, load_catalog
from enrich.signals.library import LIBRARY
from enrich.signals.read import AGGREGATES

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "signals.md").read_text()
HEADER = "-- entity: agent\n-- windows: 1h\n"
ROWS = re.findall(r"^\| `([^`]+)` \| [^|]*\| `([^`]+)` \|$", PAGE, re.MULTILINE)


def blocks() -> dict[str, str]:
    return {
        kind.strip() or "events": text for kind, text in re.findall(r"```sql( derived)?\n(.*?)```", PAGE, re.DOTALL)
    }


def test_the_examples_load() -> None:
    found = blocks()
    workflow = found["events"].replace("entity: agent", "entity: workflow")
    catalog = load_catalog({"a": found["events"], "b": workflow, "c": found["derived"]})
    assert [s.name for s in catalog.sets] == ["a", "b", "c"]
    assert all(signal.comment for signal in catalog.sets[0].signals)


@pytest.mark.parametrize(("refused", "instead"), ROWS)
def test_a_refusal_and_its_rewrite(refused: str, instead: str) -> None:
    with pytest.raises(DefinitionErrors):
        load_catalog({"x": f"{HEADER}SELECT {refused} AS x FROM events"})
    load_catalog({"x": f"{HEADER}SELECT {instead} AS x FROM events"})


def test_every_function_stands_on_the_page() -> None:
    assert len(ROWS) > 25
    for name in {*AGGREGATES, *LIBRARY} - {"count_star"}:
        assert f"`{name}" in PAGE or f" `{name}" in PAGE or f"{name}`" in PAGE, name
