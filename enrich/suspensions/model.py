"""What a suspension is, and the bodies of the records that begin and end one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from enrich.errors import BadRequestError, EventError, NotFoundError, show
from enrich.events.times import format_us, parse_rfc3339_us

__all__ = [
    "SCOPES", "Covering", "Match", "Scope", "Suspension", "from_record", "lift_body", "read_scope", "suspend_body",
]  # fmt: skip

Scope = Literal["all", "org", "team", "workflow", "agent"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
#: why a suspension covers a request: it is for everyone; it names an id of the request; it names a team or org that
#: the agent's events name; or the request lacks the id that would tell
Match = Literal["all", "id", "known", "unknown"]

_MAX_REASON: Final = 500
_MAX_BY: Final = 200


@dataclass(frozen=True, slots=True)
class Suspension:
    """Authority withdrawn. In force from `since_us` on, until `until_us` (exclusive) or until it is lifted.

    `id` is empty for scope `all`. `seq` is that of the record that says so; None while it could not be journaled and
    acts in memory alone.
    """

    scope: Scope
    id: str
    reason: str
    since_us: int
    until_us: int | None
    by: str | None
    seq: int | None

    def in_force(self, as_of_us: int) -> bool:
        """Whether it holds at that moment."""
        return self.since_us <= as_of_us and (self.until_us is None or as_of_us < self.until_us)

    def body(self) -> dict[str, Any]:
        """As JSON: what is not there is left out, times RFC 3339."""
        shown: dict[str, Any] = {"scope": self.scope}
        if self.id:
            shown["id"] = self.id
        shown |= {"reason": self.reason, "since": format_us(self.since_us)}
        if self.until_us is not None:
            shown["until"] = format_us(self.until_us)
        if self.by is not None:
            shown["by"] = self.by
        if self.seq is not None:
            shown["seq"] = self.seq
        return shown


@dataclass(frozen=True, slots=True)
class Covering:
    """A suspension in force that covers a request, and why."""

    suspension: Suspension
    match: Match

    def body(self) -> dict[str, Any]:
        """As it stands in a context's `suspensions`."""
        return {**self.suspension.body(), "match": self.match}


def read_scope(scope: str) -> Scope:
    """
    Raises:
        NotFoundError: `unknown_scope`.
    """
    for known in SCOPES:
        if scope == known:
            return known
    raise NotFoundError(
        f"nothing can be suspended by {show(scope)}", code="unknown_scope", hint=f"one of {', '.join(SCOPES)}"
    )


def suspend_body(
    scope: Scope, id_: str, *, reason: object, until: object = None, by: object = None, now_us: int
) -> dict[str, Any]:
    """The body of the record that begins a suspension.

    Args:
        reason: 1 to 500 characters: what an operator reads at three in the morning.
        until: RFC 3339, after now; None suspends until it is lifted.
        by: who did it, if the caller says so.

    Raises:
        BadRequestError: `invalid_reason`, `invalid_time`, `invalid_by`.
    """
    until_us = None
    if until is not None:
        if not isinstance(until, str):
            raise BadRequestError(f"`until` is {show(until)}, not a time", code="invalid_time", field="until")
        try:
            until_us = parse_rfc3339_us(until)
        except EventError as error:
            raise _no_time(until) from error
        if until_us <= now_us:
            raise BadRequestError(f"`until` {show(until)} is not in the future", code="invalid_time", field="until")
    return {
        "action": "suspend",
        "scope": scope,
        "id": id_,
        "reason": _text(reason, "reason", _MAX_REASON, code="invalid_reason"),
        "until": None if until_us is None else format_us(until_us),
        "by": _by(by),
    }


def lift_body(scope: Scope, id_: str, *, by: object = None) -> dict[str, Any]:
    """The body of the record that ends one.

    Raises:
        BadRequestError: `invalid_by`.
    """
    return {"action": "lift", "scope": scope, "id": id_, "by": _by(by)}


def from_record(body: Mapping[str, Any], seq: int | None, at_us: int) -> Suspension:
    """The suspension that a `suspend` record begins."""
    until = body["until"]
    return Suspension(
        read_scope(body["scope"]),
        body["id"],
        body["reason"],
        at_us,
        None if until is None else parse_rfc3339_us(until),
        body["by"],
        seq,
    )


def _by(value: object) -> str | None:
    return None if value is None else _text(value, "by", _MAX_BY, code="invalid_by")


def _text(value: object, field: str, limit: int, *, code: str) -> str:
    if (
        isinstance(value, str)
        and 0 < len(value) <= limit
        and value == value.strip()
        and all(c.isprintable() for c in value)
    ):
        return value
    raise BadRequestError(
        f"`{field}` is {show(value)}",
        code=code,
        field=field,
        hint=f"1 to {limit} printable characters on one line, without padding",
    )


def _no_time(value: str) -> BadRequestError:
    return BadRequestError(
        f"`until` {show(value)} is no time",
        code="invalid_time",
        field="until",
        hint="RFC 3339 with an offset, such as 2026-11-23T10:00:00Z",
    )
