"""The words of GraphQL, as OPA's parser reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from enrich.decisions._builtins._values import BuiltinError

__all__ = ["Word", "Words"]

_SKIPPED: Final = re.compile(r"[\t ,\n\r\ufeff]*")
_NAME: Final = re.compile(r"[_A-Za-z][_A-Za-z0-9]*", re.ASCII)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<fraction>\.[0-9]+)?(?P<exponent>[eE][-+]?[0-9]+)?", re.ASCII)
_COMMENT: Final = re.compile(r"#[^\x00-\x08\x0a-\x1f]*")
_SIGN: Final = re.compile(r"\.\.\.|[!$&():=@\[\]{}|]")
_STRING: Final = re.compile(r'"(?P<text>(?:[^"\\\x00-\x08\x0a-\x1f]|\\.)*)"')
_BLOCK: Final = re.compile(r'"""(?P<text>(?:[^"\\]|\\"""|\\(?!""")|"{1,2}(?!"))*)(?P<end>"{3,})')
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.ASCII)
_ESCAPED: Final = {'"': '"', "/": "/", "\\": "\\", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


@dataclass(frozen=True, slots=True)
class Word:
    """One word: `kind` is the sign itself, or `name`, `int`, `float`, `string`, `block`, `#`, or "" at the end.

    `text` is "" for a sign.
    """

    kind: str
    text: str = ""


class Words:
    """What is read next, and the comments that stand before it.

    Attributes:
        comment: those directly before the word that `peek` gave last, as OPA's AST has them; None when there are none,
            or when nobody has looked yet.
    """

    def __init__(self, text: str) -> None:
        self._words = _read(text)
        self._next: Word | None = None
        self.comment: dict[str, Any] | None = None

    def peek(self) -> Word:
        """The next word, which stays the next."""
        if self._next is None:
            comments = []
            while (word := next(self._words)).kind == "#":
                comments.append({"Value": word.text})
            if comments:
                self.comment = {"List": comments}
            self._next = word
        return self._next

    def take(self) -> Word:
        """The next word."""
        word = self.peek()
        self._next = self.comment = None
        return word

    def expect(self, kind: str, text: str | None = None) -> str:
        """The text of the next word.

        Raises:
            BuiltinError: it is another.
        """
        word = self.take()
        if word.kind != kind or (text is not None and word.text != text):
            raise BuiltinError(f"expected {text or kind}, found {word.text or word.kind or 'the end'}")
        return word.text

    def skip(self, kind: str) -> bool:
        """Whether the next word is of a kind; it is taken then."""
        if self.peek().kind != kind:
            return False
        self.take()
        return True


def _read(text: str) -> Iterator[Word]:
    at = 0
    while True:
        skipped = _SKIPPED.match(text, at)
        at = skipped.end() if skipped else at
        if at == len(text):
            # as often as somebody asks
            yield Word("")
            continue
        word, at = _word(text, at)
        yield word


def _word(text: str, at: int) -> tuple[Word, int]:
    first = text[at]
    if first == '"':
        return _block(text, at) if text.startswith('"""', at) else _string(text, at)
    if found := _NAME.match(text, at):
        return Word("name", found[0]), found.end()
    if found := _SIGN.match(text, at):
        return Word(found[0]), found.end()
    if first == "#" and (found := _COMMENT.match(text, at)):
        return Word("#", found[0]), found.end()
    if found := _NUMBER.match(text, at):
        end = found.end()
        # what looks as if it went on, and does not
        if found[0] in ("0", "-0") and text[end : end + 1].isdecimal() and text[end].isascii():
            raise BuiltinError("invalid number, unexpected digit after 0")
        ahead = text[end : end + 1]
        whole = not found["fraction"] and not found["exponent"]
        if (ahead == "." and whole) or (ahead in ("e", "E") and not found["exponent"]):
            raise BuiltinError("invalid number, expected digit")
        return Word("float" if found["fraction"] or found["exponent"] else "int", found[0]), end
    raise BuiltinError(f"cannot parse the unexpected character {first!r}")


def _string(text: str, at: int) -> tuple[Word, int]:
    found = _STRING.match(text, at)
    if found is None:
        raise BuiltinError("unterminated string, or a character that it can't hold")
    return Word("string", _ESCAPE.sub(_unescaped, found["text"])), found.end()


def _unescaped(found: re.Match[str]) -> str:
    if found[1]:
        number = int(found[1], 16)
        # half of a character is none
        return "\ufffd" if 0xD800 <= number < 0xE000 else chr(number)
    if found[2] not in _ESCAPED:
        raise BuiltinError("invalid character escape sequence")
    return _ESCAPED[found[2]]


def _block(text: str, at: int) -> tuple[Word, int]:
    found = _BLOCK.match(text, at)
    if found is None or _CONTROL.search(found["text"]):
        raise BuiltinError("unterminated string, or a character that it can't hold")
    # more quotes than three: the first of them are text
    inner = found["text"].replace('\\"""', '"""') + found["end"][3:]
    return Word("block", _dedented(inner.replace("\r\n", "\n").replace("\r", "\n"))), found.end()


def _dedented(text: str) -> str:
    lines = text.split("\n")
    indents = [len(line) - len(line.lstrip(" \t")) for line in lines if line.strip(" \t")]
    common = min(indents, default=0)
    lines = [lines[0], *(line[common:] for line in lines[1:])]
    while lines and not lines[0].strip(" \t"):
        lines.pop(0)
    while lines and not lines[-1].strip(" \t"):
        lines.pop()
    return "\n".join(lines)
