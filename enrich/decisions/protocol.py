"""What an evaluator is: policies are prepared once, then asked for a path, and an answer is one of three things.

`embedded` is one evaluator; others (policies compiled to WASM, a separate OPA) implement the same two protocols.
Nothing here knows of HTTP, the journal or history: an evaluator is handed canonical JSON and answers from that alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, Protocol, runtime_checkable

from enrich.decisions.policies import PolicySet
from enrich.decisions.reads import Reads
from enrich.errors import EvaluationError

__all__ = [
    "Circuit",
    "Condition",
    "DataPath",
    "Defined",
    "Evaluator",
    "Failed",
    "Outcome",
    "Prepared",
    "Undefined",
    "Watched",
]

#: a path in the data document, `("gantral", "authority", "decision")`; empty is the whole document
DataPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Defined:
    """The path has a value: JSON as Python, sets as arrays, every number finite."""

    value: Any


@dataclass(frozen=True, slots=True)
class Undefined:
    """The path has no value. `has_rules` tells rules that do not apply from a path that no policy defines."""

    has_rules: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The evaluation broke: no value, and never to be read as one.

    `code` is OPA's name for it (`eval_conflict_error`, `eval_builtin_error`) or `eval_error`; `errors` are the
    causes, each with code and message.
    """

    code: str
    message: str
    errors: tuple[Mapping[str, Any], ...] = field(default=())

    def error(self) -> EvaluationError:
        """The same as an exception, for callers without an answer of their own shape."""
        return EvaluationError(self.message, code=self.code, errors=[dict(e) for e in self.errors])


Outcome = Defined | Undefined | Failed


class Prepared(Protocol):
    """Policies made ready by an evaluator. Safe to call from any number of threads."""

    policies: PolicySet
    #: the paths of all rules (not of functions), so that a caller can tell a rule from a package
    rules: frozenset[DataPath]
    #: those of them that are seen to be never anything but true or false
    booleans: frozenset[DataPath]

    def evaluate(
        self,
        path: DataPath,
        input_json: bytes | None,
        *,
        strict_builtin_errors: bool = False,
        limit_seconds: float | None = None,
    ) -> Outcome:
        """Answer one query.

        Args:
            path: the document asked for. A segment that is a decimal integer is one, as OPA reads it: it finds an
                array's element, never an object's key.
            input_json: the canonical bytes of the input, or None when there is no input at all (`input` is undefined).
            strict_builtin_errors: a built-in's error fails the evaluation; otherwise its expression is undefined,
                which is what OPA does unless told.
            limit_seconds: the longest that this one may take, where that is less than the evaluator's own limit; past
                it the answer is `Failed`, its code `TIMED_OUT`.
        """

    def reads(self, path: DataPath) -> Reads | None:
        """What the rule at `path` can read and call; None when that is not known, and may be everything."""

    def close(self) -> None: ...


Circuit = Literal["closed", "half_open", "open"]


@dataclass(frozen=True, slots=True)
class Condition:
    """How prepared policies fare.

    Attributes:
        reasons: why they can't be relied on to answer; empty when they can.
        replaced: processes that ended, or were ended, and had to be started anew.
        abandoned: evaluations that were given up because they took too long.
        circuit: whether calls are let through to a separate evaluator; `closed` means that they are.
    """

    reasons: tuple[str, ...] = ()
    replaced: int = 0
    abandoned: int = 0
    circuit: Circuit = "closed"


@runtime_checkable
class Watched(Protocol):
    """Prepared policies that can say how they fare: those that something beside the engine evaluates."""

    def condition(self) -> Condition: ...


class Evaluator(Protocol):
    """A way to evaluate policies. `name` and `version` go into every recorded decision."""

    name: ClassVar[str]
    version: str

    def prepare(self, policies: PolicySet) -> Prepared:
        """Compile and check.

        Raises:
            PolicyError: a policy does not parse, uses what this evaluator lacks, or can't mean what it says.
        """


#: the code of a `Failed` whose evaluation took too long, OPA's own
TIMED_OUT: Final = "eval_cancel_error"
#: what evaluators are called in settings
EMBEDDED: Final = "embedded"
OPA: Final = "opa"
WASM: Final = "wasm"
