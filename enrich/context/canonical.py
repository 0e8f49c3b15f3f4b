"""The one byte form of a context, and its hashes.

UTF-8 JSON, keys sorted by code point, no spaces, numbers as orjson writes them. These bytes are what is hashed,
evaluated and stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from enrich.events.json import canonical_again, canonical_json

__all__ = ["canonical_again", "canonical_json", "context_hash", "input_hash"]


def context_hash(history: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical `history` object, as `sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(canonical_again(history)).hexdigest()


def input_hash(document: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical enriched input, as `sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(canonical_json(document)).hexdigest()
