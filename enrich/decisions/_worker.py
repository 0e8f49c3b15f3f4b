"""The process in which regopy runs: nothing but the standard library and regopy, started by its path.

Why a process of its own: regopy brings its own `operator new` and `delete`. Beside NumPy, DuckDB or Arrow, which load
the C++ library first, it frees with the one what was taken with the other, and 50 to 400 KB are lost in every
evaluation; loaded before them, they would free what it took. And it ends its whole process on some policies. Here
neither matters.

On stdin and stdout, frames of a length (4 bytes, big-endian) and that many bytes. A request is a JSON object:
`{"build": {"modules", "data", "entries"}}`, or `{"ask": ENTRY, "text", "strict", "input"}`, followed by a frame with
the input's bytes when `input` is true. Every request has one reply, a JSON object.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

__all__ = ["LENGTH", "AnswerError", "decode_answer", "decode_json", "size"]

LENGTH: Final = struct.Struct(">I")
#: an error that the interpreter writes where a value should stand
_RAW_ERROR: Final = re.compile(r"\(errormsg \d+:(?P<message>[^\n]*)\)")


class AnswerError(ValueError):
    """The answer can't be told from its text."""


class _Interpreter:
    """One interpreter with its bundle."""

    def __init__(self, build: dict[str, Any]) -> None:
        import regopy

        self.rego = regopy.Interpreter()
        self.rego.log_level = regopy.LogLevel.NONE
        self.rego.strict_built_in_errors = True
        for name, text in build["modules"].items():
            self.rego.add_module(name, text)
        if build["data"]:
            self.rego.add_data_json(json.dumps(build["data"], ensure_ascii=False))
        self.bundle = self.rego.build(None, build["entries"])

    def plan(self) -> dict[str, Any]:
        """The plan, and which of the names that it calls are built-ins."""
        if not self.bundle.ok():
            return {"refused": "the policies do not compile"}
        with tempfile.TemporaryDirectory(prefix="enrich-plan-") as directory:
            self.rego.save_bundle(directory, self.bundle)
            plan = json.loads((Path(directory) / "plan.json").read_bytes())
        called = set(_called(plan["funcs"]))
        return {"plan": plan, "builtins": sorted(name for name in called if self.rego.is_builtin(name))}

    def ask(self, request: dict[str, Any], given: bytes | None) -> dict[str, Any]:
        import regopy.rego_shared as native

        try:
            if given is not None:
                self.rego.set_input_term(given.decode("utf-8"))
            self.rego.strict_built_in_errors = request["strict"]
            if request["text"]:
                output = self.rego.query(request["ask"])
            else:
                output = self.rego.query_bundle_entrypoint(self.bundle, request["ask"])
        except json.JSONDecodeError as error:
            return _failed(error.doc, "the answer is not JSON")
        except (native.RegoError, UnicodeDecodeError, RecursionError) as error:
            return _failed(str(error), str(error).strip()[:200])
        if not output.ok():
            return {"errors": list(dict.fromkeys(_errors(native, output))) or [("eval_error", "the evaluation failed")]}
        if not output.results or not output.results[0].expressions:
            return {"undefined": True}
        node = native.rego_node_get(native.rego_output_expressions_at_index(output._impl, 0), 0)
        try:
            return {"value": _read_answer(native, str(output), node)}
        except AnswerError as error:
            return {"errors": [("eval_error", str(error))]}


def _failed(text: str, otherwise: str) -> dict[str, Any]:
    found = _RAW_ERROR.search(text)
    return {"errors": [("eval_error", found["message"] if found else otherwise)]}


def _errors(native: Any, output: Any) -> Iterator[tuple[str, str]]:
    """(code, message) of each error: an error node holds message, syntax tree and code."""
    sequence = native.rego_output_node(output._impl)
    for i in range(native.rego_node_size(sequence)):
        error = native.rego_node_get(sequence, i)
        if native.rego_node_size(error) == 3:
            message, code = native.rego_node_get(error, 0), native.rego_node_get(error, 2)
            yield native.rego_node_value(code) or "eval_error", native.rego_node_value(message)


def _called(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if value.get("type") == "CallStmt":
            yield value["stmt"]["func"]
        for item in value.values():
            yield from _called(item)
    elif isinstance(value, list):
        for item in value:
            yield from _called(item)


def _read_answer(native: Any, text: str, node: Any) -> Any:
    """The value in the interpreter's output, believed only when its tree of nodes has as many keys and values.

    regopy keeps strings as they are escaped in JSON, and some of its built-ins unescape them: a `"` in a caller's
    string would then end the string in the answer, and what follows would be read as more of the answer:
    `x","decision":"ALLOW`. The tree is not fooled: a string that breaks out makes the text hold more strings than it.
    """
    value = decode_answer(text)
    if size(value) != _node_size(native, node):
        raise AnswerError("the answer holds a string that its JSON form does not escape")
    return value


def decode_answer(text: str) -> Any:
    """VALUE of `{"expressions":[VALUE]}`.

    Raises:
        AnswerError: no JSON, a key twice, or a number that no double can hold.
    """
    try:
        return decode_json(text)["expressions"][0]
    except (KeyError, IndexError, TypeError) as error:
        raise AnswerError("the answer is not JSON") from error


def decode_json(text: str) -> Any:
    """A document with integers as they are and other numbers as the nearest double.

    Raises:
        AnswerError: no JSON, a key twice, or a number that no double can hold.
    """
    try:
        return _DECODER.decode(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise AnswerError("the answer is not JSON") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise AnswerError("the answer has a key twice")
    return result


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise AnswerError("the answer holds a number that no double can hold")
    return number


def _int(text: str) -> int:
    if len(text) > 300:
        raise AnswerError("the answer holds a number that no double can hold")
    return int(text)


def _constant(text: str) -> float:
    raise AnswerError(f"the answer holds {text}")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_constant
)


def size(value: Any) -> int:
    """Keys and values of every kind, all together."""
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(size, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(size, value))
    return 1


def _node_size(native: Any, node: Any) -> int:
    """The same count over the tree."""
    kinds = native.NodeKind
    kind = native.rego_node_type(node)
    while kind in (kinds.Term, kinds.Scalar):
        node = native.rego_node_get(node, 0)
        kind = native.rego_node_type(node)
    children = [native.rego_node_get(node, i) for i in range(native.rego_node_size(node))]
    if kind == kinds.Object:
        return 1 + sum(1 + _node_size(native, native.rego_node_get(item, 1)) for item in children)
    if kind in (kinds.Array, kinds.Set):
        return 1 + sum(_node_size(native, item) for item in children)
    if kind not in (kinds.String, kinds.Int, kinds.Float, kinds.Boolean, kinds.Null):
        raise AnswerError("the answer holds what is no JSON")
    return 1


def _read(stream: BinaryIO) -> bytes | None:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return stream.read(LENGTH.unpack(head)[0])


def _take_stdout() -> BinaryIO:
    """Standard output for the replies alone.

    The interpreter's `print` writes to it too, in the middle of a frame. What a policy prints is for `opa test`; here
    it can hold a caller's input, so nobody gets to see it.
    """
    replies = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return replies


def _main() -> None:
    from regopy.rego_shared import RegoError

    requests, replies = sys.stdin.buffer, _take_stdout()
    build: dict[str, Any] = {}
    with_input: _Interpreter | None = None
    without_input: _Interpreter | None = None
    while (frame := _read(requests)) is not None:
        request = json.loads(frame)
        try:
            if "build" in request:
                build, without_input = request["build"], None
                with_input = _Interpreter(build)
                reply = with_input.plan()
            elif request["input"] and with_input is not None:
                reply = with_input.ask(request, _read(requests) or b"")
            else:
                # `input` stays undefined only in an interpreter that never had one
                without_input = without_input or _Interpreter(build)
                reply = without_input.ask(request, None)
        except RegoError as error:
            # its text is a whole syntax tree; the first error stands first
            reply = {"refused": str(error)[:4096]}
        data = json.dumps(reply, ensure_ascii=False).encode("utf-8", "surrogatepass")
        replies.write(LENGTH.pack(len(data)) + data)
        replies.flush()


if __name__ == "__main__":
    _main()
