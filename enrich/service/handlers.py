"""Which handler answers which call, by the call's name."""

from __future__ import annotations

from enrich.service.backtests import BacktestRoutes
from enrich.service.data import DataRoutes
from enrich.service.decision_logs import DecisionLogRoutes
from enrich.service.decisions import DecisionRoutes
from enrich.service.enrichment import EnrichRoute
from enrich.service.entities import EntityRoutes
from enrich.service.events import EventRoutes
from enrich.service.operations import OperatorRoutes
from enrich.service.routing import Handler
from enrich.service.runtime import Runtime
from enrich.service.suspensions import SuspensionRoutes

__all__ = ["handlers"]


def handlers(runtime: Runtime) -> dict[str, Handler]:
    """The handlers of one runtime; the names are those of `calls`."""
    logs = DecisionLogRoutes(runtime)
    events, enrichment, data = EventRoutes(runtime), EnrichRoute(runtime), DataRoutes(runtime)
    entities, operations = EntityRoutes(runtime), OperatorRoutes(runtime)
    suspensions, decisions = SuspensionRoutes(runtime), DecisionRoutes(runtime)
    return {
        "post_events": events.post,
        "get_events": events.get,
        "post_logs": logs.post,
        "post_partition_logs": logs.post,
        "enrich": enrichment.post,
        "get_data": data.answer,
        "post_data": data.answer,
        "get_data_root": data.answer,
        "post_data_root": data.answer,
        "post_data_v0": data.answer,
        "post_data_v0_root": data.answer,
        "post_root": data.answer,
        "decisions": decisions.list,
        "decision": decisions.one,
        "replay": decisions.replay,
        "outcome": decisions.outcome,
        "backtest": BacktestRoutes(runtime).post,
        "entity": entities.entity,
        "entity_pair": entities.entity,
        "signals": entities.signals,
        "signals_schema": entities.schema,
        "signals_sql": entities.sql,
        "suspend": suspensions.put,
        "suspension": suspensions.get,
        "lift": suspensions.delete,
        "suspend_all": suspensions.put,
        "suspension_of_all": suspensions.get,
        "lift_all": suspensions.delete,
        "suspensions": suspensions.list,
        "reload": operations.reload,
        "check": operations.check,
        "journal_verify": operations.verify,
        "journal_anchor": operations.anchor,
        "health": operations.health,
        "health_live": operations.live,
        "health_ready": operations.ready,
        "metrics": operations.metrics,
        "openapi": operations.openapi,
    }
