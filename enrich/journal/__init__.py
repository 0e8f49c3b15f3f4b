"""The journal: the append-only, hash-chained file log that everything else follows.

Prepared records go in; records in one order come out, to followers and after a restart. It knows files, hashes and
durability; it never knows what an event means to a window, a policy or a caller.
"""

from enrich.journal._saved import SavedKeys, keys_position, read_keys, write_keys
from enrich.journal.anchors import (
    Anchor,
    AnchorProblem,
    anchor_problem,
    directory_anchor,
    head_anchor,
    newest_anchors,
    parse_anchor,
    read_anchors,
)
from enrich.journal.aside import aside_name, give_up
from enrich.journal.bodies import PreparedRecord
from enrich.journal.bodycheck import Problem
from enrich.journal.cut import CutPlan, GivenUp, plan_cut
from enrich.journal.disk import Disk
from enrich.journal.format import Position
from enrich.journal.identity import Identity, read_identity
from enrich.journal.journal import Appended, Journal
from enrich.journal.keys import KeyStore, Reservation
from enrich.journal.lock import DirectoryLock
from enrich.journal.records import Record
from enrich.journal.verify import VerifyReport, verify

__all__ = [
    "Anchor", "AnchorProblem", "Appended", "CutPlan", "DirectoryLock", "Disk", "GivenUp", "Identity", "Journal",
    "KeyStore", "Position", "PreparedRecord", "Problem", "Record", "Reservation", "SavedKeys", "VerifyReport",
    "anchor_problem", "aside_name", "directory_anchor", "give_up", "head_anchor", "keys_position", "newest_anchors",
    "parse_anchor", "plan_cut", "read_anchors", "read_identity", "read_keys", "verify", "write_keys",
]  # fmt: skip
