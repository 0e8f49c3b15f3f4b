"""One case through one evaluator, and what to make of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from enrich.decisions import Defined, Evaluator, Failed, Prepared, Undefined, policy_set
from enrich.errors import PolicyError
from tests.conformance.cases import Case

__all__ = ["Outcome", "equal", "judge", "run"]

#: `right`; `order`: right but for the order of an array that may be a set; `code`: failed as it should, under another
#: code; `refused`: did not load; `failed`: no answer where one was to come; `wrong`: another answer, or an answer where
#: there was to be none
Kind = Literal["right", "order", "code", "refused", "failed", "wrong"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went, and why it did not."""

    kind: Kind
    reason: str = ""


def run(evaluator: Evaluator, case: Case) -> Outcome:
    """Load, ask, judge."""
    try:
        prepared = evaluator.prepare(policy_set(case.modules, case.data))
    except PolicyError as error:
        function = error.detail.get("function")
        return Outcome("refused", f"{error.error_code}" + (f" `{function}`" if function else ""))
    try:
        return judge(prepared, case)
    finally:
        prepared.close()


def judge(prepared: Prepared, case: Case) -> Outcome:
    """Ask what is loaded."""
    got = prepared.evaluate(case.path, case.input, strict_builtin_errors=case.strict, limit_seconds=20)
    if isinstance(got, Failed):
        if case.fails is None:
            return Outcome("failed", f"{got.code}: {got.message[:100]}")
        return Outcome("right") if case.fails in ("", got.code) else Outcome("code", f"{got.code}, not {case.fails}")
    if case.fails is not None:
        return Outcome("wrong", "no error" if isinstance(got, Defined) else "undefined, no error")
    if case.any_value:
        return Outcome("right") if isinstance(got, Defined) else Outcome("wrong", "undefined")
    if case.wants is None or isinstance(got, Undefined):
        return Outcome("right") if case.wants is None and isinstance(got, Undefined) else Outcome("wrong", _told(got))
    wanted = case.wants[0]
    if equal(got.value, wanted) or (case.unordered and equal(_sorted(got.value), _sorted(wanted))):
        return Outcome("right")
    return Outcome("order" if equal(_deep(got.value), _deep(wanted)) else "wrong", _told(got))


def _told(got: Defined | Undefined) -> str:
    return f"answers {json.dumps(got.value)[:100]}" if isinstance(got, Defined) else "undefined"


def equal(one: Any, other: Any) -> bool:
    """The same JSON; numbers that are no integers up to 2^53 to within one unit in the last place."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        if max(abs(one), abs(other)) <= 2**53 and float(one).is_integer():
            return one == other
        return math.isclose(one, other, rel_tol=0.0, abs_tol=math.ulp(float(max(abs(one), abs(other)))))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == {str(k) for k in other} and all(equal(one[str(k)], v) for k, v in other.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and bool(one == other)


def _sorted(value: Any) -> Any:
    return sorted(value, key=lambda v: json.dumps(_deep(v), sort_keys=True)) if isinstance(value, list) else value


def _deep(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _deep(v) for k, v in value.items()}
    if isinstance(value, list):
        return sorted(map(_deep, value), key=lambda v: json.dumps(v, sort_keys=True))
    return value
