"""Whether the definitions of a GraphQL schema fit together, by the rules of OPA's validator."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any, Final

from enrich.decisions._builtins._graphql_parse import parse_schema
from enrich.decisions._builtins._values import BuiltinError, NoAnswerError

__all__ = ["check_schema"]

_Node = dict[str, Any]
#: what is there without being defined; of the types of introspection only that they are, and of which kind
_PRELUDE: Final = """
scalar Int scalar Float scalar String scalar Boolean scalar ID
directive @defer(if: Boolean = true, label: String) on FRAGMENT_SPREAD | INLINE_FRAGMENT
directive @include(if: Boolean!) on FIELD | FRAGMENT_SPREAD | INLINE_FRAGMENT
directive @skip(if: Boolean!) on FIELD | FRAGMENT_SPREAD | INLINE_FRAGMENT
directive @deprecated(reason: String = "")
  on FIELD_DEFINITION | ARGUMENT_DEFINITION | INPUT_FIELD_DEFINITION | ENUM_VALUE
directive @specifiedBy(url: String!) on SCALAR
directive @oneOf on INPUT_OBJECT
type __Schema { x: String } type __Type { x: String } type __Field { x: String } type __InputValue { x: String }
type __EnumValue { x: String } type __Directive { x: String } enum __TypeKind { X } enum __DirectiveLocation { X }
"""
_AGAIN: Final = frozenset({"include", "skip", "deprecated", "specifiedBy", "defer", "oneOf"})
_INPUT: Final = ("SCALAR", "ENUM", "INPUT_OBJECT")
_OUTPUT: Final = ("SCALAR", "OBJECT", "INTERFACE", "UNION", "ENUM")
_LISTS: Final = ("Directives", "Interfaces", "Fields", "Types", "EnumValues")


def check_schema(document: _Node) -> None:
    """Look whether a schema holds together.

    Args:
        document: as `parse_schema` gives it.

    Raises:
        BuiltinError: it does not.
        NoAnswerError: OPA's validator is not known to come to an end.
    """
    _Schema(document).check()


class _Schema:
    """The types and directives of a document, and those that are always there."""

    def __init__(self, document: _Node) -> None:
        self._document = document
        prelude = parse_schema(_PRELUDE)
        self._built_in = frozenset(d["Name"] for d in prelude["Definitions"])
        self._types = self._typed([*prelude["Definitions"], *deepcopy(document.get("Definitions", []))])
        self._extend(document.get("Extensions", []))
        self._possible = self._made_possible()
        self._directives = {d["Name"]: d for d in prelude["Directives"]}
        own: set[str] = set()
        for directive in document.get("Directives", []):
            name = directive["Name"]
            if name in own and name not in _AGAIN:
                raise BuiltinError(f"cannot redeclare directive {name}")
            own.add(name)
            self._directives[name] = directive

    def check(self) -> None:
        self._check_entries()
        for _, definition in sorted(self._types.items()):
            self._check_type(definition)
        self._check_circles()
        for _, directive in sorted(self._directives.items()):
            _check_name(directive)
            self._check_arguments(directive.get("Arguments", []), directive["Name"])

    def _typed(self, definitions: Iterable[_Node]) -> dict[str, _Node]:
        types: dict[str, _Node] = {}
        for definition in definitions:
            if definition["Name"] in types:
                raise BuiltinError(f"cannot redeclare type {definition['Name']}")
            types[definition["Name"]] = definition
        return types

    def _extend(self, extensions: Iterable[_Node]) -> None:
        for extension in extensions:
            name = extension["Name"]
            if name.startswith("__") and name in self._built_in:
                raise NoAnswerError("graphql: to extend a type of introspection is not supported")
            base = self._types.setdefault(name, {"Kind": extension["Kind"], "Name": name})
            if base["Kind"] != extension["Kind"]:
                raise BuiltinError(f"cannot extend type {name} by one of another kind")
            for listed in _LISTS:
                base[listed] = [*base.get(listed, []), *extension.get(listed, [])]

    def _made_possible(self) -> dict[str, list[str | None]]:
        """By type, the types that may stand for it; None for one that there is not."""
        found: dict[str, list[str | None]] = {}
        for name, definition in self._types.items():
            if definition["Kind"] == "UNION":
                members = definition.get("Types", [])
                found.setdefault(name, []).extend(m if m in self._types else None for m in members)
            elif definition["Kind"] in ("INPUT_OBJECT", "OBJECT", "INTERFACE"):
                for interface in definition.get("Interfaces", []):
                    found.setdefault(interface, []).append(name)
                if definition["Kind"] != "INTERFACE":
                    found.setdefault(name, []).append(name)
        return found

    def _check_entries(self) -> None:
        schemas = self._document.get("Schema", [])
        if len(schemas) > 1:
            raise BuiltinError("cannot have multiple schema entry points")
        for schema in [*schemas, *self._document.get("SchemaExtension", [])]:
            for entry in schema.get("OperationTypes", []):
                if entry["Type"] not in self._types:
                    raise BuiltinError(f"schema root refers to a type {entry['Type']} that does not exist")
            self._check_directives(schema, "SCHEMA")

    def _check_type(self, definition: _Node) -> None:
        kind = definition["Kind"]
        fields = definition.get("Fields", [])
        for field in fields:
            _check_name(field)
            self._kind_of(field["Type"])
            self._check_arguments(field.get("Arguments", []))
            self._check_directives(field, "INPUT_FIELD_DEFINITION" if kind == "INPUT_OBJECT" else "FIELD_DEFINITION")
        for member in definition.get("Types", []):
            if self._types.get(member, {}).get("Kind") != "OBJECT":
                raise BuiltinError(f"undefined type {member}, or none that is an object's")
        for interface in definition.get("Interfaces", []):
            self._check_implements(definition, interface)
        self._check_kind(definition, fields)
        for listed in ("Fields", "EnumValues"):
            names = [v["Name"] for v in definition.get(listed, [])]
            if len(set(names)) != len(names):
                raise BuiltinError(f"a name in {definition['Name']} can only be defined once")
        if len(set(definition.get("Types", []))) != len(definition.get("Types", [])):
            raise BuiltinError(f"union type {definition['Name']} can only include a type once")
        if definition["Name"] not in self._built_in:
            _check_name(definition)
        self._check_directives(definition, kind, once=False)

    def _check_kind(self, definition: _Node, fields: list[_Node]) -> None:
        kind = definition["Kind"]
        if kind in ("OBJECT", "INTERFACE", "INPUT_OBJECT"):
            allowed = _INPUT if kind == "INPUT_OBJECT" else _OUTPUT
            if not fields:
                raise BuiltinError(f"{kind} {definition['Name']}: must define one or more fields")
            if any(self._kind_of(field["Type"]) not in allowed for field in fields):
                raise BuiltinError(f"{kind} {definition['Name']}: field must be one of {', '.join(allowed)}")
        elif kind == "ENUM":
            values = definition.get("EnumValues", [])
            if not values or any(v["Name"] in ("true", "false", "null") for v in values):
                raise BuiltinError(f"ENUM {definition['Name']}: must define one or more values, and none of JSON's")
            for value in values:
                self._check_directives(value, "ENUM_VALUE")

    def _kind_of(self, typed: _Node) -> str:
        """The kind of the type that a field or an argument has, of its elements if it is a list."""
        while "Elem" in typed:
            typed = typed["Elem"]
        if typed["NamedType"] not in self._types:
            raise BuiltinError(f"undefined type {typed['NamedType']}")
        return str(self._types[typed["NamedType"]]["Kind"])

    def _check_arguments(self, arguments: Iterable[_Node], of: str | None = None) -> None:
        for argument in arguments:
            _check_name(argument)
            if self._kind_of(argument["Type"]) not in _INPUT:
                raise BuiltinError(f"{argument['Name']} is not of a valid input type")
            self._check_directives(argument, "ARGUMENT_DEFINITION", of)

    def _check_directives(self, node: _Node, location: str, of: str | None = None, *, once: bool = True) -> None:
        seen: set[str] = set()
        for directive in node.get("Directives", []):
            _check_name(directive)
            name = directive["Name"]
            declared = self._directives.get(name)
            if declared is None or name == of:
                raise BuiltinError(f"undefined directive {name}, or one that refers to itself")
            if once and name in seen and not declared["IsRepeatable"]:
                raise BuiltinError(f"the directive {name} can only be used once at this location")
            seen.add(name)
            if location not in declared["Locations"]:
                raise BuiltinError(f"directive {name} is not applicable on {location}")
            _check_given(directive, declared.get("Arguments", []))

    def _check_implements(self, definition: _Node, name: str) -> None:
        interface = self._types.get(name)
        if interface is None or interface["Kind"] != "INTERFACE":
            raise BuiltinError(f"undefined type {name}, or a non interface type")
        for required in interface.get("Fields", []):
            found = next((f for f in definition.get("Fields", []) if f["Name"] == required["Name"]), None)
            if found is None or not self._covariant(required["Type"], found["Type"]):
                raise BuiltinError(f"{definition['Name']} does not implement {name}: {required['Name']}")
            _check_same_arguments(required, found)
        for above in interface.get("Interfaces", []):
            if above not in definition.get("Interfaces", []):
                raise BuiltinError(f"type {definition['Name']} must implement {above} too")

    def _covariant(self, required: _Node, actual: _Node) -> bool:
        if required["NonNull"] and not actual["NonNull"]:
            return False
        if "Elem" in required:
            return "Elem" in actual and self._covariant(required["Elem"], actual["Elem"])
        name = required["NamedType"]
        if name == actual["NamedType"]:
            return True
        possible = self._possible.get(name, [])
        if None in possible:
            raise NoAnswerError("graphql: a union with a type that there is not is not supported here")
        return actual["NamedType"] in possible

    def _check_circles(self) -> None:
        """Refuse input objects that need themselves."""
        done: set[str] = set()
        for name, definition in sorted(self._types.items()):
            if definition["Kind"] == "INPUT_OBJECT":
                self._follow(name, done, [])

    def _follow(self, name: str, done: set[str], path: list[str]) -> None:
        if name in path:
            raise BuiltinError(f"cannot reference input object {name} within itself")
        if name in done:
            return
        done.add(name)
        for field in self._types[name].get("Fields", []):
            typed = field["Type"]
            inner = self._types.get(typed["NamedType"], {})
            if typed["NonNull"] and inner.get("Kind") == "INPUT_OBJECT":
                self._follow(inner["Name"], done, [*path, name])


def _check_name(node: _Node) -> None:
    if node["Name"].startswith("__"):
        raise BuiltinError(f"name {node['Name']} must not begin with `__`")


def _named(nodes: Iterable[_Node], name: str) -> _Node | None:
    return next((node for node in nodes if node["Name"] == name), None)


def _check_given(directive: _Node, declared: list[_Node]) -> None:
    given = directive.get("Arguments", [])
    for argument in given:
        if _named(declared, argument["Name"]) is None:
            raise BuiltinError(f"undefined argument {argument['Name']} for directive {directive['Name']}")
    for argument in declared:
        if argument["Type"]["NonNull"] and "DefaultValue" not in argument:
            found = _named(given, argument["Name"])
            # 6 is null
            if found is None or found["Value"]["Kind"] == 6:
                raise BuiltinError(f"argument {argument['Name']} for directive {directive['Name']} cannot be null")


def _check_same_arguments(required: _Node, found: _Node) -> None:
    has = found.get("Arguments", [])
    for argument in required.get("Arguments", []):
        same = _named(has, argument["Name"])
        if same is None or not _compatible(argument["Type"], same["Type"]):
            raise BuiltinError(f"the field {required['Name']} must have the same arguments")
    for argument in has:
        needed = argument["Type"]["NonNull"] and "DefaultValue" not in argument
        if needed and _named(required.get("Arguments", []), argument["Name"]) is None:
            raise BuiltinError(f"any additional arguments on {required['Name']} must be optional")


def _compatible(one: _Node, other: _Node) -> bool:
    if one["NamedType"] != other["NamedType"]:
        return False
    if "Elem" in one and ("Elem" not in other or not _compatible(one["Elem"], other["Elem"])):
        return False
    return bool(one["NonNull"] or not other["NonNull"])
