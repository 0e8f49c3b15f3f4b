"""Opening and closing: what happens before the first answer, and after the last.

The order is the journal contract's: lock and verify the journal, compare positions, let DuckDB catch up, take the
saved index or build one from DuckDB, apply the tail, check changed definitions against DuckDB, journal them, and only
then ready.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import structlog

from enrich.engine import definitions
from enrich.engine.anchors import kept_anchors, refuse_unanchored
from enrich.engine.check import ask, compare, sample
from enrich.engine.followed import INDEX, followed, refuse_replaced
from enrich.engine.known import load_keys, save_keys
from enrich.engine.live import Live, index_plans
from enrich.engine.policies import LivePolicies, prepare_policies
from enrich.engine.suspended import load_register
from enrich.errors import ConfigError, DefinitionError, EnrichError
from enrich.events import EventParser
from enrich.history import FILE_NAME, Follower, History, reading
from enrich.in_flight import InFlight
from enrich.journal import Anchor, Journal, KeyStore, Position, Record
from enrich.settings import Settings
from enrich.signals import Catalog, DefinitionErrors, load_catalog
from enrich.suspensions import Members, Register
from enrich.windows import Index, SavedPosition

__all__ = [
    "Parts",
    "Progress",
    "check_retention",
    "close_parts",
    "differences",
    "event_parser",
    "index_from_duckdb",
    "link_tail",
    "open_parts",
    "save_index",
]

#: called with (what, done, total)
Progress = Callable[[str, int, int], None]

@dataclass(slots=True)
class Parts:
    """The rooms, opened and at one position."""

    settings: Settings
    directory: Path
    queries: Path
    policies: Path | None
    journal: Journal
    history: History
    follower: Follower
    keys: KeyStore
    live: Live
    parser: EventParser
    policies_live: LivePolicies | None
    observed_since_us: int | None
    suspensions: Register
    members: Members
    in_flight: InFlight
    temporary: tempfile.TemporaryDirectory[str] | None = None


def open_parts(data: Path, queries: Path, policies: Path | None, settings: Settings, progress: Progress) -> Parts:
    """See `Engine.open`."""
    catalog = load_catalog(queries)
    check_retention(catalog, settings)
    anchors = kept_anchors(settings)
    prepared = prepare_policies(policies, settings, catalog)
    with reading(FILE_NAME), ExitStack() as stack:
        if prepared is not None:
            stack.callback(prepared.close)
        journal, history = _open_files(data, settings, anchors)
        stack.callback(journal.close)
        stack.callback(history.close)
        history.check_against(journal)
        refuse_replaced(journal, followed(data))
        refuse_unanchored(journal, anchors)
        history.catch_up(journal, progress=lambda seq, end: progress("history", seq, end))
        with history.all_cores():
            keys = load_keys(data, journal, history, progress)
            live = Live(catalog, _load_index(data, catalog, settings, journal, history, progress))
            members = Members()
            in_flight = InFlight(settings.lease_us, hold_us=settings.lease_us)
            with history.cursor() as cursor:
                members.load(cursor)
                in_flight.load(cursor, journal.now_us())
            if (pruned_us := history.pruned_before_us()) is not None:
                in_flight.prune(pruned_us)
        follower = Follower(
            history,
            journal,
            now_us=journal.now_us,
            max_queued_events=settings.history_queue_events,
            max_backlog_events=settings.history_backlog_events,
        )
        parts = Parts(
            settings,
            data,
            queries,
            policies,
            journal,
            history,
            follower,
            keys,
            live,
            event_parser(catalog, settings, journal, history.pruned_before_us()),
            prepared,
            history.observed_since_us(),
            load_register(data, journal),
            members,
            in_flight,
        )
        if definitions.changed(parts, catalog, prepared):
            found = differences(live, history, journal.head.seq, journal.now_us())
            if found:
                raise DefinitionErrors(found)
            fresh = definitions.Definitions(parts, catalog, prepared)
            fresh.append()
            fresh.settle()
        follower.start()
        stack.pop_all()
        return parts


def _open_files(data: Path, settings: Settings, anchors: Sequence[Anchor]) -> tuple[Journal, History]:
    """The journal, verified from where DuckDB stands: what DuckDB has applied was verified and durable before.

    DuckDB is opened on the way, under the directory's lock. That the journal has the very records where DuckDB and the
    saved forms stand is still to be checked.

    Raises:
        JournalBehindError: the journal is another one, or ends before what they have; nothing in it was touched.
    """
    opened: list[History] = []

    def positions(journal_id: str) -> tuple[int, int]:
        saved = followed(data)
        for one in saved:
            one.check_journal(journal_id)
        opened.append(
            History.open(
                data,
                journal_id=journal_id,
                threads=settings.duckdb_threads,
                memory_limit=settings.duckdb_memory_limit,
            )
        )
        applied = opened[0].position.seq
        return applied, max([applied, *(one.position.seq for one in saved), *(one.seq for one in anchors)])

    try:
        journal = Journal.open(
            data,
            segment_bytes=settings.segment_bytes,
            sidecar_rows=settings.sidecar_rows,
            disk_low_bytes=settings.disk_low_bytes,
            fsync=settings.fsync,
            verified_through=positions,
        )
    except BaseException:
        for history in opened:
            history.close()
        raise
    return journal, opened[0]


def check_retention(catalog: Catalog, settings: Settings) -> None:
    """INVARIANT: no window is longer than retention.

    Raises:
        ConfigError: naming the window.
    """
    for entity in catalog.plans:
        for window in catalog.windows(entity):
            if window.us > settings.retention_us:
                raise ConfigError(
                    f"retention_days `{settings.retention_days}` is shorter than the window {window.name} of {entity}",
                    hint="raise retention_days or shorten the window",
                    setting="retention_days",
                )


def event_parser(catalog: Catalog, settings: Settings, journal: Journal, pruned_before_us: int | None) -> EventParser:
    """The parser that keeps the attributes that the catalog reads and the settings allow.

    INVARIANT: an event whose key was let go because it was pruned is not accepted again, or it would stand in the
    journal twice.
    """
    return EventParser(
        hash_key=journal.hash_key,
        max_clock_skew_us=settings.max_clock_skew_seconds * 1_000_000,
        retention_us=settings.retention_us,
        attribute_keys=catalog.attribute_keys | frozenset(settings.attributes_allow),
        not_before_us=pruned_before_us,
    )


def differences(live: Live, history: History, seq: int, now_us: int) -> list[DefinitionError]:
    """Where the signals compiled at `seq` differ from DuckDB on a sample of the history at hand."""
    report = compare(live, history, seq, ask(live, sample(live, history, now_us)))
    return [DefinitionError(text, code="differs_from_duckdb") for text in report.differences]


def _load_index(
    data: Path, catalog: Catalog, settings: Settings, journal: Journal, history: History, progress: Progress
) -> Index:
    index = Index(index_plans(catalog), retention_us=settings.retention_us)
    saved = index.load(data / INDEX, catalog.version)
    if saved is None:
        return index_from_duckdb(catalog, settings, history, progress)
    link_tail(index, journal.read(after=saved.seq))
    return index


def index_from_duckdb(
    catalog: Catalog, settings: Settings, history: History, progress: Progress, *, at_seq: int | None = None
) -> Index:
    """An index of what DuckDB has applied, up to `at_seq` if that is given."""
    index = Index(index_plans(catalog), retention_us=settings.retention_us)
    total = history.count()
    relation = "events" if at_seq is None else f"(FROM events WHERE seq <= {at_seq:d})"
    with history.cursor() as cursor:
        index.load_from_duckdb(cursor, relation, progress=lambda done: progress("index", done, total))
    return index


def link_tail(index: Index, records: Iterable[Record]) -> int:
    """Link the events of `records` into an index that nobody reads yet; the last seq seen, 0 without any."""
    last = 0
    for record in records:
        if record.batch is not None:
            block = index.prepare(record.batch)
            with index.lock:
                index.link(block, record.seq)
        last = record.last_seq
    return last


def save_index(parts: Parts, live: Live, position: Callable[[], Position], order: Lock) -> None:
    """Save the index, and the keys beside it, once what they have seen is durable.

    Args:
        position: called under the index's lock, then under `order`: what has been seen.
        order: held by whoever gives a record its place.
    """
    live.index.save(
        parts.directory / INDEX,
        lambda: SavedPosition(parts.journal.journal_id, *position()),
        live.catalog.version,
        lambda at: parts.journal.wait_durable(at.seq),
    )
    save_keys(parts.directory, parts.journal, parts.keys, order, position)


def close_parts(
    parts: Parts,
    live: Live,
    policies: LivePolicies | None,
    position: Callable[[], Position] | None,
    order: Lock,
) -> None:
    """Durable, followed, saved (with a position), closed; an error is raised after everything was closed.

    `live` and `policies` are those that are live now: a reload may have replaced the ones that the parts opened with.
    An index that the disk does not take is logged: it costs the next start some time, nothing else.
    """
    first: EnrichError | None = None
    try:
        parts.journal.wait_durable(parts.journal.head.seq)
        if position is not None:
            save_index(parts, live, position, order)
    except EnrichError as error:
        first = error
    except OSError as error:
        structlog.get_logger("enrich.startup").error("save_failed", reason=str(error))
    parts.follower.stop(drain=first is None)
    parts.history.close()
    parts.journal.close()
    if policies is not None:
        policies.close()
    if parts.temporary is not None:
        parts.temporary.cleanup()
    if first is not None:
        raise first
