"""GraphQL: documents read, and schemas looked through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from enrich.decisions._builtins._graphql_parse import parse_query, parse_schema
from enrich.decisions._builtins._graphql_schema import check_schema
from enrich.decisions._builtins._values import BuiltinError, NoAnswerError, check, type_name

__all__ = ["GRAPHQL"]


def _parse_query(text: Any) -> dict[str, Any]:
    return parse_query(check(1, text, "string"))


def _parse_schema(text: Any) -> dict[str, Any]:
    return parse_schema(check(1, text, "string"))


def _schema_is_valid(schema: Any) -> bool:
    if type_name(schema) == "object":
        raise NoAnswerError("graphql.schema_is_valid: a schema that is read already is not supported")
    if not isinstance(schema, str):
        return False
    try:
        check_schema(parse_schema(schema))
    except BuiltinError:
        return False
    return True


#: by name
GRAPHQL: Final[dict[str, Callable[..., Any]]] = {
    "graphql.parse_query": _parse_query,
    "graphql.parse_schema": _parse_schema,
    "graphql.schema_is_valid": _schema_is_valid,
}
