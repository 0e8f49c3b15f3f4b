"""What policies can read of their input, told from their plan before anything is evaluated.

In: OPA's intermediate representation, from OPA (`opa build -t plan`) or from the embedded interpreter. Out: for every
rule the pieces of the input that its value can depend on, and the built-ins that it can reach.

INVARIANT: never less than what can be read. Two inputs that agree on a rule's reads give that rule the same value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from enrich.decisions._call import GaveUpError, Position
from enrich.decisions._interpret import Interpretation
from enrich.decisions._values import InputPath

__all__ = ["Asked", "InputPath", "Position", "Reads", "reads_of"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A statement that looks for one of `paths`, each a path of constant keys or wildcards, and where it stands."""

    paths: frozenset[InputPath]
    position: Position | None


@dataclass(frozen=True, slots=True)
class Reads:
    """What the value of one rule can depend on.

    A path is a tuple of keys from the input down; None in it stands for any key (or index).

    Attributes:
        whole: subtrees that are read to their last leaf. `()` is the whole input.
        touched: places of which it matters whether something is there, whether it is an object, an array or a scalar,
            and, of a scalar, its value. A touched `(..., None)` says that the keys of an object matter.
        asked: statements that look up keys which the policy names; for finding those that can't be there.
        builtins: the built-ins that can be called, with a place where one is.
    """

    whole: frozenset[InputPath]
    touched: frozenset[InputPath]
    asked: frozenset[Asked]
    builtins: Mapping[str, Position | None]


def reads_of(plan: Mapping[str, Any], *, embedded: bool = False) -> dict[tuple[str, ...], Reads]:
    """What each rule, and each entry point, can read.

    Args:
        plan: a `plan.json`.
        embedded: the plan is regopy's: texts in it are escaped, lines and columns counted from zero.

    Returns:
        By path in the data document. A rule of which nothing can be said for sure is not there: it can read everything
        and call anything.
    """
    interpretation = Interpretation(plan, embedded=embedded)
    found: dict[tuple[str, ...], Reads] = {}
    for path, result in interpretation.rules():
        if not isinstance(result, GaveUpError):
            found[path] = Reads(
                _shortest(result.whole),
                frozenset(p for p in result.touched if not _covered(p, result.whole)),
                frozenset(Asked(paths, position) for paths, position in result.asked),
                result.builtins,
            )
    return found


def _shortest(paths: frozenset[InputPath]) -> frozenset[InputPath]:
    """Without what lies below another one."""
    return frozenset(p for p in paths if not any(p[:n] in paths for n in range(len(p))))


def _covered(path: InputPath, whole: frozenset[InputPath]) -> bool:
    return any(path[:n] in whole for n in range(len(path) + 1))
