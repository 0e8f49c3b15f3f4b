"""The policies that are live, with what belongs to them: one object, replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enrich.context.inputs import split_path
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
from enrich.decisions.projection import EVERYTHING, Projection, projection
from enrich.decisions.repeatable import check_repeatable, unrepeatable
from enrich.engine.shadow import Shadow
from enrich.engine.unknown_paths import check_history_paths
from enrich.errors import ConfigError, PolicyError
from enrich.settings import Settings
from enrich.signals import Catalog

__all__ = ["LivePolicies", "evaluator_stats", "prepare_policies"]

_CIRCUITS: Final = {"closed": 0, "half_open": 1, "open": 2}


@dataclass(frozen=True, slots=True)
class LivePolicies:
    """Policies ready to be asked beside one catalog, which of their rules are decisions, and who evaluates them.

    Whoever asks reads this object once, so that a path is gated by the very policies that it is evaluated on.

    Attributes:
        evaluator: name and version.
        source: what the directory or bundle that they came from is called.
        shadow: the policies that are asked beside them.
        catalog: the version of the catalog that they were checked against.
        projections: by decision path, what it is given of that catalog's history.
        unrepeatable: the decision paths whose answer may be another one for the same input.
    """

    prepared: Prepared
    decisions: DecisionPaths
    evaluator: Mapping[str, str]
    source: str
    shadow: Shadow | None
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

    def projection(self, path: DataPath) -> Projection:
        """What a decision path is given of history; everything, for a path that is none any more."""
        return self.projections.get(path, EVERYTHING)

    def repeatable(self, path: DataPath) -> bool:
        """Whether a decision path says the same when asked again."""
        return path in self.projections and path not in self.unrepeatable

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

    def close(self) -> None:
        """Let go of them; what they still evaluate comes to its end."""
        if self.shadow is not None:
            self.shadow.close()
        self.prepared.close()


def prepare_policies(source: Path | None, settings: Settings, catalog: Catalog) -> LivePolicies | None:
    """The policies of a directory or bundle, ready to be asked about that catalog's history, their shadow with them;
    None without one.

    Raises:
        PolicyError: they do not load; `unknown_history_path`, `not_repeatable`; `shadow` in `detail` says that it is
            the shadow policies.
        ConfigError: a decision path of the settings is no rule of theirs, the key of bundles can't be used, or there
            are shadow policies only.
    """
    if source is None:
        if settings.shadow_policies is not None:
            raise ConfigError("there are shadow policies and no policies", setting="shadow_policies")
        return None
    at = split_path(settings.input_history)
    prepared, evaluator = _prepare(source, settings, catalog, at)
    try:
        decisions = DecisionPaths(settings.decision_paths, prepared.rules)
        if not settings.allow_unrepeatable:
            check_repeatable(prepared, decisions.paths)
        shadow = _prepare_shadow(settings, catalog, at)
    except BaseException:
        prepared.close()
        raise
    beside = () if shadow is None else (shadow.prepared,)
    return LivePolicies(
        prepared, decisions, evaluator, source.name, shadow, catalog.version,
        {path: _projection(path, prepared, beside, settings, catalog, at) for path in decisions.paths},
        frozenset(path for path in decisions.paths if unrepeatable(prepared.reads(path))),
    )  # fmt: skip


def _projection(
    path: DataPath,
    prepared: Prepared,
    beside: Sequence[Prepared],
    settings: Settings,
    catalog: Catalog,
    at: Sequence[str],
) -> Projection:
    """What is injected is what the live policy or the shadow can read; alone it is decided by the live one's reads."""
    own = projection(prepared.reads(path), catalog, at, project=settings.projection)
    for other in beside:
        if path in other.rules:
            own = own.with_more(projection(other.reads(path), catalog, at, project=settings.projection))
    return own


def _prepare_shadow(settings: Settings, catalog: Catalog, at: Sequence[str]) -> Shadow | None:
    source = settings.shadow_policies
    if source is None:
        return None
    try:
        prepared, evaluator = _prepare(source, settings, catalog, at)
    except PolicyError as error:
        raise PolicyError(
            f"shadow policies: {error.message}", code=error.error_code, **{**error.detail, "shadow": True}
        ) from error
    return Shadow(prepared, evaluator, settings.shadow_limit_ms / 1000, source.name)


def _prepare(
    source: Path, settings: Settings, catalog: Catalog, at: Sequence[str]
) -> tuple[Prepared, dict[str, str]]:
    evaluator = evaluator_of(settings)
    prepared = evaluator.prepare(load_source(source, Verification.of(settings)))
    try:
        check_history_paths(prepared, catalog, at)
    except BaseException:
        prepared.close()
        raise
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
