"""The definitions that are live: signal sets, policies and the settings that shape contexts, journaled in full text."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from enrich.context import canonical_json
from enrich.decisions import Prepared
from enrich.signals import Catalog

if TYPE_CHECKING:
    from enrich.engine.startup import Parts

__all__ = ["Definitions", "changed"]

_FILE: Final = "definitions.json"


def _body(parts: Parts, catalog: Catalog, policies: Prepared | None) -> dict[str, Any]:
    texts = None
    if policies is not None:
        source = policies.policies
        texts = {"version": source.version, "modules": dict(source.modules), "data": dict(source.data)}
    return {
        "catalog": {"version": catalog.version, "sources": dict(catalog.sources)},
        "policies": texts,
        "settings": parts.settings.shaping(),
    }


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body)).hexdigest()


def changed(parts: Parts, catalog: Catalog, policies: Prepared | None) -> bool:
    """Whether these differ from the last ones journaled; without the saved form, which names both, they do."""
    path = parts.directory / _FILE
    try:
        saved = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return True
    return bool(saved != {"journal": parts.journal.journal_id, "digest": _digest(_body(parts, catalog, policies))})


class Definitions:
    """The record of definitions that go live, prepared outside the order."""

    def __init__(self, parts: Parts, catalog: Catalog, policies: Prepared | None) -> None:
        self._parts = parts
        self._body = _body(parts, catalog, policies)
        self._record = parts.journal.prepare("definitions", self._body)
        self._seq = 0

    def append(self) -> None:
        """Give them their place. The caller holds the order, or nobody else writes yet."""
        appended = self._parts.journal.append(self._record)
        self._parts.follower.submit(self._record, appended)
        self._seq = appended.last_seq

    def settle(self) -> None:
        """Wait until they are durable, and remember that they are."""
        parts = self._parts
        parts.journal.wait_durable(self._seq)
        saved = {"journal": parts.journal.journal_id, "digest": _digest(self._body)}
        temporary = parts.directory / (_FILE + ".new")
        temporary.write_bytes(canonical_json(saved))
        temporary.replace(parts.directory / _FILE)
