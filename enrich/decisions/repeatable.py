"""Built-ins that answer otherwise when asked again: a decision that hangs on one can't be replayed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from enrich.decisions.policies import located
from enrich.decisions.protocol import DataPath, Prepared
from enrich.decisions.reads import Reads

__all__ = ["UNREPEATABLE", "check_repeatable", "unrepeatable"]

_CLOCK: Final = "it reads the clock"
_NETWORK: Final = "it asks the network"
_CHANCE: Final = "it is another value each time"
#: what OPA's capabilities call nondeterministic, and why
UNREPEATABLE: Final[Mapping[str, str]] = {
    "http.send": _NETWORK,
    "io.jwt.decode_verify": _CLOCK,
    "io.jwt.encode_sign": _CHANCE,
    "io.jwt.encode_sign_raw": _CHANCE,
    "json.match_schema": _NETWORK,
    "json.verify_schema": _NETWORK,
    "net.lookup_ip_addr": _NETWORK,
    "opa.runtime": "it reads the environment",
    "rand.intn": _CHANCE,
    "time.now_ns": _CLOCK,
    "uuid.rfc4122": _CHANCE,
}


def unrepeatable(reads: Reads | None) -> bool:
    """Whether a rule with these reads may give another value for the same input."""
    return reads is None or any(name in UNREPEATABLE for name in reads.builtins)


def check_repeatable(prepared: Prepared, paths: Iterable[DataPath]) -> None:
    """Refuse decisions that can't be replayed.

    Raises:
        PolicyError: `not_repeatable`, with file, line and column of the call.
    """
    for path in sorted(paths):
        reads = prepared.reads(path)
        called = {} if reads is None else reads.builtins
        for name in sorted(UNREPEATABLE.keys() & called.keys()):
            hint = "give it with the input, or allow decisions that can't be replayed: `allow_unrepeatable`"
            if UNREPEATABLE[name] == _CLOCK:
                hint = "the moment of a decision is `input.history.as_of`"
            raise located(
                f"the decision `{'.'.join(path)}` calls `{name}`: {UNREPEATABLE[name]}, and a replay would say nothing",
                prepared.policies,
                called[name],
                code="not_repeatable",
                hint=hint,
                function=name,
                path=list(path),
            )
