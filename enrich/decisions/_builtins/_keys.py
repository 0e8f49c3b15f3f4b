"""Keys that tokens are verified and signed with: PEM and JWK, as far as OPA surely takes them likewise."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from enrich.decisions._builtins._json import read_json
from enrich.decisions._builtins._values import BuiltinError, NoAnswerError

__all__ = ["ALGORITHMS", "Key", "keys_of", "pem_block", "well_formed"]

#: those of JWS that OPA has
ALGORITHMS: Final = frozenset(
    [*(f"{family}{bits}" for family in ("RS", "PS", "ES", "HS") for bits in (256, 384, 512)), "EdDSA"]
)
#: algorithms that keys may be for, and that no token is signed by
_ENCRYPTING: Final = frozenset(["RSA-OAEP", "RSA-OAEP-256", "RSA1_5", "ECDH-ES", "A128KW", "A192KW", "A256KW", "dir"])
_CURVES: Final[dict[str, Any]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
_OPERATIONS: Final = frozenset(
    ["sign", "verify", "encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits"]
)
_TEXTS: Final = ("kty", "alg", "kid", "use", "x5t", "x5t#S256", "x5u")
_BLOCK: Final = re.compile(
    r"-----BEGIN ([A-Z0-9 ]+)-----\r?\n((?:[A-Za-z0-9+/=]+\r?\n)*)-----END ([A-Z0-9 ]+)-----(\r?\n)?", re.ASCII
)
_BASE64: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
#: Go does not work with an RSA key that is smaller
_SMALLEST: Final = 1024


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        public: of `cryptography`, or the bytes of a secret.
        private: of `cryptography`, when the key has that part.
        alg, kid: what a JWK says of itself, else "".
    """

    public: Any
    private: Any = None
    alg: str = ""
    kid: str = ""


def keys_of(text: str) -> list[Key]:
    """The keys of a PEM certificate, a PEM public key, a JWK or a set of them.

    Raises:
        BuiltinError: there is none.
        NoAnswerError: whether OPA takes it is not known.
    """
    found = pem_block(text)
    if found is None:
        return _jwks(text)
    kind, data, rest = found
    if rest:
        raise BuiltinError("extra data after a PEM certificate block")
    if kind not in ("CERTIFICATE", "PUBLIC KEY"):
        raise BuiltinError("failed to extract a Key from the PEM certificate")
    if not well_formed(data):
        raise BuiltinError(f"failed to parse a PEM {kind.lower()}")
    try:
        public = (
            x509.load_der_x509_certificate(data).public_key() if kind == "CERTIFICATE" else load_der_public_key(data)
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        raise NoAnswerError(f"a PEM {kind.lower()} of this form is not supported") from error
    return [Key(_known(public))]


def pem_block(text: str) -> tuple[str, bytes, str] | None:
    """The first block, as its kind, its bytes and what follows it; None when nothing looks like one.

    Raises:
        BuiltinError, NoAnswerError: it looks like one, and is none, or may be one for OPA.
    """
    if "-----BEGIN" not in text:
        return None
    found = _BLOCK.match(text)
    if found is None or found[1] != found[3]:
        if "-----END" not in text:
            raise BuiltinError("a PEM block without an end")
        raise NoAnswerError("PEM of this form is not supported")
    try:
        data = base64.b64decode(found[2].replace("\r", "").replace("\n", ""), validate=True)
    except binascii.Error as error:
        if "-----BEGIN" in text[found.end() :]:
            raise NoAnswerError("PEM of this form is not supported") from error
        raise BuiltinError("a PEM block whose content is no base64") from error
    return found[1], data, text[found.end() :]


def well_formed(data: bytes) -> bool:
    """Whether this is one DER sequence, by the lengths that it and what is directly in it tell."""
    try:
        at, end = _inside(data, 0)
        if data[0] != 0x30 or end != len(data):
            return False
        while at < end:
            _, at = _inside(data, at)
    except IndexError:
        return False
    return at == end


def _inside(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of what stands at a place begins and ends."""
    length = data[at + 1]
    at += 2
    if length & 0x80:
        count = length & 0x7F
        length, at = int.from_bytes(data[at : at + count]), at + count
    if at + length > len(data):
        raise IndexError
    return at, at + length


def _known(public: Any) -> Any:
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < _SMALLEST:
            raise NoAnswerError("so small an RSA key is not supported")
    elif isinstance(public, ec.EllipticCurvePublicKey):
        if not isinstance(public.curve, tuple(_CURVES.values())):
            raise NoAnswerError("a key of this curve is not supported")
    elif not isinstance(public, ed25519.Ed25519PublicKey):
        raise NoAnswerError("a key of this kind is not supported")
    return public


def _jwks(text: str) -> list[Key]:
    value = read_json(text, unique=True)
    if not isinstance(value, dict):
        raise BuiltinError("failed to parse a JWK key (set)")
    if "keys" not in value:
        return [key for key in [_jwk(value)] if key is not None]
    if not isinstance(value["keys"], list):
        raise BuiltinError("failed to parse a JWK key (set)")
    return [key for key in map(_jwk, value["keys"]) if key is not None]


def _jwk(value: Any) -> Key | None:
    """One key; None when it is for what OPA leaves out."""
    if not isinstance(value, dict) or "kty" not in value:
        raise BuiltinError("a JWK without `kty`")
    if any(name in value and not isinstance(value[name], str) for name in _TEXTS):
        raise NoAnswerError("a JWK of this form is not supported")
    operations = value.get("key_ops", [])
    if not isinstance(operations, list) or not all(isinstance(o, str) and o in _OPERATIONS for o in operations):
        raise NoAnswerError("a JWK with these `key_ops` is not supported")
    _certificates(value.get("x5c", []))
    alg = value.get("alg", "")
    if alg not in ALGORITHMS and alg not in _ENCRYPTING and "alg" in value:
        raise NoAnswerError("a JWK of this `alg` is not supported")
    makers = {"RSA": _rsa, "EC": _ec, "OKP": _okp, "oct": _oct}
    if value["kty"] not in makers:
        raise BuiltinError("a JWK of an unknown `kty`")
    try:
        public, private = makers[value["kty"]](value)
    except ValueError as error:
        raise NoAnswerError("a JWK of these numbers is not supported") from error
    if alg and alg not in ALGORITHMS:
        return None
    return Key(public, private, alg, value.get("kid", ""))


def _certificates(chain: Any) -> None:
    try:
        for text in chain:
            x509.load_der_x509_certificate(base64.b64decode(text, validate=True))
    except (TypeError, ValueError) as error:
        raise NoAnswerError("a JWK with this `x5c` is not supported") from error


def _bytes(value: dict[str, Any], name: str) -> bytes:
    if name not in value:
        raise BuiltinError(f"required field {name} is missing")
    text = value[name]
    if not isinstance(text, str) or _BASE64.fullmatch(text) is None or len(text) % 4 == 1:
        raise NoAnswerError(f"a JWK whose `{name}` is no base64 for URLs is not supported")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _number(value: dict[str, Any], name: str) -> int:
    return int.from_bytes(_bytes(value, name))


def _rsa(value: dict[str, Any]) -> tuple[Any, Any]:
    numbers = rsa.RSAPublicNumbers(_number(value, "e"), _number(value, "n"))
    public = _known(numbers.public_key())
    if "d" not in value:
        return public, None
    if not {"p", "q", "dp", "dq", "qi"} <= value.keys():
        raise NoAnswerError("a private RSA key without its primes is not supported")
    p, q, d, dp, dq, qi = (_number(value, name) for name in ("p", "q", "d", "dp", "dq", "qi"))
    return public, rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, numbers).private_key()


def _ec(value: dict[str, Any]) -> tuple[Any, Any]:
    if value.get("crv") not in _CURVES:
        raise NoAnswerError("a key of this curve is not supported")
    numbers = ec.EllipticCurvePublicNumbers(_number(value, "x"), _number(value, "y"), _CURVES[value["crv"]]())
    public = numbers.public_key()
    if "d" not in value:
        return public, None
    return public, ec.EllipticCurvePrivateNumbers(_number(value, "d"), numbers).private_key()


def _okp(value: dict[str, Any]) -> tuple[Any, Any]:
    if value.get("crv") != "Ed25519":
        raise NoAnswerError("a key of this curve is not supported")
    public = ed25519.Ed25519PublicKey.from_public_bytes(_bytes(value, "x"))
    if "d" not in value:
        return public, None
    private = ed25519.Ed25519PrivateKey.from_private_bytes(_bytes(value, "d"))
    if private.public_key() != public:
        raise NoAnswerError("a private key that is not that of its public one is not supported")
    return public, private


def _oct(value: dict[str, Any]) -> tuple[Any, Any]:
    secret = _bytes(value, "k")
    return secret, secret
