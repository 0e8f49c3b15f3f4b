"""Trying changed policies and changed signals on decisions of the past.

In: a decision's record as JSON, the input that the changed definitions would see, both policies. Out: the decisions
that would be other ones, why, and how many stay. It never knows of DuckDB, the journal or how a context is computed.

A backtest is open-loop: a decision that would be another one would have changed what came after it, and that is not
simulated.
"""

from enrich.decisions.backtest.flips import FLIPS, KINDS, kind_of
from enrich.decisions.backtest.jobs import AGAINST, Against, Job, Tested
from enrich.decisions.backtest.result import Backtest, Slowdown
from enrich.decisions.backtest.synthesis import InputMapping
from enrich.decisions.backtest.tester import Tester

__all__ = [
    "AGAINST",
    "FLIPS",
    "KINDS",
    "Against",
    "Backtest",
    "InputMapping",
    "Job",
    "Slowdown",
    "Tested",
    "Tester",
    "kind_of",
]
