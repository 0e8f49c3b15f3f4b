"""Loading, selecting, deriving, describing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

from enrich.errors import BadRequestError, ConfigError, NotFoundError
from enrich.signals import Catalog, DefinitionErrors, load_catalog, query_for, sql_for
from tests.signals.duck import Duck, settled
from tests.signals.naive import Naive

START = 1_700_000_000_000_000
RELIABILITY = """-- entity: agent
-- windows: 1h, 24h
-- owner: risk
-- description: How it goes.
SELECT
    count(*)                                   AS runs,     -- runs
    count(*) FILTER (WHERE outcome = 'failed') AS failures, -- of these, failed
    failures / nullif(runs, 0)                 AS rate,     -- 0..1
    sum(cost_microusd)                         AS cost,
    max(occurred_at)                           AS latest,
    count(TRY_CAST(attributes ->> 'retries' AS BIGINT)) AS retried
FROM events
"""
WORKFLOW = "-- entity: workflow\n-- windows: 24h\nSELECT count(*) AS runs, avg(duration_ms) AS mean FROM events\n"
BASELINE = """-- entity: agent
SELECT
    last_24h.runs - last_1h.runs AS earlier,
    last_1h.rate > last_24h.rate AS worse,
    workflow.last_24h.mean       AS usual,
    last_1h.rate / (last_24h.runs - last_24h.runs) AS never
FROM signals
"""
SECOND = """-- entity: agent
SELECT earlier > 0 AND coalesce(worse, false) AS alarm, coalesce(never, -1) AS never_seen FROM signals
"""
SOURCES = {"reliability": RELIABILITY, "workflows": WORKFLOW, "baseline": BASELINE, "second": SECOND}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(SOURCES)


def problem(sources: Mapping[str, str]) -> str:
    with pytest.raises(DefinitionErrors) as caught:
        load_catalog(sources)
    return caught.value.pretty()


def events() -> list[dict[str, Any]]:
    return [
        {
            "occurred_at": START - i * 500_000_000,
            "source": "t",
            "event_id": f"e{i}",
            "kind": "execution",
            "outcome": "failed" if i % 3 == 0 or i < 3 else "succeeded",
            "agent_id": "a",
            "workflow_id": "w",
            "duration_ms": i * 7,
            "attributes": {"retries": i} if i % 2 else None,
        }
        for i in range(30)
    ]


def answer(catalog: Catalog, select: list[str] | None, rows: list[dict[str, Any]], as_of: int) -> dict[str, Any]:
    """Every selected entity's object, over one history that belongs to all of them."""
    made = catalog.functions(select)
    raws: dict[str, list[Any]] = {}
    found: dict[str, Any] = {}
    for entity, f in made.items():
        naive = Naive(catalog.plans[entity], rows, list(range(1, len(rows) + 1)))
        raws[entity] = [None] * f.raw_size
        windows = {name: naive.answer(function, us, as_of, raws[entity]) for name, us, function in f.windows}
        if f.selected:
            found[entity] = {name: w for name, w in windows.items() if name not in f.hidden}
    for entity, f in made.items():
        if f.derived is not None:
            assert f.derived_reads <= set(raws)
            found[entity] |= f.derived(raws)
    return found


def test_a_directory_a_file_and_a_mapping_load_the_same(tmp_path: Path, catalog: Catalog) -> None:
    for name, text in SOURCES.items():
        (tmp_path / f"{name}.sql").write_text(text)
    assert load_catalog(tmp_path).version == catalog.version
    assert load_catalog(sorted(tmp_path.glob("*.sql"))).version == catalog.version
    assert [s.name for s in load_catalog(tmp_path / "reliability.sql").sets] == ["reliability"]
    with pytest.raises(ConfigError):
        load_catalog(tmp_path / "nowhere")


def test_what_a_catalog_knows(catalog: Catalog) -> None:
    assert [w.name for w in catalog.windows("agent")] == ["1h", "24h"]
    assert catalog.windows("team") == ()
    assert catalog.attribute_keys == {"retries"}
    assert set(catalog.plans) == {"agent", "workflow"}
    assert dict(catalog.sources) == SOURCES
    assert catalog.plans["agent"].key_columns == ("agent_id",)


def test_a_name_is_used_once_per_entity() -> None:
    assert "has a signal `runs` already" in problem({"a": RELIABILITY, "b": RELIABILITY})
    assert len(load_catalog({"a": RELIABILITY, "b": RELIABILITY.replace("agent", "team")}).sets) == 2


def test_everything_selected_gives_every_object(catalog: Catalog) -> None:
    got = answer(catalog, None, events(), START)
    assert set(got) == {"agent", "workflow"}
    assert set(got["agent"]) == {"last_1h", "last_24h", "earlier", "worse", "usual", "alarm", "never_seen"}
    assert got["agent"]["never_seen"] == -1, "what is not finite is no value for those who read it"
    assert got["agent"]["last_1h"]["latest"] == "2023-11-14T22:13:20.000000Z"


@pytest.mark.parametrize(
    ("select", "shown"),
    [
        (["agent.last_24h.rate"], {"agent": {"last_24h": {"rate"}}}),
        (["agent.last_24h.*", "workflow.*"], {"agent": {"last_24h": None}, "workflow": {"last_24h": None}}),
        (["agent.earlier"], {"agent": {"earlier": None}}),
        (["agent.alarm"], {"agent": {"alarm": None}}),
        (["workflow"], {"workflow": {"last_24h": None}}),
    ],
)
def test_a_selection_shows_what_it_names(
    catalog: Catalog, select: list[str], shown: dict[str, dict[str, set[str] | None]]
) -> None:
    got = answer(catalog, select, events(), START)
    full = answer(catalog, None, events(), START)
    assert {e: set(objects) for e, objects in got.items()} == {e: set(objects) for e, objects in shown.items()}
    for entity, objects in shown.items():
        for key, names in objects.items():
            if names is not None:
                assert set(got[entity][key]) == names
            values = got[entity][key]
            every = full[entity][key]
            assert values == ({n: every[n] for n in values} if isinstance(values, dict) else every)


def test_a_derived_signal_brings_in_only_what_it_reads(catalog: Catalog) -> None:
    made = catalog.functions(["agent.usual"])
    assert made["agent"].windows == ()
    assert [name for name, *_ in made["workflow"].windows] == ["last_24h"]
    assert made["workflow"].hidden == {"last_24h"}
    assert not made["workflow"].selected
    assert made["workflow"].raw_size == 1


def test_a_selection_is_compiled_once(catalog: Catalog) -> None:
    assert catalog.functions(["agent.*"]) is catalog.functions(("agent.*",))


@pytest.mark.parametrize("entry", ["agent.last_24h.rates", "agnet.*", "", "agent.last_7d", 5, None])
def test_a_selection_of_nothing_is_refused(catalog: Catalog, entry: Any) -> None:
    with pytest.raises(BadRequestError) as caught:
        catalog.functions([entry])
    assert caught.value.error_code == "unknown_signal"
    if entry == "agent.last_24h.rates":
        assert caught.value.detail["hint"] == "did you mean `agent.last_24h.rate`?"


@pytest.mark.parametrize(
    ("select", "shown"),
    [
        ("last_24h.rates AS x", "did you mean `last_24h.rate`?"),
        ("last_25h.rate AS x", "did you mean `last_24h.rate`?"),
        ("workflow.last_24h.men AS x", "did you mean `workflow.last_24h.mean`?"),
        ("sum(last_24h.runs) AS x", "no aggregates"),
        ("last_24h AS x", "STRUCT"),
        ("last_24h.runs AS workflow", "is taken"),
        ("last_24h.runs AS earlier", "already"),
        ("team.last_24h.runs AS x", "team"),
        ("approver.last_24h.runs AS x", "approver"),
    ],
)
def test_a_derived_set_is_refused(select: str, shown: str) -> None:
    assert shown in problem({**SOURCES, "x": f"-- entity: agent\nSELECT {select} FROM signals\n"})


def test_a_derived_set_has_no_windows_and_no_where() -> None:
    head = "-- entity: agent\n"
    assert "a derived set with windows" in problem(
        {**SOURCES, "x": f"{head}-- windows: 1h\nSELECT 1 AS x FROM signals"}
    )
    assert "no WHERE" in problem({**SOURCES, "x": f"{head}SELECT 1 AS x FROM signals WHERE last_1h.runs > 1"})


def test_a_cycle_is_refused() -> None:
    head = "-- entity: agent\n"
    shown = problem({
        **SOURCES, "x": f"{head}SELECT b + 1 AS a FROM signals", "y": f"{head}SELECT a + 1 AS b FROM signals"
    })  # fmt: skip
    assert "in a cycle: x → y → x" in shown


@pytest.mark.parametrize("as_of", [START, START - 1, START - 3_600_000_000, START - 10**12])
def test_the_same_sql_gives_the_same_offline(catalog: Catalog, as_of: int) -> None:
    rows = events()
    duck = Duck(rows)
    got = answer(catalog, None, rows, as_of)
    for one in catalog.sets:
        key = "a" if one.entity == "agent" else "w"
        windows: list[str | None] = [w.name for w in one.header.windows]
        for window in windows or [None]:
            sql = query_for(catalog, one.name, (key,), window, as_of, others={"workflow": ("w",)}, relation="history")
            (row,) = duck._fetch(sql)
            mine = got[one.entity] if window is None else got[one.entity][f"last_{window}"]
            for signal, value in zip(one.signals, row, strict=True):
                assert mine.get(signal.name) == settled(value), signal.name


def test_sql_to_paste_runs_as_it_is(catalog: Catalog) -> None:
    connection = duckdb.connect()
    columns = Duck([]).connection.execute("DESCRIBE history").fetchall()
    connection.execute(f"CREATE TABLE events ({', '.join(f'{n} {t}' for n, t, *_ in columns)}, void_seq BIGINT)")
    for one in catalog.sets:
        window = one.header.windows[0].name if one.header.windows else None
        assert len(connection.execute(sql_for(catalog, one.name, ("o'id",), window, START)).fetchall()) == 1


def test_sql_for_what_does_not_exist_is_refused(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError, match="no signal set"):
        sql_for(catalog, "none", ("a",), "1h", START)
    with pytest.raises(BadRequestError, match="no window"):
        sql_for(catalog, "reliability", ("a",), "7d", START)
    with pytest.raises(BadRequestError, match="has no window"):
        sql_for(catalog, "baseline", ("a",), "1h", START)
    with pytest.raises(BadRequestError, match="id"):
        sql_for(catalog, "reliability", ("a", "b"), "1h", START)


def test_the_description_names_every_signal(catalog: Catalog) -> None:
    described = catalog.describe()
    assert described["version"] == catalog.version
    reliability = next(s for s in described["sets"] if s["name"] == "reliability")
    assert reliability["windows"] == ["1h", "24h"]
    assert reliability["signals"][2] == {
        "name": "rate", "type": "DOUBLE", "always": False, "may_fail": False, "description": "0..1"
    }  # fmt: skip


def test_the_schema_is_closed_and_requires_what_is_always_there(catalog: Catalog) -> None:
    schema = catalog.json_schema()
    agent = schema["properties"]["agent"]
    window = agent["properties"]["last_24h"]
    assert window["additionalProperties"] is False
    assert window["required"] == ["complete", "failures", "retried", "runs"]
    assert window["properties"]["rate"] == {"type": "number", "description": "0..1"}
    assert window["properties"]["latest"] == {"type": "string", "format": "date-time"}
    assert agent["required"] == ["alarm", "earlier", "id", "known", "last_1h", "last_24h", "never_seen"]


def test_the_plan_keeps_equal_expressions_once() -> None:
    text = (
        "-- entity: agent\n-- windows: 1h\nSELECT count(*) FILTER (WHERE outcome = 'failed' AND kind = 'step') AS a,"
        " count(*) FILTER (WHERE kind = 'step' AND outcome = 'failed') AS b, sum(cost_microusd) AS c,"
        " avg(cost_microusd) AS d, max(cost_microusd) AS e, quantile_cont(cost_microusd, 0.5) AS f FROM events"
    )
    plan = load_catalog({"a": text, "b": text.replace("AS ", "AS other_")}).plans["agent"]
    assert (len(plan.counts), len(plan.sums), len(plan.values)) == (2, 1, 1)
    assert plan.values[0].uses == {"extreme", "order"}
    assert plan.reads == {"outcome", "kind", "cost_microusd"}


def test_a_derived_column_does_not_name_its_relation() -> None:
    runs = "-- entity: agent\n-- windows: 24h\nSELECT count(*) AS runs -- all\nFROM events"
    doubled = "-- entity: agent\nSELECT signals.last_24h.runs AS again -- the same\nFROM signals"
    with pytest.raises(DefinitionErrors) as caught:
        load_catalog({"runs": runs, "doubled": doubled})
    (error,) = caught.value.errors
    assert (error.error_code, error.detail["line"], error.detail["column"]) == ("unsupported", 2, 8)
    assert error.detail["hint"] == "write it without: last_24h.runs"


def test_a_file_that_cannot_be_read_is_a_problem_with_its_name_and_a_directory_is_none(tmp_path: Path) -> None:
    (tmp_path / "workflows.sql").write_text(WORKFLOW)
    (tmp_path / "directory.sql").mkdir()
    assert [s.name for s in load_catalog(tmp_path).sets] == ["workflows"]
    (tmp_path / "bad.sql").write_bytes(b"-- entity: agent\n-- \xff\nSELECT count(*) AS n FROM events\n")
    (tmp_path / "gone.sql").symlink_to(tmp_path / "nowhere.sql")
    with pytest.raises(DefinitionErrors) as caught:
        load_catalog(tmp_path)
    assert [(e.error_code, Path(e.detail["file"]).name) for e in caught.value.errors] == [
        ("invalid_utf8", "bad.sql"),
        ("unreadable_file", "gone.sql"),
    ]
    assert "bad.sql:2:4: invalid_utf8" in caught.value.pretty()


@pytest.mark.parametrize(
    ("sql", "marked"),
    [
        ("last_24h IS NULL", "IS NULL"),
        ("workflow IS NOT NULL", "IS NOT NULL"),
        ("coalesce(last_24h, last_1h) IS NULL", "IS NULL"),
        ("last_24h = last_1h", "last_24h = last_1h"),
        ("last_24h", "last_24h"),
        ("struct_extract(last_24h, 'runs')", "struct_extract(last_24h, 'runs')"),
        ("last_24h['runs']", "['runs']"),
    ],
)
def test_a_derived_set_reads_signals_and_not_windows_as_a_whole(sql: str, marked: str) -> None:
    with pytest.raises(DefinitionErrors) as caught:
        load_catalog({**SOURCES, "whole": f"-- entity: agent\nSELECT 1 AS one,\n    {sql} AS two\nFROM signals"})
    (error,) = caught.value.errors
    assert error.detail["line"] == 3
    start = int(error.detail["column"]) - 1
    assert error.detail["source"][start : start + int(error.detail["length"])] == marked


def test_two_files_of_one_name_are_refused_and_none_is_dropped(tmp_path: Path) -> None:
    for directory, column in (("a", "n"), ("b", "m")):
        (tmp_path / directory).mkdir()
        text = f"-- entity: agent\n-- windows: 1h\nSELECT count(*) AS {column} FROM events\n"
        (tmp_path / directory / "runs.sql").write_text(text)
    with pytest.raises(DefinitionErrors) as caught:
        load_catalog([tmp_path / "a", tmp_path / "b"])
    (error,) = caught.value.errors
    assert str(tmp_path / "a" / "runs.sql") in error.message
    assert error.detail["file"] == str(tmp_path / "b" / "runs.sql")


@pytest.mark.parametrize(("names", "shown"), [(("Runs", "runs"), "is also"), (('a"b', "c"), "a set's name")])
def test_a_sets_name_can_name_a_table(names: tuple[str, str], shown: str) -> None:
    head = "-- entity: agent\n-- windows: 1h\n"
    texts = (f"{head}SELECT count(*) AS {c} FROM events" for c in ("n", "m"))
    assert shown in problem(dict(zip(names, texts, strict=True)))
