"""The evaluator that needs nothing beside the engine: regopy, with an entry point for every rule and package.

It runs in worker processes (`_worker`), one request each at a time; more are started when several threads ask at
once. A worker that ends or does not answer in time costs that one evaluation, which fails, and nothing else.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, ClassVar, Final

from enrich.decisions._documents import INTEGER, Documents
from enrich.decisions._plan import check_plan, rule_paths
from enrich.decisions._pool import Worker, WorkerDiedError, WorkerPool, WorkerTimeoutError
from enrich.decisions._shape import boolean_rules
from enrich.decisions.policies import PolicySet
from enrich.decisions.protocol import EMBEDDED, TIMED_OUT, Condition, DataPath, Defined, Failed, Outcome, Undefined
from enrich.decisions.reads import Reads, reads_of
from enrich.errors import PolicyError

__all__ = ["EmbeddedEvaluator", "EmbeddedPolicies"]

_BUILD_SECONDS: Final = 60.0
_PARSE_ERROR: Final = re.compile(
    r"\(error \d+:(?P<file>[^|\n]*)\|(?P<at>\d+)\|\d+\s*\(errormsg \d+:(?P<message>[^\n]*)\)"
)


class EmbeddedEvaluator:
    """Makes policies ready for evaluation beside the engine.

    Args:
        limit_seconds: the longest that one evaluation may take, waiting for a worker included.
        workers: how many evaluations may run at once.
    """

    name: ClassVar[str] = EMBEDDED

    def __init__(self, *, limit_seconds: float = 5.0, workers: int | None = None) -> None:
        self.version = f"regopy {version('regopy')}"
        self._limit_seconds = limit_seconds
        self._workers = workers or os.cpu_count() or 1

    def prepare(self, policies: PolicySet) -> EmbeddedPolicies:
        """Build, check what the interpreter does not, and find every rule.

        Raises:
            PolicyError: `rego_parse_error`, `unknown_function`, `refused_function`, `refused_string`, `wrong_arity`,
                `unsafe_variable`, `recursion`, `data_conflict` (with file, line and column where known) or
                `evaluator_crash`.
        """
        return EmbeddedPolicies(policies, self._limit_seconds, self._workers)


class EmbeddedPolicies:
    """Policies ready to be asked, by any number of threads; made by `EmbeddedEvaluator.prepare`."""

    def __init__(self, policies: PolicySet, limit_seconds: float, workers: int) -> None:
        self.policies = policies
        self._limit_seconds = limit_seconds
        self.rules: frozenset[DataPath] = frozenset()
        self.booleans: frozenset[DataPath] = frozenset()
        self._reads: Mapping[DataPath, Reads] = {}
        self._documents = Documents(policies, self.rules)
        builder = _Builder(policies)
        self._pool = WorkerPool(lambda: builder.start()[0], workers)
        if not policies.packages:
            return
        builder.entries = sorted("/".join(p) for p in self._documents.branches)
        worker, plan = builder.start()
        try:
            check_plan(plan["plan"], set(plan["builtins"]).__contains__, policies.modules)
            self.rules = rule_paths(plan["plan"])
            self.booleans = boolean_rules(plan["plan"]) & self.rules
            self._reads = reads_of(plan["plan"], embedded=True)
            self._documents = Documents(policies, self.rules)
            builder.entries = sorted("/".join(p) for p in self._documents.branches | self.rules)
            builder.build(worker)
        except BaseException:
            worker.end()
            raise
        self._pool.add(worker)

    def evaluate(
        self,
        path: DataPath,
        input_json: bytes | None,
        *,
        strict_builtin_errors: bool = False,
        limit_seconds: float | None = None,
    ) -> Outcome:
        """See `Prepared.evaluate`."""
        limit = self._limit_seconds if limit_seconds is None else min(limit_seconds, self._limit_seconds)
        entry = self._documents.entry(path)
        if entry is None:
            return self._documents.base(path) if path else self._whole(input_json, strict_builtin_errors, limit)
        rest = path[len(entry) :]
        if rest and entry in self._documents.branches:
            return self._documents.base(path)
        if any(map(INTEGER.fullmatch, rest)):
            return self._ask(path, input_json, strict_builtin_errors, limit, text=True)
        outcome = self._ask(entry, input_json, strict_builtin_errors, limit)
        for segment in rest:
            if not isinstance(outcome, Defined):
                break
            if isinstance(outcome.value, list):
                # an array or a set: only the interpreter still knows which
                return self._ask(path, input_json, strict_builtin_errors, limit, text=True)
            if not isinstance(outcome.value, dict) or segment not in outcome.value:
                return Undefined(has_rules=True)
            outcome = Defined(outcome.value[segment])
        return outcome

    def reads(self, path: DataPath) -> Reads | None:
        """See `Prepared.reads`."""
        return self._reads.get(path)

    def condition(self) -> Condition:
        """See `Watched.condition`."""
        pool = self._pool
        reasons = ("policies do not end: 4 evaluations or more were abandoned within the last 60 s",)
        return Condition(reasons if pool.too_many_abandoned() else (), pool.replaced, pool.abandoned)

    def close(self) -> None:
        """End the workers; evaluations under way still get their answer."""
        self._pool.close()

    def _whole(self, input_json: bytes | None, strict: bool, limit: float) -> Outcome:
        """The document `data`, put together from its roots: as one entry point it would lack the base documents."""
        result = dict(self.policies.data)
        for root in self._documents.roots():
            outcome = self._ask(root, input_json, strict, limit)
            if isinstance(outcome, Failed):
                return outcome
            if isinstance(outcome, Defined):
                result[root[0]] = outcome.value
        return Defined(result)

    def _ask(
        self, path: DataPath, input_json: bytes | None, strict: bool, limit: float, *, text: bool = False
    ) -> Outcome:
        """Ask a worker for an entry point, or, compiled for this one question, for any reference (`text`)."""
        asked = _reference(path) if text else "/".join(path)
        request = {"ask": asked, "text": text, "strict": strict, "input": input_json is not None}
        try:
            reply = self._pool.ask(request, input_json, limit)
        except WorkerTimeoutError:
            return _failed([(TIMED_OUT, f"the evaluation took longer than {limit:.3g} s")])
        except (WorkerDiedError, PolicyError) as error:
            return _failed([("eval_error", f"the evaluator's process ended: {error}")])
        if "value" in reply:
            return Defined(reply["value"])
        if "undefined" in reply:
            return Undefined(has_rules=True)
        return _failed([tuple(e) for e in reply.get("errors", ())] or [("eval_error", "the evaluation failed")])


class _Builder:
    """Starts workers that have the policies; holds no reference to whoever asks them."""

    def __init__(self, policies: PolicySet) -> None:
        self.policies = policies
        self.entries: list[str] = []

    def start(self) -> tuple[Worker, dict[str, Any]]:
        worker = Worker()
        return worker, self.build(worker)

    def build(self, worker: Worker) -> dict[str, Any]:
        build = {"modules": self.policies.modules, "data": self.policies.data, "entries": self.entries}
        try:
            reply = worker.ask({"build": build}, None, _BUILD_SECONDS)
        except (WorkerDiedError, WorkerTimeoutError) as error:
            raise PolicyError(
                f"the embedded evaluator does not survive these policies: {str(error) or 'no end in sight'}",
                code="evaluator_crash",
                hint="a call of another package's function under `with` is known to do this",
            ) from error
        if "refused" in reply:
            worker.end()
            raise self._parse_error(reply["refused"])
        return reply

    def _parse_error(self, text: str) -> PolicyError:
        found = _PARSE_ERROR.search(text)
        if found is None:
            return PolicyError(f"the policies do not load: {text.strip()[:200]}", code="rego_parse_error")
        file, at = found["file"], int(found["at"])
        source = self.policies.modules.get(file, "")
        before = source.encode("utf-8")[:at].decode("utf-8", "ignore")
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        lines = source.splitlines()
        return PolicyError(
            f"{file}:{line}:{column}: {found['message']}",
            code="rego_parse_error",
            file=file, line=line, column=column, source=lines[line - 1] if line <= len(lines) else None,
        )  # fmt: skip


def _reference(path: DataPath) -> str:
    """The path as a Rego reference."""
    segments = (str(int(s)) if INTEGER.fullmatch(s) else json.dumps(s, ensure_ascii=False) for s in path)
    return "data" + "".join(f"[{s}]" for s in segments)


def _failed(errors: list[Any]) -> Failed:
    code, message = errors[0]
    return Failed(code, message, tuple({"code": c, "message": m} for c, m in errors))
