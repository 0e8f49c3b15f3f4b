"""A data directory with decisions in it, copies of it to tamper with, and a forger who knows how hashes are made."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from enrich.decisions.replay import PolicyReplay, Replayed, ReplayReport, open_offline, replay_all, replay_one
from enrich.journal.format import encode_head, genesis_hash, read_header
from enrich.journal.identity import read_identity
from enrich.settings import Settings

from .gated import AT_MOST, decide, open_gated, request
from .support import events

__all__ = ["Made", "codes", "make", "tampered"]


@dataclass(frozen=True)
class Made:
    """A closed data directory; `ids` of its decisions in order, and the policies that were prepared for them."""

    data: Path
    ids: list[str]
    policy: PolicyReplay

    @property
    def segments(self) -> list[Path]:
        return sorted(p for p in (self.data / "journal").glob("*.ndjson") if p.stat().st_size)

    def one(self, decision_id: str) -> Replayed:
        with open_offline(self.data, Settings()) as source:
            return replay_one(source, decision_id, policy=self.policy)

    def all(self, **options: Any) -> ReplayReport:
        with open_offline(self.data, Settings()) as source:
            return replay_all(source, policy=self.policy, **options)

    def copy(self, where: Path) -> Made:
        shutil.copytree(self.data, where / "data")
        return Made(where / "data", self.ids, self.policy)

    def lines(self) -> list[tuple[Path, int, bytes]]:
        """(segment, number, line) of all lines."""
        return [(s, i, raw) for s in self.segments for i, raw in enumerate(s.read_bytes().splitlines(keepends=True))]

    def of(self, decision_id: str) -> tuple[Path, int, bytes]:
        """The line of a decision."""
        mark = f'"decision_id":"{decision_id}"'.encode()
        return next(one for one in self.lines() if b'"type":"decision"' in one[2][:100] and mark in one[2])

    def forge(self, change: Callable[[str, dict[str, Any]], object]) -> None:
        """Change bodies, and make all hashes anew as only somebody can who rewrites the whole journal.

        Args:
            change: called with the type and the body of every record but `events`; it changes the body.
        """
        [segment] = self.segments
        end, lines = genesis_hash(read_identity(self.data / "journal").journal_id), []
        for raw in segment.read_bytes().splitlines(keepends=True):
            found = read_header(raw)
            assert found is not None
            header = found[0]
            body, digest = raw[header.body_start : -2], header.body_sha256
            if header.type != "events":
                value = orjson.loads(body)
                change(header.type, value)
                body = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
                digest = hashlib.sha256(body).hexdigest()
            head, end = encode_head(header.seq, header.count, header.type, header.at, digest, end)
            lines.append(head + body + b"}\n")
        segment.write_bytes(b"".join(lines))


def codes(replayed: Replayed) -> list[str]:
    return [reason.code for reason in replayed.reasons]


def make(where: Path, policy: PolicyReplay, *, decisions: int = 6, **settings: Any) -> Made:
    """Decisions about two agents, events before, between and behind them, the last ones late."""
    with open_gated(where, AT_MOST.format(agent=2, team=100), **settings) as engine:
        engine.record(events(0, 20))
        ids = [
            decide(engine, request("ab"[i % 2], "t" if i % 3 else None, amount=i * 1.5)).decision_id
            for i in range(decisions)
        ]
        engine.record(events(100, 8, kind="authority", outcome="allowed", duration_ms=None))
        ids.append(decide(engine, path=("shop", "allow")).decision_id)
        engine.record(events(200, 8, kind="authority", outcome="denied", duration_ms=None, agent_id="b"))
        engine.caught_up(20)
    return Made(where / "data", ids, policy)


@contextmanager
def tampered(path: Path) -> Iterator[bytes]:
    """The bytes of a file, which is put back at the end."""
    before = path.read_bytes()
    try:
        yield before
    finally:
        path.write_bytes(before)


