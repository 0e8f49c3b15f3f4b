"""URIs as Go reads them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from enrich.decisions._builtins._values import BuiltinError, NoAnswerError, check

__all__ = ["URIS", "Uri", "parse_uri"]

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})", re.ASCII)
#: in a host only what is beyond ASCII may be escaped, and `%`
_HOST_ESCAPE: Final = re.compile(r"%(?:25|[89A-Fa-f][0-9A-Fa-f])", re.ASCII)
_HOST: Final = re.compile(r"""[A-Za-z0-9\-_.~!$&'()*+,;=:\[\]<>"%\x80-\U0010ffff]*""")
_USER: Final = re.compile(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*", re.ASCII)
_PORT: Final = re.compile(r"(?::[0-9]*)?", re.ASCII)
#: what a path holds unescaped, beside letters, digits and `_.-~`
_PATH: Final = "$&+,/:;=@"
_ENCODED: Final = re.compile(r"[A-Za-z0-9\-_.~$&+,/:;=@!'()*\[\]%]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Uri:
    """What Go makes of one; `path` is unescaped and may be no UTF-8, `raw_path` as written where that differs."""

    scheme: str = ""
    host: str = ""
    path: bytes = b""
    raw_path: str = ""
    query: str = ""
    fragment: bytes = b""

    def escaped_path(self) -> str:
        """The path as it is sent."""
        if self.raw_path and _ENCODED.fullmatch(self.raw_path):
            return self.raw_path
        return "*" if self.path == b"*" else quote(self.path, safe=_PATH)


def parse_uri(text: str) -> Uri:
    """Read one.

    Raises:
        BuiltinError: it is none.
        NoAnswerError: it depends on how OPA was built.
    """
    text, _, fragment = text.partition("#")
    if _CONTROL.search(text):
        raise BuiltinError("invalid control character in URL")
    said = _unescaped(fragment)
    if text == "*":
        return Uri(path=b"*", fragment=said)
    if text.startswith(":"):
        raise BuiltinError("missing protocol scheme")
    found = _SCHEME.match(text)
    scheme, rest = (found[1].lower(), text[found.end() :]) if found else ("", text)
    rest, _, query = rest.partition("?")
    if not rest.startswith("/"):
        if scheme:
            return Uri(scheme, query=query, fragment=said)
        if ":" in rest.partition("/")[0]:
            raise BuiltinError("first path segment in URL cannot contain colon")
    host = ""
    if rest.startswith("//") and (scheme or not rest.startswith("///")):
        authority, slash, rest = rest[2:].partition("/")
        rest = slash + rest
        host = _authority(scheme, authority)
    path = _unescaped(rest)
    raw = "" if quote(path, safe=_PATH) == rest else rest
    return Uri(scheme, host, path, raw, query, said)


def _unescaped(text: str) -> bytes:
    if _BAD_ESCAPE.search(text):
        raise BuiltinError("invalid URL escape")
    return unquote_to_bytes(text)


def _authority(scheme: str, text: str) -> str:
    user, at, host = text.rpartition("@")
    found = _host(scheme, host)
    if at:
        if not _USER.fullmatch(user):
            raise BuiltinError("invalid userinfo")
        _unescaped(user)
    return found


def _host(scheme: str, host: str) -> str:
    if "[" in host:
        return _literal(host)
    first, last = host.find(":"), host.rfind(":")
    if first >= 0 and not _PORT.fullmatch(host[last:]):
        raise BuiltinError("invalid port after host")
    if first != last and scheme in ("http", "https"):
        # what Go does with it is a setting of the program
        raise NoAnswerError("a host with several colons is not supported")
    return _unescaped_host(host)


def _literal(host: str) -> str:
    """An IPv6 address in brackets, and a port."""
    inner, bracket, port = host[1:].rpartition("]")
    if host.rfind("[") > 0 or not bracket or not _PORT.fullmatch(port):
        raise BuiltinError("invalid IP-literal")
    if "%" in inner:
        raise NoAnswerError("an address with a zone is not supported")
    inner = _unescaped_host(inner)
    try:
        ipaddress.IPv6Address(inner)
    except ValueError as error:
        raise BuiltinError("invalid host") from error
    return f"[{inner}]{port}"


def _unescaped_host(host: str) -> str:
    if _BAD_ESCAPE.search(host) or not _HOST.fullmatch(host):
        raise BuiltinError("invalid character in host name")
    if any(not _HOST_ESCAPE.match(host, at.start()) for at in re.finditer("%", host)):
        raise BuiltinError("invalid URL escape")
    return _text(unquote_to_bytes(host))


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoAnswerError("a URI that is no UTF-8 once unescaped is not supported") from error


def _parse(text: Any) -> dict[str, str]:
    found = parse_uri(check(1, text, "string"))
    host, port = found.host, ""
    name, colon, digits = host.rpartition(":")
    if colon and _PORT.fullmatch(":" + digits):
        host, port = name, digits
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    path = _text(found.path)
    told = {
        "scheme": found.scheme,
        "hostname": host,
        "port": port,
        "path": path,
        "raw_path": found.raw_path or path,
        "raw_query": found.query,
        "fragment": _text(found.fragment),
    }
    return {name: value for name, value in told.items() if value}


def _is_valid(text: Any) -> bool:
    if not isinstance(text, str) or not text:
        return False
    try:
        parse_uri(text)
    except BuiltinError:
        return False
    return True


#: by name
URIS: Final[dict[str, Callable[..., Any]]] = {"uri.is_valid": _is_valid, "uri.parse": _parse}
