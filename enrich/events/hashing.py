"""Keyed 128-bit hashes of idempotency keys and of event contents.

Keyed by the journal's secret, so that nobody can choose events that collide, or guess an erased one from its hash.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

__all__ = ["HASH_BYTES", "Hasher", "content_hashes", "key_hashes"]

HASH_BYTES: Final = 16


class Hasher:
    """The two hashes under one secret. Thread-safe: each hash works on a copy of a state that never changes.

    Args:
        hash_key: the secret, 1 to 64 bytes.
    """

    def __init__(self, hash_key: bytes) -> None:
        # A copy of a state that has taken the key saves hashing the key's block each time.
        self._key = blake2b(digest_size=HASH_BYTES, key=hash_key, person=b"enrich.key")
        self._content = blake2b(digest_size=HASH_BYTES, key=hash_key, person=b"enrich.content")

    def keys(self, sources: Iterable[str], event_ids: Iterable[str]) -> list[bytes]:
        """The hash of each (source, event_id); neither may hold a NUL, which validated ids don't."""
        copy, out = self._key.copy, []
        for source, event_id in zip(sources, event_ids, strict=True):
            h = copy()
            h.update(f"{source}\0{event_id}".encode())
            out.append(h.digest())
        return out

    def contents(self, canonical: Iterable[bytes]) -> list[bytes]:
        """The hash of each event's canonical bytes."""
        copy, out = self._content.copy, []
        for item in canonical:
            h = copy()
            h.update(item)
            out.append(h.digest())
        return out


def key_hashes(sources: Iterable[str], event_ids: Iterable[str], hash_key: bytes) -> list[bytes]:
    """`Hasher.keys` once."""
    return Hasher(hash_key).keys(sources, event_ids)


def content_hashes(canonical: Iterable[bytes], hash_key: bytes) -> list[bytes]:
    """`Hasher.contents` once."""
    return Hasher(hash_key).contents(canonical)
