"""Shadow policies as callers, operators and the command line see them."""

from __future__ import annotations

from pathlib import Path

from tests.decisions.bundling import write_files

from .running import definitions, enrich, serving

PATH = "/v1/data/test/authority/decision"


def test_differences_are_counted_and_listed(tmp_path: Path) -> None:
    directory = definitions(tmp_path)
    text = 'package test.authority\n\ndecision := "ALLOW" if input.small\n'
    write_files(directory / "next", {"authority.rego": text})
    with serving(directory, "--shadow-policies=next", "--shadow-limit-ms=900") as service:
        asked = [{"identity": {"actor_id": "a-1"}, "small": small} for small in (True, False, True)]
        answers = [service.http.post(PATH, json={"input": one}).json() for one in asked]
        assert [a["result"] for a in answers] == [{"decision": "ALLOW"}] * 3
        assert not any("shadow" in str(a) for a in answers)
        agreed = 'enrich_shadow_decisions_total{cause="",live="ALLOW",shadow="ALLOW"}'
        differed = 'enrich_shadow_decisions_total{cause="evaluation_undefined",live="ALLOW",shadow="DENY"}'
        assert (service.metric(agreed), service.metric(differed)) == (2, 1)
        ids = [a["decision_id"] for a in answers]
        for how, expected in (("differs", [ids[1]]), ("agrees", [ids[2], ids[0]])):
            page = service.http.get("/v1/decisions", params={"shadow": how}).json()
            assert [d["decision_id"] for d in page["decisions"]] == expected
        refused = service.http.get("/v1/decisions?shadow=maybe")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_parameter")
        record = service.http.get(f"/v1/decisions/{ids[1]}").json()
        assert (record["shadow"]["decision"], record["shadow"]["result"]) == ("DENY", {"decision": "DENY"})
        listed = enrich("decisions", "--differs", "--url", service.url, cwd=directory)
        assert (listed.returncode, ids[1] in listed.stdout, ids[0] in listed.stdout) == (0, True, False)
        assert "shadow" in listed.stdout
        assert service.stop() == 0
    write_files(directory / "next", {"authority.rego": "package test.authority\n\ndecision := {"})
    started = enrich("serve", "--shadow-policies=next", "--policies=policies", "--queries=queries", cwd=directory)
    assert (started.returncode, "next/authority.rego:3" in started.stderr) == (1, True), started.stderr
