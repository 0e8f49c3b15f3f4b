"""Bodies of records: canonical bytes, salts, leaf hashes, and what `body_sha256` covers.

The body of `events` is `{"contents","events","salt"}`, or `{"rows","salt","sidecar"}` when the events stand in a
Parquet file. Each event has a leaf hash, SHA-256(salt of the event, content hash, canonical event), and
`body_sha256` is the SHA-256 of the leaves one after the other. The salts of the events are stretched from the one in
the body (SHAKE-128, 16 bytes each): to erase one event, the body is given the others' salts instead, and the erased
one can't be guessed from its leaf. Every other type's body is an object with a `salt`, and `body_sha256` is that of
its canonical bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson

from enrich.events.arrow import with_hashes
from enrich.events.canonical import event_from_canonical
from enrich.events.hashing import content_hashes, key_hashes
from enrich.events.model import COLUMNS, EventBatch

__all__ = [
    "CARRYING",
    "SALT_BYTES",
    "PreparedRecord",
    "batch_of_events",
    "body_problem",
    "decision_batch",
    "inline_body",
    "leaves_sha256",
    "new_salt",
    "outcome_batch",
    "plain_body",
    "sidecar_body",
]

SALT_BYTES: Final = 16
CONTENT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class PreparedRecord:
    """A record with everything but its place: what `Journal.append` orders.

    `batch` are its events (one for a decision or an outcome, which carry their own), `sidecar` the file that holds them
    when the body does not.
    """

    type: str
    count: int
    body: bytes = field(repr=False)
    body_sha256: str
    batch: EventBatch | None = field(default=None, repr=False)
    sidecar: Path | None = None


def new_salt() -> bytes:
    return os.urandom(SALT_BYTES)


def leaves_sha256(salt: bytes, contents: Sequence[bytes], canonical: Sequence[bytes]) -> str:
    """`body_sha256` of events: the hash over their leaf hashes."""
    sha = hashlib.sha256
    if len(canonical) == 1:
        leaf = sha(hashlib.shake_128(salt).digest(SALT_BYTES) + contents[0] + canonical[0]).digest()
        return sha(leaf).hexdigest()
    n = len(canonical)
    salts = hashlib.shake_128(salt).digest(SALT_BYTES * n)
    leaves = [
        sha(salts[i : i + SALT_BYTES] + c + e).digest()
        for i, c, e in zip(range(0, SALT_BYTES * n, SALT_BYTES), contents, canonical, strict=True)
    ]
    return sha(b"".join(leaves)).hexdigest()


def inline_body(salt: bytes, contents: Sequence[bytes], canonical: Sequence[bytes]) -> bytes:
    return b'{"contents":"%b","events":[%b],"salt":"%b"}' % (
        b"".join(contents).hex().encode(),
        b",".join(canonical),
        salt.hex().encode(),
    )


def sidecar_body(salt: bytes, rows: int, digest: str) -> bytes:
    return b'{"rows":%d,"salt":"%b","sidecar":"%b"}' % (rows, salt.hex().encode(), digest.encode())


def plain_body(body: Mapping[str, Any], salt: bytes) -> tuple[bytes, str]:
    """Canonical bytes of a body other than events, salted, and their hash.

    Raises:
        ValueError: the body has a `salt` of its own.
        TypeError: it holds something that canonical JSON can't (an integer beyond 64 bits, a key that is no string).
    """
    if "salt" in body:
        raise ValueError("a record's body has a `salt` of its own: the journal sets it")
    data = orjson.dumps({**body, "salt": salt.hex()}, option=orjson.OPT_SORT_KEYS)
    return data, hashlib.sha256(data).hexdigest()


def body_problem(type_: str, count: int, body_sha256: str, raw: bytes) -> str | None:
    """Why the body does not stand up to `body_sha256`; None when it does. Sidecars: see `sidecar.sidecar_problem`.

    The bytes themselves are judged, so that a change JSON would not notice is found too.
    """
    if type_ != "events":
        return None if hashlib.sha256(raw).hexdigest() == body_sha256 else "the body does not have its hash"
    if raw == b"null":
        return "the body is missing"
    try:
        body = orjson.loads(raw)
        if "sidecar" in body:
            expected = sidecar_body(bytes.fromhex(body["salt"]), body["rows"], body["sidecar"])
            good = expected == raw and body["rows"] == count and len(body["sidecar"]) == 64
            return None if good else "the body is not that of a sidecar"
        canonical = [orjson.dumps(e, option=orjson.OPT_SORT_KEYS) for e in body["events"]]
        contents, salt = _contents(body["contents"]), bytes.fromhex(body["salt"])
        if inline_body(salt, contents, canonical) != raw or len(canonical) != count or len(contents) != count:
            return "the body is not canonical"
        good = leaves_sha256(salt, contents, canonical) == body_sha256
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return f"the body can't be read: {error}"
    return None if good else "the events do not have their leaf hashes"


def _contents(text: str) -> list[bytes]:
    data = bytes.fromhex(text)
    return [data[i : i + CONTENT_BYTES] for i in range(0, len(data), CONTENT_BYTES)]


def batch_of_events(body: Mapping[str, Any], hash_key: bytes) -> EventBatch:
    """The events of an inline body, with keys computed and contents as they were stored."""
    batch = _batch(body["events"])
    keys = key_hashes(batch.columns["source"], batch.columns["event_id"], hash_key)
    return EventBatch(batch.n, batch.columns, keys, _contents(body["contents"]))


def decision_batch(body: Mapping[str, Any], hash_key: bytes) -> EventBatch | None:
    """The one event that a decision carries, or None."""
    event = body.get("event")
    return None if event is None else with_hashes(_batch([event]), hash_key)


def outcome_batch(body: Mapping[str, Any], hash_key: bytes) -> EventBatch | None:
    """The one event that a reported outcome carries, or None.

    Its content is the report as it was sent: one without a time is the same when it is sent again later.
    """
    batch = decision_batch(body, hash_key)
    if batch is None:
        return None
    report = orjson.dumps(body["report"], option=orjson.OPT_SORT_KEYS)
    return replace(batch, contents=content_hashes([report], hash_key))


#: the types whose records carry an event of the engine's own, and how it is read
CARRYING: Final[Mapping[str, Callable[[Mapping[str, Any], bytes], EventBatch | None]]] = {
    "decision": decision_batch,
    "outcome": outcome_batch,
}


def _batch(events: Sequence[Mapping[str, Any]]) -> EventBatch:
    rows = [event_from_canonical(e) for e in events]
    return EventBatch(len(rows), {c: [row.get(c) for row in rows] for c in COLUMNS}, [], [])
