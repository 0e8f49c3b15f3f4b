"""A definition file's comments: the header that says for whom and over which windows, parameters, column comments.

    -- entity: agent
    -- windows: 1h, 24h, 7d
    -- owner: risk-engineering
    -- description: How reliably the agent finishes what it starts.
    -- param tolerated_rate: 0.05e0

A header line is `-- key: value`; a comment line indented by three spaces or more continues the value above it.
"""

from __future__ import annotations

import bisect
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from enrich.errors import show
from enrich.events.model import COLUMNS, ENTITY_KEYS
from enrich.signals.scan import Token
from enrich.signals.source import Source

__all__ = ["Header", "Param", "Window", "column_comments", "parse_header"]

_LINE: Final = re.compile(r"--[ \t]?(?P<key>[A-Za-z_]+)(?:[ \t]+(?P<name>\w+))?[ \t]*:(?P<value>.*)")
_CONTINUED: Final = re.compile(r"--[ \t]{3,}(\S.*)")
_WINDOW: Final = re.compile(r"([1-9]\d{0,5})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_LITERAL: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|'(?:[^']|'')*'|true|false", re.IGNORECASE)
_KEYS: Final = ("entity", "windows", "owner", "description", "param")


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A window by its length in microseconds and its name, such as `24h`; in a context it is `last_24h`."""

    us: int
    name: str

    @property
    def key(self) -> str:
        return f"last_{self.name}"


@dataclass(frozen=True, slots=True)
class Param:
    """A constant of the set: `literal` is the SQL literal as written."""

    name: str
    literal: str
    start: int


@dataclass(frozen=True, slots=True)
class Header:
    entity: str
    windows: tuple[Window, ...]
    owner: str
    description: str
    params: Mapping[str, Param]


def parse_header(source: Source) -> Header:
    """The header of a definition.

    Raises:
        DefinitionError: an unknown key, a repeated one, no entity, a window or a parameter that can't be read.
    """
    values: dict[str, tuple[str, int]] = {}
    params: dict[str, Param] = {}
    last: str | None = None
    for token in source.tokens:
        if token.kind != "comment":
            break
        continued = _CONTINUED.fullmatch(token.text.rstrip())
        if continued and last is not None:
            text, start = values[last]
            values[last] = (f"{text} {continued[1]}", start)
            continue
        last = None
        line = _LINE.fullmatch(token.text.rstrip())
        if line is None:
            continue
        key, value = line["key"].lower(), line["value"].strip()
        start = token.start + line.start("value") + len(line["value"]) - len(line["value"].lstrip())
        if key == "param":
            param = _param(source, line["name"] or "", value, token, start)
            if param.name in params:
                raise source.error(f"param {show(param.name)} stands twice", token.start, len(token.text))
            params[param.name] = param
        elif key not in _KEYS or line["name"]:
            near = difflib.get_close_matches(key, _KEYS, 1)
            raise source.error(
                f"unknown header key {show(line['key'])}",
                token.start,
                len(token.text),
                hint=f"did you mean `{near[0]}`?" if near else f"keys: {', '.join(_KEYS)}",
            )
        elif key in values:
            raise source.error(f"header key {show(key)} stands twice", token.start, len(token.text))
        else:
            values[key] = (value, start)
            last = key
    entity = _entity(source, values.get("entity"))
    windows = _windows(source, values["windows"]) if "windows" in values else ()
    owner, description = (values.get(k, ("", 0))[0] for k in ("owner", "description"))
    return Header(entity, windows, owner, description, params)


def _entity(source: Source, found: tuple[str, int] | None) -> str:
    if found is None:
        raise source.error("the header names no entity", 0, 1, hint="write `-- entity: agent` in the first lines")
    name, start = found
    if name not in ENTITY_KEYS:
        raise source.error(f"unknown entity {show(name)}", start, len(name), hint=f"entities: {', '.join(ENTITY_KEYS)}")
    return name


def _windows(source: Source, found: tuple[str, int]) -> tuple[Window, ...]:
    text, start = found
    windows: dict[int, Window] = {}
    for part in re.finditer(r"[^,]+", text):
        name = part.group().strip()
        at = start + part.start() + len(part.group()) - len(part.group().lstrip())
        match = _WINDOW.fullmatch(name)
        if match is None:
            raise source.error(
                f"a window is {show(name)}", at, len(name), hint="windows are written 30s, 5m, 24h or 7d"
            )
        us = int(match[1]) * _SECONDS[match[2]] * 1_000_000
        if us in windows:
            raise source.error(f"window {show(name)} is as long as `{windows[us].name}`", at, len(name))
        windows[us] = Window(us, name)
    if not windows:
        raise source.error("the header names no window", start, 1, hint="write `-- windows: 1h, 24h`")
    return tuple(sorted(windows.values()))


def _param(source: Source, name: str, literal: str, token: Token, start: int) -> Param:
    if _NAME.fullmatch(name) is None:
        raise source.error(
            f"a parameter's name is {show(name)}",
            token.start,
            len(token.text),
            hint="write `-- param tolerated_rate: 0.05e0`, the name in lower case",
        )
    if name in (*COLUMNS, "seq", "as_of", "window_start"):
        raise source.error(f"parameter {show(name)} is a column of events", token.start, len(token.text))
    if _LITERAL.fullmatch(literal) is None:
        raise source.error(
            f"parameter {show(name)} has the value {show(literal)}",
            start,
            max(1, len(literal)),
            hint="a parameter is one SQL literal: 20, 0.05e0, 'text', true",
        )
    return Param(name, literal, start)


def column_comments(source: Source, starts: list[int], end: int) -> list[str]:
    """The comment of each column: what stands after it, on its lines and in comment lines below it.

    Args:
        starts: where each select item begins, ascending, and
        end: where the select list is over (character offsets in the file).
    """
    comments: list[list[str]] = [[] for _ in starts]
    for token in source.tokens:
        if token.kind == "comment" and token.start < end:
            index = bisect.bisect_right(starts, token.start) - 1
            if index >= 0:
                comments[index].append(token.text[2:].strip())
    return [" ".join(parts) for parts in comments]
