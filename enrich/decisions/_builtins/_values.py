"""What all built-ins share: errors, and the check of what they are given."""

from __future__ import annotations

from typing import Any, Final

from enrich.decisions._terms import RegoObject, RegoSet, order

__all__ = ["UNDEFINED", "BuiltinError", "NoAnswerError", "check", "integer", "same", "type_name", "wrong"]


class _Undefined:
    """The answer that is none."""


UNDEFINED: Final = _Undefined()


class BuiltinError(Exception):
    """A built-in can't answer. `code` is OPA's: `eval_builtin_error`, or `eval_type_error` for a wrong argument."""

    def __init__(self, message: str, code: str = "eval_builtin_error") -> None:
        super().__init__(message)
        self.code = code


class NoAnswerError(Exception):
    """What OPA would answer is not known to the letter: the evaluation fails, strict or not."""


def same(one: Any, other: Any) -> bool:
    """Whether Rego has them equal."""
    return bool(order(one) == order(other))


def type_name(value: Any) -> str:
    """Rego's name for a value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, RegoSet):
        return "set"
    if isinstance(value, dict | RegoObject):
        return "object"
    return "array"


def check(position: int, value: Any, *types: str) -> Any:
    """The value, when it is of one of the types.

    Raises:
        BuiltinError: `eval_type_error`.
    """
    found = type_name(value)
    if found not in types:
        raise wrong(position, f"must be {' or '.join(types)} but got {found}")
    return value


def integer(position: int, value: Any) -> int:
    """The value, when it is an integer as it is written."""
    check(position, value, "number")
    if isinstance(value, float):
        if not value.is_integer():
            raise wrong(position, "must be integer number but got floating-point number")
        return int(value)
    return int(value)


def wrong(position: int, text: str) -> BuiltinError:
    """The error of an argument."""
    return BuiltinError(f"operand {position} {text}", "eval_type_error")
