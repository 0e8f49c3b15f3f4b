"""Where a path leads: to a rule, to something that has rules below it, or into the base documents alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from enrich.decisions.policies import PolicySet, leaves
from enrich.decisions.protocol import DataPath, Defined, Outcome, Undefined
from enrich.errors import PolicyError

__all__ = ["INTEGER", "Documents"]

#: a path segment that is read as an integer; a longer one is a string
INTEGER: Final = re.compile(r"[-+]?[0-9]{1,18}")

#: the head of a function that is `a.b(...)`; those of one part are never shown
_FUNCTION: Final = re.compile(r"^(?:default[ \t]+)?([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)\(", re.MULTILINE)


class Documents:
    """The documents of one set of policies, by path.

    Args:
        policies: the set.
        rules: the paths of its rules, as the compiled form has them.

    Raises:
        PolicyError: `data_conflict`, a base document at, above or below a rule.
    """

    def __init__(self, policies: PolicySet, rules: frozenset[DataPath]) -> None:
        self._data = policies.data
        self.rules = rules
        packages = {path[:n] for path in policies.packages.values() for n in range(1, len(path) + 1)}
        #: paths that are no rule but have rules, or at least a package, below them
        self.branches = frozenset(packages | {rule[:n] for rule in rules for n in range(1, len(rule))}) - rules
        self._check_data()
        #: where OPA shows empty objects for functions whose names have several parts, and nothing else is known
        self.hidden = self._hidden(policies) if policies.modules else frozenset()

    def entry(self, path: DataPath) -> DataPath | None:
        """The longest prefix of `path` that is a rule or has rules below it."""
        for n in range(len(path), 0, -1):
            if path[:n] in self.rules or path[:n] in self.branches:
                return path[:n]
        return None

    def roots(self) -> list[DataPath]:
        """What the whole document `data` is put together from, beside the base documents.

        `data.system` is left out, as OPA leaves it out.
        """
        return sorted(b for b in self.branches if len(b) == 1 and b != ("system",))

    def base(self, path: DataPath) -> Outcome:
        """Follow a path into the base documents: an integer finds an element of an array, or a key."""
        value: Any = self._data
        for segment in path:
            if isinstance(value, Mapping) and segment in value:
                value = value[segment]
            elif isinstance(value, list) and INTEGER.fullmatch(segment) and 0 <= int(segment) < len(value):
                value = value[int(segment)]
            else:
                return Undefined(has_rules=False)
        return Defined(value)

    def _hidden(self, policies: PolicySet) -> frozenset[DataPath]:
        found: set[DataPath] = set()
        for name, package in policies.packages.items():
            for head in _FUNCTION.finditer(policies.modules[name]):
                path = (*package, *head[1].split("."))
                found |= {path[:n] for n in range(len(path))}
        return frozenset(found - {rule[:n] for rule in self.rules for n in range(len(rule) + 1)})

    def _check_data(self) -> None:
        """A base document may stand beside rules, never at, above or below one."""
        for leaf in leaves(self._data):
            for n in range(1, len(leaf) + 1):
                if leaf[:n] in self.rules or (n == len(leaf) and leaf in self.branches):
                    name = ".".join(("data", *leaf))
                    raise PolicyError(f"`{name}` is a base document and a rule", code="data_conflict", path=list(leaf))
