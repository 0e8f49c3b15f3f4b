"""What one evaluation has for itself: the moment at which it began, and what chance gave it."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from enrich.decisions._builtins._values import check, integer
from enrich.decisions._terms import rego_text

__all__ = ["ASKED", "Asked", "PerEvaluation"]


@dataclass(slots=True)
class Asked:
    """One evaluation.

    Attributes:
        now_ns: when it began, nanoseconds since 1970.
        given: what chance gave for which question: the same for all of one evaluation.
    """

    now_ns: int = field(default_factory=time.time_ns)
    given: dict[tuple[Any, ...], Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PerEvaluation:
    """A built-in that takes, before its arguments, the evaluation that asks."""

    function: Callable[..., Any]


def _now(asked: Asked) -> int:
    return asked.now_ns


def _random(asked: Asked, text: Any, below: Any) -> int:
    check(1, text, "string")
    limit = abs(integer(2, below))
    if limit == 0:
        return 0
    found: int = asked.given.setdefault(("rand.intn", text, limit), secrets.randbelow(limit))
    return found


def _uuid(asked: Asked, key: Any) -> str:
    found: str = asked.given.setdefault(("uuid.rfc4122", rego_text(key)), str(uuid.uuid4()))
    return found


#: by name
ASKED: Final = {
    "rand.intn": PerEvaluation(_random),
    "time.now_ns": PerEvaluation(_now),
    "uuid.rfc4122": PerEvaluation(_uuid),
}
