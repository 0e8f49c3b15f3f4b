"""Policies and how they are evaluated.

In: Rego modules with their base documents, a path, and the canonical bytes of an enriched input. Out: a value,
"undefined", or a failure that is never to be read as a value. It must never know of HTTP, the journal, DuckDB or
where history comes from.
"""

from enrich.decisions.embedded import EmbeddedEvaluator
from enrich.decisions.policies import PolicySet, load_policies, policy_set
from enrich.decisions.protocol import DataPath, Defined, Evaluator, Failed, Outcome, Prepared, Undefined

__all__ = [
    "DataPath",
    "Defined",
    "EmbeddedEvaluator",
    "Evaluator",
    "Failed",
    "Outcome",
    "PolicySet",
    "Prepared",
    "Undefined",
    "load_policies",
    "policy_set",
]
