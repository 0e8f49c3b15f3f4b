"""Texts: affixes, units, versions, encodings, hashes."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import zip_longest
from typing import Any, Final
from urllib.parse import quote_plus, unquote_to_bytes

from enrich.decisions._builtins._values import UNDEFINED, BuiltinError, NoAnswerError, check, integer, type_name, wrong
from enrich.decisions._terms import RegoObject, plain, term_text

__all__ = ["TEXTS", "marshal"]

_VERSION: Final = re.compile(
    r"v?(?P<numbers>[^+-]*)(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
_NUMBER: Final = re.compile(r"0|[1-9][0-9]*")
_AMOUNT: Final = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_GLOB: Final = re.compile(r"[*?\\\[\]{}]")
_HTML: Final = re.compile("[<>&\u2028\u2029]")
_UUID: Final = re.compile(
    r"(?:(?:urn:uuid:)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32})",
    re.IGNORECASE | re.ASCII,
)
_BINARY: Final = {f"{p}i": 1024**n for n, p in enumerate("kmgtpe", 1)}
_DECIMAL: Final = {p: 1000**n for n, p in enumerate("kmgtpe", 1)}


def _texts_of(position: int, value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    check(position, value, "string", "set", "array")
    for member in value:
        if not isinstance(member, str):
            raise wrong(position, f"must be a collection of strings but holds a {type_name(member)}")
    return list(value)


def _any_prefix(search: Any, base: Any) -> bool:
    return any(s.startswith(b) for s in _texts_of(1, search) for b in _texts_of(2, base))


def _any_suffix(search: Any, base: Any) -> bool:
    return any(s.endswith(b) for s in _texts_of(1, search) for b in _texts_of(2, base))


def _count(text: Any, part: Any) -> int:
    check(1, text, "string")
    check(2, part, "string")
    return int(text.count(part))


def _amount(text: str) -> tuple[str, str]:
    """Where the number ends and the unit begins; an `e` that no digit or sign follows begins a unit."""
    at = 0
    while at < len(text):
        char = text[at]
        if char in "eE":
            ahead = text[at + 1 : at + 2]
            if not (ahead.isdecimal() and ahead.isascii()) and ahead not in ("+", "-"):
                break
            sign = at + 1 if ahead in "+-" else at
            if re.match(r"[0-9]{7}", text[sign + 1 :]):
                raise BuiltinError("exponent too large")
            at = sign + 1
            continue
        if not char.isascii():
            raise NoAnswerError("units: a character outside ASCII is not supported")
        if not (char.isdecimal() or char in ".+-"):
            break
        at += 1
    return text[:at], text[at:]


def _number(text: str) -> Fraction:
    if not text:
        raise BuiltinError("no amount provided")
    if _AMOUNT.fullmatch(text) is None:
        raise BuiltinError("could not parse amount to a number")
    if (exponent := re.search(r"[eE]([-+]?[0-9]+)$", text)) and abs(int(exponent[1])) > 400:
        raise NoAnswerError("units: so large an exponent is not supported")
    return Fraction(text)


def _units(value: Any) -> int | float:
    text = str(check(1, value, "string")).replace('"', "")
    if " " in text:
        raise BuiltinError("spaces not allowed in resource strings")
    number, unit = _amount(text)
    if not number:
        raise BuiltinError("no amount provided")
    unit = unit[:1] + unit[1:].lower()
    if unit == "m":
        # the double that is nearest to a thousandth, as OPA multiplies
        factor = Fraction(0.001)
    elif unit == "":
        factor = Fraction(1)
    elif unit in ("k", "K") or (unit[:1].lower() in "mgtpe" and len(unit) == 1):
        factor = Fraction(_DECIMAL[unit.lower()])
    elif len(unit) == 2 and unit.lower() in _BINARY:
        factor = Fraction(_BINARY[unit.lower()])
    else:
        raise BuiltinError(f"unit {unit} not recognized")
    result = _number(number) * factor
    if result.denominator == 1:
        return int(result)
    scaled = abs(result) * 10**10
    # to ten places, halves away from zero
    rounded = Fraction((2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator), 10**10)
    return float(rounded if result > 0 else -rounded)


def _bytes(value: Any) -> int:
    text = str(check(1, value, "string")).lower().replace('"', "")
    if " " in text:
        raise BuiltinError("spaces not allowed in resource strings")
    number, unit = _amount(text)
    if not number:
        raise BuiltinError("no byte amount provided")
    name = unit.removesuffix("b") if unit != "b" else unit
    if unit and name not in _BINARY and name not in _DECIMAL:
        raise BuiltinError(f"byte unit {unit} not recognized")
    factor = 1 if not unit else _BINARY.get(name) or _DECIMAL[name]
    if _AMOUNT.fullmatch(number) is None:
        raise BuiltinError("could not parse byte amount to a number")
    exact = _number(number) * factor
    # OPA reads the amount as a 64 bit binary fraction: near a whole number that may be another one
    nearest = round(exact)
    if exact != nearest and abs(exact - nearest) < abs(exact) * Fraction(1, 1 << 60):
        raise NoAnswerError("units.parse_bytes: an amount so near to a whole number is not supported")
    if not _fits_64(exact) or not _fits_64(_number(number)):
        raise NoAnswerError("units.parse_bytes: so large an amount is not supported")
    return int(exact)


def _fits_64(number: Fraction) -> bool:
    """Whether what is lost with 64 binary digits does not matter: it is small, or has no more of them."""
    if abs(number) < 1 << 63:
        return True
    whole = int(number)
    return number == whole and (whole // (whole & -whole)).bit_length() <= 64


def _version(position: int, text: Any) -> tuple[tuple[int, ...], list[str]]:
    check(position, text, "string")
    found = _VERSION.fullmatch(text)
    numbers = found["numbers"].split(".") if found else []
    good = found is not None and len(numbers) == 3 and all(map(_NUMBER.fullmatch, numbers))
    pre = found["pre"].split(".") if good and found and found["pre"] else []
    if not good or any(len(p) > 1 and p[0] == "0" and p.isdecimal() for p in pre):
        raise BuiltinError(f"operand {position}: string {text} is not a valid SemVer")
    parts = tuple(map(int, numbers))
    if max(parts) >= 1 << 63:
        raise BuiltinError(f"operand {position}: string {text} is not a valid SemVer")
    return parts, pre


def _semver_compare(one: Any, other: Any) -> int:
    check(1, one, "string")
    check(2, other, "string")
    (first, before), (second, after) = _version(1, one), _version(2, other)
    if first != second:
        return 1 if first > second else -1
    if before == after:
        return 0
    if not before or not after:
        return -1 if before else 1
    for a, b in zip_longest(before, after):
        if a is None or b is None:
            return -1 if a is None else 1
        if a.isdecimal() != b.isdecimal():
            return -1 if a.isdecimal() else 1
        if a.isdecimal() and int(a) != int(b):
            return 1 if int(a) > int(b) else -1
        if not a.isdecimal() and a != b:
            return 1 if a > b else -1
    return 0


def _semver_is_valid(text: Any) -> bool:
    if not isinstance(text, str):
        return False
    try:
        _version(1, text)
    except BuiltinError:
        return False
    return True


def _hash(name: str) -> Callable[[Any], str]:
    def digest(text: Any) -> str:
        return hashlib.new(name, check(1, text, "string").encode("utf-8"), usedforsecurity=False).hexdigest()

    return digest


def _hmac(name: str) -> Callable[[Any, Any], str]:
    def digest(text: Any, key: Any) -> str:
        check(1, text, "string")
        return hmac.new(check(2, key, "string").encode("utf-8"), text.encode("utf-8"), name).hexdigest()

    return digest


def _hmac_equal(one: Any, other: Any) -> bool:
    first, second = check(1, one, "string"), check(2, other, "string")
    return hmac.compare_digest(first.encode("utf-8"), second.encode("utf-8"))


def _hex_encode(text: Any) -> str:
    return str(check(1, text, "string").encode("utf-8").hex())


def _hex_decode(text: Any) -> str:
    check(1, text, "string")
    if len(text) % 2 or re.fullmatch(r"[0-9a-fA-F]*", text, re.ASCII) is None:
        raise BuiltinError("not hexadecimal")
    return _utf8(bytes.fromhex(text))


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise NoAnswerError("bytes that are no UTF-8 are no text here") from None


def _query_encode(text: Any) -> str:
    return quote_plus(check(1, text, "string"), safe="")


def _query_decode(text: Any) -> str:
    check(1, text, "string")
    if re.search(r"%(?![0-9a-fA-F]{2})", text):
        raise BuiltinError("invalid URL escape")
    return _utf8(unquote_to_bytes(text.replace("+", " ")))


def _query_encode_object(value: Any) -> str:
    check(1, value, "object")
    pairs: list[str] = []
    fields = dict(plain(value)) if isinstance(value, RegoObject) else value
    for key in sorted(fields):
        values = plain(fields[key])
        values = [values] if isinstance(values, str) else values
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise BuiltinError("values must be string, array[string], or set[string]")
        pairs.extend(f"{_query_encode(key)}={_query_encode(v)}" for v in values)
    return "&".join(pairs)


def _query_decode_object(text: Any) -> dict[str, list[str]]:
    check(1, text, "string")
    found: dict[str, list[str]] = {}
    if ";" in text:
        raise BuiltinError("invalid semicolon separator in query")
    for part in text.split("&"):
        if part:
            key, _, value = part.partition("=")
            found.setdefault(_query_decode(key), []).append(_query_decode(value))
    return found


def _base64url_no_pad(text: Any) -> str:
    import base64

    return base64.urlsafe_b64encode(check(1, text, "string").encode("utf-8")).rstrip(b"=").decode()


def marshal(value: Any) -> str:
    """JSON as Go writes it: keys in order, no spaces, and what HTML could mistake escaped."""
    text = term_text(_ordered(plain(value, exact=True)))
    return _HTML.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def _marshal_with(value: Any, options: Any) -> str:
    """The same, with line breaks where an option asks for them."""
    check(2, options, "object")
    told: dict[str, Any] = {}
    for key, said in options.items() if isinstance(options, dict) else options:
        if key not in ("prefix", "indent", "pretty") or not isinstance(said, bool if key == "pretty" else str):
            raise wrong(2, f"has an option that there is not, or of another type: {key}")
        told[key] = said
    if not told.get("pretty", bool(told)):
        return marshal(value)
    prefix, indent = told.get("prefix", ""), told.get("indent", "\t")
    return str(prefix + _indented(plain(value, exact=True), f"\n{prefix}", indent))


def _indented(value: Any, line: str, indent: str) -> str:
    if not value or not isinstance(value, dict | list):
        return marshal(value)
    inner = line + indent
    if isinstance(value, list):
        return f"[{','.join(inner + _indented(v, inner, indent) for v in value)}{line}]"
    pairs = (f"{inner}{marshal(k)}: {_indented(value[k], inner, indent)}" for k in sorted(value))
    return f"{{{','.join(pairs)}{line}}}"


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _ordered(value[k]) for k in sorted(value)}
    return [_ordered(v) for v in value] if isinstance(value, list) else value


def _split_n(text: Any, separator: Any, count: Any) -> list[str]:
    check(1, text, "string")
    check(2, separator, "string")
    wanted = integer(3, count)
    # without a separator every character is a part
    parts = text.split(separator) if separator else list(text)
    return list(parts[:wanted] if wanted >= 0 else parts[max(0, len(parts) + wanted) :])


def _indexof_n(text: Any, part: Any) -> list[int]:
    check(1, text, "string")
    check(2, part, "string")
    if not part:
        raise BuiltinError("empty search character")
    found, at = [], text.find(part)
    while at >= 0:
        found.append(at)
        at = text.find(part, at + 1)
    return found


def _uuid(text: Any) -> Any:
    check(1, text, "string")
    if len(text.encode()) == 38:
        # braces, or whatever stands in their place
        text = text.encode()[1:-1].decode("utf-8", "replace")
        if len(text) != 36:
            return UNDEFINED
    if _UUID.fullmatch(text) is None:
        return UNDEFINED
    data = bytes.fromhex(re.sub(r"urn:uuid:|-", "", text, flags=re.IGNORECASE))
    version, variant = data[6] >> 4, data[8] >> 5
    names = {4: "RFC4122", 5: "RFC4122", 6: "Microsoft", 7: "Future"}
    told: dict[str, Any] = {"version": version, "variant": names.get(variant, "Reserved")}
    if version in (1, 2):
        ticks = int.from_bytes(data[:4]) | int.from_bytes(data[4:6]) << 32 | (int.from_bytes(data[6:8]) & 0xFFF) << 48
        mac = {0: "global:unicast", 1: "global:multicast", 2: "local:unicast", 3: "local:multicast"}
        told["time"] = (ticks - 122192928000000000) * 100
        told["nodeid"] = data[10:].hex("-")
        told["macvariables"] = mac[data[10] & 3]
        told["clocksequence"] = int.from_bytes(data[8:10]) & 0x3FFF
        if version == 2:
            told["id"] = int.from_bytes(data[:4])
            told["domain"] = {0: "Person", 1: "Group", 2: "Org"}.get(data[9], f"Domain{data[9]}")
    return told


def _quote_meta(pattern: Any) -> str:
    return _GLOB.sub(r"\\\g<0>", check(1, pattern, "string"))


#: by name
TEXTS: Final[dict[str, Callable[..., Any]]] = {
    "base64url.encode_no_pad": _base64url_no_pad,
    "crypto.hmac.equal": _hmac_equal,
    "crypto.hmac.md5": _hmac("md5"),
    "crypto.hmac.sha1": _hmac("sha1"),
    "crypto.hmac.sha256": _hmac("sha256"),
    "crypto.hmac.sha512": _hmac("sha512"),
    "crypto.md5": _hash("md5"),
    "crypto.sha1": _hash("sha1"),
    "crypto.sha256": _hash("sha256"),
    "glob.quote_meta": _quote_meta,
    "hex.decode": _hex_decode,
    "hex.encode": _hex_encode,
    "indexof_n": _indexof_n,
    "json.marshal": marshal,
    "json.marshal_with_options": _marshal_with,
    "semver.compare": _semver_compare,
    "semver.is_valid": _semver_is_valid,
    "strings.any_prefix_match": _any_prefix,
    "strings.any_suffix_match": _any_suffix,
    "strings.count": _count,
    "strings.split_n": _split_n,
    "units.parse": _units,
    "units.parse_bytes": _bytes,
    "urlquery.decode": _query_decode,
    "urlquery.decode_object": _query_decode_object,
    "urlquery.encode": _query_encode,
    "urlquery.encode_object": _query_encode_object,
    "uuid.parse": _uuid,
}
