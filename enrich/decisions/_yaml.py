"""YAML as a way to write JSON: what OPA accepts in data files and request bodies, and nothing that JSON can't say.

Values are built from the parser's events, so that nothing is made of a document before depth, tags and numbers are
judged. Aliases are refused (a few hundred bytes of them can stand for gigabytes), so are tags, duplicate keys and
numbers that are not exact. A date is a string.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import yaml  # type: ignore[import-untyped]  # stubs would be one more dependency

from enrich.errors import BadRequestError, NumberNotExactError, PayloadTooLargeError, show
from enrich.events.json import strict_loads

__all__ = ["MAX_YAML_BYTES", "yaml_loads"]

#: of a request: YAML is read some hundred times slower than JSON
MAX_YAML_BYTES: Final = 64 << 10
_DEPTH: Final = 64
#: libyaml's parser where PyYAML was built with it, ten times faster
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# `yes` and `2026-11-23` are strings, `012` is 10, `1e3` a number
_WORDS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER: Final = re.compile(
    r"([-+]?)(?:0b(?P<two>[01]+)|0o?(?P<eight>[0-7]+)|0x(?P<sixteen>[0-9a-fA-F]+)|(?P<ten>0|[1-9]\d*))", re.ASCII
)
_DOUBLE: Final = re.compile(r"([-+]?)(?:(\d+)\.(\d*)|\.(\d+)|(\d+)(?=[eE]))([eE][-+]?\d+)?", re.ASCII)
_BASES: Final = {"two": 2, "eight": 8, "sixteen": 16, "ten": 10}
#: of the digits of an integer; 64 bits have no more in any base
_MAX_DIGITS: Final = 64


def yaml_loads(data: bytes, *, max_bytes: int | None = MAX_YAML_BYTES, max_depth: int = _DEPTH) -> Any:
    """Decode one YAML document; an empty one is None.

    Args:
        max_bytes: the longest document that is read; None for files, which are the operator's own.
        max_depth: how deep arrays and objects may nest.

    Raises:
        PayloadTooLargeError: more than `max_bytes`.
        BadRequestError: `invalid_yaml`, with line and column where known, or `too_deep`.
        NumberNotExactError: as for JSON.
    """
    if max_bytes is not None and len(data) > max_bytes:
        raise PayloadTooLargeError(
            f"a YAML document has more than {max_bytes} bytes",
            size_bytes=len(data), max_bytes=max_bytes, hint="send JSON: it is read up to `max_body_bytes`",
        )  # fmt: skip
    try:
        return _built(yaml.parse(data.decode("utf-8"), Loader=_LOADER), max_depth)
    except UnicodeDecodeError as error:
        raise BadRequestError("the document is not UTF-8", code="invalid_yaml", byte=error.start) from error
    except yaml.YAMLError as error:
        _refuse(str(getattr(error, "problem", None) or error), getattr(error, "problem_mark", None))


def _built(events: Iterator[Any], max_depth: int) -> Any:
    """The one document of a stream of events."""
    documents: list[Any] = []
    #: what is open: (list or dict, its next key or None)
    within: list[list[Any]] = [[documents, None]]
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            _refuse("aliases are not taken", event.start_mark)
        if isinstance(event, yaml.CollectionEndEvent):
            within.pop()
        if not isinstance(event, yaml.NodeEvent):
            if isinstance(event, yaml.DocumentStartEvent) and documents:
                _refuse("a second document follows", event.start_mark)
            continue
        if event.tag is not None:
            _refuse(f"tags are not taken: {show(event.tag)}", event.start_mark)
        container, key = within[-1]
        if isinstance(container, dict) and key is None:
            within[-1][1] = _key(event, container)
            continue
        value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        if isinstance(container, dict):
            container[key] = value
            within[-1][1] = None
        else:
            container.append(value)
        if isinstance(event, yaml.CollectionStartEvent):
            if len(within) > max_depth:
                raise BadRequestError(
                    f"arrays and objects nest deeper than {max_depth}", code="too_deep", max_depth=max_depth
                )
            within.append([value, None])
    return documents[0] if documents else None


def _key(event: Any, container: dict[str, Any]) -> str:
    if not isinstance(event, yaml.ScalarEvent):
        _refuse("a key is no scalar", event.start_mark)
    key = _text(event)
    if key in container:
        _refuse(f"duplicate key {show(key)}", event.start_mark)
    return key


def _text(event: Any) -> str:
    text: str = event.value
    try:
        text.encode()
    except UnicodeEncodeError:
        _refuse("a lone surrogate", event.start_mark)
    return text


def _scalar(event: Any) -> Any:
    """What a plain scalar says; a quoted one is a string."""
    text = _text(event)
    if not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if not (text[0].isdigit() or text[0] in "-+."):
        return text
    found = _INTEGER.fullmatch(text)
    if found is not None:
        kind = found.lastgroup or "ten"
        digits = found[kind]
        if len(digits) > _MAX_DIGITS:
            raise NumberNotExactError(f"{show(text)} does not fit in 64 bits", value=text[:80])
        return _number(found[1], str(int(digits, _BASES[kind])))
    found = _DOUBLE.fullmatch(text)
    if found is None:
        return text
    whole = (found[2] or found[5] or "").lstrip("0") or "0"
    return _number(found[1], f"{whole}.{found[3] or found[4] or '0'}{found[6] or ''}")


def _number(sign: str, text: str) -> Any:
    """A number as strict JSON reads it."""
    data = f"-{text}".encode() if sign == "-" else text.encode()
    return strict_loads(data, max_bytes=len(data))


def _refuse(problem: str, mark: Any) -> NoReturn:
    raise BadRequestError(
        f"the document is no YAML that JSON can say: {problem}",
        code="invalid_yaml",
        line=None if mark is None else mark.line + 1,
        column=None if mark is None else mark.column + 1,
    )
