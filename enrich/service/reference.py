"""The HTTP reference page, made from the OpenAPI document: `python -m enrich.service.reference`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from enrich.service.app import document
from enrich.service.auth import SCOPES

__all__ = ["reference"]

_INTRODUCTION: Final = """\
# HTTP reference

This page is the output of `python -m enrich.service.reference`; the service itself serves the same as OpenAPI at
`/openapi.json`. All bodies are UTF-8 JSON unless said otherwise.

**Tokens.** With tokens configured (`tokens_ingest` and its like, see settings) a call needs
`Authorization: Bearer <token>` with a token of its scope: {scopes}.
A scope that has no token is closed. Without any token every call passes but those of web pages of other sites, and the
service listens on loopback only, under no other name (`Host`) than loopback's.

**Errors** are `{{"error": {{"code", "message", "detail"}}}}`; under `/v1/data`, `/v0/data` and `POST /` they take OPA's
form `{{"code", "message", "errors"}}`. Codes are stable, messages are for people. Each carries `X-Request-Id`, under
which the log has it, without the input. A 503 carries `Retry-After`.

**Strict JSON.** Duplicate keys, bytes after the document, NaN, lone surrogates, nesting beyond `max_json_depth` and
numbers that neither a 64-bit integer nor a double holds as written are 400. Bodies are read up to `max_body_bytes`,
however long they say they are. Parameters that a call does not have are 400, as is one that stands twice.

**Connections.** The head of a request (its line and fields) may have 64 KiB and 100 fields: beyond that, and for
trailers, the answer is 431 and the connection closes; what is no HTTP at all is 400 `invalid_http`. `Upgrade` is
ignored, so that a client which offers `h2c` is answered in HTTP/1.1. A head has 10 s to arrive. A body that stands
still for 10 s, or is not complete after 30 s, is 408 `body_timeout`. On SIGTERM requests whose body is not complete are
dropped at once, the others have 10 s to be answered.

**Beside OPA.** The Data API answers as OPA 1.22 does, call by call, `gzip` bodies included, but for this: the input
has to be an object (400), since history is put into it, and with no input at all there is no history; `decision_id` is
always there; a decision (setting `decision_paths`) is recorded and counted, needs an agent in the input (400
`missing_agent`), and where OPA's answer is undefined or an error it is 200, a refusal, with `warning`; what lies above
or below a decision is 400 `decision_path_required`; `Idempotency-Key` and `dry_run` are ours; a duplicate key, bytes
behind the document, a number that is not exact, text that is no UTF-8 and a malformed query are 400; a `"` in a path
is 400, and a path below a value or at a function undefined, where OPA has 500; a slash that is percent-encoded at the
end of a path stays a part of it; `metrics` has two timers, and `instrument` no more than these; `provenance` names this
program's version and the file or directory of the policies without the path to it, with the revision in the manifest;
`explain` adds nothing; `GET /`, writes, `/v1/query`, `/v1/compile` and the rest of OPA's calls are not served.

**Durable answers.** An answer leaves only when everything it has seen is on disk.
"""


def reference() -> str:
    """The page, Markdown."""
    shown = document()
    lines = [_INTRODUCTION.format(scopes=", ".join(f"`{scope}`" for scope in SCOPES))]
    for tag in shown["tags"]:
        lines.append(f"## {tag['name'].capitalize()}\n\n{tag['description']}\n")
        for method, path, operation in _operations(shown):
            if tag["name"] in operation["tags"]:
                lines += _operation(method, path, operation)
    lines.append("## Schemas\n")
    for name, schema in shown["components"]["schemas"].items():
        lines += [f"### {name}\n", *_schema(schema)]
    return "\n".join(lines)


def _operations(shown: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, item in shown["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `{method} {path}`\n"
    scope = operation.get("x-scope")  # FastAPI leaves out what is null
    yield f"{operation['summary']}. {'Scope `' + scope + '`.' if scope else 'Needs no token.'}\n"
    yield operation["description"] + "\n"
    parameters = operation.get("parameters", [])
    if parameters:
        yield "| parameter | in | what |\n|---|---|---|"
        for parameter in parameters:
            needed = " (required)" if parameter["required"] and parameter["in"] == "query" else ""
            yield f"| `{parameter['name']}` | {parameter['in']} | {parameter['description']}{needed} |"
        yield ""
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        for name, example in content["examples"].items():
            yield f"Request, `{media}`, {name}:\n"
            yield _code(example["value"])
    for media, content in operation["responses"]["200"]["content"].items():
        yield f"200, `{media}`: {operation['responses']['200']['description']}\n"
        yield _code(content["example"])
    yield "| refused with | codes |\n|---|---|"
    for status, response in operation["responses"].items():
        if status != "200":
            yield f"| {status} | {response['description']} |"
    yield ""


def _schema(schema: Mapping[str, Any]) -> Iterator[str]:
    if "description" in schema:
        yield schema["description"] + "\n"
    yield "| field | type | |\n|---|---|---|"
    for name, field in schema["properties"].items():
        needed = "" if name in schema.get("required", ()) else "optional"
        notes = [
            needed,
            field.get("description", ""),
            *(f"{k} {field[k]}" for k in ("minimum", "maximum") if k in field),
        ]
        yield f"| `{name}` | {_type(field)} | {'; '.join(note for note in notes if note)} |"
    yield ""


def _type(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"].rpartition("/")[2])
    if "enum" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    kind = field.get("type", "any")
    text = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return f"array of {_type(field['items'])}" if kind == "array" else text


def _code(value: Any) -> str:
    if isinstance(value, str):
        return f"```\n{value.rstrip()}\n```\n"
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
