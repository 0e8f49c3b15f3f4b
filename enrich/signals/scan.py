"""Tokens of a definition's SQL with their places; knows strings, quoted names and comments, and nothing else.

DuckDB parses; this only finds what DuckDB drops (comments) or must see replaced (parameters), and makes the normalised
text that a set's version is the hash of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["ScanError", "Token", "normalised", "scan"]

_PATTERN: Final = re.compile(
    r"""(?P<space>\s+)
    | (?P<comment>--[^\r\n]*)
    | (?P<string>'(?:[^']|'')*')
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<number>(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d+)?)
    | (?P<name>[^\W\d]\w*)
    | (?P<op>->>|->|<=|>=|<>|!=|::|:=|\|\||\*\*|//|==|=>|[-+*/%^<>=(),.;:\[\]{}])
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is comment, string, quoted, number, name or op; `start` and `end` are character offsets.

    INVARIANT: a comment ends where DuckDB ends it, at a line feed or a carriage return: what DuckDB reads as code is
    never hidden from the version's hash or from parameters.
    """

    kind: str
    text: str
    start: int
    end: int


class ScanError(ValueError):
    """Text that can't be a token; `start` is where."""

    def __init__(self, message: str, start: int) -> None:
        super().__init__(message)
        self.start = start


def scan(sql: str) -> Iterator[Token]:
    """The tokens in order, comments included, white space left out.

    Raises:
        ScanError: an unclosed string or name, a block comment, a dollar quote, an escape string.
    """
    at = 0
    previous: Token | None = None
    while at < len(sql):
        found = _PATTERN.match(sql, at)
        if found is None:
            raise ScanError(_why(sql, at), at)
        kind = found.lastgroup or ""
        if kind == "op" and sql.startswith("/*", at):
            raise ScanError("a block comment: comments of definitions are written with --", at)
        if kind != "space":
            token = Token(kind, found.group(), at, found.end())
            if kind == "string" and previous is not None and previous.kind == "name" and previous.end == at:
                raise ScanError(f"a string with the prefix `{previous.text}`", previous.start)
            yield token
            previous = token
        at = found.end()


def _why(sql: str, at: int) -> str:
    if sql[at] == "'":
        return "a string that is not closed"
    if sql[at] == '"':
        return "a quoted name that is not closed"
    return f"the character `{sql[at]}` means nothing here"


def normalised(sql: str) -> str:
    """The SQL without comments and layout, names and keywords in lower case: equal for equal meaning of the text."""
    parts = [t.text.lower() if t.kind in ("name", "number") else t.text for t in scan(sql) if t.kind != "comment"]
    while parts and parts[-1] == ";":
        parts.pop()
    return " ".join(parts)
