"""DuckDB's answers beside the engine's, value by value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from enrich.engine.check import same_value
from enrich.signals.bulk import BulkAnswers, Question

__all__ = ["Difference", "Expected"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not DuckDB's."""

    question: Question
    entity: str
    set: str
    window: str | None
    signal: str
    duckdb: Any
    compiled: Any

    def __str__(self) -> str:
        where = f"{self.set} {self.window or 'derived'} {self.signal} as of {self.question.as_of_us}"
        return f"{dict(self.question.keys)} {where}: DuckDB {self.duckdb!r}, compiled {self.compiled!r}"


@dataclass
class Expected:
    """DuckDB's answers to `questions`."""

    questions: Sequence[Question]
    #: per question: (entity, set, window's name in a context, signal's name to value)
    rows: list[list[tuple[str, str, str | None, dict[str, Any]]]] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = [[] for _ in self.questions]

    def add(self, answers: BulkAnswers) -> None:
        names = list(answers.values)
        window = None if answers.window is None else answers.window.key
        s = answers.set
        for k, row in zip(answers.questions, zip(*answers.values.values(), strict=True), strict=True):
            self.rows[k].append((s.entity, s.name, window, dict(zip(names, row, strict=True))))

    def count(self) -> int:
        return sum(len(values) for row in self.rows for *_, values in row)

    def values(self) -> int:
        """How many of them are there at all."""
        return sum(v is not None for row in self.rows for *_, values in row for v in values.values())

    def differences(self, k: int, answer: Mapping[str, Mapping[str, Any]]) -> Iterator[Difference]:
        """Where the entities' objects differ from the answers to question `k`; also in what nobody asked for."""
        shown: dict[tuple[str, str | None], set[str]] = {}
        for entity, name, window, values in self.rows[k]:
            part = answer[entity] if window is None else answer[entity][window]
            shown.setdefault((entity, window), set()).update(values)
            if window is not None:
                shown.setdefault((entity, None), {"id", "known"}).add(window)
            for signal, expected in values.items():
                got = part.get(signal)
                if got is not expected and not same_value(expected, got):
                    yield Difference(self.questions[k], entity, name, window, signal, expected, got)
        for (entity, window), names in shown.items():
            part = answer[entity] if window is None else answer[entity][window]
            for extra in part.keys() - names - ({"complete"} if window else {"in_flight"}):
                yield Difference(self.questions[k], entity, "", window, extra, None, part[extra])
