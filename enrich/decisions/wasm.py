"""The fast evaluator: policies compiled to WASM by OPA, run by wasmtime within the engine's own process.

A module that OPA compiled has most built-ins in itself; the rest are calls back, answered in Python where their
meaning is exactly known (`_builtins`), and refused when policies load where it is not. Instances hold the base
documents and are used again; one that broke, or took too long, is thrown away.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, ClassVar, Final

import orjson
import wasmtime

from enrich.decisions._builtins import BUILTINS
from enrich.decisions._documents import INTEGER, Documents
from enrich.decisions._integer_keys import check_integer_keys
from enrich.decisions._opa import Place, call_places, find_opa
from enrich.decisions._plan import rule_paths
from enrich.decisions._shape import boolean_rules
from enrich.decisions._terms import RegoObject, RegoSet, TermError, parse_term, plain
from enrich.decisions._wasm_answer import read_answer
from enrich.decisions._wasm_instance import Clock, Image, Instance, WasmError
from enrich.decisions._wasm_module import COMPILED, adapt
from enrich.decisions.policies import PolicySet
from enrich.decisions.protocol import TIMED_OUT, WASM, DataPath, Defined, Failed, Outcome, Undefined
from enrich.decisions.reads import Reads, reads_of
from enrich.errors import PolicyError, show

__all__ = ["CompiledPolicies", "WasmEvaluator", "WasmPolicies"]

_STACK_BYTES: Final = 1 << 20
#: an instance that has grown beyond is not used again: memory once taken is not given back before its end
_KEPT_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class CompiledPolicies:
    """What OPA makes of policies.

    Attributes:
        module: the WASM module.
        rules: the paths of all rules; each, and each path above one, is an entry point of the module.
        booleans: those that are seen to be never anything but true or false.
        declared: the declarations of the built-ins that are called, as OPA has them.
        places: where each of them is first called.
        reads: what each rule can read of the input.
    """

    module: bytes
    rules: frozenset[DataPath]
    booleans: frozenset[DataPath] = frozenset()
    declared: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    reads: Mapping[DataPath, Reads] = field(default_factory=dict)


class WasmEvaluator:
    """Makes policies ready for evaluation within the engine.

    Args:
        opa_path: the `opa` that compiles them: a path, or a name on PATH.
        limit_seconds: the longest that one evaluation may take, waiting for an instance included.
        instances: how many evaluations may run at once.
        memory_bytes: the most memory that one of them may take.
    """

    name: ClassVar[str] = WASM

    def __init__(
        self,
        *,
        opa_path: str = "opa",
        limit_seconds: float = 5.0,
        instances: int | None = None,
        memory_bytes: int = 256 << 20,
    ) -> None:
        self._opa_path = opa_path
        self._opa = find_opa(opa_path)
        runtime = f"wasmtime {version('wasmtime')}"
        self.version = runtime if self._opa is None else f"opa {self._opa.version}, {runtime}"
        self._limit_seconds = limit_seconds
        self._instances = instances or max(4, os.cpu_count() or 1)
        self._memory_bytes = memory_bytes

    def prepare(self, policies: PolicySet) -> WasmPolicies:
        """Compile, and refuse what can't be answered.

        Raises:
            PolicyError: `opa_missing`; OPA's own refusals (`rego_parse_error`, `unknown_function`, `wrong_arity`,
                `unsafe_variable`, `recursion`, `rego_compile_error`) with file and line; `unknown_function` for a
                built-in that is not there, with file, line and column; `refused_reference`; `data_conflict`.
        """
        compiled = self.compile(policies)
        return WasmPolicies(policies, compiled, self._limit_seconds, self._instances, self._memory_bytes)

    def compile(self, policies: PolicySet) -> CompiledPolicies:
        """Have OPA compile, with an entry point for every rule and everything that has rules below it.

        Raises:
            PolicyError: see `prepare`.
        """
        if self._opa is None:
            raise PolicyError(
                f"there is no `opa` that runs at {show(self._opa_path)}",
                code="opa_missing",
                hint="install OPA, set `opa_path`, or use another evaluator",
            )
        if not self._opa.version.startswith("1."):
            raise PolicyError(f"OPA {show(self._opa.version)} is none of OPA 1", code="opa_missing")
        if not policies.packages:
            return CompiledPolicies(b"", frozenset())
        packages = Documents(policies, frozenset()).branches
        # a package without any rule is no entry point, one with a rule makes those above it entry points too
        plan = self._opa.plan(policies, sorted({path[0] for path in packages}))
        if plan is None or not plan["funcs"]["funcs"]:
            return CompiledPolicies(b"", frozenset())
        declared = {b["name"]: b["decl"] for b in plan["static"].get("builtin_funcs") or ()}
        if self._opa.version.startswith("1.22."):
            # another version may compile more: there the module itself says what it lacks
            missing = min(declared.keys() - COMPILED - BUILTINS.keys(), default=None)
            if missing is not None:
                raise _unknown(missing, policies, call_places(plan))
        check_integer_keys(plan, policies)
        rules = rule_paths(plan)
        if not rules:
            return CompiledPolicies(b"", frozenset())
        entries = {rule[:n] for rule in rules for n in range(1, len(rule) + 1)}
        return CompiledPolicies(
            self._opa.build(policies, "wasm", sorted(map("/".join, entries))),
            rules,
            boolean_rules(plan) & rules,
            declared,
            call_places(plan),
            reads_of(plan),
        )


class WasmPolicies:
    """Policies ready to be asked, by any number of threads; made by `WasmEvaluator.prepare`."""

    def __init__(
        self, policies: PolicySet, compiled: CompiledPolicies, limit_seconds: float, instances: int, memory_bytes: int
    ) -> None:
        self.policies = policies
        self.rules = compiled.rules
        self.booleans = compiled.booleans
        self._documents = Documents(policies, compiled.rules)
        self._limit_seconds = limit_seconds
        self._compiled = compiled
        config = wasmtime.Config()
        config.epoch_interruption = True
        config.max_wasm_stack = _STACK_BYTES
        self._engine = wasmtime.Engine(config)
        self._clock = Clock(self._engine)
        self._instances, self._memory_bytes = instances, memory_bytes
        self._strict: _Pool | None = None
        self._strict_lock = threading.Lock()
        self._pool = self._make_pool(strict=False) if compiled.module else None

    def reads(self, path: DataPath) -> Reads | None:
        """See `Prepared.reads`."""
        return self._compiled.reads.get(path)

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
        documents = self._documents
        # a rule, as almost always: no need to look where else the path may lead
        entry = path if path in self.rules else documents.entry(path)
        if path in documents.hidden:
            return _failed("eval_error", "what OPA shows of functions whose names have several parts is not supported")
        if entry is None and path:
            return documents.base(path)
        if entry is not None and len(entry) < len(path) and entry in documents.branches:
            return documents.base(path)
        try:
            pool = self._strict_pool() if strict_builtin_errors else self._pool
            if entry is None:
                return self._whole(pool, input_json, limit)
            return self._ask(pool, entry, path[len(entry) :], input_json, limit)
        except WasmError as error:
            return _failed(error.code, str(error))
        except TermError as error:
            return _failed("eval_error", str(error))

    def close(self) -> None:
        """Let go of the instances; evaluations under way still get their answer."""
        for pool in (self._pool, self._strict):
            if pool is not None:
                pool.close()

    def _whole(self, pool: _Pool | None, given: bytes | None, limit: float) -> Outcome:
        """The document `data`, put together from its roots."""
        result = dict(self.policies.data)
        for root in self._documents.roots():
            outcome = self._ask(pool, root, (), given, limit)
            if isinstance(outcome, Defined):
                result[root[0]] = outcome.value
        return Defined(result)

    def _ask(self, pool: _Pool | None, entry: DataPath, rest: DataPath, given: bytes | None, limit: float) -> Outcome:
        name = "/".join(entry)
        if pool is None or name not in pool.entrypoints:
            # a package without rules: what base documents stand there
            base = self._documents.base(entry + rest)
            return Defined({}) if isinstance(base, Undefined) and not rest else base
        answer = pool.ask(name, given, limit)
        if not rest:
            return read_answer(answer)
        values = parse_term(answer.decode("utf-8"))
        if not values:
            return Undefined(has_rules=True)
        found = _descend(values[0]["result"], rest)
        return Undefined(has_rules=True) if found is _NOTHING else Defined(plain(found))

    def _strict_pool(self) -> _Pool | None:
        """Instances in which an error of a built-in ends the evaluation; made when they are first asked for."""
        with self._strict_lock:
            if self._strict is None and self._compiled.module:
                self._strict = self._make_pool(strict=True)
            return self._strict

    def _make_pool(self, *, strict: bool) -> _Pool:
        adapted = adapt(self._compiled.module, self._compiled.declared, strict=strict)
        try:
            made = wasmtime.Module(self._engine, adapted.module)
        except wasmtime.WasmtimeError as error:
            raise PolicyError("the compiled policies are no WASM module", code="evaluator_crash") from error
        image = Image(
            engine=self._engine,
            module=made,
            data=orjson.dumps(self.policies.data),
            builtins=BUILTINS,
            memory_bytes=self._memory_bytes,
            replaced=adapted.replaced,
            strict=strict,
            explain=adapted.explain,
        )
        pool = _Pool(image, self._clock, self._instances)
        missing = min(pool.builtins - BUILTINS.keys(), default=None)
        if missing is not None:
            raise _unknown(missing, self.policies, self._compiled.places)
        return pool


class _Pool:
    """Up to `limit` instances of one image; further callers wait for one.

    Raises:
        PolicyError: `evaluator_crash`, no instance can be made.
    """

    def __init__(self, image: Image, clock: Clock, limit: int) -> None:
        self._image, self._clock = image, clock
        self._free = threading.BoundedSemaphore(limit)
        self._closed = False
        try:
            first = Instance(image)
        except WasmError as error:
            raise PolicyError(str(error), code="evaluator_crash") from error
        self._idle = [first]
        self.entrypoints, self.builtins = first.entrypoints, first.builtins

    def ask(self, name: str, given: bytes | None, limit: float) -> bytes:
        """See `Instance.evaluate`."""
        began = time.monotonic()
        if not self._free.acquire(timeout=limit):
            raise WasmError(TIMED_OUT, f"no instance got free within {limit:.3g} s")
        try:
            try:
                instance = self._idle.pop()
            except IndexError:
                instance = Instance(self._image)
            left = limit - (time.monotonic() - began)
            with self._clock:
                try:
                    answer = instance.evaluate(self.entrypoints[name], given, self._clock.ticks(left))
                except BaseException:
                    instance.close()
                    raise
            if self._closed or instance.size() > _KEPT_BYTES:
                instance.close()
            else:
                self._idle.append(instance)
            return answer
        finally:
            self._free.release()

    def close(self) -> None:
        self._closed = True
        with suppress(IndexError):  # which an evaluation that takes the last one meanwhile may bring about
            while True:
                self._idle.pop().close()


class _Nothing:
    pass


_NOTHING: Final = _Nothing()


def _descend(value: Any, rest: DataPath) -> Any:
    """Follow the rest of a path into a value; an integer is one, and finds no key that is a text."""
    for segment in rest:
        key: Any = int(segment) if INTEGER.fullmatch(segment) else segment
        if isinstance(value, RegoSet):
            value = next((m for m in value if _same(m, key)), _NOTHING)
        elif isinstance(value, RegoObject):
            value = next((v for k, v in value if _same(k, key)), _NOTHING)
        elif isinstance(value, dict):
            value = value.get(key, _NOTHING) if isinstance(key, str) else _NOTHING
        elif isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        else:
            return _NOTHING
    return value


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, bool) is isinstance(other, bool) and one == other and isinstance(one, str | int | float)


def _failed(code: str, message: str) -> Failed:
    return Failed(code, message, ({"code": code, "message": message},))


def _unknown(name: str, policies: PolicySet, places: Mapping[str, Place]) -> PolicyError:
    place = places.get(name)
    where: dict[str, Any] = {}
    if place is not None:
        lines = policies.modules.get(place.file, "").splitlines()
        source = lines[place.line - 1] if 0 < place.line <= len(lines) else None
        where = {"file": place.file, "line": place.line, "column": place.column, "source": source}
    return PolicyError(
        f"{'' if place is None else f'{place.file}:{place.line}:{place.column}: '}"
        f"the built-in `{name}` is not there for the wasm evaluator",
        code="unknown_function", function=name, **where,
        hint="write it without that built-in, or use an evaluator that has it",
    )  # fmt: skip
