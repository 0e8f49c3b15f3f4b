"""What the `opa` executable says of policies before they are served: errors with their place, and the compiled plan."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from io import BytesIO
from itertools import takewhile
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
#: of every rule that is no function: its package, and the terms of its name
_HEADS: Final = """{head |
    some text in input
    module := rego.parse_module("m.rego", text)
    some rule in module.rules
    not rule.head.args
    head := [module["package"].path, rule.head.ref]
}"""
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
        rules = self._rules(policies, directory)
        if not rules:
            return {"funcs": {"funcs": []}, "plans": {"plans": []}, "static": {}}
        package = "enrich_" + policies.version.removeprefix("sha256:")[:16]
        read = (f"all contains data{''.join(f'[{json.dumps(name)}]' for name in path)}\n" for path in sorted(rules))
        (directory / "entry.rego").write_text("\n".join((f"package {package}\n", *read)))
        built = self._run(
            "build", "--target", "plan", "--entrypoint", f"{package}/all", "--output", "plan.tar.gz",
            BUNDLE, "entry.rego", directory=directory,
        )  # fmt: skip
        if built.returncode != 0:
            raise _refusal(built.stdout + built.stderr, policies.modules)
        return _plan_of((directory / "plan.tar.gz").read_bytes(), package)

    def _rules(self, policies: PolicySet, directory: Path) -> set[tuple[str, ...]]:
        """Every rule. A plan holds what its entry point needs, and one that is a package, or some rules, OPA does not
        take (`function used as reference`): a rule that reads them all is one that it does."""
        texts = orjson.dumps(list(policies.modules.values()))
        parsed = self._run("eval", "--stdin-input", "--format", "json", _HEADS, directory=directory, given=texts)
        try:
            heads = orjson.loads(parsed.stdout)["result"][0]["expressions"][0]["value"]
        except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
            raise _refusal(parsed.stdout + parsed.stderr, policies.modules) from None
        return {_fixed(head) for head in heads}

    def _run(self, *arguments: str, directory: Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                [self.path, *arguments],
                cwd=directory, input=given, capture_output=True, timeout=_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(f"opa_path {show(self.path)} does not run: {error}", setting="opa_path") from error


def _fixed(head: Any) -> tuple[str, ...]:
    """The path of a rule, as far as it does not depend on anything."""
    package, (first, *others) = head
    fixed = takewhile(lambda term: term["type"] == "string", others)
    return (*(term["value"] for term in package[1:]), first["value"], *(term["value"] for term in fixed))


def _plan_of(bundle: bytes, without: str) -> dict[str, Any]:
    """The plan in a bundle, apart from one package."""
    with tarfile.open(fileobj=BytesIO(bundle)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.lstrip("/") == "plan.json" else None
            if file is not None:
                plan: dict[str, Any] = orjson.loads(file.read())
                functions = plan["funcs"].get("funcs") or []
                plan["funcs"]["funcs"] = [f for f in functions if f["path"][1:2] != [without]]
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
