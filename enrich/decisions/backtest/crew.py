"""Processes that test jobs beside each other: each has both policies, one batch at a time.

Processes, not threads: judging a decision is Python on one core, and a service that is backtested beside must keep its
own. They are started by their module's name, so that a caller's script needs no guard of its own.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from enrich.decisions.backtest.jobs import Against, Job, Tested
from enrich.decisions.backtest.tester import Tester
from enrich.decisions.evaluators import evaluator_of
from enrich.decisions.policies import PolicySet
from enrich.errors import EvaluationError
from enrich.settings import Settings

__all__ = ["Crew", "Plan", "crew", "main"]

_END_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a `Tester` is made of, fit to travel: the policies as texts, and of the settings only what evaluators read.

    Attributes:
        rules_of: see `Tester`, for all processes together.
    """

    settings: Settings
    after: PolicySet
    before: PolicySet | None
    history: tuple[str, ...]
    against: Against = "recorded"
    rules_of: int = 10_000
    limit_seconds: float = 5.0
    deadline: float | None = None

    def tester(self, share: int = 1) -> Tester:
        """A tester of its own, one of `share` equal ones.

        Raises:
            PolicyError: a set of policies does not load.
        """
        after = evaluator_of(self.settings).prepare(self.after)
        try:
            before = None if self.before is None else evaluator_of(self.settings).prepare(self.before)
        except BaseException:
            after.close()
            raise
        return Tester(
            after,
            before,
            self.history,
            against=self.against,
            rules_of=-(-self.rules_of // share),
            limit_seconds=self.limit_seconds,
            deadline=self.deadline,
        )


class Crew(Protocol):
    """Those who test."""

    def test(self, batches: Iterable[Sequence[Job]]) -> Iterator[Tested]:
        """What came of each batch, in their order; few batches are held at a time."""


class _Alone:
    """Tests in this process."""

    def __init__(self, tester: Tester) -> None:
        self._tester = tester

    def test(self, batches: Iterable[Sequence[Job]]) -> Iterator[Tested]:
        return map(self._tester.test, batches)


class _Process:
    """One process, for one thread at a time."""

    def __init__(self, plan: Plan, share: int) -> None:
        # -P: nothing of the current directory is imported; a session of its own: Ctrl-C is for whoever started it
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._send((plan, share))

    def test(self, jobs: Sequence[Job]) -> Tested:
        """
        Raises:
            EvaluationError: the process ended.
            EnrichError: what it raised.
        """
        try:
            self._send(jobs)
            answer = pickle.load(cast("Any", self._process.stdout))
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise EvaluationError(f"a process of the backtest ended: {self._process.poll()}") from error
        if isinstance(answer, Exception):
            raise answer
        return cast("Tested", answer)

    def _send(self, value: object) -> None:
        stream = cast("Any", self._process.stdin)
        pickle.dump(value, stream, pickle.HIGHEST_PROTOCOL)
        stream.flush()

    def end(self) -> None:
        """It ends with its input."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue  # it is gone already
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Processes:
    """Tests in several processes, a thread for each to wait for it."""

    def __init__(self, processes: Sequence[_Process], threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._count = len(processes)
        self._free: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for process in processes:
            self._free.put(process)

    def test(self, batches: Iterable[Sequence[Job]]) -> Iterator[Tested]:
        ahead: deque[Future[Tested]] = deque()
        try:
            for batch in batches:
                ahead.append(self._threads.submit(self._one, batch))
                # INVARIANT: what is read ahead is a few batches, however many there are
                if len(ahead) > 2 * self._count:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def _one(self, batch: Sequence[Job]) -> Tested:
        process = self._free.get()
        try:
            return process.test(batch)
        finally:
            self._free.put(process)


@contextmanager
def crew(plan: Plan, processes: int, own: Tester) -> Iterator[Crew]:
    """Those who test, until the block ends.

    Args:
        processes: 0 lets `own` test, in this one.
    """
    with ExitStack() as stack:
        if processes == 0:
            yield _Alone(own)
            return
        started: list[_Process] = []
        for _ in range(processes):
            started.append(_Process(plan, processes))
            stack.callback(started[-1].end)
        threads = stack.enter_context(ThreadPoolExecutor(processes, thread_name_prefix="enrich-backtest"))
        yield _Processes(started, threads)


def main() -> None:
    """The process: a plan, then batches, each answered, until the input ends."""
    requests = sys.stdin.buffer
    # what anything prints must not stand among the answers
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    plan, share = pickle.load(requests)
    tester: Tester | None = None
    while True:
        try:
            jobs = pickle.load(requests)
        except EOFError:
            break
        try:
            tester = tester or plan.tester(share)
            answer: object = tester.test(jobs)
        except Exception as error:  # noqa: BLE001 - it is raised again by whoever asked
            answer = error if _travels(error) else EvaluationError(f"a batch failed: {type(error).__name__}: {error}")
        pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()
    if tester is not None:
        tester.close()


def _travels(error: Exception) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:  # noqa: BLE001 - an error that can't be made again from its parts
        return False


if __name__ == "__main__":
    main()
