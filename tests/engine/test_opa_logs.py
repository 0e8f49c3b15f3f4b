"""Decision logs on an engine: durable or an error, never in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from enrich.engine.opa_logs import OpaLogs
from enrich.errors import JournalFailedError
from enrich.events import format_us
from tests.engine.support import FaultyDisk, now_us, open_engine


def entry(n: int, path: str = "shop/decision") -> dict[str, object]:
    at = format_us(now_us() - 5_000_000)
    given = {"identity": {"actor_id": "a"}}
    return {"decision_id": f"d{n}", "path": path, "input": given, "result": True, "timestamp": at}


def test_what_can_not_be_made_durable_is_an_error_so_that_opa_sends_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyDisk.put_in(monkeypatch)
    engine = open_engine(tmp_path)
    logs = OpaLogs(engine)
    first = [entry(n) for n in range(3)]
    assert logs.record(first).recorded.accepted == 3
    second = [entry(n) for n in range(3, 5)]
    disk.broken = True
    with pytest.raises(JournalFailedError):
        logs.record(second)
    with pytest.raises(JournalFailedError):
        engine.close()
    disk.broken = False
    with open_engine(tmp_path) as engine:
        told = OpaLogs(engine).record([*first, *second]).recorded
        assert told.accepted + told.duplicates == 5
        assert told.duplicates >= 3
        engine.caught_up(20)
        assert engine.history.count() == 5


def test_whole_paths_and_names_of_the_settings_are_decisions(tmp_path: Path) -> None:
    with open_engine(tmp_path, decision_paths=("allow", "shop.final.decision")) as engine:
        paths = ("x/allow", "shop/final/decision", "shop/decision", "shop/final", "x/allow/y")
        told = OpaLogs(engine).record([entry(n, path) for n, path in enumerate(paths)])
        assert (told.recorded.accepted, told.mapped.ignored) == (2, 3)
