"""Definitions as texts by file name, as they travel to a service, and back."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from enrich.decisions.policies import PolicySet, load_policies
from enrich.errors import BadRequestError, PolicyError, show

__all__ = ["policies_of_texts", "policy_texts", "query_texts"]

_POLICY_FILES: Final = ("*.rego", "data.json", "data.yaml", "data.yml")
_MOST: Final = 1_000


def policy_texts(directory: Path) -> dict[str, str]:
    """What a directory of policies holds, without its tests.

    Raises:
        PolicyError: `not_found`, `invalid_utf8`.
    """
    if not directory.is_dir():
        raise PolicyError(f"no directory of policies at {show(str(directory))}", code="not_found")
    return _texts(
        directory, [p for kind in _POLICY_FILES for p in directory.rglob(kind) if not p.name.endswith("_test.rego")]
    )


def query_texts(directory: Path) -> dict[str, str]:
    """The signal sets of a directory, by name.

    Raises:
        PolicyError: `not_found`, `invalid_utf8`.
    """
    if not directory.is_dir():
        raise PolicyError(f"no directory of signal sets at {show(str(directory))}", code="not_found")
    return {name.removesuffix(".sql"): text for name, text in _texts(directory, list(directory.glob("*.sql"))).items()}


def policies_of_texts(texts: Mapping[str, str]) -> PolicySet:
    """Policies that came as texts, read by the same rules as a directory.

    Raises:
        BadRequestError: `invalid_body`, too many of them, or a name that is no file's in a directory.
        PolicyError: see `load_policies`.
    """
    if len(texts) > _MOST:
        raise BadRequestError(f"{len(texts)} files of policies, at most {_MOST}", code="invalid_body", field="policies")
    with tempfile.TemporaryDirectory(prefix="enrich-policies-") as name:
        directory = Path(name)
        for file, text in sorted(texts.items()):
            _check_name(file)
            path = directory / file
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            except (OSError, ValueError) as error:
                raise _no_name(file) from error
        return load_policies(directory)


def _check_name(file: str) -> None:
    """INVARIANT: nothing is written outside the directory."""
    path = PurePosixPath(file)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in file or not file.isprintable():
        raise _no_name(file)


def _no_name(file: str) -> BadRequestError:
    return BadRequestError(f"{show(file)} is no name of a file", code="invalid_body", field="policies")


def _texts(directory: Path, paths: list[Path]) -> dict[str, str]:
    found = {}
    for path in sorted(paths):
        name = path.relative_to(directory).as_posix()
        if any(part.startswith(".") for part in path.relative_to(directory).parts):
            continue
        try:
            found[name] = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise PolicyError(f"{show(name)} is not UTF-8", code="invalid_utf8", file=name) from error
    return found
