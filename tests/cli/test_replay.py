"""`enrich replay` on a directory, damaged or not, and on a running service."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from enrich import Engine
from tests.service.running import definitions, enrich, serving

PATH = ("test", "authority", "decision")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A directory with three decisions, and their ids."""
    own = definitions(tmp_path_factory.mktemp("replay"))
    with Engine.open(own / "data", queries=own / "queries", policies=own / "policies") as engine:
        made = [engine.decide(PATH, {"identity": {"actor_id": f"a{n}"}}) for n in range(3)]
    return own, [one.decision_id for one in made]  # type: ignore[union-attr]


def test_a_directory_without_an_engine(directory: tuple[Path, list[str]]) -> None:
    own, ids = directory
    one = enrich("replay", ids[0], "--data", "data", cwd=own)
    assert (one.returncode, one.stdout.startswith(f"VALID: {ids[0]}, seq 2, checked line, chain, copy")) == (0, True)
    every = enrich("replay", "--all", "--strict", "--data", "data", cwd=own)
    assert (every.returncode, every.stdout) == (0, "3 decisions: 3 VALID, 0 INVALID, 0 INCONCLUSIVE\n")
    refused = enrich("replay", ids[0], "--all", "--data", "data", cwd=own)
    assert (refused.returncode, "nothing_to_replay" in refused.stderr) == (1, True)


def test_a_journal_that_no_engine_opens(directory: tuple[Path, list[str]]) -> None:
    own, ids = directory
    segment = own / "data" / "journal" / "00000001.ndjson"
    before = segment.read_bytes()
    try:
        at = before.index(f'"decision_id":"{ids[1]}"'.encode())
        segment.write_bytes(before[: at + 20] + b"#" + before[at + 21 :])
        every = enrich("replay", "--all", "--json", "--data", "data", cwd=own)
        assert (every.returncode, every.stderr.count("Traceback")) == (1, 0)
        answer = json.loads(every.stdout)
        assert len(answer["problems"]) == 1
        assert [one["verdict"] for one in answer["decisions"]] == ["VALID", "INVALID", "VALID"]
        text = enrich("replay", "--since", "2026-01-01T00:00:00Z", "--data", "data", cwd=own).stdout
        assert "  body_damaged: its record does not have its hash" in text
        assert text.endswith("3 decisions: 2 VALID, 1 INVALID, 0 INCONCLUSIVE\n")
        assert enrich("replay", ids[1], "--data", "data", cwd=own).returncode == 1
    finally:
        segment.write_bytes(before)


def test_a_running_service(tmp_path: Path) -> None:
    own = definitions(tmp_path)
    with serving(own) as service:
        document = {"input": {"identity": {"actor_id": "a"}}}
        made = [service.http.post("/v1/data/test/authority/decision", json=document).json() for _ in range(2)]
        id_ = made[0]["decision_id"]
        answer = service.http.post(f"/v1/decisions/{id_}/replay")
        assert (answer.status_code, answer.json()["verdict"], answer.json()["reasons"]) == (200, "VALID", [])
        assert answer.json()["checked"] == ["line", "chain", "copy", "hashes", "record", "policy", "signals"]
        every = enrich("replay", "--all", "--url", service.url, cwd=own)
        assert (every.returncode, every.stdout) == (0, "2 decisions: 2 VALID, 0 INVALID, 0 INCONCLUSIVE\n")
        held = enrich("replay", "--all", "--data", "data", cwd=own)
        assert (held.returncode, "--url" in held.stderr) == (1, True)

        def code(path: str, **options: object) -> tuple[int, str]:
            refused: httpx.Response = service.http.post(path, **options)  # type: ignore[arg-type]
            return refused.status_code, refused.json()["error"]["code"]

        assert code("/v1/decisions/nobody/replay") == (404, "unknown_decision")
        assert code(f"/v1/decisions/{id_}/replays") == (404, "no_such_path")
        assert code(f"/v1/decisions/{id_}/x/replay") == (404, "no_such_path")
        assert code(f"/v1/decisions/{id_}/replay?as_of=now") == (400, "unknown_parameter")
        assert code(f"/v1/decisions/{id_}/replay", content=b"{}") == (400, "unexpected_body")
        assert service.http.get(f"/v1/decisions/{id_}/replay").status_code == 404
