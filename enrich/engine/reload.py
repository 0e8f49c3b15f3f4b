"""New definitions: built beside the live ones, caught up, compared with DuckDB, and swapped in one ordered step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import structlog

from enrich.engine import definitions
from enrich.engine.live import Live
from enrich.engine.policies import LivePolicies, prepare_policies
from enrich.engine.results import ReloadReport
from enrich.engine.startup import (
    Parts,
    check_retention,
    differences,
    event_parser,
    index_from_duckdb,
    link_tail,
)
from enrich.engine.state import State
from enrich.errors import ConfigError, EnrichError, PolicyError
from enrich.events import EventBatch
from enrich.signals import Catalog, DefinitionErrors, load_catalog
from enrich.windows import Index

if TYPE_CHECKING:
    from enrich.engine.engine import Engine

__all__ = ["reload"]

_CATCH_UP_SECONDS: Final = 60.0
#: events that may be left for the ordered step, and how often to try to get there
_LITTLE: Final = 16
_ROUNDS: Final = 10


def reload(engine: Engine, parts: Parts, state: State) -> ReloadReport:
    """Load the directories again; whatever is wrong with them, what is live stays."""
    try:
        return _reload(engine, parts, state)
    except DefinitionErrors as errors:
        return _report(engine, False, [e.pretty() for e in errors.errors])
    except (PolicyError, ConfigError) as error:
        return _report(engine, False, [error.message])
    except EnrichError as error:
        return _report(engine, False, [f"{error.error_code}: {error.message}"])
    except Exception as error:  # noqa: BLE001 - whatever fails, the reload has: health and metrics must show it
        structlog.get_logger("enrich.reload").exception("reload_failed")
        return _report(engine, False, [f"{EnrichError.code}: {type(error).__name__}: {error}"])


def _reload(engine: Engine, parts: Parts, state: State) -> ReloadReport:
    live = engine.live
    catalog = load_catalog(parts.queries)
    check_retention(catalog, parts.settings)
    new_catalog = catalog.version != live.catalog.version
    with ExitStack() as stack:
        policies = prepare_policies(parts.policies, parts.settings, catalog)
        stack.callback(_let_go, policies, state)
        if not new_catalog and (policies is None or policies.same_as(state.policies)):
            return _report(engine, False, [])
        if new_catalog:
            _with_catalog(engine, parts, state, catalog, policies)
        else:
            _go_live(parts, state, live, policies)
    return _report(engine, True, [])


def _let_go(policies: LivePolicies | None, state: State) -> None:
    """End what was prepared, unless it went live."""
    if policies is not None and policies is not state.policies:
        policies.close()


def _with_catalog(
    engine: Engine, parts: Parts, state: State, catalog: Catalog, policies: LivePolicies | None
) -> None:
    position = engine.caught_up(_CATCH_UP_SECONDS)
    index = index_from_duckdb(catalog, parts.settings, parts.history, lambda what, done, total: None, at_seq=position)
    seen = max(position, link_tail(index, parts.journal.read(after=position)))
    fresh = Live(catalog, index)
    engine.durable(seen)
    engine.caught_up(_CATCH_UP_SECONDS)
    found = differences(fresh, parts.history, seen, parts.journal.now_us())
    if found:
        raise DefinitionErrors(found)
    try:
        _catch_up(parts, state, index, seen)
        _go_live(parts, state, fresh, policies)
    finally:
        with state.order:
            state.ordered = None


def _catch_up(parts: Parts, state: State, index: Index, seen: int) -> None:
    """Link what was journaled after `seen`, outside the order: from the journal, then as it is ordered, until little is
    left for the ordered step."""
    for _ in range(_ROUNDS):
        if parts.journal.head.seq - seen <= _LITTLE:
            break
        seen = max(seen, link_tail(index, parts.journal.read(after=seen)))
    with state.order:
        state.ordered = []
        tail = parts.journal.read(after=seen)
    link_tail(index, tail)
    for _ in range(_ROUNDS):
        with state.order:
            some, state.ordered = state.ordered, []
        _link(index, some)
        if sum(batch.n for batch, _ in some) <= _LITTLE:
            return


def _link(index: Index, ordered: Sequence[tuple[EventBatch, int]]) -> None:
    for batch, seq in ordered:
        block = index.prepare(batch)
        with index.lock:
            index.link(block, seq)


def _go_live(parts: Parts, state: State, live: Live, policies: LivePolicies | None) -> None:
    """Journal the definitions and put them in place of the old ones, in one ordered step."""
    record = definitions.Definitions(parts, live.catalog, policies)
    with state.order:
        state.check_open()
        if state.ordered is not None:
            _link(live.index, state.ordered)
        record.append()
        replaced = state.policies
        with state.live.index.lock:
            if live is not state.live:
                state.parser = event_parser(live.catalog, parts.settings, parts.journal, state.pruned_us)
            state.live, state.policies = live, policies
            state.position = parts.journal.head
    record.settle()
    if replaced is not None and replaced is not policies:
        replaced.close()  # what it still evaluates comes to its end


def _version(policies: LivePolicies | None) -> str | None:
    return None if policies is None else policies.version


def _report(engine: Engine, changed: bool, problems: list[str]) -> ReloadReport:
    return ReloadReport(changed, engine.catalog.version, _version(engine.live_policies), tuple(problems))
