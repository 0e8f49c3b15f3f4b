"""Built-ins that a policy compiled to WASM calls outside itself: those whose meaning is exactly known.

In: values as `parse_term` reads them. Out: a value, `UNDEFINED`, or a `BuiltinError`, which is undefined unless errors
of built-ins are to fail. A built-in that is not here is refused when policies load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from enrich.decisions._builtins._asked import ASKED, Asked, PerEvaluation
from enrich.decisions._builtins._aws import AWS
from enrich.decisions._builtins._graphql import GRAPHQL
from enrich.decisions._builtins._nets import NETS
from enrich.decisions._builtins._objects import OBJECTS
from enrich.decisions._builtins._regexes import REGEXES
from enrich.decisions._builtins._sprintf import sprintf
from enrich.decisions._builtins._texts import TEXTS
from enrich.decisions._builtins._times import TIMES
from enrich.decisions._builtins._tokens import TOKENS
from enrich.decisions._builtins._uris import URIS
from enrich.decisions._builtins._values import UNDEFINED, BuiltinError, NoAnswerError, type_name

__all__ = ["BUILTINS", "UNDEFINED", "Asked", "BuiltinError", "NoAnswerError", "PerEvaluation", "type_name"]

#: by name
BUILTINS: Final[Mapping[str, Callable[..., Any] | PerEvaluation]] = {
    **ASKED,
    **AWS,
    **GRAPHQL,
    **NETS,
    **OBJECTS,
    **REGEXES,
    **TEXTS,
    **TIMES,
    **TOKENS,
    **URIS,
    "sprintf": sprintf,
}
