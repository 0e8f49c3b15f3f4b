"""What is changed in a module that OPA compiled, before it is run.

A built-in that a module has in itself answers with a null pointer when it fails: it can't tell an error from
"undefined". In the strict form the body of each such function moves to a new one at the end, and in its place stands
one that calls it, and tells the host when nothing came back. No other code changes, since functions are called by
number. In both forms a built-in that answers otherwise than OPA becomes a question to the host, and 0 / 0, at which
modules abort, has no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from enrich.decisions._builtins import type_name
from enrich.decisions._wasm_instance import NATIVE
from enrich.errors import PolicyError

__all__ = ["COMPILED", "Adapted", "adapt"]

#: built-ins that OPA compiles into a module and that may have no answer, and the functions that they are there
_FUNCTIONS: Final = {
    "abs": "opa_arith_abs", "and": "opa_set_intersection", "array.concat": "opa_array_concat",
    "array.flatten": "opa_array_flatten", "array.reverse": "opa_array_reverse", "array.slice": "opa_array_slice",
    "base64.decode": "opa_base64_decode", "base64.encode": "opa_base64_encode",
    "base64.is_valid": "opa_base64_is_valid", "base64url.decode": "opa_base64_url_decode",
    "base64url.encode": "opa_base64_url_encode", "bits.and": "opa_bits_and", "bits.lsh": "opa_bits_shiftleft",
    "bits.negate": "opa_bits_negate", "bits.or": "opa_bits_or", "bits.rsh": "opa_bits_shiftright",
    "bits.xor": "opa_bits_xor", "ceil": "opa_arith_ceil", "concat": "opa_strings_concat",
    "contains": "opa_strings_contains", "count": "opa_agg_count", "div": "opa_arith_divide",
    "endswith": "opa_strings_endswith", "floor": "opa_arith_floor", "format_int": "opa_strings_format_int",
    "glob.match": "opa_glob_match", "graph.reachable": "builtin_graph_reachable", "indexof": "opa_strings_indexof",
    "intersection": "opa_sets_intersection", "json.filter": "builtin_json_filter",
    "json.is_valid": "opa_json_is_valid", "json.remove": "builtin_json_remove",
    "json.unmarshal": "opa_json_unmarshal", "lower": "opa_strings_lower", "max": "opa_agg_max", "min": "opa_agg_min",
    "minus": "opa_arith_minus", "mul": "opa_arith_multiply", "net.cidr_contains": "opa_cidr_contains",
    "net.cidr_intersects": "opa_cidr_intersects", "numbers.range": "opa_numbers_range",
    "object.filter": "builtin_object_filter", "object.get": "builtin_object_get", "object.keys": "builtin_object_keys",
    "object.remove": "builtin_object_remove", "object.union": "builtin_object_union",
    "object.union_n": "builtin_object_union_n", "or": "opa_set_union", "plus": "opa_arith_plus",
    "product": "opa_agg_product", "regex.find_all_string_submatch_n": "opa_regex_find_all_string_submatch",
    "regex.is_valid": "opa_regex_is_valid", "regex.match": "opa_regex_match", "rem": "opa_arith_rem",
    "replace": "opa_strings_replace", "round": "opa_arith_round", "set_diff": "opa_set_diff", "sort": "opa_agg_sort",
    "split": "opa_strings_split", "startswith": "opa_strings_startswith",
    "strings.replace_n": "opa_strings_replace_n", "strings.reverse": "opa_strings_reverse",
    "substring": "opa_strings_substring", "sum": "opa_agg_sum", "to_number": "opa_to_number",
    "trim": "opa_strings_trim", "trim_left": "opa_strings_trim_left", "trim_prefix": "opa_strings_trim_prefix",
    "trim_right": "opa_strings_trim_right", "trim_space": "opa_strings_trim_space",
    "trim_suffix": "opa_strings_trim_suffix", "union": "opa_sets_union", "upper": "opa_strings_upper",
}  # fmt: skip
_I32: Final = 0x7F
_TYPE, _IMPORT, _FUNCTION, _CODE = 1, 2, 3, 10


#: all that OPA 1.22 compiles into a module, so that what is refused is refused before it is compiled
COMPILED: Final = frozenset(_FUNCTIONS) | frozenset(
    [
        "all",
        "any",
        "equal",
        "eq",
        "assign",
        "gt",
        "gte",
        "internal.member_2",
        "internal.member_3",
        "internal.print",
        "internal.template_string",
        "is_array",
        "is_boolean",
        "is_null",
        "is_number",
        "is_object",
        "is_set",
        "is_string",
        "json.marshal",
        "lt",
        "lte",
        "neq",
        "net.cidr_overlap",
        "re_match",
        "type_name",
        "walk",
    ]
)
#: built-ins that a module has in itself and answers otherwise than OPA: asked of the host instead
_REPLACED: Final = {"json.marshal": "opa_json_marshal"}
#: built-ins whose every failure OPA has for one of type
_TYPED: Final = frozenset(
    {"bits.and", "bits.lsh", "bits.negate", "bits.or", "bits.rsh", "bits.xor", "minus", "numbers.range"}
)
_NO_NUMBER: Final = re.compile(r"[-+]?(?:inf|infinity|nan)", re.IGNORECASE)
#: what the module does where OPA has no answer: it aborts on 0 / 0
_DIVIDE, _ABORT = "opa_arith_divide", "opa_abort"


@dataclass(frozen=True, slots=True)
class Adapted:
    """A module as it is run.

    Attributes:
        module: the changed module.
        replaced: built-ins that the host is asked for, by the number that it is told.
        told: built-ins whose failure the host is told of, by number.
        declared: the declarations of built-ins, as OPA has them.
    """

    module: bytes
    replaced: Mapping[int, str]
    told: Mapping[int, str]
    declared: Mapping[str, Mapping[str, Any]]

    def explain(self, number: int, arguments: list[Any]) -> tuple[str, str] | None:
        """Code and message of an answer that did not come; None when there was nothing to answer."""
        name = self.told[number]
        if name in ("max", "min") and isinstance(arguments[0], list) and not arguments[0]:
            return None
        if name == "div" and arguments[1] == 0 and type_name(arguments[0]) == "number":
            return "eval_builtin_error", "div: divide by zero"
        for position, (value, wanted) in enumerate(
            zip(arguments, self.declared[name].get("args", ()), strict=False), 1
        ):
            if not _fits(value, wanted):
                return "eval_type_error", f"{name}: operand {position} has type {type_name(value)}"
        if name in _TYPED or (name == "to_number" and _NO_NUMBER.fullmatch(str(arguments[0]))):
            return "eval_type_error", f"{name}: an operand is none that it takes"
        return "eval_builtin_error", f"{name}: no answer for what it was given"


def adapt(module: bytes, declared: Mapping[str, Mapping[str, Any]], *, strict: bool) -> Adapted:
    """Change a module as the top of this file says.

    Args:
        module: as OPA compiled it.
        declared: the built-ins that its policies call.
        strict: whether the host is to be told of failures.

    Raises:
        PolicyError: `evaluator_crash`, the module is none of OPA's.
    """
    names = _names(module)
    try:
        sections = dict(_sections(module))
        parts = _Parts(
            types=_types(sections[_TYPE]),
            imported=_imported_functions(sections[_IMPORT]),
            declared=_numbers(sections[_FUNCTION]),
            bodies=_bodies(sections[_CODE]),
        )
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise PolicyError("the module is no WASM module of OPA's", code="evaluator_crash") from error
    if "div" in declared and _DIVIDE in names and _ABORT in names:
        parts.quiet(names[_DIVIDE], names[_ABORT])
    replaced: dict[int, str] = {}
    told: dict[int, str] = {}
    for number, name in enumerate(sorted(declared), NATIVE):
        if name in _REPLACED and _REPLACED[name] in names:
            parts.replace(names[_REPLACED[name]], number)
            replaced[number] = name
        elif strict and name in _FUNCTIONS:
            if _FUNCTIONS[name] not in names:
                raise PolicyError(f"the module does not name its `{name}`", code="evaluator_crash")
            parts.tell(names[_FUNCTIONS[name]], number)
            told[number] = name
    written = [module[:8]]
    for kind, content in _sections(module):
        # names and the like stand in sections of kind 0, of which there are several
        content = parts.section(kind) if kind in (_FUNCTION, _CODE) else content
        written.append(bytes([kind]) + _uleb(len(content)) + content)
    return Adapted(b"".join(written), replaced, told, declared)


@dataclass(slots=True)
class _Parts:
    """The functions of a module: how many parameters each type has, imports, the type and the body of each."""

    types: list[int]
    imported: list[str]
    declared: list[int]
    bodies: list[bytes]

    def quiet(self, function: int, abort: int) -> None:
        """Have a function of two arguments return null where it aborts.

        It moves, too: whoever calls it puts back the stack pointer (global 0, as in all that LLVM compiles) that the
        early return leaves behind.
        """
        at = function - len(self.imported)
        call = re.compile(b"\x10(?:" + b"|".join(map(re.escape, _index_forms(abort))) + b")")
        if len(call.findall(self.bodies[at])) != 1:
            return
        moved = len(self.imported) + len(self.bodies)
        # drop the message, return null
        self.bodies.append(call.sub(b"\x1a\x41\x00\x0f", self.bodies[at]))
        self.declared.append(self.declared[at])
        self.bodies[at] = (
            b"\x01\x01" + bytes([_I32]) + b"\x23\x00\x21\x02"  # keep global 0 in a local
            + _own(2) + b"\x10" + _uleb(moved) + b"\x20\x02\x24\x00\x0b"
        )  # fmt: skip

    def replace(self, function: int, number: int) -> None:
        """Have the host answer instead of a function."""
        at, count, call = self._asking(function)
        self.bodies[at] = b"\x00" + _calling(call, number, count) + b"\x0b"

    def tell(self, function: int, number: int) -> None:
        """Have the host told when a function gives null."""
        at, count, call = self._asking(function)
        moved = len(self.imported) + len(self.bodies)
        self.bodies.append(self.bodies[at])
        self.declared.append(self.declared[at])
        self.bodies[at] = _telling(moved, count, _calling(call, number, count))

    def section(self, kind: int) -> bytes:
        if kind == _FUNCTION:
            return _uleb(len(self.declared)) + b"".join(map(_uleb, self.declared))
        return _uleb(len(self.bodies)) + b"".join(_uleb(len(b)) + b for b in self.bodies)

    def _asking(self, function: int) -> tuple[int, int, int]:
        """Where a function stands, how many arguments it has, and the import that asks the host with as many."""
        at = function - len(self.imported)
        count = self.types[self.declared[at]]
        return at, count, self.imported.index(f"opa_builtin{count}")


def _index_forms(index: int) -> tuple[bytes, bytes]:
    """An index as it is written: as short as can be, or in the five bytes that a linker leaves room for."""
    short = _uleb(index)
    return short, bytes(b | 0x80 for b in short.ljust(4, b"\x00")) + b"\x00"


def _calling(call: int, number: int, count: int) -> bytes:
    """A call of the host, with the function's own arguments."""
    return b"\x41" + _sleb(number) + b"\x41\x00" + _own(count) + b"\x10" + _uleb(call)


def _own(count: int) -> bytes:
    return b"".join(b"\x20" + _uleb(i) for i in range(count))


def _telling(function: int, count: int, tell: bytes) -> bytes:
    """A body that calls `function` with its own arguments, and tells the host when null comes back."""
    answer = _uleb(count)
    return (
        b"\x01\x01" + bytes([_I32])  # one local more
        + _own(count) + b"\x10" + _uleb(function) + b"\x22" + answer  # call, tee
        + b"\x45\x04\x40" + tell + b"\x1a\x0b"  # if it is zero
        + b"\x20" + answer + b"\x0b"
    )  # fmt: skip


def _fits(value: Any, wanted: Mapping[str, Any]) -> bool:
    kind = wanted.get("type")
    if kind == "any":
        alternatives = wanted.get("of") or ()
        return not alternatives or any(_fits(value, a) for a in alternatives)
    if type_name(value) != kind:
        return False
    inner = wanted.get("of") or wanted.get("dynamic") if kind in ("set", "array") else None
    return not isinstance(inner, Mapping) or all(_fits(v, inner) for v in value)


def _sections(module: bytes) -> Iterator[tuple[int, bytes]]:
    at = 8
    while at < len(module):
        kind = module[at]
        size, at = _read(module, at + 1)
        yield kind, module[at : at + size]
        at += size


def _types(section: bytes) -> list[int]:
    """How many parameters the functions of each type have; -1 where not all is an i32 or not one comes back."""
    count, at = _read(section, 0)
    found = []
    for _ in range(count):
        given, at = _read(section, at + 1)
        parameters, at = section[at : at + given], at + given
        back, at = _read(section, at)
        results, at = section[at : at + back], at + back
        plain = set(parameters) <= {_I32} and results == bytes([_I32])
        found.append(given if plain else -1)
    return found


def _imported_functions(section: bytes) -> list[str]:
    count, at = _read(section, 0)
    names = []
    for _ in range(count):
        size, at = _read(section, at)
        at += size
        size, at = _read(section, at)
        name, at = section[at : at + size].decode(), at + size
        kind, at = section[at], at + 1
        if kind == 0:
            names.append(name)
            _, at = _read(section, at)
        elif kind == 2:
            limited = section[at]
            _, at = _read(section, at + 1)
            if limited & 1:
                _, at = _read(section, at)
        else:
            raise PolicyError("the module imports what OPA's modules never do", code="evaluator_crash")
    return names


def _numbers(section: bytes) -> list[int]:
    count, at = _read(section, 0)
    found = []
    for _ in range(count):
        number, at = _read(section, at)
        found.append(number)
    return found


def _bodies(section: bytes) -> list[bytes]:
    count, at = _read(section, 0)
    found = []
    for _ in range(count):
        size, at = _read(section, at)
        found.append(section[at : at + size])
        at += size
    return found


def _names(module: bytes) -> dict[str, int]:
    """The functions of a module by name, from its `name` section."""
    found: dict[str, int] = {}
    for kind, content in _sections(module):
        if kind != 0:
            continue
        size, at = _read(content, 0)
        if content[at : at + size] != b"name":
            continue
        at += size
        while at < len(content):
            part = content[at]
            size, at = _read(content, at + 1)
            end = at + size
            if part == 1:
                count, at = _read(content, at)
                for _ in range(count):
                    number, at = _read(content, at)
                    size, at = _read(content, at)
                    found[content[at : at + size].decode("utf-8", "replace")] = number
                    at += size
            at = end
    return found


def _read(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at


def _uleb(number: int) -> bytes:
    parts = bytearray()
    while True:
        byte, number = number & 0x7F, number >> 7
        parts.append(byte | 0x80 if number else byte)
        if not number:
            return bytes(parts)


def _sleb(number: int) -> bytes:
    parts = bytearray()
    while True:
        byte, number = number & 0x7F, number >> 7
        last = (number == 0 and not byte & 0x40) or (number == -1 and byte & 0x40)
        parts.append(byte if last else byte | 0x80)
        if last:
            return bytes(parts)
