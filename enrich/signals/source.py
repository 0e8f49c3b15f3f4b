"""One definition file: its text, its tokens, and where a place in the SQL that DuckDB sees stands in the file."""

from __future__ import annotations

import bisect
from collections.abc import Mapping

from enrich.errors import DefinitionError
from enrich.signals.scan import ScanError, Token, scan

__all__ = ["Source"]


class Source:
    """A definition's text under its name.

    `sql` is the text with parameters replaced by their literals (see `substitute`), which is what DuckDB binds and what
    runs offline; comments stay in it.

    Raises:
        DefinitionError: the text holds something that is no token of a definition.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.sql = text
        # (start in sql, length there, start in the file, length there) of each literal, ascending
        self._moves: list[tuple[int, int, int, int]] = []
        self._line_starts = [0, *(i + 1 for i, c in enumerate(text) if c == "\n")]
        self._bytes: list[int] | None = None
        try:
            self.tokens: list[Token] = list(scan(text))
        except ScanError as error:
            raise self.error(str(error), error.start, 1) from None

    def substitute(self, literals: Mapping[str, str]) -> frozenset[str]:
        """Replace each name in `literals` by its literal in `sql`; answers the names that occurred.

        A name is left alone after a dot or `AS`, before a dot, before `(`, and before `:=` or `=>` (a named argument).
        """
        code = [t for t in self.tokens if t.kind != "comment"]
        parts: list[str] = []
        used: set[str] = set()
        done = grown = 0
        for i, token in enumerate(code):
            name = token.text.lower()
            if token.kind != "name" or name not in literals:
                continue
            before = code[i - 1].text.lower() if i else ""
            after = code[i + 1].text if i + 1 < len(code) else ""
            if before in (".", "as") or after in (".", "(", ":=", "=>"):
                continue
            literal = literals[name]
            literal = f"({literal})" if literal[0] in "+-" else literal
            parts += [self.text[done : token.start], literal]
            self._moves.append((token.start + grown, len(literal), token.start, len(token.text)))
            grown += len(literal) - len(token.text)
            done = token.end
            used.add(name)
        self.sql = "".join([*parts, self.text[done:]])
        return frozenset(used)

    def sql_before(self, start: int) -> str:
        """`sql` up to a byte offset, as DuckDB gives it, without white space at its end."""
        return self.sql.encode()[:start].decode().rstrip()

    def original(self, start: int, length: int) -> tuple[int, int]:
        """A span of `sql` in bytes, as DuckDB gives it, as (start, length) in characters of the file."""
        if self._bytes is None:
            # byte offset of each character, only where it isn't simply its index
            self._bytes = [] if self.sql.isascii() else _byte_offsets(self.sql)
        if self._bytes:
            end = bisect.bisect_left(self._bytes, start + length)
            start = bisect.bisect_left(self._bytes, start)
            length = end - start
        first, last = self._back(start, False), self._back(start + length, True)
        return first, max(1, last - first)

    def _back(self, at: int, end: bool) -> int:
        """A place in `sql` as one in the file; inside a literal it is the name's start, or its end."""
        i = bisect.bisect_right(self._moves, at - end, key=lambda m: m[0]) - 1
        if i < 0:
            return at
        start, length, text_start, text_length = self._moves[i]
        inside = at - start < length + end
        if inside:
            return text_start + (text_length if end else 0)
        return text_start + text_length + (at - start - length)

    def error(
        self, message: str, start: int, length: int = 1, *, code: str | None = None, hint: str | None = None
    ) -> DefinitionError:
        """A refusal at a place of the file, in characters."""
        start = min(max(start, 0), len(self.text))
        line = bisect.bisect_right(self._line_starts, start) - 1
        line_start = self._line_starts[line]
        end = self.text.find("\n", line_start)
        shown = self.text[line_start : len(self.text) if end < 0 else end]
        return DefinitionError(
            message,
            code=code,
            hint=hint,
            file=self.name,
            line=line + 1,
            column=start - line_start + 1,
            length=max(1, min(length, len(shown) - (start - line_start))),
            source=shown,
        )

    def error_at(
        self, message: str, at: tuple[int, int] | None, *, code: str | None = None, hint: str | None = None
    ) -> DefinitionError:
        """A refusal at a span of `sql` in bytes."""
        if at is None:  # DuckDB does not say where: the SELECT, not the header
            first = next((t for t in self.tokens if t.kind != "comment"), None)
            return self.error(message, first.start if first else 0, 1, code=code, hint=hint)
        start, length = self.original(*at)
        return self.error(message, start, length, code=code, hint=hint)


def _byte_offsets(text: str) -> list[int]:
    offsets = [0]
    for char in text:
        offsets.append(offsets[-1] + len(char.encode()))
    return offsets
