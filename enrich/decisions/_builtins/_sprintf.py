"""`sprintf` as Go's `fmt` does it, for what Rego hands it: integers, other numbers, and texts (everything else is its
own text)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from enrich.decisions._builtins._values import NoAnswerError, check
from enrich.decisions._terms import rego_text

__all__ = ["sprintf"]

_VERB: Final = re.compile(
    r"%(?P<flags>[-+# 0]*)(?P<width>[0-9]{1,4})?(?P<precision>\.[0-9]{0,4})?(?P<verb>[^0-9.\-+# *\[])"
)
_INT64: Final = 1 << 63


def sprintf(form: Any, values: Any) -> str:
    """The text with every verb replaced.

    Raises:
        BuiltinError: the arguments are of other types.
        NoAnswerError: a form whose meaning is not known to the letter.
    """
    check(1, form, "string")
    check(2, values, "array")
    arguments = [v if isinstance(v, str) or _is_number(v) else rego_text(v) for v in values]
    parts = list(_replaced(form, iter(arguments)))
    return "".join(parts)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _replaced(form: str, arguments: Iterator[Any]) -> Iterator[str]:
    at = 0
    while (start := form.find("%", at)) >= 0:
        yield form[at:start]
        found = _VERB.match(form, start)
        if found is None:
            if start != len(form) - 1:
                raise NoAnswerError(f"sprintf: the form `{form[start : start + 12]}` is not supported")
            yield "%!(NOVERB)"
            at = len(form)
            break
        at = found.end()
        if found["verb"] == "%":
            yield "%"
            continue
        value = next(arguments, None)
        yield f"%!{found['verb']}(MISSING)" if value is None else _verb(found, value)
    yield form[at:]
    extra = [f"{_kind(v)}={_plain(v)}" for v in arguments]
    if extra:
        yield f"%!(EXTRA {', '.join(extra)})"


def _verb(found: re.Match[str], value: Any) -> str:
    flags, verb = set(found["flags"]), found["verb"]
    width = int(found["width"] or 0)
    precision = None if found["precision"] is None else int(found["precision"][1:] or 0)
    if "#" in flags or (verb == "v" and "+" in flags) or verb in "Tpw":
        raise NoAnswerError(f"sprintf: `{found[0]}` is not supported")
    if isinstance(value, str):
        text = _of_text(value, verb, precision)
        numeric = False
    elif isinstance(value, float):
        text = _of_float(value, verb, precision)
        numeric = True
    else:
        if precision is not None:
            raise NoAnswerError(f"sprintf: `{found[0]}` of an integer is not supported")
        text = _of_integer(value, verb)
        numeric = verb in "vdxXob" or abs(value) >= _INT64
    if text is None:
        if flags or width or precision is not None:
            raise NoAnswerError(f"sprintf: `{found[0]}` is not supported")
        return f"%!{verb}({_kind(value)}={_plain(value)})"
    if numeric and not text.startswith("-"):
        text = ("+" if "+" in flags else " " if " " in flags else "") + text
    if len(text) >= width:
        return text
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags:
        if not numeric:
            raise NoAnswerError(f"sprintf: `{found[0]}` of a text is not supported")
        return text.zfill(width) if text[0] != " " else " " + text[1:].zfill(width - 1)
    return text.rjust(width)


def _of_text(value: str, verb: str, precision: int | None) -> str | None:
    if verb in "vs":
        return value if precision is None else value[:precision]
    if verb in "xX" and precision is None:
        digits = value.encode("utf-8").hex()
        return digits if verb == "x" else digits.upper()
    if verb == "q":
        if precision is not None or not (value.isascii() and value.isprintable()):
            raise NoAnswerError("sprintf: `%q` of such a text is not supported")
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if precision is not None:
        raise NoAnswerError(f"sprintf: `%{verb}` with a precision is not supported")
    return None


def _of_float(value: float, verb: str, precision: int | None) -> str | None:
    if verb in "fF":
        return f"{value:.{6 if precision is None else precision}f}"
    if verb in "eE":
        return f"{value:.{6 if precision is None else precision}{verb}}"
    if verb in "vgG":
        if precision is not None:
            raise NoAnswerError(f"sprintf: `%.{precision}{verb}` is not supported")
        text = _shortest(value)
        return text.upper() if verb == "G" else text
    if verb in "bxX":
        raise NoAnswerError(f"sprintf: `%{verb}` of a fraction is not supported")
    return None


def _of_integer(value: int, verb: str) -> str | None:
    if verb in "vd":
        return str(value)
    if abs(value) >= _INT64:
        if verb == "s":
            return str(value)
        raise NoAnswerError(f"sprintf: `%{verb}` of so large an integer is not supported")
    if verb in "xXob":
        return format(value, verb)
    if verb in "cqOU":
        raise NoAnswerError(f"sprintf: `%{verb}` of an integer is not supported")
    return None


def _shortest(value: float) -> str:
    """The fewest digits that read back as the value; with an exponent where that is below -4 or above 5."""
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    if not isinstance(exponent, int):
        raise NoAnswerError("sprintf: a number that is not finite")
    figures = "".join(map(str, digits))
    point = len(figures) - 1 + exponent if value else 0
    before = "-" if sign else ""
    if point < -4 or point >= 6:
        rest = f".{figures[1:]}" if len(figures) > 1 else ""
        return f"{before}{figures[0]}{rest}e{'-' if point < 0 else '+'}{abs(point):02d}"
    if exponent >= 0:
        return before + figures + "0" * exponent
    if point < 0:
        return f"{before}0.{'0' * (-point - 1)}{figures}"
    return f"{before}{figures[: point + 1]}.{figures[point + 1 :]}"


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "string"
    if isinstance(value, float):
        return "float64"
    if abs(value) >= _INT64:
        return "*big.Int"
    return "int64"


def _plain(value: Any) -> str:
    return _shortest(value) if isinstance(value, float) else str(value)
