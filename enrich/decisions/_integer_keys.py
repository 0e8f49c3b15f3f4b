"""References by an integer that OPA answers from its store, where a text that is that integer is found, too.

A module compiled to WASM has the base documents as values, in which the integer `2` and the text `"2"` are two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from enrich.decisions._plan import statements
from enrich.decisions.policies import PolicySet, located

__all__ = ["check_integer_keys"]

#: the local that holds `data` in every function of a plan
_DATA = 1


def check_integer_keys(plan: Mapping[str, Any], policies: PolicySet) -> None:
    """Refuse `data.limits[2]` where the base document `limits` is an object that has the key `"2"`.

    Only integers that the policy itself writes are seen.

    Raises:
        PolicyError: `refused_reference`, with file, line and column.
    """
    texts = [s["value"] for s in plan["static"].get("strings") or ()]
    files = [f["value"] for f in plan["static"].get("files") or ()]
    for function in plan["funcs"]["funcs"]:
        documents: dict[int, Any] = {_DATA: policies.data}
        numbers: dict[int, str] = {}
        for statement in statements(function["blocks"]):
            fields = statement["stmt"]
            if statement["type"] == "MakeNumberRefStmt":
                numbers[fields["target"]] = texts[fields["index"]]
            elif statement["type"] == "MakeNumberIntStmt":
                numbers[fields["target"]] = str(fields["value"])
            elif statement["type"] == "DotStmt" and fields["source"]["value"] in documents:
                document, key = documents[fields["source"]["value"]], fields["key"]
                if fields["source"]["type"] != "local" or not isinstance(document, Mapping):
                    continue
                if key["type"] == "string_index":
                    documents[fields["target"]] = document.get(texts[key["value"]])
                elif key["type"] == "local" and numbers.get(key["value"]) in document:
                    number = numbers[key["value"]]
                    raise located(
                        f"the integer {number} asks for the key `{number}` of a base document",
                        policies,
                        (files[fields["file"]].lstrip("/"), fields["row"], fields["col"]),
                        code="refused_reference",
                        hint=f'write `["{number}"]`, or use the evaluator `opa`',
                    )
