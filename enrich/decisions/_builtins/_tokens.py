"""JSON Web Tokens: read, verified and signed as OPA does it."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from json import JSONDecodeError
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from enrich.decisions._builtins._asked import Asked, PerEvaluation
from enrich.decisions._builtins._json import read_json
from enrich.decisions._builtins._keys import ALGORITHMS, Key, keys_of
from enrich.decisions._builtins._texts import marshal
from enrich.decisions._builtins._values import BuiltinError, NoAnswerError, check, type_name
from enrich.decisions._terms import RegoFloat, RegoObject

__all__ = ["TOKENS"]

_HASHES: Final = {256: hashes.SHA256(), 384: hashes.SHA384(), 512: hashes.SHA512()}
_BASE64: Final = re.compile(r"(?:[\w-]{4})*(?:[\w-]{2}==|[\w-]{3}=)?", re.ASCII)
#: how deep tokens may stand in tokens
_NESTED: Final = 16
_UNVERIFIED: Final[tuple[Any, ...]] = (False, {}, {})


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    payload: str
    signature: str

    def signed(self) -> bytes:
        return f"{self.header}.{self.payload}".encode()


def _split(text: Any) -> _Token:
    parts = check(1, text, "string").split(".")
    if len(parts) != 3:
        raise BuiltinError(f"encoded JWT must have 3 sections, found {len(parts)}")
    return _Token(*parts)


def _decoded(text: str) -> bytes:
    if not text.endswith("="):
        # by bytes: a character that is none of base64 fails below anyway
        left = len(text.encode()) % 4
        if left == 1:
            raise BuiltinError(f"illegal base64url string: {text}")
        text += "=" * (-left % 4)
    text = text.replace("\r", "").replace("\n", "")
    if _BASE64.fullmatch(text) is None:
        raise BuiltinError("illegal base64 data")
    return base64.urlsafe_b64decode(text)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoAnswerError("a token that is no UTF-8 is not supported") from error


def _object(text: str) -> dict[str, Any]:
    value = read_json(text)
    if not isinstance(value, dict):
        raise BuiltinError("decoded JSON type was not an Object")
    return value


def _header(token: _Token) -> dict[str, Any]:
    header = _object(_text(_decoded(token.header)))
    if "enc" in header:
        raise BuiltinError("JWT is a JWE object, which is not supported")
    return header


def _decode(text: Any) -> list[Any]:
    for _ in range(_NESTED):
        token = _split(text)
        header = _header(token)
        payload = _text(_decoded(token.payload))
        if not isinstance(header.get("cty", ""), str):
            raise NoAnswerError("io.jwt.decode: a `cty` that is no text is not supported")
        if header.get("cty") != "JWT":
            return [header, _object(payload), _decoded(token.signature).hex()]
        text = payload.strip("\"'")
    raise NoAnswerError("io.jwt: tokens nested so deep are not supported")


@dataclass(frozen=True, slots=True)
class _Header:
    """What OPA looks at of a header."""

    alg: str
    kid: str
    cty: str
    valid: bool


def _checked(header: Mapping[str, Any]) -> _Header:
    for name in ("alg", "kid", "typ", "cty"):
        if not isinstance(header.get(name, ""), str):
            raise BuiltinError(f"{name}: must be a string")
    critical: set[str] = set()
    if "crit" in header:
        if not isinstance(header["crit"], list):
            raise BuiltinError("crit: must be a list")
        for name in header["crit"]:
            if not isinstance(name, str):
                # as OPA: what follows is not looked at
                break
            critical.add(name)
        if not critical:
            raise BuiltinError("crit: must be a nonempty list")
    unknown = header.keys() - {"alg", "kid", "typ", "cty", "crit"}
    alg = header.get("alg", "")
    return _Header(alg, header.get("kid", ""), header.get("cty", ""), bool(alg) and not unknown & critical)


def _rsa_verified(key: Any, scheme: Any, algorithm: Any, data: bytes, signature: bytes) -> bool:
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    return _holds(lambda: key.verify(signature, data, scheme, algorithm))


def _ec_verified(key: Any, algorithm: Any, data: bytes, signature: bytes) -> bool:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    half = len(signature) // 2
    one, other = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
    return _holds(lambda: key.verify(encode_dss_signature(one, other), data, ec.ECDSA(algorithm)))


def _ed_verified(key: Any, data: bytes, signature: bytes) -> bool:
    return isinstance(key, ed25519.Ed25519PublicKey) and _holds(lambda: key.verify(signature, data))


def _holds(verify: Callable[[], None]) -> bool:
    try:
        verify()
    except InvalidSignature:
        return False
    return True


def _verified(key: Key, alg: str, data: bytes, signature: bytes, salt: Any) -> bool:
    """Whether a signature is right; `salt` is the length that PSS may have."""
    if alg == "EdDSA":
        return _ed_verified(key.public, data, signature)
    family, algorithm = alg[:2], _HASHES[int(alg[2:])]
    if family == "HS":
        if not isinstance(key.public, bytes) or not key.public:
            return False
        return hmac.compare_digest(hmac.digest(key.public, data, f"sha{alg[2:]}"), signature)
    if family == "ES":
        return _ec_verified(key.public, algorithm, data, signature)
    scheme = padding.PKCS1v15() if family == "RS" else padding.PSS(padding.MGF1(algorithm), salt)
    return _rsa_verified(key.public, scheme, algorithm, data, signature)


def _verifier(alg: str) -> Callable[[Any, Any], bool]:
    def verify(text: Any, given: Any) -> bool:
        token = _split(text)
        keys = keys_of(check(2, given, "string"))
        signature = _decoded(token.signature)
        header = _checked(_header(token))

        def right(key: Key) -> bool:
            # as OPA: a key with its private part is none for this
            return key.private is None and _verified(key, alg, token.signed(), signature, padding.PSS.AUTO)

        named = [key for key in keys if header.kid and key.kid == header.kid]
        if named:
            return right(named[0])
        return any(right(key) for key in keys if not key.alg or key.alg == header.alg)

    return verify


def _secret_verifier(name: str) -> Callable[[Any, Any], bool]:
    def verify(text: Any, secret: Any) -> bool:
        check(1, text, "string")
        check(2, secret, "string")
        token = _split(text)
        signature = _decoded(token.signature)
        return hmac.compare_digest(hmac.digest(secret.encode(), token.signed(), name), signature)

    return verify


@dataclass(frozen=True, slots=True)
class _Constraints:
    keys: list[Key] | None
    secret: str
    alg: str
    iss: str
    aud: str
    seconds: Fraction

    def hold(self, header: _Header, token: _Token, signature: bytes) -> bool:
        if header.alg not in ALGORITHMS:
            if header.alg == "none":
                return False
            raise NoAnswerError("io.jwt.decode_verify: a token of this `alg` is not supported")
        if self.keys is None:
            return self._right(Key(self.secret.encode()), header.alg, token, signature)
        named = [key for key in self.keys if header.kid and key.kid == header.kid]
        if named:
            return self._right(named[0], header.alg, token, signature)
        return any(
            self._right(key, header.alg, token, signature) for key in self.keys if not key.alg or key.alg == header.alg
        )

    def _right(self, key: Key, alg: str, token: _Token, signature: bytes) -> bool:
        public = key.public
        curved = alg.startswith("ES") and isinstance(public, ec.EllipticCurvePublicKey)
        if curved and len(signature) != 2 * ((public.key_size + 7) // 8):
            return False
        return _verified(key, alg, token.signed(), signature, padding.PSS.DIGEST_LENGTH)


def _constraints(asked: Asked, given: Any) -> _Constraints:
    if isinstance(given, RegoObject):
        raise NoAnswerError("io.jwt.decode_verify: constraints that are no texts are not supported")
    for name in given:
        if name not in ("cert", "secret", "alg", "iss", "aud", "time"):
            raise BuiltinError(f"unknown token validation constraint: {name}")
    for name in ("cert", "secret", "alg", "iss", "aud"):
        if not isinstance(given.get(name, ""), str):
            raise BuiltinError(f"{name} constraint: must be a string")
    now = given.get("time", asked.now_ns)
    if type_name(now) != "number" or now < 0:
        raise BuiltinError("token time constraint: must be a number that is not negative")
    keys = keys_of(given["cert"]) if "cert" in given else None
    secret = given.get("secret", "")
    if (keys is not None) + bool(secret) != 1:
        raise BuiltinError("one key constraint is needed")
    seconds = _exact(repr(float(now) / 1e9))
    return _Constraints(keys, secret, given.get("alg", ""), given.get("iss", ""), given.get("aud", ""), seconds)


def _exact(text: str) -> Fraction:
    if (found := re.search(r"[eE]([-+]?[0-9]+)$", text)) and abs(int(found[1])) > 400:
        raise NoAnswerError("io.jwt.decode_verify: a time so far off is not supported")
    return Fraction(text)


def _time(payload: Mapping[str, Any], name: str) -> Fraction | None:
    if name not in payload:
        return None
    value = payload[name]
    if type_name(value) != "number":
        raise BuiltinError(f"{name} value must be a number")
    return _exact(value.text if isinstance(value, RegoFloat) else str(value))


def _decode_verify(asked: Asked, text: Any, given: Any) -> list[Any]:
    constraints = _constraints(asked, check(2, given, "object"))
    for _ in range(_NESTED):
        token = _split(text)
        header = _header(token)
        told = _checked(header)
        if not told.valid or (constraints.alg and constraints.alg != told.alg):
            return list(_UNVERIFIED)
        if not constraints.hold(told, token, _decoded(token.signature)):
            return list(_UNVERIFIED)
        text = _text(_decoded(token.payload))
        if told.cty.upper() != "JWT":
            payload = _object(text)
            return [True, header, payload] if _claims_hold(constraints, payload) else list(_UNVERIFIED)
    raise NoAnswerError("io.jwt: tokens nested so deep are not supported")


def _claims_hold(constraints: _Constraints, payload: Mapping[str, Any]) -> bool:
    if constraints.iss:
        if not isinstance(payload.get("iss", ""), str):
            raise NoAnswerError("io.jwt.decode_verify: an `iss` that is no text is not supported")
        if payload.get("iss") != constraints.iss:
            return False
    audience = payload.get("aud", [constraints.aud] if not constraints.aud else [])
    if not isinstance(audience, str | list):
        return False
    if constraints.aud not in (audience if isinstance(audience, list) else [audience]):
        return False
    expires = _time(payload, "exp")
    if expires is not None and constraints.seconds >= expires:
        return False
    begins = _time(payload, "nbf")
    return begins is None or constraints.seconds >= begins


def _sign(headers: Any, payload: Any, key: Any) -> str:
    for position, value in enumerate((headers, payload, key), 1):
        check(position, value, "object")
    return _signed(marshal(headers), marshal(payload), marshal(key))


def _sign_raw(headers: Any, payload: Any, key: Any) -> str:
    check(3, key, "string")
    check(1, headers, "string")
    check(2, payload, "string")
    return _signed(headers, payload, key)


def _signed(headers: str, payload: str, jwk: str) -> str:
    keys = keys_of(jwk) if "-----BEGIN" not in jwk else []
    if not keys:
        raise BuiltinError("no keys found in JWK set")
    try:
        read = read_json(headers, unique=True)
    except BuiltinError as error:
        # OPA reads headers by other rules: with characters and numbers that are no JSON
        cause = error.__cause__
        sure = isinstance(cause, JSONDecodeError) and cause.msg.startswith(("Expecting ':'", "Expecting property"))
        if not sure and re.search(r"[\x00-\x1f\\0-9]", headers):
            raise NoAnswerError("io.jwt: headers of this form are not supported") from error
        raise
    alg = read.get("alg") if isinstance(read, dict) else None
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise BuiltinError("missing or invalid 'alg' header")
    if not isinstance(read.get("typ"), str) or read["typ"] == "JWT":
        read_json(payload)
    signed = f"{_encoded(headers.encode())}.{_encoded(payload.encode())}"
    return f"{signed}.{_encoded(_signature(keys[0], alg, signed.encode()))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _signature(key: Key, alg: str, data: bytes) -> bytes:
    private = key.private
    if alg == "EdDSA":
        if isinstance(private, ed25519.Ed25519PrivateKey):
            return private.sign(data)
    elif alg.startswith("HS"):
        if isinstance(private, bytes):
            return hmac.digest(private, data, f"sha{alg[2:]}")
    elif alg.startswith("ES"):
        if isinstance(private, ec.EllipticCurvePrivateKey):
            size = (private.key_size + 7) // 8
            one, other = decode_dss_signature(private.sign(data, ec.ECDSA(_HASHES[int(alg[2:])])))
            return one.to_bytes(size) + other.to_bytes(size)
    elif isinstance(private, rsa.RSAPrivateKey):
        algorithm = _HASHES[int(alg[2:])]
        if alg.startswith("RS"):
            return private.sign(data, padding.PKCS1v15(), algorithm)
        return private.sign(data, padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH), algorithm)
    raise BuiltinError("the key is none for this `alg`")


#: by name
TOKENS: Final[dict[str, Callable[..., Any] | PerEvaluation]] = {
    "io.jwt.decode": _decode,
    "io.jwt.decode_verify": PerEvaluation(_decode_verify),
    "io.jwt.encode_sign": _sign,
    "io.jwt.encode_sign_raw": _sign_raw,
    **{f"io.jwt.verify_{alg.lower()}": _verifier(alg) for alg in ALGORITHMS if not alg.startswith("HS")},
    **{f"io.jwt.verify_hs{bits}": _secret_verifier(f"sha{bits}") for bits in (256, 384, 512)},
}
