"""Replay of one decision, or of all of them beside each other in several processes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import orjson
import polars as pl

from enrich.decisions.replay.policy import PolicyReplay
from enrich.decisions.replay.reasons import Replayed
from enrich.decisions.replay.replayer import Chain, Copy, Replayer, missing, times_of
from enrich.decisions.replay.signals import RollingSignals, SqlSignals
from enrich.decisions.replay.source import (
    DefinitionsIndex,
    Known,
    Source,
    copies,
    decision_places,
    evaluators_of,
    read_definitions,
)
from enrich.decisions.replay.texts import Definitions
from enrich.errors import NotFoundError, show
from enrich.events.canonical import format_us, parse_rfc3339_us
from enrich.journal.survey import Place, Survey, read_place, survey, survey_around

__all__ = ["Item", "Progress", "ReplayReport", "Work", "replay_all", "replay_one", "run_items"]

#: called with (decisions done, decisions in all)
Progress = Callable[[int, int], None]
_CONTEXT_SEQ: Final = re.compile(rb'"context_seq":([0-9]{1,18})[,}]')
_SCHEMA: Final = {
    "seq": pl.Int64(),
    "decision_id": pl.String(),
    "as_of": pl.Datetime("us", "UTC"),
    "path": pl.String(),
    "decision": pl.String(),
    "verdict": pl.String(),
    "reasons": pl.List(pl.String()),
    "messages": pl.List(pl.String()),
    "checked": pl.List(pl.String()),
}


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """All decisions that were asked for, in order of seq, and what is wrong with the journal as a whole."""

    decisions: Sequence[Replayed]
    problems: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """How many there are of each verdict."""
        found = {"VALID": 0, "INVALID": 0, "INCONCLUSIVE": 0}
        for one in self.decisions:
            found[one.verdict] += 1
        return found

    def frame(self) -> pl.DataFrame:
        """A row for each decision: `seq` Int64, `decision_id`, `as_of` (Datetime us UTC), `path`, `decision`, `verdict`
        and, as lists of strings, `reasons` (codes), `messages`, `checked`."""
        rows = self.decisions
        return pl.DataFrame(
            {
                "seq": [r.seq for r in rows],
                "decision_id": [r.decision_id for r in rows],
                "as_of": [None if r.as_of is None else parse_rfc3339_us(r.as_of) for r in rows],
                "path": [r.path for r in rows],
                "decision": [r.decision for r in rows],
                "verdict": [r.verdict for r in rows],
                "reasons": [[x.code for x in r.reasons] for r in rows],
                "messages": [[x.message for x in r.reasons] for r in rows],
                "checked": [list(r.checked) for r in rows],
            },
            schema={**_SCHEMA, "as_of": pl.Int64()},
        ).with_columns(pl.from_epoch("as_of", time_unit="us").dt.replace_time_zone("UTC"))


@dataclass(frozen=True, slots=True)
class Item:
    """A line to replay."""

    place: Place
    chain: Chain
    copy: Copy | None


@dataclass(frozen=True, slots=True)
class Work:
    """What a process needs beside its items."""

    definitions: tuple[Mapping[str, object], ...]
    times: tuple[list[int], list[int]]


def replay_one(
    source: Source,
    decision_id: str,
    *,
    index: DefinitionsIndex | None = None,
    policy: PolicyReplay | None = None,
) -> Replayed:
    """One decision, its signals by the definitions' own SQL.

    Args:
        index: the journal's definitions as far as they were read before.
        policy: policies that were prepared before; it stays open.

    Raises:
        NotFoundError: `unknown_decision`; neither the journal nor DuckDB has it.
    """
    known = {} if source.events is None else copies(source.events, decision_id=decision_id)
    seq = next(iter(known), None)
    if seq is None:
        surveyed = survey(source.files, source.identity, until=source.until)
        seq = _find(surveyed, decision_id)
        if seq is None:
            raise NotFoundError(f"no decision {show(decision_id)}", code="unknown_decision")
    else:
        surveyed = survey_around(source.files, source.identity, seq, until=source.until)
    one = known.get(seq)
    found = surveyed.at(seq)
    if found is None:
        if one is None:
            raise NotFoundError(f"no decision {show(decision_id)}", code="unknown_decision")
        return missing(one.copy, seq, one.row)
    definitions = (index or DefinitionsIndex(source.files)).refresh()
    signals = None if source.events is None else SqlSignals(source.events, definitions)
    at, place = found
    with ExitStack() as stack:
        if policy is None:
            policy = PolicyReplay(evaluators_of(source.settings))
            stack.callback(policy.close)
        replayer = Replayer(definitions, policy, signals, times_of(surveyed))
        raw = read_place(source.files, place)
        return replayer.replay(place, raw, Chain.of(surveyed, at, place), None if one is None else one.copy)


def _find(surveyed: Survey, decision_id: str) -> int | None:
    """The seq of the line that has this id; an input may name that of another decision, a damaged line may be any."""
    mark = f'"decision_id":"{decision_id}"'.encode("utf-8", "surrogatepass")
    damaged = None
    for place in surveyed.places:
        header = place.header
        if header is None or header.type != "decision" or mark not in (raw := read_place(surveyed.files, place)):
            continue
        try:
            body = orjson.loads(raw[header.body_start : -2])
        except orjson.JSONDecodeError:
            damaged = damaged or header.seq
            continue
        if isinstance(body, dict) and body.get("decision_id") == decision_id:
            return header.seq
    return damaged


def items_of(surveyed: Survey, known: Mapping[int, Known], since_us: int | None) -> list[Item]:
    """The lines to replay, in order: decisions, and whatever stands where DuckDB has one."""
    since = None if since_us is None else format_us(since_us)
    items = []
    for i in decision_places(surveyed, known):
        place = surveyed.places[i]
        header = place.header
        if header is None or (since is not None and header.at < since and place.problem is None):
            continue  # what was recorded before was decided before
        one = known.get(header.seq)
        items.append(Item(place, Chain.of(surveyed, i, place), None if one is None else one.copy))
    return items


def replay_all(
    source: Source,
    *,
    since_us: int | None = None,
    progress: Progress | None = None,
    processes: int | None = None,
    policy: PolicyReplay | None = None,
) -> ReplayReport:
    """All decisions with an as_of of at least `since_us`, and the journal as a whole.

    Args:
        processes: how many work beside each other; None: as many as there are cores, for many decisions.
        policy: policies that were prepared before, for when all is done in this process; it stays open.
    """
    from enrich.decisions.replay.crew import run_beside  # it imports what is below

    surveyed = survey(source.files, source.identity, until=source.until)
    known = {} if source.events is None else copies(source.events, since_us)
    items = items_of(surveyed, known, since_us)
    present = {i.place.header.seq for i in items if i.place.header is not None}
    lost = [missing(one.copy, seq, one.row) for seq, one in known.items() if seq not in present]
    work = Work(tuple(read_definitions(surveyed)), times_of(surveyed))
    problems = list(dict.fromkeys([*source.problems, *surveyed.problems]))
    done, more = run_beside(source, work, items, progress, processes, policy)
    problems += [p for p in more if p not in problems]
    since = None if since_us is None else format_us(since_us)
    # what was recorded since then says of itself that it is older: a forger would have it overlooked
    kept = [r for r in done if since is None or r.as_of is None or r.as_of >= since or r.verdict == "INVALID"]
    return ReplayReport(sorted([*kept, *lost], key=lambda r: r.seq), tuple(problems))


def run_items(
    source: Source,
    work: Work,
    items: Sequence[Item],
    told: Callable[[int], None],
    policy: PolicyReplay | None,
) -> list[Replayed]:
    """Items one after the other in this process, signals by `Rolling`.

    Args:
        told: called with how many more are done.
    """
    definitions = Definitions()
    for body in work.definitions:
        definitions.add(body)
    signals = None if source.events is None else RollingSignals(source.events, definitions)
    results = []
    with ExitStack() as stack:
        if policy is None:
            policy = PolicyReplay(evaluators_of(source.settings))
            stack.callback(policy.close)
        replayer = Replayer(definitions, policy, signals, work.times)
        read = stack.enter_context(_reader(source.files))
        order = sorted(range(len(items)), key=lambda i: _context_seq(read(items[i].place)))
        for n, i in enumerate(order, 1):
            item = items[i]
            results.append(replayer.replay(item.place, read(item.place), item.chain, item.copy))
            if n % 256 == 0:
                told(256)
        told(len(order) % 256)
    return results


def _context_seq(raw: bytes) -> int:
    """Where the decision's context stood, for the order of work; the record's own word is checked later."""
    found = _CONTEXT_SEQ.search(raw)
    return 0 if found is None else int(found[1])


@contextmanager
def _reader(files: Path) -> Iterator[Callable[[Place], bytes]]:
    """Lines by their places, from files that stay open."""
    with ExitStack() as stack:
        opened: dict[str, BinaryIO] = {}

        def read(place: Place) -> bytes:
            handle = opened.get(place.file)
            if handle is None:
                handle = opened[place.file] = stack.enter_context(open(files / place.file, "rb"))
            handle.seek(place.offset)
            return handle.read(place.length)

        yield read

