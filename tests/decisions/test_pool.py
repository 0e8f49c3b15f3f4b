"""Worker processes of the embedded evaluator."""

from __future__ import annotations

import threading

import pytest

from enrich.decisions._pool import Worker, WorkerTimeoutError


def test_nobody_waits_for_a_process_that_is_late_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, gone, end = threading.Event(), threading.Event(), Worker.end
    waited: list[bool] = []

    def slowly(worker: Worker) -> None:
        waited.append(answered.wait(20))
        end(worker)
        gone.set()

    monkeypatch.setattr(Worker, "end", slowly)
    worker = Worker()
    with pytest.raises(WorkerTimeoutError):
        worker.ask({}, None, 0.0)
    answered.set()
    assert gone.wait(20)
    assert waited == [True]
    assert not worker.alive()
