"""What the `opa` executable says of policies before they are served: errors with their place, and the compiled plan."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Final

import orjson

from enrich.decisions.policies import PolicySet
from enrich.errors import ConfigError, PolicyError, show

__all__ = ["BUNDLE", "Executable", "write_bundle"]

#: the directory of a written bundle, and with it what OPA calls the bundle
BUNDLE: Final = "policies"
_SECONDS: Final = 60.0
_VERSION: Final = re.compile(r"^Version: (\S+)$", re.MULTILINE)
_EMPTY: Final = re.compile(r'entrypoint "([^"]*)" does not refer to a rule')
#: OPA's codes of errors to ours; all others are `invalid_policy`
_CODES: Final = {
    "rego_parse_error": "rego_parse_error",
    "rego_recursion_error": "recursion",
    "rego_unsafe_var_error": "unsafe_variable",
}
#: beginnings of OPA's messages to our codes, where its own code is shared by several
_MESSAGES: Final = {"undefined function": "unknown_function", "conflicting rule for data path": "data_conflict"}


def write_bundle(policies: PolicySet, directory: Path, revision: str) -> Path:
    """Write a bundle that holds these policies and nothing else, and owns all of `data`; returns where it is.

    Args:
        directory: an empty one, which nobody else may write to.
        revision: what every answer will say that it was made with.

    Raises:
        PolicyError: a module's name leads out of the directory.
    """
    bundle = directory / BUNDLE
    bundle.mkdir()
    for name, text in policies.modules.items():
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise PolicyError(f"{show(name)} is no name of a module", file=name)
        path = bundle / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        # byte for byte: what is read back is compared
        path.write_bytes(text.encode("utf-8"))
    if policies.data:
        (bundle / "data.json").write_bytes(orjson.dumps(policies.data))
    manifest = {"revision": revision, "roots": [""], "rego_version": 1}
    (bundle / ".manifest").write_bytes(orjson.dumps(manifest))
    return bundle


class Executable:
    """An `opa` executable.

    Args:
        path: where it is, or its name on PATH.

    Raises:
        ConfigError: there is none, or it does not say its version.
    """

    def __init__(self, path: str) -> None:
        found = shutil.which(path)
        if found is None:
            raise ConfigError(
                f"opa_path {show(path)} is no executable",
                hint="install OPA, or say where it is; the evaluator `embedded` needs none",
                setting="opa_path",
            )
        self.path = found
        version = _VERSION.search(self._run("version", directory=Path.cwd()).stdout.decode("utf-8", "replace"))
        if version is None:
            raise ConfigError(f"opa_path {show(path)} is no OPA", setting="opa_path")
        self.version = version[1]

    def plan(self, policies: PolicySet, directory: Path) -> dict[str, Any]:
        """Check and compile the bundle in `directory`; the plan, OPA's intermediate representation.

        Raises:
            PolicyError: `rego_parse_error`, `unknown_function`, `unsafe_variable`, `recursion`, `data_conflict` or
                `invalid_policy`, with file, line and column where known.
        """
        checked = self._run("check", "--bundle", BUNDLE, "--format", "json", directory=directory)
        if checked.returncode != 0:
            raise _refusal(checked.stdout + checked.stderr, policies.modules)
        entries = sorted({"/".join(path) for path in policies.packages.values()})
        while entries:
            arguments = [part for entry in entries for part in ("-e", entry)]
            built = self._run(
                "build", "--target", "plan", "--bundle", BUNDLE, "--output", "plan.tar.gz", *arguments,
                directory=directory,
            )  # fmt: skip
            if built.returncode == 0:
                return _plan_of((directory / "plan.tar.gz").read_bytes())
            said = built.stdout + built.stderr
            empty = _EMPTY.search(said.decode("utf-8", "replace"))
            if empty is None or empty[1] not in entries:
                raise _refusal(said, policies.modules)
            entries.remove(empty[1])  # a package without rules
        return {"funcs": {"funcs": []}, "static": {}}

    def _run(self, *arguments: str, directory: Path) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                [self.path, *arguments],
                cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(f"opa_path {show(self.path)} does not run: {error}", setting="opa_path") from error


def _plan_of(bundle: bytes) -> dict[str, Any]:
    with tarfile.open(fileobj=BytesIO(bundle)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.lstrip("/") == "plan.json" else None
            if file is not None:
                plan: dict[str, Any] = orjson.loads(file.read())
                # what is not there is null, where the embedded interpreter's plan has an empty list
                plan["funcs"]["funcs"] = plan["funcs"].get("funcs") or []
                return plan
    raise PolicyError("the executable built no plan of the policies")


def _refusal(said: bytes, modules: Mapping[str, str]) -> PolicyError:
    """What is wrong, from a check's report or, where there is none, in the executable's own words."""
    try:
        return _policy_error(orjson.loads(said)["errors"][0], modules)
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
        return PolicyError(f"the policies do not build: {show(said.decode('utf-8', 'replace').strip(), 200)}")


def _policy_error(error: Mapping[str, Any], modules: Mapping[str, str]) -> PolicyError:
    message, place = str(error["message"]), error.get("location") or {}
    code = _CODES.get(error.get("code", ""))
    code = next((ours for begin, ours in _MESSAGES.items() if message.startswith(begin)), code)
    file = str(place.get("file", "")).removeprefix(BUNDLE + "/")
    if file not in modules:
        return PolicyError(message, code=code)
    line, column = int(place["row"]), int(place["col"])
    lines = modules[file].splitlines()
    return PolicyError(
        f"{file}:{line}:{column}: {message}",
        code=code,
        file=file, line=line, column=column, source=lines[line - 1] if 0 < line <= len(lines) else None,
    )  # fmt: skip
