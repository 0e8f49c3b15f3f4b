from __future__ import annotations

from enrich.signals import load_catalog


def test_a_set_that_reads_no_column_loads() -> None:
    header = "-- entity: team\n-- windows: 1h\n-- owner: tests\n-- description: The simplest set there is.\n"
    catalog = load_catalog({"simplest.sql": header + "SELECT count(*) AS runs -- all of them\nFROM events\n"})
    assert [s.name for s in catalog.sets[0].signals] == ["runs"]
