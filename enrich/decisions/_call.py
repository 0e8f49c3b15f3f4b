"""Runs one function of a plan on abstract values.

Every statement counts as reached. A local has what was last assigned to it, or what may have been where blocks join;
one that grows (`Form.kept`) has all that is ever put into it. What can't be followed counts as read whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from enrich.decisions._form import Form
from enrich.decisions._values import NOTHING, OPAQUE, InputPath, Value, array, element, joined, mapping, texts

if TYPE_CHECKING:
    from enrich.decisions._interpret import Interpretation

__all__ = ["Call", "GaveUpError", "Position", "Result"]

#: bounds that no policy written by hand comes near; past them a value is read whole, or the analysis gives up
_MAX_DEPTH: Final = 16
_MAX_SIZE: Final = 500
_MAX_ROUNDS: Final = 50
#: built-ins of which only the kind of their argument matters
_OF_KIND: Final = frozenset(
    ("is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string", "type_name")
)


class Position(NamedTuple):
    """A place in a policy, lines and columns counted from 1."""

    file: str
    line: int
    column: int


class GaveUpError(Exception):
    """The plan has something that is not understood, or is too large."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one call gives, and what it and all that it calls can read."""

    value: Value
    whole: frozenset[InputPath]
    touched: frozenset[InputPath]
    asked: frozenset[tuple[frozenset[InputPath], Position | None]]
    builtins: Mapping[str, Position | None]


class Call:
    """One function in one call context."""

    def __init__(
        self, plan: Interpretation, function: Mapping[str, Any], form: Form, arguments: tuple[Value, ...]
    ) -> None:
        self._plan = plan
        self._function = function
        self._form = form
        self._input, self._data = function["params"][:2]
        #: input and data are bound anew by `with`, within its block alone
        self._scope = {self._input: arguments[0], self._data: arguments[1]}
        self._given = dict(zip(function["params"][2:], arguments[2:], strict=True))
        self._locals: dict[int, Value] = {}
        #: what was assigned in the blocks under way, the innermost last
        self._log: list[dict[int, Value]] = [{}]
        #: locals that may hold an object that something else holds too
        self._shared: set[int] = set()
        self._kept: dict[int, Value] = {}
        #: what the earlier turns of a loop may have left in locals, and which are shared
        self._turns: dict[int, tuple[dict[int, Value], set[int]]] = {}
        #: an object within an object was changed: nothing more is known of what is in objects
        self._loose = False
        self._value = NOTHING
        self._whole: set[InputPath] = set()
        self._touched: set[InputPath] = set()
        self._asked: set[tuple[frozenset[InputPath], Position | None]] = set()
        self._builtins: dict[str, Position | None] = {}
        self._changed = False
        self._handlers: Mapping[str, Callable[[Any], None]] = {
            "ArrayAppendStmt": self._array_append,
            "AssignIntStmt": self._opaque,
            "AssignVarOnceStmt": self._assign_once,
            "AssignVarStmt": lambda f: self._assign(f["target"], self._operand(f["source"])),
            "BlockStmt": lambda f: self._walk(f["blocks"]),
            "BreakStmt": _nothing,
            "CallDynamicStmt": self._call_dynamic,
            "CallStmt": self._call,
            "DotStmt": self._dot_statement,
            "EqualStmt": self._compare,
            "IsArrayStmt": _nothing,
            "IsDefinedStmt": _nothing,
            "IsObjectStmt": _nothing,
            "IsSetStmt": _nothing,
            "IsUndefinedStmt": _nothing,
            "LenStmt": self._length,
            "MakeArrayStmt": self._make_array,
            "MakeNullStmt": self._opaque,
            "MakeNumberIntStmt": self._opaque,
            "MakeNumberRefStmt": self._opaque,
            "MakeObjectStmt": lambda f: self._assign(f["target"], self._fresh(NOTHING), shared=False),
            "MakeSetStmt": lambda f: self._assign(f["target"], self._fresh(Value(rest=NOTHING)), shared=False),
            "NopStmt": _nothing,
            "NotEqualStmt": self._compare,
            "NotStmt": lambda f: self._walk([f["block"]]),
            "ObjectInsertOnceStmt": lambda f: self._insert(f, self._settled(self._operand(f["value"]))),
            "ObjectInsertStmt": lambda f: self._insert(f, self._operand(f["value"])),
            "ObjectMergeStmt": self._merge,
            "ResetLocalStmt": lambda f: self._assign(f["target"], NOTHING, shared=False),
            "ResultSetAddStmt": lambda f: self._escape(self._operand(f["value"])),
            "ReturnLocalStmt": self._return,
            "ScanStmt": self._scan,
            "SetAddStmt": lambda f: self._put_in(f["set"], Value(rest=self._settled(self._operand(f["value"])))),
            "WithStmt": self._with,
        }

    def run(self) -> Result:
        """Until nothing changes any more."""
        for _ in range(_MAX_ROUNDS):
            self._changed = False
            self._locals, self._log, self._shared = dict(self._given), [{}], set(self._given)
            self._asked = set()
            self._walk(self._function["blocks"])
            if not self._changed:
                return Result(
                    self._value,
                    frozenset(self._whole),
                    frozenset(self._touched),
                    frozenset(self._asked),
                    self._builtins,
                )
        raise GaveUpError("no end")

    def _walk(self, blocks: Any) -> None:
        """Blocks one after the other; each of them may end at any of its statements."""
        for block in blocks or ():
            before, shared = dict(self._locals), set(self._shared)
            self._log.append({})
            for statement in block["stmts"] or ():
                handler = self._handlers.get(statement["type"])
                if handler is None:
                    raise GaveUpError(f"a statement {statement['type']}")
                handler(statement["stmt"])
            assigned = self._log.pop()
            self._shared |= shared
            for local, value in assigned.items():
                self._locals[local] = joined(before.get(local, NOTHING), value)
                self._log[-1][local] = joined(self._log[-1].get(local, NOTHING), value)

    def _loop(self, at: int, block: Any) -> None:
        """A block that may run again after itself."""
        values, shared = self._turns.setdefault(at, ({}, set()))
        for local, value in values.items():
            self._locals[local] = joined(self._locals.get(local, NOTHING), value)
        self._shared |= shared
        self._log.append({})
        self._walk([block])
        for local, value in self._log.pop().items():
            self._log[-1][local] = joined(self._log[-1].get(local, NOTHING), value)
            after = joined(values.get(local, NOTHING), value)
            if after != values.get(local):
                values[local] = after
                self._changed = True
        self._changed |= not self._shared <= shared
        shared |= self._shared

    # -- values -----------------------------------------------------------------------------------------------------

    def _operand(self, operand: Any) -> Value:
        if isinstance(operand, int):
            return self._local(operand)
        kind, value = operand["type"], operand["value"]
        if kind == "local":
            return self._local(value)
        if kind == "string_index":
            text = self._plan.strings[value]
            return OPAQUE if text is None else texts([text])
        return OPAQUE

    def _local(self, local: int) -> Value:
        found = self._scope.get(local)
        if found is not None:
            return found
        return self._kept.get(local, NOTHING) if local in self._form.kept else self._locals.get(local, NOTHING)

    def _assign(self, local: int, value: Value, *, shared: bool = True) -> None:
        """A value for a local; one that is kept has it besides those that it had.

        Args:
            shared: the value, if an object, may be in other hands too.
        """
        if local in self._scope:
            raise GaveUpError("input or data assigned")
        (self._shared.add if shared else self._shared.discard)(local)
        if local not in self._form.kept:
            self._locals[local] = value = self._bounded(value)
            self._log[-1][local] = joined(self._log[-1].get(local, NOTHING), value)
            return
        before = self._kept.get(local, NOTHING)
        after = self._bounded(joined(before, value))
        if after != before:
            self._kept[local] = after
            self._changed = True

    def _put_in(self, local: int, value: Value) -> None:
        """Something more in an object or set that is being made."""
        if local in self._given or local not in self._form.kept:
            raise GaveUpError("a value from elsewhere is changed")
        if local in self._shared and not self._loose:
            self._loose = self._changed = True
        before = self._kept.get(local, NOTHING)
        if self._loose:
            self._escape(value)
            value = OPAQUE
        after = self._bounded(joined(before, value))
        if after != before:
            self._kept[local] = after
            self._changed = True

    def _bounded(self, value: Value) -> Value:
        if value.size() <= _MAX_SIZE:
            return value
        self._escape(value)
        return OPAQUE

    def _escape(self, value: Value) -> None:
        """Whatever of the input the value is or holds is read whole."""
        for path in value.all_paths():
            if path not in self._whole:
                self._whole.add(path)
                self._changed = True

    def _settled(self, value: Value) -> Value:
        """The value, compared with others: read whole as far as it comes from the input."""
        if next(value.all_paths(), None) is None:
            return value
        self._escape(value)
        return OPAQUE

    def _touch(self, path: InputPath) -> None:
        if path not in self._touched:
            self._touched.add(path)
            self._changed = True

    def _look(self, value: Value, key: Value, position: Position | None, *, asked: bool = True) -> Value:
        """What stands under a key."""
        self._escape(key)
        return self._at(value, key.keys, position, asked=asked)

    def _at(self, value: Value, keys: frozenset[str] | None, position: Position | None, *, asked: bool) -> Value:
        if any(len(path) >= _MAX_DEPTH for path in value.paths):
            self._escape(value)
            return OPAQUE
        found = element(value, keys)
        new = frozenset((*path, key) for path in value.paths for key in ((None,) if keys is None else keys))
        for path in new:
            self._touch(path)
        if asked and keys and value.only_input:
            self._asked.add((new, position))
        return found

    def _place(self, fields: Mapping[str, Any], key: Any = None) -> Position | None:
        """Where the statement stands; of a key that the caller of a function gives, None: the place is the call."""
        given = bool(self._given) and isinstance(key, Mapping) and key["type"] == "local"
        return None if given else self._plan.position(fields)

    # -- statements -------------------------------------------------------------------------------------------------

    def _opaque(self, fields: Any) -> None:
        self._assign(fields["target"], OPAQUE)

    def _return(self, fields: Any) -> None:
        value = joined(self._value, self._operand(fields["source"]))
        self._changed |= value != self._value
        self._value = value

    def _assign_once(self, fields: Any) -> None:
        value = self._operand(fields["source"])
        compared = fields["target"] in self._form.compared
        self._assign(fields["target"], self._settled(value) if compared else value)

    def _fresh(self, value: Value) -> Value:
        return OPAQUE if self._loose else value

    def _make_array(self, fields: Any) -> None:
        if fields["target"] in self._form.inexact:
            self._assign(fields["target"], Value(rest=NOTHING), shared=False)
        elif id(fields) in self._form.exact:
            self._assign(fields["target"], array(()), shared=False)

    def _array_append(self, fields: Any) -> None:
        items = self._form.exact.get(id(fields))
        if items is not None:
            self._assign(fields["array"], array([self._operand(item) for item in items]), shared=False)
        elif fields["array"] in self._form.inexact:
            if fields["array"] in self._shared:
                raise GaveUpError("an array from elsewhere is changed")
            self._put_in(fields["array"], Value(rest=self._operand(fields["value"])))

    def _insert(self, fields: Any, value: Value) -> None:
        key = self._operand(fields["key"])
        self._escape(key)
        if key.keys is None:
            self._put_in(fields["object"], Value(rest=value))
        for name in key.keys or ():
            self._put_in(fields["object"], mapping({name: value}))

    def _merge(self, fields: Any) -> None:
        for side in ("a", "b"):
            self._escape(self._operand(fields[side]))
        self._opaque(fields)

    def _dot_statement(self, fields: Any) -> None:
        key = fields["key"]
        position = self._place(fields, key)
        self._assign(fields["target"], self._look(self._operand(fields["source"]), self._operand(key), position))

    def _length(self, fields: Any) -> None:
        self._at(self._operand(fields["source"]), None, None, asked=False)
        self._opaque(fields)

    def _compare(self, fields: Any) -> None:
        a, b = fields["a"], fields["b"]
        # a text or boolean equals no object: what it is compared with matters only if it is a scalar
        if not (self._literal(a) or self._literal(b)):
            self._escape(self._operand(a))
            self._escape(self._operand(b))

    def _literal(self, operand: Any) -> bool:
        return operand["type"] != "local" or self._local(operand["value"]).only_texts

    def _scan(self, fields: Any) -> None:
        value = self._operand(fields["source"])
        keys, position = None, None
        wanted = self._form.looked_up.get(id(fields))
        if wanted is not None:
            key = self._operand(wanted)
            self._escape(key)
            keys, position = key.keys, self._place(fields, wanted)
        found = self._at(value, keys, position, asked=keys is not None)
        self._assign(fields["key"], _scanned_keys(value, keys))
        self._assign(fields["value"], found)
        self._loop(id(fields), fields["block"])

    def _with(self, fields: Any) -> None:
        local, path = fields["local"], [self._plan.strings[i] for i in fields["path"] or ()]
        value, before = self._operand(fields["value"]), self._local(local)
        if path:
            at = before
            for key in path:
                at = self._at(at, None if key is None else frozenset([key]), None, asked=False)
            for key in reversed(path):
                value = Value(rest=value) if key is None else mapping({key: value})
            value = joined(before, value)
        if local not in self._scope:
            raise GaveUpError("with binds a local")
        self._scope[local] = value
        self._walk([fields["block"]])
        self._scope[local] = before

    # -- calls ------------------------------------------------------------------------------------------------------

    def _call(self, fields: Any) -> None:
        name, arguments = fields["func"], tuple(self._operand(a) for a in fields["args"] or ())
        if name in self._plan.functions:
            self._assign(fields["result"], self._called(name, arguments, fields))
            return
        if name.split(".", 1)[0] in ("input", "data"):
            raise GaveUpError(f"a call of {name}")
        self._builtins.setdefault(name, self._plan.position(fields))
        self._assign(fields["result"], self._builtin(name, arguments, fields))

    def _called(self, name: str, arguments: tuple[Value, ...], fields: Any) -> Value:
        result = self._plan.call(name, arguments)
        before = len(self._whole) + len(self._touched)
        self._whole |= result.whole
        self._touched |= result.touched
        self._changed |= before != len(self._whole) + len(self._touched)
        here = None if self._given else self._plan.position(fields)
        self._asked |= {(paths, here if position is None else position) for paths, position in result.asked}
        for builtin, position in result.builtins.items():
            self._builtins.setdefault(builtin, position)
        return result.value

    def _builtin(self, name: str, arguments: tuple[Value, ...], fields: Any) -> Value:
        if name in _OF_KIND:
            return OPAQUE
        if name == "object.get" and len(arguments) == 3:
            found, path, default = arguments
            if path.only_array or path.only_texts:
                position = self._place(fields, fields["args"][1])
                for key in path.items if path.items is not None else (path,):
                    found = self._look(found, key, position)
                return joined(found, default)
            self._escape(found)
            self._escape(path)
            return joined(OPAQUE, default)
        if name == "array.concat" and len(arguments) == 2:
            a, b = arguments
            if a.only_array and b.only_array:
                return array((*(a.items or ()), *(b.items or ())))
        for argument in arguments:
            self._escape(argument)
        return OPAQUE

    def _call_dynamic(self, fields: Any) -> None:
        """A call of whichever rule has a path that is known only when it runs."""
        path = [self._operand(part) for part in fields["path"]]
        for key in path:
            self._escape(key)
        keys = [key.keys for key in path]
        arguments = tuple(self._operand(a) for a in fields["args"])
        value = self._local(self._data)
        for part in keys[1:]:
            value = self._at(value, part, None, asked=False)
        value = joined(value, OPAQUE)
        for name, function in self._plan.functions.items():
            own = function["path"]
            if len(function["params"]) != len(arguments) or not _matches(own[1:], keys[1:]):
                continue
            result = self._called(name, arguments, fields)
            for part in keys[len(own) :]:
                result = self._at(result, part, None, asked=False)
            for _ in own[len(keys) :]:
                result = Value(rest=result)
            value = joined(value, result)
        self._assign(fields["result"], value)


def _nothing(fields: Any) -> None:
    """A statement that reads no more than what was touched already."""


def _scanned_keys(value: Value, keys: frozenset[str] | None) -> Value:
    found = texts(keys)
    if keys is None and value.fields and not value.paths and value.texts == frozenset() and value.items is None:
        found = texts([name for name, _ in value.fields])
    # of a set, the key is the element
    return found if value.rest is None else joined(joined(found, OPAQUE), value.rest)


def _matches(path: Sequence[str], keys: Sequence[frozenset[str] | None]) -> bool:
    return all(key is None or part in key for part, key in zip(path, keys, strict=False))
