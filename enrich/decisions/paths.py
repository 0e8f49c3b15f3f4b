"""Which documents are decisions: asked for by the gate alone, where they are counted and recorded.

The gate covers the data, not the URL: a query above a decision would hand it out uncounted among other documents, one
below it would hand out a piece of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from enrich.decisions.protocol import DataPath
from enrich.errors import BadRequestError, ConfigError, show

__all__ = ["DecisionPaths"]


class DecisionPaths:
    """The decision paths among the rules of one set of policies.

    Args:
        named: rule names such as `decision`, which match in every package, and whole paths such as
            `gantral.authority.decision`, which must be there. Empty: nothing is gated.
        rules: the paths of all rules.

    Raises:
        ConfigError: a whole path that no rule has, or one decision that lies below another.
    """

    def __init__(self, named: Sequence[str], rules: Collection[DataPath]) -> None:
        names = {name for name in named if "." not in name}
        wanted = {tuple(name.split(".")) for name in named if "." in name}
        missing = wanted.difference(rules)
        if missing:
            raise ConfigError(
                f"decision path {show('.'.join(min(missing)))} is no rule of the policies",
                hint="name a rule, such as `decision`, or the whole path of one that is there",
                setting="decision_paths",
            )
        found = wanted | {rule for rule in rules if rule[-1] in names}
        self.paths = frozenset(found)
        self._above = frozenset(path[:n] for path in found for n in range(len(path)))
        both = sorted(self.paths & self._above)
        if both:
            raise ConfigError(
                f"decision path {show('.'.join(both[0]))} lies above another", setting="decision_paths"
            )

    def gated(self, path: DataPath) -> bool:
        """Whether the path is a decision; False when it has nothing to do with any.

        Raises:
            BadRequestError: `decision_path_required`, when it lies above or below one.
        """
        if path in self.paths:
            return True
        if path in self._above:
            nearest = min(p for p in self.paths if p[: len(path)] == path)
            raise _required(path, nearest, "holds")
        for n in range(1, len(path)):
            if path[:n] in self.paths:
                raise _required(path, path[:n], "is a part of")
        return False


def _required(path: DataPath, decision: DataPath, how: str) -> BadRequestError:
    asked = show(".".join(("data", *path)))
    return BadRequestError(
        f"{asked} {how} a decision, and decisions are made one at a time",
        code="decision_path_required",
        hint=f"ask for /v1/data/{'/'.join(decision)}",
    )
