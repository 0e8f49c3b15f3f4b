"""Context: the `history` object, assembled from one snapshot and put into a policy's input.

In come a policy's input (or ids) and the index; out come JSON-ready objects, their canonical bytes and hashes. This
room reads no clock and no file, and never decides anything; only `Rolling`, contexts of the past, reads DuckDB.
"""

from enrich.context.assemble import PAIRS, Assembler, Key, Prepared, index_plans
from enrich.context.canonical import canonical_again, canonical_json, context_hash, input_hash
from enrich.context.inputs import MAX_APPROVERS, InputPaths, check_id
from enrich.context.rolling import Rolling

__all__ = [
    "MAX_APPROVERS",
    "PAIRS",
    "Assembler",
    "InputPaths",
    "Key",
    "Prepared",
    "Rolling",
    "canonical_again",
    "canonical_json",
    "check_id",
    "context_hash",
    "index_plans",
    "input_hash",
]
