"""What a request declares: what it would move and cost, do and where, for the event that counts its decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from enrich.errors import BadRequestError, show
from enrich.events.model import INT64_MAX
from enrich.events.refusals import string_problem

__all__ = ["Declaring", "value_at"]

#: setting to the event's column
_COLUMNS: Final[Mapping[str, str]] = {
    "input_declared_amount": "declared_amount_minor",
    "input_declared_cost": "declared_cost_microusd",
    "input_currency": "currency",
    "input_action": "action",
    "input_environment": "environment",
}
_COUNTS: Final = ("input_declared_amount", "input_declared_cost")
#: what signals tell events apart by, and no sum is made of
_NAMES: Final = ("input_action", "input_environment")


class Declaring:
    """Reads what inputs declare.

    Args:
        paths: setting to its dotted path, of all five.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._paths = [(name, tuple(paths[name].split(".")), paths[name], _COLUMNS[name]) for name in _COLUMNS]

    def read(self, document: Mapping[str, Any]) -> dict[str, str | int]:
        """The event's columns that the input has a value for; null is none, and so is what has no object above it.

        INVARIANT: an amount that can't be counted is not nothing: who sends it is told, and nothing is decided. The
        currency is what it is counted under. An action or environment that no event can carry is left out.

        Raises:
            BadRequestError: `invalid_declaration`; `detail` has `field` and `value`.
        """
        found: dict[str, str | int] = {}
        near: tuple[str, ...] | None = None
        parent: Any = None
        for name, path, where, column in self._paths:
            if path[:-1] != near:
                near = path[:-1]
                parent = value_at(document, near)
            value = parent.get(path[-1]) if isinstance(parent, Mapping) else None
            if value is None:
                continue
            if name in _COUNTS:
                if type(value) is not int or not 0 <= value <= INT64_MAX:
                    raise _invalid(where, value, "an integer from 0 to 2^63 - 1, in the smallest unit")
                found[column] = value
            elif isinstance(value, str) and string_problem(value) is None:
                found[column] = value
            elif name not in _NAMES:
                raise _invalid(where, value, "1 to 200 characters, without padding or control characters")
        return found


def value_at(document: Mapping[str, Any], path: Sequence[str]) -> Any:
    """What stands at a path of keys; None where there is nothing."""
    at: Any = document
    for key in path:
        at = at.get(key) if isinstance(at, Mapping) else None
    return at


def _invalid(where: str, value: object, hint: str) -> BadRequestError:
    return BadRequestError(
        f"the input declares {show(value)} at `{where}`",
        code="invalid_declaration",
        field=where,
        value=show(value).strip("`"),
        hint=hint,
    )
