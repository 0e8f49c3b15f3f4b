"""The definitions that are live: signal sets, policies and the settings that shape contexts, journaled in full text."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from enrich.context import canonical_json
from enrich.decisions import PolicySet
from enrich.engine.policies import LivePolicies
from enrich.errors import EnrichError
from enrich.journal import Position
from enrich.journal.identity import sealed, unseal
from enrich.signals import Catalog

if TYPE_CHECKING:
    from enrich.engine.startup import Parts

__all__ = ["FILE", "Definitions", "SavedDefinitions", "changed", "saved_definitions"]

FILE: Final = "definitions.json"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class SavedDefinitions:
    """Which definitions were journaled last, by their digest, and in which record of which journal."""

    journal_id: str
    position: Position
    digest: str


def saved_definitions(data: Path) -> SavedDefinitions | None:
    """What a data directory says was journaled last; None when it says nothing, or the file is damaged."""
    try:
        fields = unseal((data / FILE).read_bytes(), FILE)
        return SavedDefinitions(fields["journal_id"], Position(fields["seq"], fields["hash"]), fields["digest"])
    except (OSError, EnrichError, KeyError):
        return None


def _body(parts: Parts, catalog: Catalog, policies: LivePolicies | None) -> dict[str, Any]:
    shadow = None if policies is None else policies.shadow
    return {
        "catalog": {"version": catalog.version, "sources": dict(catalog.sources)},
        "policies": None if policies is None else _texts(policies.prepared.policies),
        "shadow_policies": None if shadow is None else _texts(shadow.prepared.policies),
        "settings": parts.settings.shaping(),
    }


def _texts(source: PolicySet) -> dict[str, Any]:
    return {
        "version": source.version,
        "revision": source.revision,
        "modules": dict(source.modules),
        "data": dict(source.data),
    }


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body)).hexdigest()


def changed(parts: Parts, catalog: Catalog, policies: LivePolicies | None) -> bool:
    """Whether these differ from the last ones journaled; without the saved form, which names both, they do."""
    saved = saved_definitions(parts.directory)
    return saved is None or saved.digest != _digest(_body(parts, catalog, policies))


class Definitions:
    """The record of definitions that go live, prepared outside the order.

    INVARIANT: from here until `settle` nothing says which definitions were journaled last. A process that ends in
    between would leave the word of older ones, and a return to those would not be journaled.
    """

    def __init__(self, parts: Parts, catalog: Catalog, policies: LivePolicies | None) -> None:
        self._parts = parts
        self._body = _body(parts, catalog, policies)
        self._record = parts.journal.prepare("definitions", self._body)
        self._at = Position(0, "")
        with contextlib.suppress(FileNotFoundError):
            (parts.directory / FILE).unlink()
            _sync(parts.directory)

    def append(self) -> None:
        """Give them their place. The caller holds the order, or nobody else writes yet."""
        appended = self._parts.journal.append(self._record)
        self._parts.follower.submit(self._record, appended)
        self._at = Position(appended.last_seq, appended.hash)

    def settle(self) -> None:
        """Wait until they are durable, and remember that they are."""
        parts = self._parts
        parts.journal.wait_durable(self._at.seq)
        saved = {
            "format": _FORMAT,
            "journal_id": parts.journal.journal_id,
            "seq": self._at.seq,
            "hash": self._at.hash,
            "digest": _digest(self._body),
        }
        temporary = parts.directory / (FILE + ".new")
        temporary.write_bytes(sealed(saved))
        temporary.replace(parts.directory / FILE)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
