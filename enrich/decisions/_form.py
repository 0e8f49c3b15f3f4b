"""What the statements of a plan's function say of its locals, whatever the function is called with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["Form"]

#: statements that do nothing but give locals a value, or end what can't go on
_PURE: Final = frozenset(
    (
        "AssignIntStmt",
        "AssignVarStmt",
        "DotStmt",
        "EqualStmt",
        "IsArrayStmt",
        "IsDefinedStmt",
        "IsObjectStmt",
        "IsSetStmt",
        "IsUndefinedStmt",
        "LenStmt",
        "MakeNullStmt",
        "MakeNumberIntStmt",
        "MakeNumberRefStmt",
        "NotEqualStmt",
        "ResetLocalStmt",
    )
)
_MUTATED: Final = {"ObjectInsertOnceStmt": "object", "ObjectInsertStmt": "object", "SetAddStmt": "set"}

Fields = Mapping[str, Any]


class Form:
    """The form of one function.

    Attributes:
        exact: arrays of which one list of statements makes all elements: the operands, by the id of the fields of the
            last of these statements.
        inexact: locals that hold other arrays.
        kept: locals whose value is not followed through the function, since it grows, or may be assigned twice.
        compared: locals that may be assigned twice, so that two values are compared.
        looked_up: for a scan that is a look-up: what its key has to equal before anything can come of it, by the id of
            the scan's fields.
    """

    def __init__(self, blocks: Any) -> None:
        self.exact: dict[int, list[Fields]] = {}
        self.inexact: set[int] = set()
        self.compared: set[int] = set()
        self.kept: set[int] = set()
        self.looked_up: dict[int, Fields] = {}
        self._assigned_once: set[int] = set()
        #: id of the fields of an array's last statement to its local
        self._array_at: dict[int, int] = {}
        mentioned = Counter(_mentioned(blocks))
        for statements, in_scan in _lists(blocks):
            self._arrays(statements)
            self._assignments(statements, in_scan)
            for statement in statements:
                if statement["type"] == "ScanStmt":
                    self._scan(statement["stmt"], mentioned)
        self.exact = {at: operands for at, operands in self.exact.items() if self._array_at[at] not in self.inexact}
        self.kept |= self.inexact

    def _arrays(self, statements: list[Any]) -> None:
        making: dict[int, tuple[int, list[Fields]]] = {}
        for statement in statements:
            kind, fields = statement["type"], statement["stmt"]
            if kind == "MakeArrayStmt":
                self._made(fields["target"], making)
                making[fields["target"]] = (id(fields), [])
            elif kind == "ArrayAppendStmt":
                if fields["array"] in making:
                    making[fields["array"]] = (id(fields), [*making[fields["array"]][1], fields["value"]])
                else:
                    self.inexact.add(fields["array"])
        for local in list(making):
            self._made(local, making)

    def _made(self, local: int, making: dict[int, tuple[int, list[Fields]]]) -> None:
        if local in making:
            at, operands = making.pop(local)
            self.exact[at], self._array_at[at] = operands, local

    def _assignments(self, statements: list[Any], in_scan: bool) -> None:
        undefined: set[int] = set()
        for statement in statements:
            kind, fields = statement["type"], statement["stmt"]
            if kind in _MUTATED:
                self.kept.add(fields[_MUTATED[kind]])
            elif kind == "IsUndefinedStmt":
                undefined.add(fields["source"])
            elif kind == "AssignVarOnceStmt":
                target = fields["target"]
                if in_scan or (target in self._assigned_once and target not in undefined):
                    self.compared.add(target)
                self._assigned_once.add(target)
                self.kept.add(target)

    def _scan(self, scan: Fields, mentioned: Mapping[int, int]) -> None:
        """A scan is a look-up if nothing comes of a key but the one that a statement within wants.

        INVARIANT: before that statement nothing is done that can be seen outside the scan.
        """
        before: list[int] = [scan["key"], scan["value"]]
        wanted = _wanted([scan["block"]] if scan["block"] else [], scan["key"], before)
        if wanted is None:
            return
        inside = Counter(_mentioned([scan["block"]]))
        seen_outside = any(
            mentioned[local] != inside[local] + (local in (scan["key"], scan["value"])) for local in before
        )
        own = {scan["key"], scan["value"], *_set_in([scan["block"]])}
        if not seen_outside and not (wanted["type"] == "local" and wanted["value"] in own):
            self.looked_up[id(scan)] = wanted


def _wanted(blocks: list[Any], key: int, before: list[int]) -> Fields | None:
    """What `key` has to equal in the blocks' first statements; `before` gets the locals that are set until then."""
    if len(blocks) != 1:
        return None
    own = {"type": "local", "value": key}
    statements = blocks[0]["stmts"] or []
    for i, statement in enumerate(statements):
        kind, fields = statement["type"], statement["stmt"]
        if kind == "EqualStmt" and own in (fields["a"], fields["b"]):
            found: Fields = fields["b"] if fields["a"] == own else fields["a"]
            return found
        if kind == "ScanStmt":
            if any(later["type"] not in _PURE for later in statements[i + 1 :]):
                return None
            before += (fields["key"], fields["value"])
            return _wanted([fields["block"]] if fields["block"] else [], key, before)
        if kind not in _PURE:
            return None
        if "target" in fields:
            before.append(fields["target"])
    return None


def _lists(blocks: Any, in_scan: bool = False) -> Iterator[tuple[list[Any], bool]]:
    """The lists of statements of all blocks, in order, outer before inner, and whether they stand in a loop."""
    for block in blocks or ():
        statements = block["stmts"] or []
        yield statements, in_scan
        for statement in statements:
            inner = in_scan or statement["type"] == "ScanStmt"
            yield from _lists(_below(statement["stmt"]), inner)


def _below(fields: Fields) -> list[Any]:
    return [*(fields.get("blocks") or ()), *([fields["block"]] if fields.get("block") else ())]


def _mentioned(blocks: Any) -> Iterator[int]:
    """Every local, as often as a statement names it."""
    for statements, _ in _lists(blocks):
        for statement in statements:
            for name, value in statement["stmt"].items():
                if name not in ("blocks", "block"):
                    yield from _locals_in(name, value)


_LOCALS: Final = frozenset(("target", "result", "source", "key", "value", "array", "object", "set", "a", "b", "local"))


def _locals_in(name: str, value: Any) -> Iterator[int]:
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        if name in _LOCALS or name == "args":
            yield value
    elif isinstance(value, list):
        for item in value:
            yield from _locals_in("args" if name == "args" else "path", item)
    elif isinstance(value, Mapping) and value.get("type") == "local":
        yield value["value"]


def _set_in(blocks: Any) -> Iterator[int]:
    """The locals that statements below set."""
    for statements, _ in _lists(blocks):
        for statement in statements:
            fields = statement["stmt"]
            names = ("key", "value") if statement["type"] == "ScanStmt" else ("target", "result")
            yield from (fields[name] for name in names if isinstance(fields.get(name), int))
