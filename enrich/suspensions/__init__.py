"""Break-glass: authority withdrawn now from everyone, an org, a team, a workflow or an agent.

In: `suspension` records of the journal, and which teams and orgs an agent's events named. Out: what is in force for the
ids of one request. It knows neither DuckDB nor the index: a suspension must hold when they do not.
"""

from enrich.suspensions.members import Members
from enrich.suspensions.model import (
    SCOPES,
    Covering,
    Match,
    Scope,
    Suspension,
    from_record,
    lift_body,
    read_scope,
    suspend_body,
)
from enrich.suspensions.register import Register
from enrich.suspensions.saved import SavedSuspensions, read_saved, write_saved

__all__ = [
    "SCOPES",
    "Covering",
    "Match",
    "Members",
    "Register",
    "SavedSuspensions",
    "Scope",
    "Suspension",
    "from_record",
    "lift_body",
    "read_saved",
    "read_scope",
    "suspend_body",
    "write_saved",
]
