"""The `opa` executable as a compiler: Rego to a plan, and to WASM."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from enrich.decisions._plan import statements
from enrich.decisions.policies import PolicySet
from enrich.errors import PolicyError, show

__all__ = ["Opa", "Place", "call_places", "find_opa"]

_SECONDS: Final = 60.0
_ERROR: Final = re.compile(
    r"^(?:\d+ errors? occurred: )?(?P<file>\d+)\.rego:(?P<line>\d+): (?P<code>\w+): (?P<text>.*)$"
)
_NO_RULES: Final = re.compile(r'entrypoint "(?P<entry>[^"]+)" does not refer to a rule')
#: OPA's codes to ours; a text that matches makes it the more precise one
_CODES: Final = (
    ("rego_type_error", re.compile(r"undefined function (?P<name>\S+)"), "unknown_function"),
    ("rego_type_error", re.compile(r"function (?P<name>\S+) has arity"), "wrong_arity"),
    ("rego_type_error", re.compile(r"(?P<name>\S+): arity mismatch"), "wrong_arity"),
    ("rego_unsafe_var_error", re.compile(""), "unsafe_variable"),
    ("rego_recursion_error", re.compile(""), "recursion"),
    ("rego_parse_error", re.compile(""), "rego_parse_error"),
)


@dataclass(frozen=True, slots=True)
class Opa:
    """One executable.

    Attributes:
        path: where it is.
        version: its own, such as `1.22.2`.
    """

    path: str
    version: str

    def build(self, policies: PolicySet, target: Literal["plan", "wasm"], entries: Iterable[str]) -> bytes:
        """Compile to `plan.json` or `policy.wasm`.

        Args:
            policies: what to compile; their base documents take no part.
            target: what to make.
            entries: paths joined by slashes; at least one, and each a rule or with a rule below it.

        Raises:
            PolicyError: OPA refuses the policies; with file and line where it says so. `opa_missing` when it can not
                be run.
        """
        with tempfile.TemporaryDirectory(prefix="enrich-opa-") as directory:
            # names of our own: a module may be called anything, and OPA reads meaning into names
            files = [f"{i}.rego" for i in range(len(policies.modules))]
            for file, text in zip(files, policies.modules.values(), strict=True):
                (Path(directory) / file).write_text(text, encoding="utf-8", newline="")
            # unpruned, OPA makes entry points of whatever an entry point needs, and refuses functions among them
            options = ["-t", target, "--prune-unused", "-o", "built.tar.gz"]
            command = ["build", *options, *(f"-e={e}" for e in entries), *files]
            done = _run([self.path, *command], directory)
            if done.returncode != 0:
                if nothing := _NO_RULES.search(done.stdout):
                    raise _NoRulesError(nothing["entry"])
                raise _refusal(done.stdout + done.stderr, policies.modules)
            with tarfile.open(Path(directory) / "built.tar.gz") as archive:
                member = archive.extractfile("/plan.json" if target == "plan" else "/policy.wasm")
                return b"" if member is None else member.read()

    def plan(self, policies: PolicySet, entries: Iterable[str]) -> dict[str, Any] | None:
        """The plan (OPA's intermediate representation), its files named as the modules are.

        Args:
            policies: what to compile.
            entries: paths joined by slashes; those without any rule are left out.

        Returns:
            The plan; None when there is no rule anywhere.

        Raises:
            PolicyError: see `build`.
        """
        wanted = list(entries)
        while wanted:
            try:
                plan: dict[str, Any] = json.loads(self.build(policies, "plan", wanted))
                break
            except _NoRulesError as error:
                wanted.remove(error.entry)
        else:
            return None
        names = list(policies.modules)
        for file in plan["static"].get("files") or ():
            file["value"] = names[int(file["value"].removesuffix(".rego"))]
        return plan


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: a module's name, line and column, both from one."""

    file: str
    line: int
    column: int


class _NoRulesError(Exception):
    """An entry point leads to no rule."""

    def __init__(self, entry: str) -> None:
        super().__init__(entry)
        self.entry = entry


def call_places(plan: Mapping[str, Any]) -> dict[str, Place]:
    """Where each function is first called, by the function's name."""
    files = [f["value"] for f in plan["static"].get("files") or ()]
    places: dict[str, Place] = {}
    for function in plan["funcs"]["funcs"] or ():
        for statement in statements(function["blocks"]):
            fields = statement["stmt"]
            if statement["type"] == "CallStmt" and fields["file"] < len(files):
                places.setdefault(fields["func"], Place(files[fields["file"]], fields["row"], fields["col"]))
    return places


def find_opa(path: str) -> Opa | None:
    """The executable at a path, or of that name on PATH; None when there is none that runs."""
    found = shutil.which(path)
    if found is None:
        return None
    try:
        told = _run([found, "version"], None)
    except PolicyError:
        return None
    version = re.search(r"^Version:\s*(\S+)", told.stdout, re.MULTILINE)
    return Opa(found, version[1]) if version else None


def _run(command: list[str], directory: str | None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, cwd=directory, capture_output=True, encoding="utf-8", errors="replace", timeout=_SECONDS,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except OSError as error:
        raise PolicyError(f"{show(command[0])} does not run: {error.strerror}", code="opa_missing") from error
    except subprocess.TimeoutExpired as error:
        raise PolicyError(f"OPA took longer than {_SECONDS:.0f} s to compile", code="evaluator_crash") from error


def _refusal(text: str, modules: Mapping[str, str]) -> PolicyError:
    """What OPA says of the first error, with our code and the module's own name."""
    names = list(modules)
    for line in text.removeprefix("error: ").splitlines():
        found = _ERROR.match(line.strip())
        if found is None or int(found["file"]) >= len(names):
            continue
        file, row = names[int(found["file"])], int(found["line"])
        code, name = found["code"], None
        for theirs, pattern, ours in _CODES:
            if theirs == code and (told := pattern.search(found["text"])):
                code, name = ours, told.groupdict().get("name")
                break
        else:
            code = "rego_compile_error"
        lines = modules[file].splitlines()
        return PolicyError(
            f"{file}:{row}: {found['text']}",
            code=code,
            file=file, line=row, function=name, source=lines[row - 1] if 0 < row <= len(lines) else None,
        )  # fmt: skip
    return PolicyError(f"OPA refuses the policies: {text.strip()[:200]}", code="rego_compile_error")
