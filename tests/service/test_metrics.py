"""What `/metrics` says, and that the reference says the same."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from .running import definitions, event, serving

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
_INDEX = re.compile(r"enrich_index_(?:agent_workflow|[a-z]+?)_(entities|rows|tail_rows|blocks|bytes)")


def test_every_metric_stands_in_the_reference_and_no_other(tmp_path: Path) -> None:
    with serving(definitions(tmp_path)) as service:
        http = service.http
        accepted = event("m-1")
        http.post("/v1/events", json=[accepted, event("m-2", outcome="broken")])
        http.post("/v1/events", json=accepted)
        http.post("/v1/enrich", json={"input": {"identity": {"actor_id": "a-1"}}})
        http.post("/v1/data/test/authority/decision", json={"input": {"identity": {"actor_id": "a-1"}}})
        http.post("/v1/reload")
        http.get("/nothing")
        families = list(text_string_to_metric_families(http.get("/metrics").text))
    page = PAGE.read_text()
    rows = re.findall(r"^\| (`enrich_[^|]*`) \| (\w+) \| ([^|]*)\|", page, re.MULTILINE)
    documented = {name: (kind, labels) for names, kind, labels in rows for name in re.findall(r"`([^`]+)`", names)}
    seen = set()
    for family in families:
        name = _INDEX.sub(r"enrich_index_<entity>_\1", family.name) + ("_total" if family.type == "counter" else "")
        kind, labels = documented[name]
        assert kind == family.type, name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(re.findall(r"`(\w+)`", labels)), name
            for label in ("stage", "result", "outcome", "fate", "decision"):
                assert f"`{sample.labels.get(label, 'total')}`" in page
        seen.add(name)
    assert seen == documented.keys()
    samples = {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}
    assert [samples["enrich_events_total", result] for result in ("accepted", "duplicate", "rejected")] == [1, 1, 1]
    assert samples["enrich_refusals_total", "no_such_path"] == 1
    assert samples["enrich_reloads_total", "unchanged"] == 1
