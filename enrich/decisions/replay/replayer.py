"""One decision after another through all checks.

In: lines of the journal as they lie there now, the definitions found in it, and where the events are. Out: a verdict
with its reasons. Nothing is written, and nothing of the running engine is believed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from enrich.decisions.replay.flight import recorded_flights
from enrich.decisions.replay.policy import PolicyReplay
from enrich.decisions.replay.reasons import Reason, Replayed
from enrich.decisions.replay.record import check_record, history_of, shapes_of
from enrich.decisions.replay.texts import Definitions, Shaping
from enrich.errors import EnrichError
from enrich.events.canonical import parse_rfc3339_us
from enrich.journal.bodies import body_problem
from enrich.journal.survey import Place, Survey

__all__ = ["Chain", "Copy", "Replayer", "SignalsCheck", "missing", "times_of"]

#: a decision in DuckDB: its id, and the SHA-256 of its record's text
Copy = tuple[str, str]


class SignalsCheck(Protocol):
    """One of the two ways to compute signals again."""

    def check(self, body: Mapping[str, Any], history: Mapping[str, Any], shaping: Shaping) -> list[Reason]: ...


@dataclass(slots=True)
class Chain:
    """What a survey says of one line: whether the chain reaches it, and the records that account for its body."""

    before: bool
    after: bool
    excuse: str | None
    erased: bool

    @classmethod
    def of(cls, survey: Survey, index: int, place: Place) -> Chain:
        seq = 0 if place.header is None else place.header.seq
        erased = any(type_ == "erase" and at > seq >= first for first, _, type_, at in survey.excused)
        return cls(survey.broken_before(index), survey.broken_after(index), survey.excuse(seq), erased)


@dataclass(slots=True)
class Replayer:
    """The checks, in the order in which they make sense.

    Attributes:
        times: (last seq, time) of the journal's records in order, for the time of what a context has seen.
        signals: None when there is no history to compute them from.
    """

    definitions: Definitions
    policy: PolicyReplay
    signals: SignalsCheck | None
    times: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))

    def replay(self, place: Place, raw: bytes, chain: Chain, copy: Copy | None) -> Replayed:
        """One line that is, or says it is, a decision.

        Args:
            raw: the line's bytes.
            copy: what DuckDB has under its seq; None when it has nothing or there is none.
        """
        checked = ["line", "chain"]
        header = place.header
        seq = 0 if header is None else header.seq
        reasons: list[Reason] = []
        if place.problem is not None or header is None:
            reasons.append(Reason.of("line_damaged", place.problem or "", file=place.file, line=place.number))
        if place.displaced is not None:
            reasons.append(Reason.of("line_displaced", place.displaced, file=place.file, line=place.number))
        if not reasons and (chain.before or chain.after):
            reasons.append(Reason.of("chain_broken", "before it" if chain.before else "behind it"))
        body: Any = None
        if header is not None:
            text = raw[header.body_start : -2]
            problem = body_problem("decision", 1, header.body_sha256, text)
            if problem is None:
                body = orjson.loads(text)
            elif chain.excuse is not None:
                reasons.append(Reason.of("body_gone", f"by a record of type {chain.excuse}"))
            else:
                reasons.append(Reason.of("body_damaged", problem, file=place.file, line=place.number))
            if copy is not None:
                checked.append("copy")
                if body is not None and copy[1] != header.body_sha256:
                    reasons.append(Reason.of("copy_differs"))
        if body is not None and header is not None and place.problem is None:
            more, looked_at = self._record(body, seq, header.at, chain)
            reasons += more
            checked += looked_at
        shown = _texts(body)
        known = None if copy is None else copy[0]
        return Replayed(
            shown.get("decision_id", known), seq, shown.get("as_of"), shown.get("path"), shown.get("decision"),
            tuple(reasons), tuple(checked),
        )  # fmt: skip

    def _record(self, body: Any, seq: int, at: str, chain: Chain) -> tuple[list[Reason], list[str]]:
        reasons = shapes_of(body)
        if reasons:
            return reasons, ["record"]
        policy, asked = self.policy.check(body, self.definitions)
        checked = ["policy"] if asked else []
        found = self.definitions.settings(body["settings_hash"])
        shaping = found.value
        if shaping is None:
            return [*policy, *([found.reason] if found.reason else [])], checked
        checked = ["hashes", "record", *checked]
        reasons = check_record(body, shaping, seq, parse_rfc3339_us(at), self._time_at)
        history = history_of(body, shaping)
        if history is None or any(r.code == "record_inconsistent" for r in reasons):
            return reasons + policy, checked  # what was asked of the history is not to be told from such a record
        policy += self.policy.check_selection(body, self.definitions, shaping)
        if chain.erased:
            return [*reasons, *policy, Reason.of("history_erased")], checked
        if self.signals is None:
            return [*reasons, *policy, Reason.of("history_missing")], checked
        signals = self.signals.check(body, history, shaping)
        if not any(r.code in ("history_behind", "catalog_gone", "catalog_unusable") for r in signals):
            checked += ["signals", "in_flight"] if recorded_flights(history) else ["signals"]
        return reasons + policy + signals, checked

    def _time_at(self, seq: int) -> int | None:
        seqs, times = self.times
        at = bisect_right(seqs, seq)
        return times[at - 1] if at else None


def _texts(body: Any) -> dict[str, str]:
    """What a record says of itself, where it is of the kind that it is to be: a forged one may say anything."""
    found = {name: value for name, value in body.items() if isinstance(value, str)} if isinstance(body, dict) else {}
    try:
        parse_rfc3339_us(found.get("as_of", ""))
    except (ValueError, EnrichError):
        found.pop("as_of", None)
    return found


def times_of(survey: Survey) -> tuple[list[int], list[int]]:
    """See `Replayer.times`."""
    sound = [p.header for p in survey.places if p.header is not None and p.problem is None and p.displaced is None]
    sound.sort(key=lambda h: h.last_seq)
    return [h.last_seq for h in sound], [parse_rfc3339_us(h.at) for h in sound]


def missing(copy: Copy, seq: int, row: Mapping[str, Any]) -> Replayed:
    """A decision that only DuckDB has."""
    return Replayed(
        copy[0], seq, row.get("as_of"), row.get("path"), row.get("decision"),
        (Reason.of("not_in_journal"),), ("line", "chain", "copy"),
    )  # fmt: skip
