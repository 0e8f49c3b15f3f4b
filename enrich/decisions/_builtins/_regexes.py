"""Regular expressions as Go has them, by RE2: the same grammar and the same choice among matches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

import re2

from enrich.decisions._builtins._values import BuiltinError, NoAnswerError, check, integer

__all__ = ["REGEXES"]

#: where Go and RE2 part, or follow another version of Unicode
_APART: Final = re.compile(r"\\[pPC]|\(\?[a-zA-Z]*i[^)]*[):].*[^\x00-\x7f]", re.DOTALL)
_LONGEST: Final = 2000
_NAME: Final = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))")


@lru_cache(256)
def _compiled(pattern: str) -> Any:
    if len(pattern) > _LONGEST or _APART.search(pattern):
        raise NoAnswerError("regex: a pattern with `\\p`, `\\C`, or so long, is not supported")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        if b"too large" in error.args[0] if isinstance(error.args[0], bytes) else "too large" in str(error):
            raise NoAnswerError("regex: so large a pattern is not supported") from error
        raise BuiltinError("error parsing regexp") from error


def _matches(pattern: Any, text: str, limit: int = -1) -> Iterator[Any]:
    """Every match from left to right; none that is empty where another has just ended."""
    if "\\B" in pattern.pattern and not text.isascii():
        # RE2 finds it within a character, too
        raise NoAnswerError("regex: `\\B` in a text beyond ASCII is not supported")
    found, before = 0, -1
    # one pass over the text, however many there are
    for match in pattern.finditer(text):
        if found == limit:
            return
        start, end = match.span()
        if start != end or start != before:
            found += 1
            yield match
        before = end


def _texts(*values: Any) -> None:
    for position, value in enumerate(values, 1):
        check(position, value, "string")


def _find(pattern: Any, text: Any, limit: Any) -> list[str]:
    _texts(pattern, text)
    wanted = integer(3, limit)
    return [match.group() for match in _matches(_compiled(pattern), text, max(-1, wanted))]


def _split(pattern: Any, text: Any) -> list[str]:
    _texts(pattern, text)
    made = _compiled(pattern)
    if pattern and not text:
        return [""]
    parts = []
    begin = end = 0
    for match in _matches(made, text):
        end = match.start()
        if match.end() != 0:
            parts.append(text[begin:end])
        begin = match.end()
    if end != len(text):
        parts.append(text[begin:])
    return parts


def _replace(text: Any, pattern: Any, value: Any) -> str:
    _texts(text, pattern, value)
    parts = []
    last = 0
    for match in _matches(_compiled(pattern), text):
        parts += [text[last : match.start()], _expanded(value, match)]
        last = match.end()
    return "".join([*parts, text[last:]])


def _expanded(template: str, match: Any) -> str:
    names = match.re.groupindex

    def filled(found: re.Match[str]) -> str:
        if found[1]:
            return "$"
        name = found[2] or found[3]
        if name.isascii() and name.isdecimal():
            number = int(name)
            return (match.group(number) or "") if number <= match.re.groups else ""
        if not name.isascii():
            raise NoAnswerError("regex.replace: a group's name outside ASCII is not supported")
        return (match.group(name) or "") if name in names else ""

    return _NAME.sub(filled, template)


def _template_match(pattern: Any, text: Any, start: Any, end: Any) -> bool:
    _texts(pattern, text, start, end)
    if len(start.encode()) != 1 or len(end.encode()) != 1:
        raise BuiltinError("a delimiter has to be exactly one character long")
    made = ["^"]
    last = 0
    for begin, stop in _delimited(pattern, start, end):
        part = pattern[begin + 1 : stop - 1]
        made.append(f"{_quoted(pattern[last:begin])}({part})")
        _compiled(f"^{part}$")
        last = stop
    made.append(f"{_quoted(pattern[last:])}$")
    return _compiled("".join(made)).search(text) is not None


def _quoted(text: str) -> str:
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)


def _delimited(pattern: str, start: str, end: str) -> list[tuple[int, int]]:
    """Where the outermost delimited parts begin and end."""
    found = []
    level = begin = 0
    for at, char in enumerate(pattern):
        if char == start:
            level += 1
            begin = at if level == 1 else begin
        elif char == end:
            level -= 1
            if level == 0:
                found.append((begin, at + 1))
        if level < 0:
            break
    if level != 0:
        raise BuiltinError("unbalanced braces")
    return found


#: by name
REGEXES: Final[dict[str, Callable[..., Any]]] = {
    "regex.find_n": _find,
    "regex.replace": _replace,
    "regex.split": _split,
    "regex.template_match": _template_match,
}
