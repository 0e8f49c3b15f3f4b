"""What a compiled plan gives away before it is ever run: calls of nothing, variables that nothing binds, recursion.

The embedded interpreter accepts all three and lets the rule be undefined, so that a `deny` which uses one never fires.
OPA refuses them when it compiles; so do we, from the plan (OPA's intermediate representation) that the interpreter
saves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from enrich.decisions._arity import ARITIES
from enrich.decisions._differences import Differences, Locals
from enrich.errors import PolicyError

__all__ = ["check_plan", "rule_paths", "statements"]

#: keys of a statement that hold a local which the statement sets
_SETS: Final = frozenset({"target", "result", "return"})
#: integers in a statement that are no locals
_NO_LOCAL: Final = frozenset({"file", "row", "col", "index", "capacity", "value_index", "offset"})


def rule_paths(plan: Mapping[str, Any]) -> frozenset[tuple[str, ...]]:
    """The paths of all rules; functions, which take more than input and data, are left out."""
    return frozenset(
        tuple(f["path"][1:]) for f in plan["funcs"]["funcs"] if len(f["params"]) == 2 and f["path"][:1] == ["g0"]
    )


def check_plan(plan: Mapping[str, Any], is_builtin: Callable[[str], bool], texts: Mapping[str, str]) -> None:
    """Refuse a plan that would silently leave rules undefined.

    Args:
        plan: the `plan.json` of a saved bundle.
        is_builtin: whether the interpreter has a built-in of that name.
        texts: module texts by file name, for the source line in the error.

    Raises:
        PolicyError: `unknown_function`, `refused_function`, `refused_string`, `wrong_arity`, `unsafe_variable` or
            `recursion`; `detail` has file, line and column.
    """
    functions = {f["name"]: f for f in plan["funcs"]["funcs"]}
    files = [f["value"] for f in plan["static"].get("files", ())]
    differences = Differences([s["value"] for s in plan["static"].get("strings", ())])
    calls: dict[str, list[str]] = {}
    for name, function in functions.items():
        calls[name] = []
        position = _first_position(function)
        inside = list(statements(function["blocks"]))
        locals_ = Locals.of(inside)
        for statement in inside:
            position = _position(statement["stmt"]) or position
            escape = differences.in_texts(statement["stmt"])
            if escape is not None:
                raise _error(
                    f"a text has `{escape}`, which equals no text of an input",
                    "refused_string", position, files, texts,
                    hint="write the character itself",
                )  # fmt: skip
            if statement["type"] != "CallStmt":
                continue
            called = statement["stmt"]["func"]
            calls[name].append(called)
            if called in functions:
                _check_arity(functions[called], statement["stmt"], position, files, texts)
            elif reason := differences.in_call(called, statement["stmt"]["args"], locals_):
                raise _error(
                    f"the built-in `{called}` is refused: {reason}",
                    "refused_function", position, files, texts, function=called,
                )  # fmt: skip
            elif is_builtin(called):
                wanted, given = ARITIES.get(called), len(statement["stmt"]["args"])
                if wanted is not None and wanted != given:
                    raise _error(
                        f"`{called}` takes {_arguments(wanted)}, {given} given",
                        "wrong_arity", position, files, texts, function=called,
                        hint="bind the result by `:=`; the form with the result as last argument is not taken",
                    )  # fmt: skip
            else:
                raise _error(
                    f"the function `{called}` is neither defined nor a built-in of the embedded evaluator",
                    "unknown_function", position, files, texts, function=called,
                    hint="write it without that function, or use an evaluator that has it",
                )  # fmt: skip
        _check_locals(function, files, texts)
    _check_recursion(functions, calls, files, texts)


def statements(blocks: Any) -> Iterator[dict[str, Any]]:
    """Every statement below, in order."""
    if isinstance(blocks, list):
        for item in blocks:
            yield from statements(item)
    elif isinstance(blocks, dict):
        if isinstance(blocks.get("stmt"), dict) and "type" in blocks:
            yield blocks
            yield from statements(blocks["stmt"].get("blocks"))
            yield from statements(blocks["stmt"].get("block"))
        else:
            yield from statements(blocks.get("stmts"))


def _position(statement: Mapping[str, Any]) -> tuple[int, int, int] | None:
    return (statement["file"], statement["row"], statement["col"]) if "row" in statement else None


def _first_position(function: Mapping[str, Any]) -> tuple[int, int, int] | None:
    return next((p for s in statements(function["blocks"]) if (p := _position(s["stmt"])) is not None), None)


def _check_arity(
    called: Mapping[str, Any],
    statement: Mapping[str, Any],
    position: tuple[int, int, int] | None,
    files: list[str],
    texts: Mapping[str, str],
) -> None:
    wanted, given = len(called["params"]) - 2, len(statement["args"]) - 2
    if wanted != given:
        name = ".".join(["data", *called["path"][1:]])
        raise _error(
            f"`{name}` takes {_arguments(wanted)}, {given} given",
            "wrong_arity",
            position,
            files,
            texts,
            function=name,
        )


def _arguments(count: int) -> str:
    return f"{count} argument" if count == 1 else f"{count} arguments"


def _check_locals(function: Mapping[str, Any], files: list[str], texts: Mapping[str, str]) -> None:
    """A local that is read before any statement sets it is undefined there, whatever the text says.

    It stands for a variable that nothing binds, or for a call in the head of a comprehension, which the interpreter
    makes before the comprehension's body.
    """
    bound = {*function["params"]}
    position = _first_position(function)
    for statement in statements(function["blocks"]):
        kind, fields = statement["type"], statement["stmt"]
        position = _position(fields) or position
        setting: list[int] = []
        for key, value in fields.items():
            if key in _NO_LOCAL or (kind == "MakeNumberIntStmt" and key == "value"):
                continue
            sets = (
                key in _SETS
                or (kind == "ScanStmt" and key in ("key", "value"))
                or (kind == "WithStmt" and key == "local")
            )
            for local in _locals(value):
                if sets:
                    setting.append(local)
                elif local not in bound:
                    name = ".".join(["data", *function["path"][1:]])
                    raise _error(
                        f"`{name}` reads a variable that has no value there", "unsafe_variable", position, files, texts,
                        hint="bind it first; in a comprehension, call functions in the body and not in the head",
                    )  # fmt: skip
        bound.update(setting)


def _locals(value: Any) -> Iterator[int]:
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict):
        if value.get("type") == "local":
            yield value["value"]
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                yield from _locals(item)


def _check_recursion(
    functions: Mapping[str, Any], calls: Mapping[str, list[str]], files: list[str], texts: Mapping[str, str]
) -> None:
    done: set[str] = set()
    for start in functions:
        trail: list[str] = []
        stack: list[tuple[str, Iterator[str]]] = []
        if start not in done:
            trail.append(start)
            stack.append((start, iter(calls[start])))
        while stack:
            name, rest = stack[-1]
            called = next(rest, None)
            if called is None:
                stack.pop()
                trail.pop()
                done.add(name)
            elif called in trail:
                loop = " -> ".join(
                    ".".join(["data", *functions[n]["path"][1:]]) for n in [*trail[trail.index(called) :], called]
                )
                position = _first_position(functions[called])
                raise _error(f"a rule needs itself: `{loop}`", "recursion", position, files, texts)
            elif called in functions and called not in done:
                trail.append(called)
                stack.append((called, iter(calls[called])))


def _error(
    message: str,
    code: str,
    position: tuple[int, int, int] | None,
    files: list[str],
    texts: Mapping[str, str],
    *,
    hint: str | None = None,
    **detail: Any,
) -> PolicyError:
    if position is not None and position[0] < len(files):
        file, line, column = files[position[0]], position[1] + 1, position[2] + 1
        lines = texts.get(file, "").splitlines()
        source = lines[line - 1] if line <= len(lines) else None
        message = f"{file}:{line}:{column}: {message}"
        detail |= {"file": file, "line": line, "column": column, "source": source}
    return PolicyError(message, code=code, hint=hint, **detail)
