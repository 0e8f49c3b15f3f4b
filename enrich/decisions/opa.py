"""The evaluator that is OPA itself, beside the engine: one that the engine starts (managed), or one that somebody else
runs (external).

INVARIANT: an answer is believed only when it was made with the policies whose hash goes into the record; see
`_opa_verify`. An OPA that is down, slow, talks nonsense or holds something else is a `Failed`, never a value.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import orjson

from enrich.decisions._opa_build import Executable, write_bundle
from enrich.decisions._opa_client import Address, NoAnswerError, Reply, TookTooLongError
from enrich.decisions._opa_process import OpaProcess
from enrich.decisions._opa_verify import Expected, UnverifiedError, askable, document_target
from enrich.decisions._opa_watch import Watch
from enrich.decisions._plan import rule_paths
from enrich.decisions._shape import boolean_rules
from enrich.decisions._worker import AnswerError, decode_json
from enrich.decisions.policies import PolicySet
from enrich.decisions.protocol import OPA, TIMED_OUT, Condition, DataPath, Defined, Failed, Outcome, Undefined
from enrich.decisions.reads import Reads, reads_of
from enrich.errors import EvaluationError

__all__ = ["OpaEvaluator", "OpaPolicies"]

#: how long an external OPA may take before an engine goes on without, not ready
_FIRST_SECONDS: Final = 2.0
_START_SECONDS: Final = 30.0
#: a query for what no document can be, where other evaluators say "undefined"
_NO_DOCUMENT: Final = re.compile(r"rego_type_error: (undefined ref|function \S+ used as reference)")


class OpaEvaluator:
    """Makes policies ready for evaluation by an OPA.

    Args:
        path: the executable, or its name on PATH; it starts the managed OPA, and finds the rules for both.
        url: of an OPA that somebody else runs, `http://host:port` or `unix:///path`; None: managed.
        limit_seconds: the longest that one evaluation may take.

    Raises:
        ConfigError: there is no such executable, or `url` is no address.
    """

    name: ClassVar[str] = OPA

    def __init__(self, *, path: str = "opa", url: str | None = None, limit_seconds: float = 5.0) -> None:
        self._address = None if url is None else Address.of(url)
        self._executable = Executable(path)
        self._limit_seconds = limit_seconds
        self.version = f"opa {self._executable.version}"

    def prepare(self, policies: PolicySet) -> OpaPolicies:
        """Compile, and have an OPA that holds them. An external one may come later: until then every evaluation fails.

        Raises:
            PolicyError: `rego_parse_error`, `unknown_function`, `unsafe_variable`, `recursion`, `data_conflict` or
                `invalid_policy`, with file, line and column where known.
            EvaluationError: `evaluator_unavailable`, the managed OPA does not start.
        """
        directory = Path(tempfile.mkdtemp(prefix="enrich-opa-"))
        remove = partial(shutil.rmtree, directory, ignore_errors=True)
        try:
            own = self._address is None
            revision = policies.version if own else policies.revision or policies.version
            write_bundle(policies, directory, revision)
            plan = self._executable.plan(policies, directory)
            reads = reads_of(plan)
            expected = Expected(self._executable.version, revision, policies, rule_paths(plan), own)
        except BaseException:
            remove()
            raise
        if self._address is None:
            watch = Watch(expected, start=partial(OpaProcess, self._executable.path, directory), end=remove)
        else:
            remove()
            watch = Watch(expected, address=self._address)
        prepared = OpaPolicies(expected, boolean_rules(plan), reads, watch, self._limit_seconds)
        if not watch.wait_ready(_START_SECONDS if own else _FIRST_SECONDS) and own:
            problem = watch.problem
            watch.stop()
            raise EvaluationError(f"OPA does not start: {problem}", code="evaluator_unavailable")
        return prepared


class OpaPolicies:
    """Policies that an OPA holds, to be asked by any number of threads; made by `OpaEvaluator.prepare`."""

    def __init__(
        self,
        expected: Expected,
        booleans: frozenset[DataPath],
        reads: Mapping[DataPath, Reads],
        watch: Watch,
        limit_seconds: float,
    ) -> None:
        self.policies = expected.policies
        self.rules = expected.rules
        self.booleans = booleans & expected.rules
        self._reads = reads
        self._branches = {path[:n] for path in expected.policies.packages.values() for n in range(1, len(path) + 1)}
        self._branches |= {rule[:n] for rule in self.rules for n in range(1, len(rule))}
        self._expected = expected
        self._limit_seconds = limit_seconds
        self.watch = watch
        # nobody has to close what nobody holds any more; and at the interpreter's end no OPA is left behind
        weakref.finalize(self, watch.stop)

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
        deadline = time.monotonic() + limit
        # OPA takes no such segments in a URL: the rest of the path is followed here
        odd = next((n for n, segment in enumerate(path) if not askable(segment)), len(path))
        try:
            reply = self.watch.ask(_request(path[:odd], input_json, strict_builtin_errors), deadline)
        except TookTooLongError:
            return _failed(TIMED_OUT, f"the evaluation took longer than {limit:.3g} s")
        except NoAnswerError as error:
            return Failed(code="evaluator_unavailable", message=str(error))
        outcome = self._read(path, reply)
        for segment in path[odd:]:
            if not isinstance(outcome, Defined):
                break
            if not isinstance(outcome.value, dict) or segment not in outcome.value:
                return self._undefined(path)
            outcome = Defined(outcome.value[segment])
        return outcome

    def reads(self, path: DataPath) -> Reads | None:
        """See `Prepared.reads`."""
        return self._reads.get(path)

    def condition(self) -> Condition:
        """See `Watched.condition`."""
        watch = self.watch
        reasons = () if watch.ready else (f"OPA does not answer: {watch.problem}",)
        return Condition(reasons, watch.restarts, watch.timeouts, watch.breaker.circuit)

    def close(self) -> None:
        """End a managed OPA; evaluations under way, and those that begin right now, still get their answer."""
        self.watch.close()

    def _read(self, path: DataPath, reply: Reply) -> Outcome:
        """An answer is a value only when it says that it was made with these policies."""
        try:
            body = _decoded(reply.body)
            if not isinstance(body, dict):
                raise AnswerError("the answer is no object")
            if reply.status == 200:
                self._expected.answered(body)
        except UnverifiedError as error:
            self.watch.unverified(str(error))
            return Failed(code="policies_unverified", message=str(error))
        except AnswerError as error:
            self.watch.failed()
            return Failed(code="evaluator_unavailable", message=f"OPA answered with nonsense: {error}")
        if reply.status not in (200, 400, 500):
            self.watch.failed()
            return Failed(code="evaluator_unavailable", message=f"OPA answered HTTP {reply.status}")
        self.watch.breaker.succeeded()
        if reply.status != 200:
            return self._refused(path, body)
        return Defined(body["result"]) if "result" in body else self._undefined(path)

    def _undefined(self, path: DataPath) -> Undefined:
        entry = next((path[:n] for n in range(len(path), 0, -1) if self._has_rules(path[:n])), ())
        return Undefined(has_rules=entry in self.rules or (entry != () and entry == path))

    def _has_rules(self, path: DataPath) -> bool:
        return path in self.rules or path in self._branches

    def _refused(self, path: DataPath, body: Mapping[str, Any]) -> Outcome:
        """OPA's error body."""
        errors = body.get("errors")
        if not isinstance(errors, list) or not errors:
            message = str(body.get("message", "the evaluation failed"))
            return self._undefined(path) if _NO_DOCUMENT.search(message) else _failed("eval_error", message)
        causes = [
            (str(error.get("code", "eval_error")), str(error.get("message", "")))
            for error in errors
            if isinstance(error, dict)
        ]
        return _failed(*causes[0], causes) if causes else _failed("eval_error", "the evaluation failed")


def _decoded(data: bytes) -> Any:
    """The document, in which no key stands twice and integers are what they are.

    Raises:
        AnswerError: it is not that.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:  # text that is no UTF-8, or half of a surrogate pair, too
        raise AnswerError("it is not JSON") from error
    # what is written again as it came has lost nothing
    return value if orjson.dumps(value) == data.rstrip() else decode_json(data.decode("utf-8"))


def _failed(code: str, message: str, causes: list[tuple[str, str]] | None = None) -> Failed:
    return Failed(code, message, tuple({"code": c, "message": m} for c, m in causes or [(code, message)]))


def _request(path: DataPath, input_json: bytes | None, strict: bool) -> bytes:
    target = document_target(path) + "?provenance=true" + ("&strict-builtin-errors=true" if strict else "")
    if input_json == b"null":  # which in a body is no input at all
        return f"GET {target}&input=null HTTP/1.1\r\nHost: opa\r\n\r\n".encode("ascii")
    body = b"{}" if input_json is None else b'{"input":%b}' % input_json
    head = (
        f"POST {target} HTTP/1.1\r\nHost: opa\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body
