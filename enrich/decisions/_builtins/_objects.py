"""Values within values: subsets, ranges, patches."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Final

from enrich.decisions._builtins._values import (
    UNDEFINED,
    BuiltinError,
    NoAnswerError,
    check,
    integer,
    same,
    type_name,
    wrong,
)
from enrich.decisions._terms import RegoObject, RegoSet, order

__all__ = ["OBJECTS"]

#: more numbers than this one answer does not list
_LISTED: Final = 1 << 20
_PATHS: Final = 10_000


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, dict) else list(value)


def _within(member: Any, collection: list[Any]) -> bool:
    return any(same(member, other) for other in collection)


def _subset(whole: Any, part: Any) -> bool:
    kinds = type_name(whole), type_name(part)
    if kinds == ("object", "object"):
        return _object_subset(whole, part)
    if kinds == ("set", "set"):
        return all(_within(m, whole) for m in part)
    if kinds == ("array", "array"):
        return _array_subset(whole, part)
    if kinds == ("array", "set"):
        return _array_has(whole, part)
    raise BuiltinError("both arguments object.subset must be of the same type or array and set", "eval_type_error")


def _array_has(whole: list[Any], part: RegoSet) -> bool:
    """As OPA counts: a member that the array holds twice counts twice."""
    missing = len(part)
    for member in whole:
        missing -= _within(member, part)
        if missing == 0:
            return True
    return False


def _object_subset(whole: Any, part: Any) -> bool:
    for key, value in _pairs(part):
        found = [v for k, v in _pairs(whole) if same(k, key)]
        if not found:
            return False
        kinds = type_name(found[0]), type_name(value)
        if same(found[0], value):
            continue
        if kinds not in (("object", "object"), ("set", "set"), ("array", "array")) or not _subset(found[0], value):
            return False
    return True


def _array_subset(whole: list[Any], part: list[Any]) -> bool:
    """Whether the one holds the other in a row."""
    if len(part) > len(whole):
        return False
    return any(
        all(same(a, b) for a, b in zip(whole[at:], part, strict=False)) for at in range(len(whole) - len(part) + 1)
    )


def _range_step(first: Any, last: Any, step: Any) -> list[int]:
    start, end, by = integer(1, first), integer(2, last), integer(3, step)
    if by <= 0:
        raise BuiltinError("numbers.range_step: step must be a positive integer")
    if abs(end - start) // by >= _LISTED:
        raise NoAnswerError("numbers.range_step: so many numbers are not supported")
    return list(range(start, end + 1, by)) if start <= end else list(range(start, end - 1, -by))


def _neighbours(edges: Any) -> list[Any]:
    if isinstance(edges, list) and not isinstance(edges, RegoObject):
        return sorted(edges, key=order) if isinstance(edges, RegoSet) else list(edges)
    return []


def _reachable_paths(graph: Any, initial: Any) -> RegoSet:
    check(1, graph, "object")
    check(2, initial, "array", "set")
    nodes = [(order(k), v) for k, v in _pairs(graph)]

    def edges_of(node: Any) -> Any:
        key = order(node)
        return next((v for k, v in nodes if k == key), UNDEFINED)

    found: list[list[Any]] = []
    waiting: list[tuple[Any, list[Any]]] = []
    for start in initial:
        edges = edges_of(start)
        if edges is not UNDEFINED:
            neighbours = _neighbours(edges)
            waiting += [(n, [start]) for n in neighbours]
            if not neighbours:
                found.append([start])
    while waiting:
        node, path = waiting.pop()
        if len(found) > _PATHS or len(waiting) > _PATHS:
            raise NoAnswerError("graph.reachable_paths: so many paths are not supported")
        edges = edges_of(node)
        if edges is UNDEFINED:
            found.append(path)
            continue
        if any(same(node, p) for p in path):
            found.append(path)
            continue
        ahead = _neighbours(edges)
        waiting += [(n, [*path, node]) for n in ahead]
        if not ahead:
            found.append([*path, node])
    return RegoSet({json.dumps(order(p)): p for p in found}.values())


def _patch(target: Any, patches: Any) -> Any:
    check(2, patches, "array")
    value = deepcopy(target)
    for patch in patches:
        if not isinstance(patch, dict):
            raise wrong(2, "must be an array of objects")
        value = _applied(value, patch)
        if value is UNDEFINED:
            raise BuiltinError("the patch does not apply")
    return value


def _applied(document: Any, patch: dict[str, Any]) -> Any:
    operation = patch.get("op")
    if operation not in ("add", "remove", "replace", "move", "copy", "test"):
        raise wrong(2, "must hold operations that there are")
    for needed in ("path", *(["from"] if operation in ("move", "copy") else [])):
        if needed not in patch:
            raise wrong(2, f"must hold `{needed}`")
    if operation in ("add", "replace", "test") and "value" not in patch:
        raise wrong(2, "must hold `value`")
    path = _pointer(patch["path"])
    if operation == "add":
        return _put(document, path, deepcopy(patch["value"]))
    if operation == "remove":
        return _taken(document, path)
    if operation == "replace":
        if _at(document, path) is UNDEFINED:
            return UNDEFINED
        return deepcopy(patch["value"]) if not path else _put(_taken(document, path), path, deepcopy(patch["value"]))
    if operation == "test":
        found = _at(document, path)
        return document if found is not UNDEFINED and same(found, patch["value"]) else UNDEFINED
    source = _pointer(patch["from"])
    found = _at(document, source)
    if found is UNDEFINED:
        return UNDEFINED
    if operation == "move":
        if path[: len(source)] == source and path != source:
            raise NoAnswerError("json.patch: a move into itself is not supported")
        document = _taken(document, source) if source else document
    return _put(document, path, deepcopy(found))


def _pointer(path: Any) -> list[Any]:
    if isinstance(path, str):
        parts = path.lstrip("/").split("/") if path not in ("", "/") else []
        if path == "/" or path.startswith("//"):
            raise NoAnswerError("json.patch: a path of empty segments is not supported")
        return [p.replace("~1", "/").replace("~0", "~") for p in parts]
    if isinstance(path, list) and not isinstance(path, RegoSet | RegoObject):
        return list(path)
    raise wrong(2, "must hold paths that are strings or arrays")


def _index(container: list[Any], segment: Any, *, end: bool) -> int | None:
    if end and segment == "-":
        return len(container)
    if isinstance(segment, str) and (not segment.isdecimal() or (len(segment) > 1 and segment[0] == "0")):
        return None
    if not isinstance(segment, str | int) or isinstance(segment, bool):
        return None
    at = int(segment)
    return at if 0 <= at < len(container) + end else None


def _at(value: Any, path: list[Any]) -> Any:
    for segment in path:
        _no_set(value)
        if isinstance(value, dict):
            if segment not in value:
                return UNDEFINED
            value = value[segment]
        elif isinstance(value, list):
            at = _index(value, segment, end=False)
            if at is None:
                return UNDEFINED
            value = value[at]
        else:
            return UNDEFINED
    return value


def _put(document: Any, path: list[Any], value: Any) -> Any:
    if not path:
        return value
    container = _at(document, path[:-1])
    _no_set(container)
    if isinstance(container, dict):
        if not isinstance(path[-1], str):
            raise NoAnswerError("json.patch: a key that is no text is not supported")
        container[path[-1]] = value
        return document
    if isinstance(container, list):
        at = _index(container, path[-1], end=True)
        if at is not None:
            container.insert(at, value)
            return document
    return UNDEFINED


def _taken(document: Any, path: list[Any]) -> Any:
    if not path:
        raise NoAnswerError("json.patch: to remove the whole is not supported")
    container = _at(document, path[:-1])
    _no_set(container)
    if isinstance(container, dict) and path[-1] in container:
        del container[path[-1]]
        return document
    if isinstance(container, list):
        at = _index(container, path[-1], end=False)
        if at is not None:
            del container[at]
            return document
    return UNDEFINED


def _no_set(value: Any) -> None:
    if isinstance(value, RegoSet | RegoObject):
        raise NoAnswerError("json.patch: sets, and objects whose keys are no texts, are not supported")


#: by name
OBJECTS: Final[dict[str, Callable[..., Any]]] = {
    "graph.reachable_paths": _reachable_paths,
    "json.patch": _patch,
    "numbers.range_step": _range_step,
    "object.subset": _subset,
}
