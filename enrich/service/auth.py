"""Who may call what: the one seam `authorize(request, scope)` that every route passes.

Until OIDC comes, callers hold static bearer tokens, each with the scopes it grants. Without any token configured the
service is open, and for that reason refuses to listen anywhere but on loopback.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

from starlette.requests import Request

from enrich.errors import ConfigError, ForbiddenError, UnauthorizedError, show

__all__ = ["SCOPES", "Access", "Scope", "refuse_open_bind"]

Scope = Literal["ingest", "decide", "read", "as_of", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)


class Access:
    """The tokens of each scope.

    Args:
        tokens: scope to its tokens. With none at all every call passes; with some, a scope that has none is closed.
    """

    def __init__(self, tokens: Mapping[str, Iterable[str]]) -> None:
        self._tokens: dict[str, tuple[bytes, ...]] = {}
        for scope, values in tokens.items():
            if scope not in SCOPES:
                raise ConfigError(f"no such scope: {show(scope)}", hint=f"the scopes are {', '.join(SCOPES)}")
            held = tuple(value.encode() for value in values)
            if any(not value for value in held):
                raise ConfigError(f"an empty token for scope {show(scope)}")
            if held:
                self._tokens[scope] = held
        self.open = not self._tokens

    def authorize(self, request: Request, scope: Scope | None) -> None:
        """Lets the request pass, or raises; `scope` None is a call that needs no token (health).

        Raises:
            UnauthorizedError: no bearer token, or one that nobody holds.
            ForbiddenError: the token does not hold `scope`; or no tokens are configured and a web page asks.
        """
        if scope is None:
            return
        if self.open:
            _refuse_foreign(request, scope)
            return
        token = _bearer(request)
        # INVARIANT: every token is compared, and each in constant time, so that timing tells nothing about them.
        known = granted = False
        for held_scope, tokens in self._tokens.items():
            for held in tokens:
                same = hmac.compare_digest(held, token)
                known |= same
                granted |= same and held_scope == scope
        if not known:
            raise UnauthorizedError("the bearer token is not known")
        if not granted:
            raise ForbiddenError(f"the token does not hold scope {show(scope)}", scope=scope)

    def caller(self, request: Request) -> str:
        """What tells callers apart: the token; empty while the service is open."""
        return "" if self.open else _bearer(request).decode("latin-1")


def _refuse_foreign(request: Request, scope: Scope) -> None:
    """Without tokens whoever reaches loopback may call; a page of somebody else's in a browser here must not.

    Such a page may stand at a name that its owner has made resolve to loopback: to the browser it is then the service's
    own and its reads carry no origin, only the name, as host.
    """
    server = request.scope.get("server")
    over_tcp = server is not None and server[1] is not None
    for name, value in request.scope["headers"]:
        if name == b"sec-fetch-site" and value in (b"cross-site", b"same-site"):
            raise ForbiddenError("a web page of another site asks", hint="configure tokens", scope=scope)
        if name == b"origin" and not _is_loopback(_name_in(value)):
            raise ForbiddenError(
                f"a web page of {show(value.decode('latin-1'))} asks", hint="configure tokens", scope=scope
            )
        if name == b"host" and over_tcp and not _is_loopback(_name_in(b"//" + value)):
            raise ForbiddenError(
                f"host {show(value.decode('latin-1'))} is not loopback", hint="configure tokens", scope=scope
            )


def _name_in(url: bytes) -> str:
    """The host's name or address; empty where there is none."""
    try:
        return urlsplit(url.decode("latin-1")).hostname or ""
    except ValueError:  # an open bracket
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _bearer(request: Request) -> bytes:
    for name, value in request.scope["headers"]:
        if name == b"authorization":
            kind, _, token = value.partition(b" ")
            if kind.lower() == b"bearer" and token.strip():
                return bytes(token.strip())
            raise UnauthorizedError("the authorization header holds no bearer token")
    raise UnauthorizedError("no authorization header", hint="send `Authorization: Bearer <token>`")


def refuse_open_bind(host: str, access: Access) -> None:
    """Refuses to listen beyond loopback when no token is configured.

    Raises:
        ConfigError: `host` is not a loopback address and every call would pass.
    """
    if access.open and not _is_loopback(host):
        raise ConfigError(
            f"refusing to listen on {show(host)} without tokens: anyone who reaches it could read and write",
            hint="configure tokens per scope, or listen on 127.0.0.1 or a Unix socket",
        )
