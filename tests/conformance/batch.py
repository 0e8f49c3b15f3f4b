"""Many cases as one set of policies, so that they are compiled once: each under names of its own.

Only what an answer says is taken from a batch when it is right; whatever is not is asked again, by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from enrich.decisions import Evaluator, Prepared, policy_set
from enrich.errors import PolicyError
from tests.conformance.cases import Case
from tests.conformance.judge import Outcome, judge, run

__all__ = ["run_all"]

_PACKAGE: Final = re.compile(r"^\s*package\s+([A-Za-z_]\w*)", re.MULTILINE)
_BARE: Final = re.compile(r"\bdata\b(?!\.[A-Za-z_])")
_SIZE: Final = 40


def run_all(evaluator: Evaluator, cases: Sequence[Case]) -> Iterator[tuple[Case, Outcome]]:
    """Every case and how it went, in any order."""
    waiting = iter(cases)
    while taken := list(islice(waiting, _SIZE)):
        if evaluator.name == "opa":
            # a process for each question anyway
            yield from ((case, run(evaluator, case)) for case in taken)
            continue
        renamed = {f"c{i}_": other for i, case in enumerate(taken) if (other := _renamed(case, f"c{i}_")) is not None}
        prepared = _prepare(evaluator, renamed)
        try:
            for i, case in enumerate(taken):
                asked = renamed.get(f"c{i}_")
                if asked is not None and prepared is not None:
                    outcome = judge(prepared, asked)
                    if outcome.kind == "right":
                        yield case, outcome
                        continue
                yield case, run(evaluator, case)
        finally:
            if prepared is not None:
                prepared.close()


def _prepare(evaluator: Evaluator, cases: dict[str, Case]) -> Prepared | None:
    """All that load together; those that do not are taken out of `cases`."""
    while cases:
        modules = {f"{mark}{name}": text for mark, c in cases.items() for name, text in c.modules.items()}
        data = {key: value for c in cases.values() for key, value in c.data.items()}
        try:
            return evaluator.prepare(policy_set(modules, data))
        except PolicyError as error:
            mark = re.match(r"c\d+_", str(error.detail.get("file", "")))
            if mark is None or cases.pop(mark[0], None) is None:
                return None
    return None


def _renamed(case: Case, mark: str) -> Case | None:
    """The case with a mark before every first name below `data`; None where that can't be seen."""
    roots = set(case.data) | {m[1] for text in case.modules.values() for m in _PACKAGE.finditer(text)}
    texts = case.modules.values()
    plain = all(re.fullmatch(r"[A-Za-z_]\w*", root) for root in roots) and case.path[0] in roots
    if not plain or "system" in roots or any(_BARE.search(_PACKAGE.sub("", text)) for text in texts):
        return None
    inner = re.compile(rf"\bdata\.({'|'.join(map(re.escape, roots))})\b")

    def rename(text: str) -> str:
        return inner.sub(rf"data.{mark}\1", _PACKAGE.sub(lambda m: m[0][: -len(m[1])] + mark + m[1], text))

    return replace(
        case,
        modules={name: rename(text) for name, text in case.modules.items()},
        data={mark + key: value for key, value in case.data.items()},
        path=(mark + case.path[0], *case.path[1:]),
    )
