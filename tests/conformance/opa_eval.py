"""The real OPA as an `Evaluator`: one `opa eval` for each question."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar

from enrich.decisions import DataPath, Defined, Failed, Outcome, PolicySet, Undefined
from enrich.decisions._opa import find_opa
from enrich.decisions.reads import Reads
from tests.decisions.opa_server import opa_binary

__all__ = ["OpaEval"]


class OpaEval:
    """Answers as the executable does; what does not compile is a failure of the question."""

    name: ClassVar[str] = "opa"

    def __init__(self) -> None:
        self._binary = opa_binary()
        found = find_opa(self._binary)
        self.version = "opa" if found is None else found.version

    def prepare(self, policies: PolicySet) -> _Prepared:
        return _Prepared(self._binary, policies)


class _Prepared:
    def __init__(self, binary: str, policies: PolicySet) -> None:
        self._binary = binary
        self.policies = policies
        self.rules: frozenset[DataPath] = frozenset()
        self.booleans: frozenset[DataPath] = frozenset()

    def reads(self, path: DataPath) -> Reads | None:
        return None

    def evaluate(
        self,
        path: DataPath,
        input_json: bytes | None,
        *,
        strict_builtin_errors: bool = False,
        limit_seconds: float | None = None,
    ) -> Outcome:
        with tempfile.TemporaryDirectory() as directory:
            at = Path(directory)
            for name, text in self.policies.modules.items():
                (at / name).write_text(text)
            (at / "data.json").write_text(json.dumps(self.policies.data))
            query = "data" + "".join(f"[{json.dumps(s)}]" for s in path)
            command = [self._binary, "eval", "--format=json", "-d", directory, query]
            if strict_builtin_errors:
                command.append("--strict-builtin-errors")
            if input_json is not None:
                command.append("--stdin-input")
            done = subprocess.run(command, input=input_json, capture_output=True, timeout=limit_seconds, check=False)
        told = json.loads(done.stdout)
        if "errors" in told:
            errors = told["errors"]
            return Failed(errors[0].get("code", "eval_error"), errors[0]["message"], tuple(errors))
        if not told.get("result"):
            return Undefined(has_rules=True)
        return Defined(told["result"][0]["expressions"][0]["value"])

    def close(self) -> None:
        """Nothing is held."""
