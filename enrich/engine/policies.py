"""The policies that are live, with what belongs to them: one object, replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enrich.decisions import (
    Condition,
    DataPath,
    DecisionPaths,
    Prepared,
    Verification,
    Watched,
    evaluator_of,
    load_source,
)
from enrich.engine.shadow import Shadow
from enrich.errors import ConfigError, PolicyError
from enrich.context.inputs import split_path
from enrich.decisions import DataPath, DecisionPaths, Prepared, evaluator_of, load_policies
from enrich.decisions.repeatable import check_repeatable, unrepeatable
from enrich.engine.projection import EVERYTHING, Projection, projection
from enrich.engine.unknown_paths import check_history_paths
from enrich.settings import Settings
from enrich.signals import Catalog

__all__ = ["LivePolicies", "evaluator_stats", "prepare_policies"]

_CIRCUITS: Final = {"closed": 0, "half_open": 1, "open": 2}


@dataclass(frozen=True, slots=True)
class LivePolicies:
    """Policies ready to be asked, which of their rules are decisions, who evaluates them (name, version), what the
    directory or bundle that they came from is called, and the policies that are asked beside them.
    """Policies ready to be asked beside one catalog, which of their rules are decisions, and who evaluates them.

    Whoever asks reads this object once, so that a path is gated by the very policies that it is evaluated on.

    Attributes:
        evaluator: name and version.
        catalog: the version of the catalog that they were checked against.
        projections: by decision path, what it is given of that catalog's history.
        unrepeatable: the decision paths whose answer may be another one for the same input.
    """

    prepared: Prepared
    decisions: DecisionPaths
    evaluator: Mapping[str, str]
    source: str = ""
    shadow: Shadow | None = None
    catalog: str
    projections: Mapping[DataPath, Projection]
    unrepeatable: frozenset[DataPath]

    @property
    def version(self) -> str:
        """What identifies their text."""
        return self.prepared.policies.version

    @property
    def provenance(self) -> dict[str, str]:
        """Name of the directory or bundle, and what its manifest calls it."""
        return {"name": self.source, "revision": self.prepared.policies.revision or ""}

    def boolean(self, path: DataPath) -> bool:
        """Whether who asks at a path expects true or false."""
        return path[-1] == "allow" or path in self.prepared.booleans

    def condition(self) -> Condition:
        """How their evaluator fares; one that can't say is well."""
        return self.prepared.condition() if isinstance(self.prepared, Watched) else Condition()

    def same_as(self, other: LivePolicies | None) -> bool:
        """Whether a reload has nothing to do."""
        return other is not None and self.names() == other.names()

    def names(self) -> tuple[str | None, ...]:
        """What a reload goes by: a bundle that is the same under another revision goes live too."""
        both = [self.prepared, *([] if self.shadow is None else [self.shadow.prepared])]
        return tuple(text for one in both for text in (one.policies.version, one.policies.revision))

    def projection(self, path: DataPath) -> Projection:
        """What a decision path is given of history; everything, for a path that is none any more."""
        return self.projections.get(path, EVERYTHING)

    def repeatable(self, path: DataPath) -> bool:
        """Whether a decision path says the same when asked again."""
        return path in self.projections and path not in self.unrepeatable

    def close(self) -> None:
        """Let go of them; what they still evaluate comes to its end."""
        if self.shadow is not None:
            self.shadow.close()
        self.prepared.close()


def prepare_policies(source: Path | None, settings: Settings) -> LivePolicies | None:
    """The policies of a directory or bundle, ready to be asked, their shadow with them; None without one.

    Raises:
        PolicyError: they do not load; `shadow` in `detail` says that it is the shadow policies.
        ConfigError: a decision path of the settings is no rule of theirs, the key of bundles can't be used, or there
            are shadow policies only.
def prepare_policies(directory: Path | None, settings: Settings, catalog: Catalog) -> LivePolicies | None:
    """The policies of a directory, ready to be asked about that catalog's history; None without a directory.

    Raises:
        PolicyError: they do not load; `unknown_history_path`, `not_repeatable`.
        ConfigError: a decision path of the settings is no rule of theirs.
    """
    if source is None:
        if settings.shadow_policies is not None:
            raise ConfigError("there are shadow policies and no policies", setting="shadow_policies")
        return None
    prepared, evaluator = _prepare(source, settings)
    try:
        decisions = DecisionPaths(settings.decision_paths, prepared.rules)
        shadow = _prepare_shadow(settings)
    except BaseException:
        prepared.close()
        raise
    return LivePolicies(prepared, decisions, evaluator, source.name, shadow)


def _prepare_shadow(settings: Settings) -> Shadow | None:
    source = settings.shadow_policies
    if source is None:
        return None
    try:
        prepared, evaluator = _prepare(source, settings)
    except PolicyError as error:
        raise PolicyError(
            f"shadow policies: {error.message}", code=error.error_code, **{**error.detail, "shadow": True}
        ) from error
    return Shadow(prepared, evaluator, settings.shadow_limit_ms / 1000, source.name)


def _prepare(source: Path, settings: Settings) -> tuple[Prepared, dict[str, str]]:
    evaluator = evaluator_of(settings)
    prepared = evaluator.prepare(load_source(source, Verification.of(settings)))
    return prepared, {"name": evaluator.name, "version": evaluator.version}


def evaluator_stats(policies: LivePolicies | None) -> dict[str, int]:
    """Figures of the live policies' evaluator for metrics; those in `_total` begin anew with other policies."""
    condition = Condition() if policies is None else policies.condition()
    return {
        "ready": int(not condition.reasons),
        "circuit": _CIRCUITS[condition.circuit],
        "replaced_total": condition.replaced,
        "abandoned_total": condition.abandoned,
    }
    evaluator = evaluator_of(settings)
    prepared = evaluator.prepare(load_policies(directory))
    at = split_path(settings.input_history)
    try:
        decisions = DecisionPaths(settings.decision_paths, prepared.rules)
        check_history_paths(prepared, catalog, at)
        if not settings.allow_unrepeatable:
            check_repeatable(prepared, decisions.paths)
        projections = {
            path: projection(prepared.reads(path), catalog, at, project=settings.projection)
            for path in decisions.paths
        }
    except BaseException:
        prepared.close()
        raise
    return LivePolicies(
        prepared,
        decisions,
        {"name": evaluator.name, "version": evaluator.version},
        catalog.version,
        projections,
        frozenset(path for path in decisions.paths if unrepeatable(prepared.reads(path))),
    )
