"""Runs OPA's cases through every evaluator and writes what came of it: `make conformance`.

The outcomes that are not right go to `tests/conformance/outcomes.json`, which the suite holds a sample to, and the page
`docs/reference/evaluators.md` is made from them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from enrich.decisions import EmbeddedEvaluator, Evaluator, WasmEvaluator
from tests.conformance.batch import run_all
from tests.conformance.cases import Case, cases_directory, load_cases
from tests.conformance.opa_eval import OpaEval
from tests.conformance.page import page
from tests.decisions.opa_server import opa_binary

__all__ = ["EVALUATORS", "OUTCOMES"]

OUTCOMES = Path(__file__).with_name("outcomes.json")
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "evaluators.md"
#: what the suite and this take them by
EVALUATORS: dict[str, Callable[[], Evaluator]] = {
    "opa": OpaEval,
    "wasm": lambda: WasmEvaluator(opa_path=opa_binary(), limit_seconds=20),
    "embedded": lambda: EmbeddedEvaluator(limit_seconds=20),
}


def outcomes(name: str, cases: list[Case]) -> dict[str, Any]:
    """Of one evaluator: how many of each kind, and every case that is not right, by name."""
    evaluator = EVALUATORS[name]()
    found: dict[str, list[str]] = {}
    counted: dict[str, int] = {}
    with ThreadPoolExecutor(2) as threads:
        done = 0
        for part in threads.map(lambda cases: list(run_all(evaluator, cases)), [cases[i::24] for i in range(24)]):
            for case, outcome in part:
                counted[outcome.kind] = counted.get(outcome.kind, 0) + 1
                if outcome.kind != "right":
                    found[case.name] = [outcome.kind, outcome.reason]
            done += len(part)
            print(f"\r{name}: {done} of {len(cases)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        "version": evaluator.version,
        "counted": dict(sorted(counted.items())),
        "cases": dict(sorted(found.items())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="OPA's own cases through every evaluator")
    parser.add_argument(
        "--only", choices=sorted(EVALUATORS), action="append", help="these evaluators; the others keep theirs"
    )
    arguments = parser.parse_args()
    cases = load_cases(cases_directory())
    told: dict[str, Any] = json.loads(OUTCOMES.read_text()) if OUTCOMES.exists() else {}
    for name in arguments.only or EVALUATORS:
        told[name] = outcomes(name, cases)
        OUTCOMES.write_text(json.dumps(told, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    PAGE.write_text(page(told))


if __name__ == "__main__":
    main()
