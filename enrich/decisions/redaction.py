"""What of an input stands in the journal as a hash only: policies see the value, the record does not keep it.

A value becomes `{"redacted": hash}`: BLAKE2b-256 of its canonical JSON under the journal's secret and a salt of the
record's own. Without the secret a value can't be found by guessing, and by the salt equal values of two records can't
be told to be equal; who has the journal's directory can check a value that somebody shows.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from enrich.context import canonical_json
from enrich.decisions.reads import InputPath, Reads

__all__ = ["Redaction", "redacted_read"]

_SALT_BYTES: Final = 16
_MARK: Final = "redacted"


class Redaction:
    """Takes values out of inputs.

    Args:
        paths: where they stand, as keys from the top; arrays on the way are gone through, element by element, and an
            index that a path has there means them all.
        key: the journal's secret.
    """

    def __init__(self, paths: Sequence[Sequence[str]], key: bytes) -> None:
        self._paths = tuple(sorted(tuple(path) for path in paths))
        self._key = key

    def __bool__(self) -> bool:
        return bool(self._paths)

    def redact(self, document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The document without the values, and what the record says of it: `{"salt", "paths"}`, None when nothing was
        there to take out. The caller's objects are not changed."""
        salt = os.urandom(_SALT_BYTES)
        result: Any = dict(document)
        found = []
        for path in self._paths:
            result, changed = self._replace(result, path, salt)
            if changed:
                found.append(".".join(path))
        return result, {"salt": salt.hex(), "paths": found} if found else None

    def hash_of(self, value: Any, salt: bytes) -> str:
        """What stands in the place of a value."""
        return blake2b(canonical_json(value), digest_size=32, key=self._key, salt=salt).hexdigest()

    def request_hash(self, request: bytes) -> str:
        """Whether two requests are the same, without a hash that a value could be guessed from: HMAC-SHA-256 under the
        journal's secret."""
        return "sha256:" + hmac.new(self._key, b"enrich.request\0" + request, "sha256").hexdigest()

    def _replace(self, at: Any, path: tuple[str, ...], salt: bytes) -> tuple[Any, bool]:
        if not path:
            return {_MARK: self.hash_of(at, salt)}, True
        if isinstance(at, list):
            done = [self._replace(one, path, salt) for one in at]
            if path[0].isdecimal():
                # INVARIANT: a value that a path may mean is taken out: what is kept can't be taken back
                below = [self._replace(one, path[1:], salt) for one, _ in done]
                done = [(one, late or early) for (one, late), (_, early) in zip(below, done, strict=True)]
            return [one for one, _ in done], any(changed for _, changed in done)
        if isinstance(at, Mapping) and path[0] in at:
            inner, changed = self._replace(at[path[0]], path[1:], salt)
            return ({**at, path[0]: inner}, True) if changed else (at, False)
        return at, False


def redacted_read(reads: Reads | None, redaction: Mapping[str, Any] | None) -> str | None:
    """A redacted path whose value a policy can have read, dotted; None when what is left is all that it looked at.

    Args:
        reads: None when nobody knows what is read.
        redaction: as it stands in the record.
    """
    for dotted in () if redaction is None else redaction["paths"]:
        path = tuple(str(dotted).split("."))
        if reads is None or any(_reach(r, path) for r in reads.touched) or any(
            _reach(r, path) or _reach(path, r) for r in reads.whole
        ):
            return str(dotted)
    return None


def _reach(path: InputPath, place: InputPath) -> bool:
    """Whether the path leads to the place or below it; indices of arrays on the way, in either, count for nothing."""
    if not place:
        return True
    if not path:
        return False
    if (path[0] is None or place[0] is None or path[0] == place[0]) and _reach(path[1:], place[1:]):
        return True
    return (_index(path[0]) and _reach(path[1:], place)) or (_index(place[0]) and _reach(path, place[1:]))


def _index(key: str | None) -> bool:
    return key is None or key.isdecimal()
