"""Policies as they lie in a directory: Rego modules, base documents, and one hash that names them all.

The rules are those of an OPA bundle: every `*.rego` is a module, and a `data.json`, `data.yaml` or `data.yml` is a
base document at the path of its directory. Tests (`*_test.rego`) are left out: they are run by `opa test`, not
served.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import orjson

from enrich.decisions._yaml import yaml_loads
from enrich.errors import BadRequestError, NumberNotExactError, PolicyError, show
from enrich.events.json import strict_loads

__all__ = ["PolicySet", "leaves", "load_policies", "located", "policy_set"]

DATA_FILES: Final = ("data.json", "data.yaml", "data.yml")
_PACKAGE: Final = re.compile(r"^package[ \t]+([^\s#]+)", re.MULTILINE)
_PACKAGE_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Modules by file name, the base document, and what identifies them.

    Attributes:
        packages: file name to package path.
        version: `sha256:...` of all that decides.
        revision: what the manifest of a bundle calls them; None where there is none.
    """

    modules: Mapping[str, str]
    packages: Mapping[str, tuple[str, ...]]
    data: Mapping[str, Any]
    version: str
    revision: str | None = None


def load_policies(directory: Path, *, tests: bool = False) -> PolicySet:
    """Read a directory of policies, subdirectories included.

    Args:
        directory: where the policies are.
        tests: keep `*_test.rego` too.

    Raises:
        PolicyError: `not_found`, `invalid_utf8`, `invalid_data`, `data_conflict` or `unsupported_package`, with the
            file.
    """
    if not directory.is_dir():
        raise PolicyError(f"no directory of policies at `{directory}`", code="not_found")
    modules: dict[str, str] = {}
    data: dict[str, Any] = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        name = path.relative_to(directory)
        if any(part.startswith(".") for part in name.parts):
            continue
        if is_module(path.name) or (tests and path.suffix == ".rego"):
            modules[name.as_posix()] = module_text(path.read_bytes(), name.as_posix())
        elif path.name in DATA_FILES:
            add_document(data, path.read_bytes(), name.as_posix())
    return policy_set(modules, data, revision=_revision(directory))


def _revision(directory: Path) -> str | None:
    """The revision in a directory's `.manifest`; None without."""
    path = directory / ".manifest"
    if not path.is_file():
        return None
    raw = path.read_bytes()
    try:
        revision = strict_loads(raw, max_bytes=len(raw)).get("revision")
    except (BadRequestError, NumberNotExactError, AttributeError) as error:
        raise PolicyError("`.manifest` is no JSON object", code="invalid_data", file=".manifest") from error
    if revision is not None and not isinstance(revision, str):
        raise PolicyError(f"`.manifest` has revision {show(revision)}, not a string", code="invalid_data")
    return revision or None


def is_module(name: str) -> bool:
    """Whether a file of that name is a module that is served."""
    return name.endswith(".rego") and not name.endswith("_test.rego")


def policy_set(
    modules: Mapping[str, str],
    data: Mapping[str, Any] | None = None,
    *,
    revision: str | None = None,
) -> PolicySet:
    """A set from modules already in memory.

    Raises:
        PolicyError: `unsupported_package` or `data_conflict`.
    """
    data = dict(data or {})
    packages = {name: _package(name, text) for name, text in modules.items()}
    digest = hashlib.sha256()
    for name in sorted(modules):
        digest.update(orjson.dumps([name, modules[name]]))
    digest.update(orjson.dumps(data, option=orjson.OPT_SORT_KEYS))
    return PolicySet(dict(modules), packages, data, f"sha256:{digest.hexdigest()}", revision)


def module_text(raw: bytes, name: str) -> str:
    """
    Raises:
        PolicyError: `invalid_utf8`.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError(f"`{name}` is not UTF-8", code="invalid_utf8", file=name, byte=error.start) from error


def _package(name: str, text: str) -> tuple[str, ...]:
    found = _PACKAGE.search(text)
    if found is None:
        raise PolicyError(f"`{name}` has no package", code="rego_parse_error", file=name, line=1, column=1)
    if not _PACKAGE_PATH.fullmatch(found[1]):
        line = text.count("\n", 0, found.start()) + 1
        raise PolicyError(
            f"package `{found[1]}` has a segment that is no plain name",
            code="unsupported_package", file=name, line=line, column=1, hint="use letters, digits and underscores",
        )  # fmt: skip
    return tuple(found[1].split("."))


def add_document(data: dict[str, Any], raw: bytes, name: str) -> None:
    """Put the base document of one file into `data`, at the path of its directory.

    Raises:
        PolicyError: `invalid_data` or `data_conflict`.
    """
    value = document(raw, name)
    for part in reversed(PurePosixPath(name).parts[:-1]):
        value = {part: value}
    _merge(data, value, name)


def document(raw: bytes, name: str) -> dict[str, Any]:
    """The object in a file of JSON or YAML.

    Raises:
        PolicyError: `invalid_data`.
    """
    try:
        # strictly: a threshold that stands twice, or that no number holds as written, is no threshold
        if name.endswith((".yaml", ".yml")):
            value = yaml_loads(raw, max_bytes=None)
        else:
            value = strict_loads(raw, max_bytes=len(raw))
    except (BadRequestError, NumberNotExactError) as error:
        raise PolicyError(f"`{name}`: {error.message}", code="invalid_data", file=name) from error
    if not isinstance(value, dict):
        raise PolicyError(f"`{name}` is not an object", code="invalid_data", file=name)
    return value


def _merge(into: dict[str, Any], other: Mapping[str, Any], file: str, at: tuple[str, ...] = ()) -> None:
    for key, value in other.items():
        here = into.get(key)
        if key not in into:
            into[key] = value
        elif isinstance(here, dict) and isinstance(value, dict):
            _merge(here, value, file, (*at, key))
        else:
            where = ".".join((*at, key))
            raise PolicyError(f"`{file}` defines `{where}` a second time", code="data_conflict", file=file)


def leaves(data: Mapping[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every value that is not a non-empty object."""
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*at, key))
        else:
            yield (*at, key)


def located(
    message: str,
    policies: PolicySet,
    at: tuple[str, int, int] | None,
    *,
    code: str,
    hint: str | None = None,
    **detail: Any,
) -> PolicyError:
    """An error at a place in a policy: file, line and column, both from 1; the line's text is added."""
    if at is not None:
        file, line, column = at
        lines = policies.modules.get(file, "").splitlines()
        source = lines[line - 1] if 0 < line <= len(lines) else None
        message = f"{file}:{line}:{column}: {message}"
        detail |= {"file": file, "line": line, "column": column, "source": source}
    return PolicyError(message, code=code, hint=hint, **detail)
