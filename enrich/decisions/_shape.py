"""What a compiled plan gives away of the shape of answers: which rules are never anything but true or false."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from enrich.decisions._plan import statements

__all__ = ["boolean_rules"]


def boolean_rules(plan: Mapping[str, Any]) -> frozenset[tuple[str, ...]]:
    """The paths of rules and functions whose every value is a boolean by its form: a constant, a comparison or another
    built-in that says true or false, or a rule or function that is one of these.

    A rule that passes on a value of the input is none of them, whatever that value is. The plan has no recursion.
    """
    functions = {f["name"]: f for f in plan["funcs"]["funcs"]}
    builtins = {
        b["name"]
        for b in plan["static"].get("builtin_funcs", ())
        if b["decl"].get("result", {}).get("type") == "boolean"  # `print` has none
    }
    known: dict[str, bool] = {}

    def returns_boolean(name: str) -> bool:
        if name not in functions:
            return name in builtins
        if name not in known:
            known[name] = _is_boolean(functions[name])
        return known[name]

    def _is_boolean(function: Mapping[str, Any]) -> bool:
        sources: dict[int, list[Any]] = {}
        for statement in statements(function["blocks"]):
            kind, fields = statement["type"], statement["stmt"]
            if kind in ("AssignVarOnceStmt", "AssignVarStmt"):
                source = fields["source"]
                found = source["value"] if source["type"] == "local" else source["type"] == "bool"
                sources.setdefault(fields["target"], []).append((source["type"] == "local", found))
            elif kind == "CallStmt" and "result" in fields:
                sources.setdefault(fields["result"], []).append((False, returns_boolean(fields["func"])))
            elif kind != "ResetLocalStmt":
                for key in ("target", "result"):
                    if isinstance(fields.get(key), int):
                        sources.setdefault(fields[key], []).append((False, False))
        seen: set[int] = set()
        ahead = [function["return"]]
        while ahead:
            local = ahead.pop()
            if local in seen:
                continue
            seen.add(local)
            if not sources.get(local):  # a parameter
                return False
            for is_local, found in sources[local]:
                if is_local:
                    ahead.append(found)
                elif not found:
                    return False
        return True

    return frozenset(tuple(f["path"][1:]) for name, f in functions.items() if returns_boolean(name))
