"""Replay: whether a decision still stands, and why not.

In come the journal's files, read anew, and DuckDB; out come verdicts with reasons. VALID: the record is what was
written, the policy says the same again, and so do the events known then. INVALID: one of these is not so.
INCONCLUSIVE: something that would prove it is gone. Nothing is written, and nothing of a running engine is believed.
"""

from enrich.decisions.replay.policy import PolicyReplay
from enrich.decisions.replay.reasons import REASONS, Reason, Replayed
from enrich.decisions.replay.run import Progress, ReplayReport, replay_all, replay_one
from enrich.decisions.replay.signals import Events
from enrich.decisions.replay.source import DefinitionsIndex, Source, evaluators_of, events_of, open_offline

__all__ = [
    "REASONS",
    "DefinitionsIndex",
    "Events",
    "PolicyReplay",
    "Progress",
    "Reason",
    "ReplayReport",
    "Replayed",
    "Source",
    "evaluators_of",
    "events_of",
    "open_offline",
    "replay_all",
    "replay_one",
]
