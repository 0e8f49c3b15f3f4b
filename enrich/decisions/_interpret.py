"""Runs a plan on abstract values: what of the input each of its functions can read, call context by call context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from enrich.decisions._call import Call, GaveUpError, Position, Result
from enrich.decisions._form import Form
from enrich.decisions._values import OPAQUE, Value

__all__ = ["Interpretation"]

_MAX_CALLS: Final = 20_000
_INPUT: Final = Value(paths=frozenset([()]))


class Interpretation:
    """One plan.

    Args:
        embedded: see `reads_of`.
    """

    def __init__(self, plan: Mapping[str, Any], *, embedded: bool) -> None:
        self._plan = plan
        self._from = 1 if embedded else 0
        self._files = [file["value"] for file in plan["static"].get("files") or ()]
        self.functions: dict[str, Mapping[str, Any]] = {f["name"]: f for f in plan["funcs"]["funcs"] or ()}
        self.strings = [_text(s["value"], embedded) for s in plan["static"].get("strings") or ()]
        self._forms: dict[str, Form] = {}
        self._results: dict[tuple[str, tuple[Value, ...]], Result | None] = {}

    def rules(self) -> Iterator[tuple[tuple[str, ...], Result | GaveUpError]]:
        """Path and result of every rule and entry point, its value read whole."""
        for name, function in self.functions.items():
            if len(function["params"]) == 2 and function["path"][:1] == ["g0"]:
                yield tuple(function["path"][1:]), self._entry(name, function)
        for plan in self._plan["plans"]["plans"] or ():
            path = tuple(plan["name"].split("/"))
            if ".".join(["g0", "data", *path]) not in self.functions:
                entry = {"params": [0, 1], "blocks": plan["blocks"]}
                yield path, self._entry(f"plan {plan['name']}", entry)

    def _entry(self, name: str, function: Mapping[str, Any]) -> Result | GaveUpError:
        try:
            result = self._call(name, function, (_INPUT, OPAQUE))
        except GaveUpError as error:
            self._results = {key: found for key, found in self._results.items() if found is not None}
            return error
        whole = result.whole | frozenset(result.value.all_paths())
        return Result(OPAQUE, whole, result.touched, result.asked, result.builtins)

    def call(self, name: str, arguments: tuple[Value, ...]) -> Result:
        """A function of the plan in one call context.

        Raises:
            GaveUpError
        """
        function = self.functions[name]
        if len(function["params"]) != len(arguments):
            raise GaveUpError(f"{name}: {len(arguments)} arguments")
        return self._call(name, function, arguments)

    def _call(self, name: str, function: Mapping[str, Any], arguments: tuple[Value, ...]) -> Result:
        key = (name, arguments)
        if key in self._results:
            found = self._results[key]
            if found is None:
                raise GaveUpError(f"{name}: recursion")
            return found
        if len(self._results) >= _MAX_CALLS:
            raise GaveUpError("too many calls")
        self._results[key] = None
        form = self._forms.get(name)
        if form is None:
            form = self._forms[name] = Form(function["blocks"])
        result = self._results[key] = Call(self, function, form, arguments).run()
        return result

    def position(self, fields: Mapping[str, Any]) -> Position | None:
        """Where a statement comes from."""
        if "row" not in fields or not 0 <= fields["file"] < len(self._files):
            return None
        return Position(self._files[fields["file"]], fields["row"] + self._from, fields["col"] + self._from)


def _text(text: str, embedded: bool) -> str | None:
    """A text of a plan as it is meant; None when that can't be told."""
    if not embedded:
        return text
    if "\\" in text:
        return None
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    return None if '"' in text else text
