"""Lines of generated Python, gathered under as few conditions as their dependencies allow, and made a function."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from enrich.signals.pieces import Statement

__all__ = ["arrange", "function", "needed"]

_NAME: Final = re.compile(r"\bt\d+\b")


@dataclass(slots=True)
class _Group:
    key: frozenset[str]
    guards: tuple[str, ...]
    lines: list[str]


def needed(statements: Sequence[Statement], after: Sequence[str]) -> list[Statement]:
    """The statements without temporaries that nothing reads: an expression may have been written out where it is used.

    Args:
        after: lines that come behind them.
    """
    read = set(_NAME.findall("\n".join(after)))
    kept = []
    for statement in reversed(statements):
        if statement.defines is None or statement.defines in read:
            names = _NAME.findall(statement.code)
            read.update(name for name in names if name != statement.defines)
            read.update(_NAME.findall(" ".join(statement.guards)))
            kept.append(statement)
    return kept[::-1]


def arrange(statements: Sequence[Statement]) -> list[str]:
    """The statements as indented lines; those with equal guards share an `if` where what they use is known by then."""
    groups: list[_Group] = []
    placed: dict[str, int] = {}
    for statement in statements:
        used = [placed[n] for n in _NAME.findall(statement.code) if n in placed]
        tested = [placed[n] for n in _NAME.findall(" ".join(statement.guards)) if n in placed]
        earliest = max([0, *used, *(t + 1 for t in tested)])
        key = frozenset(statement.guards)
        at = next((i for i in range(earliest, len(groups)) if groups[i].key == key), len(groups))
        if at == len(groups):
            groups.append(_Group(key, statement.guards, []))
        groups[at].lines += statement.code.split("\n")
        if statement.defines is not None:
            placed[statement.defines] = at
    lines: list[str] = []
    for group in groups:
        if group.guards:
            lines.append(f"if {' and '.join(group.guards)}:")
            lines += ["    " + line for line in group.lines]
        else:
            lines += group.lines
    return lines


def function(name: str, parameters: str, body: Sequence[str], names: dict[str, Any]) -> Callable[..., Any]:
    """Compile generated lines into a function that sees only `names`."""
    source = "\n".join([f"def {name}({parameters}):", *("    " + line for line in body)])
    scope = dict(names)
    exec(compile(source, f"<signals:{name}>", "exec"), scope)
    made: Callable[..., Any] = scope[name]
    made.__doc__ = source
    return made
