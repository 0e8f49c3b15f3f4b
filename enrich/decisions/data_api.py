"""OPA's Data API as it answers, apart from HTTP: what a request asks, and the status and body of its answer.

Held call by call to a real OPA 1.22 by the tests. Named deviations: a duplicate key, bytes after the document, YAML
aliases and tags are 400; YAML beyond `MAX_YAML_BYTES` is 413; a `"` in a path is 400 (OPA: 500); `decision_id` is
always there when the caller has one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal
from urllib.parse import unquote_to_bytes

from enrich.decisions._yaml import MAX_YAML_BYTES, yaml_loads
from enrich.decisions.protocol import TIMED_OUT, DataPath, Defined, Failed, Outcome, Undefined
from enrich.errors import BadRequestError, EnrichError, NumberNotExactError

__all__ = [
    "ABSENT",
    "DEFAULT_PATH",
    "MAX_YAML_BYTES",
    "Absent",
    "DataAnswer",
    "DataQuery",
    "Redirect",
    "answer",
    "provenance",
    "read",
    "refusal",
    "yaml_loads",
]

#: what `POST /` asks for
DEFAULT_PATH: Final[DataPath] = ("system", "main")
_INPUT_MISSING: Final = {"code": "api_usage_warning", "message": "'input' key missing from the request"}
#: a segment that is read as an integer; a longer one is a string
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,18}")
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Absent(Enum):
    """No input at all: `input` is undefined, which is not the same as null."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


@dataclass(frozen=True, slots=True)
class DataQuery:
    """What a request asks. `warning` goes with the answer; `strict` is `strict-builtin-errors`; `dry_run` is ours."""

    version: Literal["v1", "v0"]
    path: DataPath
    input: object | Absent
    strict: bool = False
    pretty: bool = False
    metrics: bool = False
    warning: Mapping[str, str] | None = None
    dry_run: bool = False
    provenance: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    """The same request belongs to `location`."""

    status: int
    location: str


@dataclass(frozen=True, slots=True)
class DataAnswer:
    """`body` is JSON as Python."""

    status: int
    body: Any


def read(
    method: Literal["GET", "POST"],
    target: str,
    query: Mapping[str, Sequence[str]],
    content_type: str,
    body: bytes,
    *,
    loads: Callable[[bytes], object],
    loads_yaml: Callable[[bytes], object] = yaml_loads,
) -> DataQuery | Redirect:
    """What a request asks.

    Args:
        method: POST, or GET for `/v1/data`; others are for the caller to refuse.
        target: the path of the URL, percent-encoded as it came: `/v1/data...`, `/v0/data...` or `/`.
        query: the decoded parameters, each with all its values in order.
        content_type: as sent; anything with `yaml` in it means YAML, everything else JSON.
        loads: decodes JSON strictly; raises `EnrichError`.
        loads_yaml: the same for YAML.

    Raises:
        BadRequestError: `invalid_parameter`; `detail` names the cause where the document is at fault.
        EnrichError: what `loads` raises beyond that: a body too large, a number that is not exact.
    """
    loads_body = loads_yaml if "yaml" in content_type else loads
    dry_run = _flag(query, "dry_run")
    if target == "/":
        document = _document(body, loads_body)
        return DataQuery("v0", DEFAULT_PATH, document, pretty=_flag(query, "pretty"), dry_run=dry_run)
    tidy = _tidy(target)
    if tidy != target:
        return Redirect(307, tidy.rstrip("/"))
    if target.endswith("/"):
        return Redirect(301, target.rstrip("/"))
    _, version, _, *segments = target.split("/")
    path = tuple(map(_segment, segments))
    pretty, provenance = _flag(query, "pretty"), _flag(query, "provenance")
    if version == "v0":
        return DataQuery("v0", path, _document(body, loads_body), pretty=pretty, dry_run=dry_run)
    strict, metrics = _flag(query, "strict-builtin-errors"), _flag(query, "metrics") or _flag(query, "instrument")
    if method == "GET":
        given = query.get("input")
        document = ABSENT if not given else _loads(loads, given[-1].encode("utf-8", "surrogatepass"), "parameter")
        return DataQuery("v1", path, document, strict, pretty, metrics, dry_run=dry_run, provenance=provenance)
    document = _input(_document(body, loads_body))
    warning = _INPUT_MISSING if document is ABSENT else None
    return DataQuery("v1", path, document, strict, pretty, metrics, warning, dry_run, provenance)


def answer(
    query: DataQuery,
    outcome: Outcome,
    *,
    decision_id: str | None = None,
    metrics: Mapping[str, int] | None = None,
    warning: Mapping[str, str] | None = None,
    dry_run: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> DataAnswer:
    """The answer to `query`.

    Args:
        metrics: timers and counters, put into the answer when the request asked for them.
        warning: stands in place of the query's own, when there is something graver to say.
        dry_run: the answer says that nothing was recorded.
        provenance: see `provenance`, put into the answer when the request asked for it.
    """
    if isinstance(outcome, Failed) and outcome.code == TIMED_OUT:
        return DataAnswer(
            504,
            {
                "code": "evaluation_timeout",
                "message": outcome.message,
                "errors": [dict(e) for e in outcome.errors] or [{"code": outcome.code, "message": outcome.message}],
            },
        )
    if isinstance(outcome, Failed):
        return DataAnswer(
            500,
            {
                "code": "internal_error",
                "message": "error(s) occurred while evaluating query",
                "errors": [dict(e) for e in outcome.errors] or [{"code": outcome.code, "message": outcome.message}],
            },
        )
    if query.version == "v0":
        if isinstance(outcome, Defined):
            return DataAnswer(200, outcome.value)
        what = "document undefined" if outcome.has_rules else "document missing"
        return DataAnswer(404, {"code": "undefined_document", "message": f"{what}: {_reference(query.path)}"})
    body: dict[str, Any] = {}
    if decision_id is not None:
        body["decision_id"] = decision_id
    if dry_run:
        body["dry_run"] = True
    if query.provenance and provenance is not None:
        body["provenance"] = dict(provenance)
    if query.metrics and metrics is not None:
        body["metrics"] = dict(metrics)
    if not isinstance(outcome, Undefined):
        body["result"] = outcome.value
    shown = warning or query.warning
    if shown is not None:
        body["warning"] = dict(shown)
    return DataAnswer(200, body)


def provenance(version: str, policies: Mapping[str, str] | None) -> dict[str, Any]:
    """Who answered, in OPA's form.

    Args:
        version: of the program.
        policies: `name` and `revision` of what was asked; None when that is not known.
    """
    built = dict.fromkeys(("build_commit", "build_timestamp", "build_hostname"), "")
    bundles = {} if policies is None else {policies["name"]: {"revision": policies["revision"]}}
    return {"version": version, **built, **({"bundles": bundles} if bundles else {})}


def refusal(error: EnrichError) -> DataAnswer:
    """An error in OPA's form."""
    body: dict[str, Any] = {"code": error.error_code, "message": error.message}
    if error.detail:
        body["errors"] = [
            {"code": error.detail.get("cause", error.error_code), "message": error.message, "detail": error.detail}
        ]
    return DataAnswer(error.status, body)


def _tidy(target: str) -> str:
    """The path without empty, `.` and `..` segments; a slash at its end stays."""
    kept: list[str] = []
    for segment in target.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if target.endswith("/") else "")


def _segment(raw: str) -> str:
    try:
        segment = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequestError("the path is not UTF-8", code="invalid_parameter") from error
    if '"' in segment:
        raise BadRequestError(f"invalid path: invalid ref term '{segment}'", code="invalid_parameter")
    return segment


def _flag(query: Mapping[str, Sequence[str]], name: str) -> bool:
    """A parameter without a value is true, and so is `true` in any case; everything else is false."""
    values = query.get(name, ())
    return list(values) == [""] or any(v.lower() == "true" for v in values)


def _document(body: bytes, loads: Callable[[bytes], object]) -> object:
    """The body as a document; an empty one is None."""
    return _loads(loads, body, "body") if body.strip() else None


def _loads(loads: Callable[[bytes], object], data: bytes, what: str) -> object:
    try:
        return loads(data)
    except EnrichError as error:
        if error.status != 400 or isinstance(error, NumberNotExactError):
            raise
        raise BadRequestError(
            f"{what} contains malformed input document: {error.message}",
            code="invalid_parameter", **{**error.detail, "cause": error.error_code},
        ) from error  # fmt: skip


def _input(document: object) -> object | Absent:
    """The input in a v1 body: no body, no `input` and `input: null` are all no input; the key's case is no matter."""
    if document is None:
        return ABSENT
    if not isinstance(document, Mapping):
        kind = "array" if isinstance(document, list) else "string" if isinstance(document, str) else "scalar"
        raise BadRequestError(
            f"body contains malformed input document: an object is needed, not a JSON {kind}",
            code="invalid_parameter", cause="not_an_object",
        )  # fmt: skip
    found = [key for key in document if isinstance(key, str) and key.lower() == "input"]
    if len(found) > 1:
        raise BadRequestError("body has `input` more than once", code="invalid_parameter", cause="duplicate_key")
    return ABSENT if not found or document[found[0]] is None else document[found[0]]


def _reference(path: DataPath) -> str:
    """A path as OPA's messages write it: `data.a["b c"][1]`."""
    parts = ["data"]
    for segment in path:
        if _PLAIN.fullmatch(segment):
            parts.append(f".{segment}")
        else:
            parts.append(f"[{int(segment)}]" if _INTEGER.fullmatch(segment) else f'["{segment}"]')
    return "".join(parts)
