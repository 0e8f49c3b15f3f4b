"""Networks: what OPA does with CIDRs beside what its modules have in themselves."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from enrich.decisions._builtins._values import BuiltinError, NoAnswerError, check
from enrich.decisions._terms import RegoObject, RegoSet

__all__ = ["NETS"]

_Net = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_CIDR: Final = re.compile(r"(?P<address>[0-9a-fA-F.:]+)/(?P<bits>[0-9]{1,3})", re.ASCII)
#: more addresses than this one answer does not list
_EXPANDED: Final = 1 << 16


def _network(text: Any) -> _Net:
    found = _CIDR.fullmatch(check(1, text, "string"))
    if found is None:
        raise BuiltinError(f"invalid CIDR address: {text}")
    if len(found["bits"]) > 1 and found["bits"][0] == "0":
        raise NoAnswerError("a prefix with a zero before it is not supported")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise BuiltinError(f"invalid CIDR address: {text}") from error
    _plain(network.network_address)
    return network


def _plain(address: _Address) -> None:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise NoAnswerError("an IPv4 address within IPv6 is not supported")


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if "%" in text:
        return None
    _plain(address)
    return address


def _contains(cidr: Any, other: Any) -> bool:
    network = _network(cidr)
    check(1, other, "string")
    address = _address(other)
    if address is not None:
        return address in network
    try:
        inner = _network(other)
    except BuiltinError as error:
        raise BuiltinError(f"not a valid textual representation of an IP address or CIDR: {other}") from error
    if isinstance(network, ipaddress.IPv4Network) and isinstance(inner, ipaddress.IPv4Network):
        return inner.subnet_of(network)
    if isinstance(network, ipaddress.IPv6Network) and isinstance(inner, ipaddress.IPv6Network):
        return inner.subnet_of(network)
    return False


def _named(position: int, value: Any) -> Iterator[tuple[Any, Any]]:
    """Each CIDR, and what it is told apart by in the answer."""
    if isinstance(value, str):
        yield value, value
    elif isinstance(value, RegoSet):
        yield from ((_first(position, v), v) for v in value)
    elif isinstance(value, dict):
        yield from ((_first(position, v), k) for k, v in value.items())
    elif isinstance(value, RegoObject):
        yield from ((_first(position, v), k) for k, v in value)
    elif isinstance(value, list):
        yield from ((_first(position, v), i) for i, v in enumerate(value))


def _first(position: int, value: Any) -> Any:
    if isinstance(value, list) and not isinstance(value, RegoSet | RegoObject) and value:
        return value[0]
    if not isinstance(value, str):
        raise BuiltinError(f"operand {position}: element must be string or non-empty array")
    return value


def _contains_matches(cidrs: Any, others: Any) -> RegoSet:
    named = list(_named(2, others))
    return RegoSet([a, b] for cidr, a in _named(1, cidrs) for other, b in named if _contains(cidr, other))


def _is_valid(text: Any) -> bool:
    if not isinstance(text, str):
        return False
    try:
        _network(text)
    except BuiltinError:
        return False
    return True


def _expand(text: Any) -> RegoSet:
    network = _network(text)
    if network.num_addresses > _EXPANDED:
        raise NoAnswerError("net.cidr_expand: so many addresses are not supported")
    return RegoSet(str(a) for a in network)


def _merge(values: Any) -> RegoSet:
    if not isinstance(values, list) or isinstance(values, RegoObject):
        raise BuiltinError("operand must be an array")
    networks = [_merged(v) for v in values]
    fours = [n for n in networks if isinstance(n, ipaddress.IPv4Network)]
    sixes = [n for n in networks if isinstance(n, ipaddress.IPv6Network)]
    if fours and sixes:
        raise NoAnswerError("net.cidr_merge: IPv4 beside IPv6 is not supported")
    collapsed: list[_Net] = [*ipaddress.collapse_addresses(fours), *ipaddress.collapse_addresses(sixes)]
    return RegoSet(map(str, collapsed))


def _merged(value: Any) -> _Net:
    if not isinstance(value, str):
        raise BuiltinError("element must be string")
    address = _address(value)
    if address is None:
        return _network(value)
    if not isinstance(address, ipaddress.IPv4Address):
        raise BuiltinError("IPv6 invalid: needs prefix length")
    first = int(address) >> 24
    bits = 8 if first < 128 else 16 if first < 192 else 24
    network = ipaddress.ip_network(f"{address}/{bits}", strict=False)
    if network.network_address != address:
        raise NoAnswerError("net.cidr_merge: an address without its prefix is not supported")
    return network


#: by name
NETS: Final[dict[str, Callable[..., Any]]] = {
    "net.cidr_contains_matches": _contains_matches,
    "net.cidr_expand": _expand,
    "net.cidr_is_valid": _is_valid,
    "net.cidr_merge": _merge,
}
