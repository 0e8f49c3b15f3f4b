"""The reference page of the evaluators, made from the outcomes of OPA's cases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["page"]

_ORDER: Final = ("opa", "wasm", "embedded")
#: those that count as answered as OPA answers: `order` differs in how a set is listed, `code` in an error's code alone
_GOOD: Final = ("right", "order", "code")
_HEAD: Final = """# Evaluators beside OPA

This page is made by `make conformance`: OPA's own test cases in Rego v1 (version 1.22.2, those of the network apart)
through each evaluator. See [choose an evaluator](../how-to/choose-an-evaluator.md) for which to take.

*Right* is OPA's answer or error. *Set order*: the members of a set are listed in another order. *Error code*: it fails
as it has to, under another code. *Refused*: the policy does not load, and the message says why and where. *Failed*: it
loads, and the evaluation fails where OPA answers, at the gate a refusal. *Wrong*: it loads and answers otherwise.
"""

#: what the numbers don't tell
_NOTES: Final[Mapping[str, str]] = {
    "embedded": """Nearly all that it does not parse (`rego_parse_error`) is of one kind: `and`, `or` and `not {...}` in
bodies, which OPA 1.22 takes with `import rego.v2`, or `import future.keywords.and` and its like. The interpreter does
not know them.
""",
}


def page(told: Mapping[str, Any]) -> str:
    """The text of the page."""
    return "\n".join(_lines(told)) + "\n"


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    yield _HEAD
    yield "| evaluator | cases | as OPA | right | set order | error code | refused | failed | wrong |"
    yield "|---|---|---|---|---|---|---|---|---|"
    names = [n for n in _ORDER if n in told]
    for name in names:
        counted = told[name]["counted"]
        total = sum(counted.values())
        good = sum(counted.get(kind, 0) for kind in _GOOD)
        cells = [str(counted.get(k, 0)) for k in ("right", "order", "code", "refused", "failed", "wrong")]
        yield f"| `{name}` ({told[name]['version']}) | {total} | {100 * good / total:.1f} % | {' | '.join(cells)} |"
    for name in names:
        cases = told[name]["cases"]
        if not cases:
            continue
        yield f"\n## `{name}`\n"
        if name in _NOTES:
            yield _NOTES[name]
        yield "What it refuses, and how many cases need it:\n"
        yield "| refused | cases |"
        yield "|---|---|"
        refused = Counter(reason for kind, reason in cases.values() if kind == "refused")
        for reason, count in sorted(refused.items(), key=lambda item: (-item[1], item[0])):
            yield f"| {_cell(reason)} | {count} |"
        for kind, title in (("failed", "fails"), ("wrong", "answers otherwise")):
            listed = [(case, reason) for case, (k, reason) in cases.items() if k == kind]
            if listed:
                yield f"\nWhere it {title}:\n"
                yield "| case | what it does |"
                yield "|---|---|"
                for case, reason in listed:
                    yield f"| {_cell(case.partition(' ')[2])} | {_cell(reason)} |"


def _cell(text: str) -> str:
    text = re.sub(r"[\x00-\x1f]", " ", text)
    return re.sub(r"([|<>*_\[\]])", r"\\\1", text) if "`" not in text else text.replace("|", "\\|")
