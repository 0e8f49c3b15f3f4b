"""Which rules made a flip: those of the decision's package, and of every other one, whose values differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from enrich.decisions.backtest.flips import json_text
from enrich.decisions.protocol import DataPath, Defined, Prepared, Undefined

__all__ = ["RuleValues", "changed_rules", "rule_values"]

#: rules by path, `gantral.authority.verdict`, to their values
RuleValues = Mapping[str, Any]
_NO_VALUE: Final = object()


def rule_values(prepared: Prepared, input_json: bytes, *, strict: bool) -> RuleValues | None:
    """The value of every rule that has one; None when a package can't be evaluated as a whole."""
    found: dict[str, Any] = {}
    for package in _packages(prepared):
        outcome = prepared.evaluate(package, input_json, strict_builtin_errors=strict)
        if isinstance(outcome, Undefined):
            continue
        if not isinstance(outcome, Defined):
            return None
        for rule in prepared.rules:
            if rule[: len(package)] == package:
                value = _below(outcome.value, rule[len(package) :])
                if value is not _NO_VALUE:
                    found[".".join(rule)] = value
    return found


def changed_rules(before: RuleValues, after: RuleValues, decision: DataPath) -> list[dict[str, str | None]]:
    """The rules whose values differ, as JSON before and after, None where there is no value; without the decision's
    own rule unless it is the only one."""
    own = ".".join(decision)
    changed = [
        {"name": name, "before": json_text(before.get(name)), "after": json_text(after.get(name))}
        for name in sorted(before.keys() | after.keys())
        if name not in before or name not in after or before[name] != after[name]
    ]
    others = [c for c in changed if c["name"] != own]
    return others or [{"name": own, "before": json_text(before.get(own)), "after": json_text(after.get(own))}]


def _packages(prepared: Prepared) -> Iterator[DataPath]:
    """The shortest paths that hold all rules, each asked once."""
    holders = {rule[:-1] for rule in prepared.rules}
    for path in sorted(holders):
        if path and not any(path[:n] in holders for n in range(1, len(path))):
            yield path


def _below(value: Any, path: DataPath) -> Any:
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return _NO_VALUE
        value = value[key]
    return value
