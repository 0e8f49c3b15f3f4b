"""The definitions that were live, found in the journal by their hashes, each hash computed again from the text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from enrich.context import InputPaths, canonical_json
from enrich.decisions.declared import Declaring
from enrich.decisions.policies import PolicySet, policy_set
from enrich.decisions.replay.reasons import Reason
from enrich.errors import EnrichError
from enrich.signals import Catalog, load_catalog

__all__ = ["Definitions", "Found", "Shaping"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Found(Generic[_T]):
    """What was looked for, or why there is none."""

    value: _T | None
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Shaping:
    """The settings that shaped a context and its decision."""

    paths: InputPaths
    retention_us: int
    instance: tuple[str, ...]
    materiality: tuple[str, ...]
    declaring: Declaring
    lease_seconds: int
    project: bool

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Shaping:
        """
        Raises:
            KeyError, TypeError, AttributeError: these are no such settings.
        """
        paths = InputPaths.of(settings["input_paths"], settings["input_approvers"], settings["input_history"])
        return cls(
            paths,
            int(settings["retention_days"]) * 86_400_000_000,
            tuple(settings["input_instance"].split(".")),
            tuple(settings["input_materiality"].split(".")),
            Declaring(settings),
            int(settings["lease_seconds"]),
            bool(settings["projection"]),
        )


class Definitions:
    """Catalogs, policies and settings of all `definitions` records, loaded when they are asked for."""

    def __init__(self) -> None:
        self._catalogs: dict[str, Mapping[str, str]] = {}
        self._policies: dict[str, Mapping[str, Any]] = {}
        self._settings: dict[str, Mapping[str, Any]] = {}
        self._loaded: dict[tuple[str, str], Found[Any]] = {}

    def add(self, body: Mapping[str, Any]) -> None:
        """The body of a record that has its hash."""
        catalog, policies, settings = body.get("catalog"), body.get("policies"), body.get("settings")
        if isinstance(catalog, dict):
            self._catalogs[str(catalog.get("version"))] = catalog.get("sources") or {}
        if isinstance(policies, dict):
            self._policies[str(policies.get("version"))] = policies
        if isinstance(settings, dict):
            self._settings["sha256:" + hashlib.sha256(canonical_json(settings)).hexdigest()] = settings

    def has(self, body: Mapping[str, Any]) -> bool:
        """Whether all that a decision names is here."""
        return (
            body.get("catalog") in self._catalogs
            and body.get("policy_hash") in self._policies
            and body.get("settings_hash") in self._settings
        )

    def catalog(self, version: str) -> Found[Catalog]:
        """The compiled catalog."""
        return self._once("catalog", version, lambda: self._load_catalog(version))

    def policies(self, version: str) -> Found[PolicySet]:
        """The policies."""
        return self._once("policies", version, lambda: self._load_policies(version))

    def settings(self, digest: str) -> Found[Shaping]:
        """The settings; their hash is the key under which they stand."""
        return self._once("settings", digest, lambda: self._load_settings(digest))

    def _once(self, kind: str, key: str, load: Callable[[], Found[_T]]) -> Found[_T]:
        found = self._loaded.get((kind, key))
        if found is None:
            found = self._loaded[kind, key] = load()
        return found

    def _load_catalog(self, version: str) -> Found[Catalog]:
        sources = self._catalogs.get(version)
        if sources is None:
            return Found(None, Reason.of("catalog_gone", catalog=version))
        try:
            catalog = load_catalog(dict(sources))
        except EnrichError as error:
            return Found(None, Reason.of("catalog_unusable", error.message, catalog=version))
        if catalog.version != version:
            return Found(None, Reason.of("catalog_unusable", f"it is {catalog.version} now", catalog=version))
        return Found(catalog, None)

    def _load_policies(self, version: str) -> Found[PolicySet]:
        texts = self._policies.get(version)
        if texts is None:
            return Found(None, Reason.of("policy_gone", policy_hash=version))
        try:
            found = policy_set(texts["modules"], texts["data"])
        except (EnrichError, KeyError, TypeError, AttributeError) as error:
            return Found(None, Reason.of("policy_gone", str(error), policy_hash=version))
        if found.version != version:
            return Found(None, Reason.of("policy_gone", "the text has another hash", policy_hash=version))
        return Found(found, None)

    def _load_settings(self, digest: str) -> Found[Shaping]:
        settings = self._settings.get(digest)
        try:
            if settings is not None:
                return Found(Shaping.of(settings), None)
        except (KeyError, TypeError, AttributeError, ValueError):
            pass
        return Found(None, Reason.of("settings_gone", settings_hash=digest))
