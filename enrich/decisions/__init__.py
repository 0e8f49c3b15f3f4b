"""Policies and how they are evaluated.

In: Rego modules with their base documents, from a directory or an OPA bundle; a path; the canonical bytes of an
enriched input. Out: a value, "undefined", or a failure that is never to be read as a value. It must never know of HTTP,
the journal, DuckDB or where history comes from.
"""

from enrich.decisions.answered import Answered, AnsweredKeys, check_key
from enrich.decisions.bundles import load_bundle, load_source
from enrich.decisions.declared import Declaring
from enrich.decisions.embedded import EmbeddedEvaluator
from enrich.decisions.evaluators import evaluator_of
from enrich.decisions.locks import EntityLocks
from enrich.decisions.opa import OpaEvaluator
from enrich.decisions.paths import DecisionPaths
from enrich.decisions.policies import PolicySet, load_policies, policy_set
from enrich.decisions.protocol import (
    Condition,
    DataPath,
    Defined,
    Evaluator,
    Failed,
    Outcome,
    Prepared,
    Undefined,
    Watched,
)
from enrich.decisions.reads import Reads, reads_of
from enrich.decisions.record import Question, decision_body, path_text
from enrich.decisions.shadow import ShadowVerdict
from enrich.decisions.signatures import Verification
from enrich.decisions.verdict import Cause, DecisionName, Verdict, judge, refuse
from enrich.decisions.wasm import WasmEvaluator

__all__ = [
    "Answered",
    "AnsweredKeys",
    "Cause",
    "Condition",
    "DataPath",
    "DecisionName",
    "DecisionPaths",
    "Declaring",
    "Defined",
    "EmbeddedEvaluator",
    "EntityLocks",
    "Evaluator",
    "Failed",
    "OpaEvaluator",
    "Outcome",
    "PolicySet",
    "Prepared",
    "Question",
    "Reads",
    "ShadowVerdict",
    "Undefined",
    "Verdict",
    "Verification",
    "WasmEvaluator",
    "Watched",
    "check_key",
    "decision_body",
    "evaluator_of",
    "judge",
    "load_bundle",
    "load_policies",
    "load_source",
    "path_text",
    "policy_set",
    "reads_of",
    "refuse",
]
