"""Idempotency keys of decisions: what was answered under a key within the last 24 hours.

A key belongs to its caller and path; what is kept is a keyed hash of the three, so that a caller's keys say nothing in
a dump of the memory, and the answer in some two hundred bytes.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, get_args
from uuid import UUID

import orjson

from enrich.decisions.verdict import Cause, DecisionName, Verdict
from enrich.errors import BadRequestError, BusyError, show

__all__ = ["HELD_US", "Answered", "AnsweredKeys", "check_key"]

#: how long an answer stands under its key, in microseconds of the engine's clock
HELD_US: Final = 86_400_000_000
_MAX_KEY: Final = 200
_HASH: Final = "sha256:"
#: seq, as_of, request hash, decision id, decision, cause; the result follows as JSON
_PACKED: Final = struct.Struct(">qq32s16sBB")
_DECISIONS: Final[tuple[DecisionName, ...]] = get_args(DecisionName)
_CAUSES: Final[tuple[Cause | None, ...]] = (None, *get_args(Cause))
#: bytes of an answer that count as one key
_SHARE: Final = 256


def check_key(key: object) -> str:
    """An idempotency key, if it can be one.

    Raises:
        BadRequestError: `invalid_idempotency_key`.
    """
    if isinstance(key, str) and 0 < len(key) <= _MAX_KEY and key.isprintable():
        return key
    raise BadRequestError(
        f"the idempotency key is {show(key)}",
        code="invalid_idempotency_key",
        hint=f"1 to {_MAX_KEY} printable characters",
    )


@dataclass(frozen=True, slots=True)
class Answered:
    """A decision that was recorded under a key. `request_hash` tells whether another request is the same one."""

    seq: int
    as_of_us: int
    request_hash: str
    decision_id: str
    verdict: Verdict

    def packed(self) -> bytes:
        return _PACKED.pack(
            self.seq,
            self.as_of_us,
            bytes.fromhex(self.request_hash.removeprefix(_HASH)),
            UUID(self.decision_id).bytes,
            _DECISIONS.index(self.verdict.decision),
            _CAUSES.index(self.verdict.cause),
        ) + orjson.dumps(self.verdict.result)

    @classmethod
    def unpacked(cls, data: bytes) -> Answered:
        seq, as_of_us, request_hash, id_, decision, cause = _PACKED.unpack_from(data)
        verdict = Verdict(_DECISIONS[decision], orjson.loads(data[_PACKED.size :]), _CAUSES[cause])
        return cls(seq, as_of_us, _HASH + request_hash.hex(), str(UUID(bytes=id_)), verdict)


class AnsweredKeys:
    """What was answered under which key. Thread-safe.

    Args:
        hash_key: the journal's secret.
        limit: keys held at most; an answer of more than 256 bytes counts as several.
    """

    def __init__(self, hash_key: bytes, limit: int) -> None:
        self._limit = limit
        self._hash = blake2b(digest_size=16, key=hash_key, person=b"enrich.answered")
        self._lock = threading.Lock()
        self._held: OrderedDict[bytes, bytes] = OrderedDict()
        self._weight = 0

    def __len__(self) -> int:
        return len(self._held)

    def tag(self, caller: str | None, path: str, key: str) -> bytes:
        """What stands for a key.

        Args:
            caller: the caller's keyed hash; None for one that is not known.
        """
        h = self._hash.copy()
        h.update(orjson.dumps([caller, path, key]))
        return h.digest()

    def get(self, tag: bytes, now_us: int) -> Answered | None:
        """What was answered; None when nothing was within 24 h."""
        with self._lock:
            data = self._held.get(tag)
        if data is None:
            return None
        found = Answered.unpacked(data)
        return found if now_us - found.as_of_us < HELD_US else None

    def check_room(self, now_us: int) -> None:
        """
        Raises:
            BusyError: as many keys are held as may be.
        """
        with self._lock:
            self._expire(now_us)
            if self._weight >= self._limit:
                raise BusyError(f"{len(self._held)} idempotency keys are held, no more until some expire")

    def put(self, tag: bytes, answered: Answered) -> None:
        """Remember what was recorded under a key."""
        data = answered.packed()
        with self._lock:
            before = self._held.pop(tag, None)  # an expired one: the new one stands at the end, where the newest are
            self._weight += _weight(data) - (0 if before is None else _weight(before))
            self._held[tag] = data

    def _expire(self, now_us: int) -> None:
        """The oldest stand in front, but for decisions of different entities that overtook each other."""
        while self._held:
            tag, data = next(iter(self._held.items()))
            as_of_us: Any = _PACKED.unpack_from(data)[1]
            if now_us - as_of_us < HELD_US:
                return
            del self._held[tag]
            self._weight -= _weight(data)


def _weight(data: bytes) -> int:
    return 1 + len(data) // _SHARE
