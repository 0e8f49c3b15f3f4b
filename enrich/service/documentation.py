"""OpenAPI's operation objects, in the few shapes that the calls have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from enrich.service.schemas import ref

__all__ = ["answer", "body", "operation", "parameter", "path_parameter"]

Document = dict[str, Any]

#: refusals that any call can give, by status
_COMMON: Mapping[int, str] = {
    401: "`unauthorized`: no bearer token, or one that nobody holds",
    403: "`forbidden`: the token does not hold the call's scope",
    405: "`method_not_allowed`",
    500: "`internal_error`: a fault of the engine; the log has the cause under the request id",
    503: "`busy`, `not_ready`, `journal_failed`, `journal_full` or `history_behind`: come again after `Retry-After`",
}


def operation(
    tag: str,
    summary: str,
    description: str,
    *,
    answers: Document,
    refusals: Mapping[int, str],
    parameters: Sequence[Document] = (),
    request: Document | None = None,
    data_api: bool = False,
    public: bool = False,
) -> Document:
    """An operation object.

    Args:
        answers: the 200's description and content, see `answer`.
        refusals: status to what is refused with it, beside what any call can refuse.
        data_api: refusals take OPA's form.
        public: needs no token.
    """
    schema = ref("DataError" if data_api else "Error")
    responses: Document = {"200": answers}
    for status, text in sorted((dict(_COMMON) | dict(refusals)).items()):
        if public and status in (401, 403):
            continue
        example = _refusal(text, data_api)
        responses[str(status)] = {
            "description": text,
            "content": {"application/json": {"schema": schema, "example": example}},
        }
    document: Document = {
        "tags": [tag],
        "summary": summary,
        "description": description,
        "responses": responses,
        "security": [] if public else [{"bearer": []}],
    }
    if parameters:
        document["parameters"] = list(parameters)
    if request is not None:
        document["requestBody"] = request
    return document


def _refusal(text: str, data_api: bool) -> Document:
    code = text.split("`")[1]
    plain = {"code": code, "message": text.partition(":")[2].strip() or f"refused with {code}"}
    return plain if data_api else {"error": plain | {"detail": {}}}


def body(content: Mapping[str, tuple[Any, Mapping[str, Any]]], *, required: bool = True) -> Document:
    """A request body: media type to (schema, name to example)."""
    return {
        "required": required,
        "content": {
            media: {"schema": schema, "examples": {name: {"value": value} for name, value in examples.items()}}
            for media, (schema, examples) in content.items()
        },
    }


def answer(description: str, schema: Any, example: Any, media: str = "application/json") -> Document:
    """The 200."""
    return {"description": description, "content": {media: {"schema": schema, "example": example}}}


def parameter(name: str, description: str, example: Any = None, *, required: bool = False, **schema: Any) -> Document:
    """A query parameter."""
    document: Document = {
        "name": name,
        "in": "query",
        "required": required,
        "description": description,
        "schema": {"type": "string"} | schema,
    }
    if example is not None:
        document["example"] = example
    return document


def path_parameter(name: str, description: str, example: str) -> Document:
    """A segment of the path; percent-encode what stands in it."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }
