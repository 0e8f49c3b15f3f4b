"""OPA's own test cases, made into what an `Evaluator` is asked: policies, a path, an input, and what is to come back.

The cases come with OPA's Go module. Only those in Rego v1 are taken: it is the language of this project's policies.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]

__all__ = ["OPA_VERSION", "Case", "cases_directory", "load_cases"]

OPA_VERSION: Final = "v1.22.2"
#: cases that need a network, or a resolver
NETWORK: Final = frozenset({"netlookupipaddr"})
_PATH_QUERY: Final = re.compile(
    r'\s*data((?:\.\w+|\["[^"\\]*"\])+)\s*=\s*(?!(?:true|false|null|input|data)\b)([A-Za-z_]\w*)\s*;?\s*'
)
_SEGMENT: Final = re.compile(r'\.(\w+)|\["([^"]*)"\]')
#: the package of a query that is more than a path, and its one rule
_ASKED: Final = ("conformance_query", "answers")


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Attributes:
        name: directory, file and note.
        group: the directory: a built-in or a feature.
        modules, data: the policies.
        path: what is asked.
        input: JSON, or None.
        strict: whether errors of built-ins fail.
        fails: the error code that is expected, "" for any, None for none.
        wants: the value, or None when it is to be undefined; only where nothing fails.
        unordered: whether the value is an array in any order.
        any_value: whether every value will do.
    """

    name: str
    group: str
    modules: Mapping[str, str]
    data: Mapping[str, Any]
    path: tuple[str, ...]
    input: bytes | None
    strict: bool
    fails: str | None
    wants: tuple[Any] | None
    unordered: bool
    any_value: bool


def cases_directory() -> Path:
    """Where the Go module has them; without Go the test is skipped, in CI it fails."""
    if shutil.which("go") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI has to have go")
        pytest.skip("go is not installed: it fetches OPA's cases")
    command = ["go", "mod", "download", "-json", f"github.com/open-policy-agent/opa@{OPA_VERSION}"]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, cwd="/").stdout)
    return Path(told["Dir"]) / "v1/test/cases/testdata/v1"


def load_cases(directory: Path) -> list[Case]:
    """All of them but those of the network, by name."""
    found: list[Case] = []
    for file in sorted(directory.rglob("*.yaml")):
        group = file.relative_to(directory).parts[0]
        if group in NETWORK:
            continue
        for number, raw in enumerate(yaml.load(file.read_bytes(), _Loader)["cases"]):
            name = f"{file.relative_to(directory).as_posix()}#{number} {raw['note']}"
            if not name.startswith(NOT_ASKED):
                found.append(_case(name, group, raw))
    return found


def _keyed(value: Any) -> Any:
    """The value with every key a text, as JSON has it."""
    if isinstance(value, dict):
        return {k if isinstance(k, str) else json.dumps(k): _keyed(v) for k, v in value.items()}
    return [_keyed(v) for v in value] if isinstance(value, list) else value


#: cases of Go's own harness: a base document where a rule stands, questions about the whole of `data` (they would ask
#: about themselves here), a built-in that only that harness has, and a process that knows nothing of itself
NOT_ASKED: Final = (
    "baseandvirtualdocs/test-baseandvirtualdocs-0704.yaml#0 ",
    "fix1863/test-fix1863-0706.yaml#0 ",
    "time/test-time-0947.yaml#0 ",
    "topdowndynamicdispatch/test-topdowndynamicdispatch-1068.yaml#0 ",
    "withkeyword/test-with-builtin-mock.yaml#24 ",
)


class _Loader(yaml.CSafeLoader):  # type: ignore[misc]
    """YAML as Go's reader has it: a time is a text."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        # `on`, `off`, `yes` and `no` are texts there
        if tag != "tag:yaml.org,2002:timestamp" and (tag != "tag:yaml.org,2002:bool" or first in "tTfF")
    ]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _case(name: str, group: str, raw: Mapping[str, Any]) -> Case:
    modules = {f"m{i}.rego": text for i, text in enumerate(raw.get("modules") or ())}
    given = json.dumps(raw["input"], ensure_ascii=False).encode() if "input" in raw else None
    term = raw.get("input_term")
    if term is not None:
        try:
            json.loads(term)
            given, term = term.encode(), None
        except ValueError:
            given = None
    results = raw.get("want_result")
    path_query = _PATH_QUERY.fullmatch(raw["query"])
    wants: tuple[Any] | None
    if path_query is not None and term is None and all(set(r) <= {path_query[2]} for r in results or ()):
        path = tuple(a or b for a, b in _SEGMENT.findall(path_query[1]))
        wants = (results[0][path_query[2]],) if results else None
        unordered = bool(raw.get("sort_bindings"))
    else:
        variables = sorted({v for r in results or () for v in r})
        pairs = ", ".join(f'"{v}": {v}' for v in variables)
        query = raw["query"].strip()
        if term is not None:
            query = "\n".join(f"{line} with input as {term}" for line in query.split(";"))
        head = f"package {_ASKED[0]}\n\nimport rego.v1\n\n"
        modules["query.rego"] = f"{head}{_ASKED[1]} contains {{{pairs}}} if {{\n\t{query}\n}}\n"
        path, wants, unordered = _ASKED, (list(results or ()),), True
    fails = raw.get("want_error_code", "" if "want_error" in raw else None)
    return Case(
        name=name,
        group=group,
        modules=modules,
        data=_keyed(raw.get("data") or {}),
        path=path,
        input=given,
        strict=bool(raw.get("strict_error")),
        fails=fails,
        wants=wants,
        unordered=unordered,
        any_value=results is None and bool(raw.get("want_defined")),
    )
