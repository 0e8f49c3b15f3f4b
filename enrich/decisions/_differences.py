"""Where the embedded interpreter answers otherwise than OPA, without saying so: refused when policies load.

Each entry was measured beside OPA 1.22. What can't be told from a plan (values of different types that are compared, a
`not` around what is absent) stands in `docs/how-to/write-a-policy.md`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Differences", "Locals"]

#: built-ins that the interpreter has and that are refused all the same, and why
_REFUSED: Final[Mapping[str, str]] = {
    "abs": "it keeps six decimals: compare with the number and its negative",
    "format_int": "it is wrong for negative numbers in other bases than ten: say `sprintf(\"%v\", [x])`",
    "hex.encode": "it writes bytes above 7f with eight digits",
    "json.filter": "it finds nothing at a path that begins with a slash",
    "json.remove": "it leaves what a path with a slash before it names: use `object.remove`",
    "max": "it orders numbers as text, so that `max([9, 10])` is 9: say `every y in xs { y <= x }`",
    "min": "it orders numbers as text, so that `min([9, 10])` is 10: say `every y in xs { y >= x }`",
    "object.union": "it replaces what OPA merges, objects within objects",
    "object.union_n": "it replaces what OPA merges, objects within objects",
    "opa.runtime": "it shows the environment of the engine to whoever asks",
    "rand.intn": "it is the same number each time",
    "semver.compare": "it takes versions that are none, and reads build metadata, unlike OPA",
    "semver.is_valid": "it takes versions that are none, unlike OPA",
    "strings.replace_n": "it does not end on an empty key, and replaces in another order than OPA",
    "time.diff": "its hours, minutes and seconds are others than OPA's",
    "time.format": "it always writes nine decimals, unlike OPA",
    "time.parse_ns": "it takes texts that go on behind the time",
    "time.parse_rfc3339_ns": "it takes no time that ends with `Z`, as those of the history do",
    "uri.is_valid": "it takes hosts and user names that are none, and refuses some that are",
    "uri.parse": "it takes hosts and user names that are none, and refuses some that are",
    "urlquery.decode": "a plus sign stays one",
    "urlquery.encode": "a space becomes `%20`, not `+`",
    "urlquery.encode_object": "it keeps no order, and a space becomes `%20`, not `+`",
    "yaml.marshal": "it does not quote what YAML would read as something else",
}
#: what makes a set of sets
_SET_FUNCTIONS: Final = frozenset({"or", "and", "minus", "union", "intersection"})
#: which argument is a pattern; the interpreter's are ECMAScript's over bytes, OPA's are RE2's over characters
_PATTERNS: Final = {
    "regex.find_all_string_submatch_n": 0,
    "regex.find_n": 0,
    "regex.is_valid": 0,
    "regex.match": 0,
    "regex.replace": 1,
    "regex.split": 0,
}
_VERB: Final = re.compile(r"%[-+# 0]*\d*(?:\.\d+)?[A-Za-z%]?")
_SAFE_VERB: Final = re.compile(r"%(?:[%sv]|(?:\.\d+)?f)")
_NO_PATTERN: Final = re.compile(
    r"\\[^dDwWsSbBnrt\\.+*?()|\[\]{}^$/\-]|\(\?(?!:).?|(?<!\\)[*+?}](?:[*+]|\{)|[^\x00-\x7f]", re.DOTALL
)
#: an escape that the canonical input has in another form: control characters alone are escaped there
_OTHERWISE: Final = re.compile(r"(?<!\\)(?:\\\\)*(\\(?:/|u(?!00(?:0[0-7bef]|1[0-9a-f]))[0-9a-fA-F]{4}))")


@dataclass(frozen=True, slots=True)
class Locals:
    """What a function's statements say of its locals.

    Attributes:
        sets: those that hold a set whenever they hold anything.
        texts: those that hold one constant text, to its index.
    """

    sets: frozenset[int]
    texts: Mapping[int, int]

    @classmethod
    def of(cls, statements: Iterable[Mapping[str, Any]]) -> Locals:
        """From the statements of one function."""
        sets, texts = set(), {}
        for statement in statements:
            kind, fields = statement["type"], statement["stmt"]
            if kind == "MakeSetStmt":
                sets.add(fields["target"])
            elif kind == "CallStmt" and fields["func"] in _SET_FUNCTIONS:
                sets.add(fields["result"])
            elif kind.startswith("AssignVar") and fields["source"]["type"] == "string_index":
                texts[fields["target"]] = fields["source"]["value"]
        return cls(frozenset(sets), texts)


class Differences:
    """Finds in a plan what the interpreter answers otherwise than OPA.

    Args:
        strings: the plan's texts, by index, escaped as in JSON and some of them in quotes.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = strings
        self._escapes = {i: found[1] for i, text in enumerate(strings) if (found := _OTHERWISE.search(text))}

    def in_call(self, function: str, arguments: Sequence[Any], locals_: Locals) -> str | None:
        """Why a call of a built-in is refused; None when it is not.

        Args:
            arguments: the plan's operands.
            locals_: of the function that calls.
        """
        if function == "sort" and not (arguments[0]["type"] == "local" and arguments[0]["value"] in locals_.sets):
            return "it orders an array's numbers as text: sort a set, `sort({x | some x in xs})`"
        if function == "sprintf":
            for verb in _VERB.findall(self._text(arguments[0], locals_)):
                if not _SAFE_VERB.fullmatch(verb):
                    return f"`{verb}` is undefined or cut where OPA writes something: use `%v`"
        if function in _PATTERNS:
            found = _NO_PATTERN.search(self._text(arguments[_PATTERNS[function]], locals_))
            if found is not None:
                return f"`{found[0]}` in a pattern is not read as OPA reads it"
        return _REFUSED.get(function)

    def in_texts(self, operand: Any) -> str | None:
        """The first escape in a statement's fields that the input has in another form, so that it would equal nothing.

        The interpreter keeps a text as it is escaped. The input's is canonical: `é`, never `\\u00e9`.
        """
        if not self._escapes:
            return None
        if isinstance(operand, list):
            return next((e for item in operand if (e := self.in_texts(item)) is not None), None)
        if not isinstance(operand, Mapping):
            return None
        if operand.get("type") == "string_index":
            return self._escapes.get(operand["value"])
        # blocks are statements of their own
        fields = (value for key, value in operand.items() if key not in ("blocks", "block"))
        return next((e for value in fields if (e := self.in_texts(value)) is not None), None)

    def _text(self, operand: Mapping[str, Any], locals_: Locals) -> str:
        """A constant text as it is meant; empty for what is none."""
        index = operand["value"] if operand["type"] == "string_index" else None
        if operand["type"] == "local":
            index = locals_.texts.get(operand["value"])
        if index is None:
            return ""
        text = self._strings[index]
        quoted = text if len(text) > 1 and text[0] == text[-1] == '"' else f'"{text}"'
        return str(json.loads(quoted, strict=False))
