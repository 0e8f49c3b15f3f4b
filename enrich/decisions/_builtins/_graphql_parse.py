"""GraphQL as OPA gives it to policies: objects named and formed as its parser's own, without what is empty.

Where comments go is part of the form, so each is looked for exactly where OPA's parser looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from enrich.decisions._builtins._graphql_words import Words
from enrich.decisions._builtins._values import BuiltinError

__all__ = ["parse_query", "parse_schema"]

_Node = dict[str, Any]
_OPERATIONS: Final = ("query", "mutation", "subscription")
_KINDS: Final = {
    "scalar": "SCALAR", "type": "OBJECT", "interface": "INTERFACE", "union": "UNION", "enum": "ENUM",
    "input": "INPUT_OBJECT",
}  # fmt: skip
#: numbers that OPA shows for the kinds of values
_VALUES: Final = {"int": 1, "float": 2, "string": 3, "block": 4}
_WORDS: Final = {"true": 5, "false": 5, "null": 6}
_VARIABLE, _ENUM, _LIST, _OBJECT = 0, 7, 8, 9
_LOCATIONS: Final = frozenset(
    [
        *("QUERY", "MUTATION", "SUBSCRIPTION", "FIELD", "FRAGMENT_DEFINITION", "FRAGMENT_SPREAD", "INLINE_FRAGMENT"),
        *("VARIABLE_DEFINITION", "SCHEMA", "SCALAR", "OBJECT", "FIELD_DEFINITION", "ARGUMENT_DEFINITION"),
        *("INTERFACE", "UNION", "ENUM", "ENUM_VALUE", "INPUT_OBJECT", "INPUT_FIELD_DEFINITION"),
    ]
)


def parse_query(text: str) -> _Node:
    """A document of operations and fragments.

    Raises:
        BuiltinError: it is none.
    """
    words = Words(text)
    operations, fragments = [], []
    while (word := words.peek()).kind:
        if word.kind == "{" or (word.kind == "name" and word.text in _OPERATIONS):
            operations.append(_operation(words))
        elif word.kind == "name" and word.text == "fragment":
            fragments.append(_fragment(words))
        else:
            raise _unexpected(words)
    return _node(Operations=operations, Fragments=fragments)


def parse_schema(text: str) -> _Node:
    """A document of definitions; whether they fit together is not looked at.

    Raises:
        BuiltinError: it is none.
    """
    words = Words(text)
    found: dict[str, list[_Node]] = {}
    while words.peek().kind:
        described, comment = _description(words)
        word = words.peek()
        if word.kind != "name":
            raise _unexpected(words)
        if word.text in _KINDS:
            found.setdefault("Definitions", []).append(_definition(words, described, comment))
        elif word.text == "schema":
            found.setdefault("Schema", []).append(_schema(words, described, comment))
        elif word.text == "directive":
            found.setdefault("Directives", []).append(_directive_definition(words, described, comment))
        elif word.text == "extend" and not described:
            _extension(words, found)
        else:
            raise _unexpected(words)
    return _node(**found, Comment=words.comment)


def _node(**fields: Any) -> _Node:
    """Without what is None or empty; an empty text stays."""
    return {k: v for k, v in fields.items() if v is not None and v != [] and v != {}}


def _unexpected(words: Words) -> BuiltinError:
    word = words.peek()
    return BuiltinError(f"unexpected {word.text or word.kind or 'end'}")


def _some(words: Words, start: str, end: str, each: Callable[[Words], _Node]) -> tuple[list[_Node], Any]:
    """One or more between brackets, none without brackets; and the comment before the closing one."""
    if not words.skip(start):
        return [], None
    found = []
    while words.peek().kind != end:
        found.append(each(words))
    if not found:
        raise BuiltinError(f"expected at least one definition, found {end}")
    comment = words.comment
    words.take()
    return found, comment


def _operation(words: Words) -> _Node:
    if words.peek().kind == "{":
        # OPA looks for a comment when all is read, and finds none
        return _node(Operation="query", Name="", SelectionSet=_selections(words))
    comment = words.comment
    operation = words.take().text
    name = words.take().text if words.peek().kind == "name" else ""
    variables = _some(words, "(", ")", _variable_definition)[0]
    return _node(
        Comment=comment,
        Operation=operation,
        Name=name,
        VariableDefinitions=variables,
        Directives=_directives(words),
        SelectionSet=_selections(words),
    )


def _variable_definition(words: Words) -> _Node:
    words.peek()
    comment = words.comment
    name = _variable(words)
    words.expect(":")
    typed = _type(words)
    default = _value(words, const=True) if words.skip("=") else None
    return _node(
        Comment=comment,
        Variable=name,
        Type=typed,
        DefaultValue=default,
        Directives=_directives(words),
        Used=False,
    )


def _variable(words: Words) -> str:
    words.expect("$")
    return words.expect("name")


def _selections(words: Words) -> list[_Node]:
    if words.peek().kind != "{":
        raise BuiltinError("expected {")
    return _some(words, "{", "}", _selection)[0]


def _selection(words: Words) -> _Node:
    if words.peek().kind == "...":
        return _spread(words)
    comment = words.comment
    alias = words.expect("name")
    name = words.expect("name") if words.skip(":") else alias
    arguments = _arguments(words)
    directives = _directives(words)
    inner = _selections(words) if words.peek().kind == "{" else []
    return _node(
        Comment=comment, Alias=alias, Name=name, Arguments=arguments, Directives=directives, SelectionSet=inner
    )


def _spread(words: Words) -> _Node:
    words.peek()
    comment = words.comment
    words.expect("...")
    word = words.peek()
    if word.kind == "name" and word.text != "on":
        return _node(Comment=comment, Name=_fragment_name(words), Directives=_directives(words))
    condition = ""
    # OPA takes a text for the word here
    if word.text == "on":
        words.take()
        condition = words.expect("name")
    return _node(
        Comment=comment, TypeCondition=condition, Directives=_directives(words), SelectionSet=_selections(words)
    )


def _fragment(words: Words) -> _Node:
    comment = words.comment
    words.expect("name", "fragment")
    name = _fragment_name(words)
    variables = _some(words, "(", ")", _variable_definition)[0]
    words.expect("name", "on")
    condition = words.expect("name")
    return _node(
        Comment=comment,
        Name=name,
        VariableDefinition=variables,
        TypeCondition=condition,
        Directives=_directives(words),
        SelectionSet=_selections(words),
    )


def _fragment_name(words: Words) -> str:
    if words.peek().text == "on":
        raise _unexpected(words)
    return words.expect("name")


def _arguments(words: Words, *, const: bool = False) -> list[_Node]:
    def argument(words: Words) -> _Node:
        words.peek()
        comment = words.comment
        name = words.expect("name")
        words.expect(":")
        return _node(Comment=comment, Name=name, Value=_value(words, const=const))

    return _some(words, "(", ")", argument)[0]


def _directives(words: Words, *, const: bool = False) -> list[_Node]:
    found = []
    while words.skip("@"):
        found.append(_node(Name=words.expect("name"), Arguments=_arguments(words, const=const), Location=""))
    return found


def _type(words: Words) -> _Node:
    name, inner = "", None
    if words.skip("["):
        inner = _type(words)
        words.expect("]")
    else:
        name = words.expect("name")
    return _node(NamedType=name, Elem=inner, NonNull=words.skip("!"))


def _value(words: Words, *, const: bool) -> _Node:
    word = words.peek()
    if word.kind in ("[", "{"):
        return _children(words, const=const)
    if word.kind == "$" and not const:
        return _told(_variable(words), _VARIABLE)
    if word.kind == "name":
        kind = _WORDS.get(word.text, _ENUM)
    elif word.kind in _VALUES:
        kind = _VALUES[word.kind]
    else:
        raise _unexpected(words)
    return _told(words.take().text, kind)


def _told(raw: str, kind: int, **more: Any) -> _Node:
    return _node(Raw=raw, Kind=kind, ExpectedTypeHasDefault=False, **more)


def _children(words: Words, *, const: bool) -> _Node:
    comment = words.comment
    listed = words.take().kind == "["
    end = "]" if listed else "}"
    found = []
    while words.peek().kind != end:
        if listed:
            found.append(_node(Name="", Value=_value(words, const=const)))
            continue
        before = words.comment
        name = words.expect("name")
        words.expect(":")
        found.append(_node(Comment=before, Name=name, Value=_value(words, const=const)))
    words.take()
    return _told("", _LIST if listed else _OBJECT, Children=found, Comment=comment)


def _description(words: Words) -> tuple[str, Any]:
    if words.peek().kind not in ("string", "block"):
        return "", None
    comment = words.comment
    return words.take().text, comment


def _described(words: Words) -> _Node:
    """What a field, an argument or a value of an enum begins with."""
    text, before = _description(words)
    words.peek()
    comment = words.comment
    return {
        "Description": text,
        "BeforeDescriptionComment": before if text else None,
        "AfterDescriptionComment": comment,
        "Name": words.expect("name"),
    }


def _definition(words: Words, described: str, before: Any) -> _Node:
    after = words.comment
    return _defined(words, Description=described, BeforeDescriptionComment=before, AfterDescriptionComment=after)


def _defined(words: Words, *, extends: bool = False, **head: Any) -> _Node:
    """A type, from the word that names its kind on."""
    kind = _KINDS[words.expect("name")]
    name = words.expect("name")
    interfaces: list[str] = []
    if kind == "OBJECT" or (kind == "INTERFACE" and not extends):
        interfaces = _interfaces(words)
    directives = _directives(words, const=not (extends and kind == "INPUT_OBJECT"))
    body: _Node = {}
    if kind in ("OBJECT", "INTERFACE"):
        body["Fields"], body["EndOfDefinitionComment"] = _some(words, "{", "}", _field)
    elif kind == "INPUT_OBJECT":
        body["Fields"], body["EndOfDefinitionComment"] = _some(words, "{", "}", _input_value)
    elif kind == "ENUM":
        body["EnumValues"], body["EndOfDefinitionComment"] = _some(words, "{", "}", _enum_value)
    elif kind == "UNION":
        body["Types"] = _members(words)
    if extends and not interfaces and not directives and not any(body.values()):
        raise _unexpected(words)
    return _node(**head, Kind=kind, Name=name, Interfaces=interfaces, Directives=directives, BuiltIn=False, **body)


def _interfaces(words: Words) -> list[str]:
    if words.peek().text != "implements":
        return []
    words.take()
    words.skip("&")
    found = [words.expect("name")]
    while words.skip("&"):
        found.append(words.expect("name"))
    return found


def _members(words: Words) -> list[str]:
    if not words.skip("="):
        return []
    words.skip("|")
    found = [words.expect("name")]
    while words.skip("|"):
        found.append(words.expect("name"))
    return found


def _field(words: Words) -> _Node:
    head = _described(words)
    arguments = _some(words, "(", ")", _input_value)[0]
    words.expect(":")
    typed = _type(words)
    return _node(**head, Arguments=arguments, Type=typed, Directives=_directives(words, const=True))


def _input_value(words: Words) -> _Node:
    head = _described(words)
    words.expect(":")
    typed = _type(words)
    default = _value(words, const=True) if words.skip("=") else None
    return _node(**head, Type=typed, DefaultValue=default, Directives=_directives(words, const=True))


def _enum_value(words: Words) -> _Node:
    head = _described(words)
    return _node(**head, Directives=_directives(words, const=True))


def _schema(words: Words, described: str, before: Any) -> _Node:
    after = words.comment
    words.expect("name", "schema")
    return _entered(words, Description=described, BeforeDescriptionComment=before, AfterDescriptionComment=after)


def _entered(words: Words, **head: Any) -> _Node:
    directives = _directives(words, const=True)
    entries, end = _some(words, "{", "}", _entry)
    return _node(**head, Directives=directives, OperationTypes=entries, EndOfDefinitionComment=end)


def _entry(words: Words) -> _Node:
    words.peek()
    comment = words.comment
    operation = words.take().text
    if operation not in _OPERATIONS:
        raise BuiltinError(f"unexpected {operation}")
    words.expect(":")
    return _node(Comment=comment, Operation=operation, Type=words.expect("name"))


def _extension(words: Words, found: dict[str, list[_Node]]) -> None:
    comment = words.comment
    words.expect("name", "extend")
    word = words.peek()
    if word.text == "schema":
        words.expect("name", "schema")
        made = _entered(words, Description="", AfterDescriptionComment=comment)
        if not {"Directives", "OperationTypes"} & made.keys():
            raise _unexpected(words)
        found.setdefault("SchemaExtension", []).append(made)
    elif word.text in _KINDS:
        made = _defined(words, extends=True, Description="", AfterDescriptionComment=comment)
        found.setdefault("Extensions", []).append(made)
    else:
        raise _unexpected(words)


def _directive_definition(words: Words, described: str, before: Any) -> _Node:
    after = words.comment
    words.expect("name", "directive")
    words.expect("@")
    name = words.expect("name")
    arguments = _some(words, "(", ")", _input_value)[0]
    repeatable = words.peek().kind == "name" and words.peek().text == "repeatable"
    if repeatable:
        words.take()
    words.expect("name", "on")
    words.skip("|")
    locations = [_location(words)]
    while words.skip("|"):
        locations.append(_location(words))
    return _node(
        Description=described,
        BeforeDescriptionComment=before,
        AfterDescriptionComment=after,
        Name=name,
        Arguments=arguments,
        IsRepeatable=repeatable,
        Locations=locations,
    )


def _location(words: Words) -> str:
    name = words.expect("name")
    if name not in _LOCATIONS:
        raise BuiltinError(f"unexpected {name}")
    return name
