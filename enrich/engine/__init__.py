"""The engine: every room, opened on one data directory and kept at one order.

Events and inputs go in, contexts and decisions come out. It knows no HTTP and no command line.
"""

from enrich.engine.engine import Engine
from enrich.engine.made_up import made_up_events
from enrich.engine.results import CheckReport, Decision, Readiness, RecordResult, ReloadReport

__all__ = ["CheckReport", "Decision", "Engine", "Readiness", "RecordResult", "ReloadReport", "made_up_events"]
