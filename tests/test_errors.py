"""Every error has a code, and every code stands in the reference."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import enrich.errors
from enrich.errors import EnrichError
from enrich.events.refusals import REFUSAL_CODES

ROOT = Path(__file__).parents[1]
#: chosen where they are raised, by other means than `code="..."`
_ELSEWHERE = {
    "masked_result", "masked_id", "data_and_url", "queries_and_url", "policies_and_url", "internal_error",
    "live_policies_and_url",
    "live_queries_and_url", "unknown_function", "refused_function", "wrong_arity", "unsafe_variable", "recursion",
}  # fmt: skip


def _classes() -> list[type[EnrichError]]:
    found = [getattr(enrich.errors, name) for name in enrich.errors.__all__]
    return [c for c in found if isinstance(c, type) and issubclass(c, EnrichError)]


def _raised() -> Iterator[str]:
    """What stands in the source as an error's code: of a class, or where it is raised."""
    for path in (ROOT / "enrich").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield from (ast.literal_eval(k.value) for k in node.keywords if k.arg == "code" and _is_text(k.value))
                if isinstance(node.func, ast.Name) and node.func.id == "RemoteError" and _is_text(node.args[0]):
                    yield ast.literal_eval(node.args[0])
            if isinstance(node, ast.ClassDef):
                yield from (
                    ast.literal_eval(part.value)
                    for part in node.body
                    if isinstance(part, ast.Assign) and isinstance(part.targets[0], ast.Name)
                    if part.targets[0].id == "code" and _is_text(part.value)
                )


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _documented() -> dict[str, int | None]:
    """Code to status, of the first column of the page's tables; None where there is no status."""
    page = (ROOT / "docs" / "reference" / "errors.md").read_text()
    found: dict[str, int | None] = {}
    for codes, status in re.findall(r"^\| (`[^|]*`) \| (?:(\d{3}) \| )?", page, re.MULTILINE):
        for code in re.findall(r"`(\w+)`", codes):
            assert code not in found, code
            found[code] = int(status) if status else None
    return found


def test_every_code_stands_in_the_reference_and_no_other() -> None:
    codes = set(_raised()) | _ELSEWHERE
    documented = _documented().keys()
    assert codes - documented - REFUSAL_CODES.keys() == set()
    assert documented - codes == set()


@pytest.mark.parametrize("error", _classes(), ids=lambda c: c.__name__)
def test_the_reference_says_the_status_of_each_class(error: type[EnrichError]) -> None:
    assert _documented()[error.code] == error.status


def test_an_error_has_one_body() -> None:
    error = enrich.errors.BadRequestError("`x` is no time", code="invalid_time", hint="write RFC 3339", field="since")
    assert error.body() == {
        "error": {
            "code": "invalid_time",
            "message": "`x` is no time",
            "detail": {"field": "since", "hint": "write RFC 3339"},
        }
    }
