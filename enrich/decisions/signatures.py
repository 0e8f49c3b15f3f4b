"""Whether a bundle is what its signer signed: `.signatures.json` as OPA writes and verifies it.

The file holds one JSON Web Token, whose payload names every file of the bundle with its hash. Stricter than OPA where
that costs no signer anything: the token's own `alg` has to be the one that is set, hashes are SHA-2, names stand once,
and a secret or key is no shorter than its algorithm wants.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, NoReturn

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from enrich.decisions.policies import DATA_FILES, document
from enrich.errors import BadRequestError, ConfigError, PolicyError, show
from enrich.events.json import strict_loads
from enrich.settings import Settings

__all__ = ["MANIFEST", "SIGNATURES", "Verification", "verify_files"]

SIGNATURES: Final = ".signatures.json"
MANIFEST: Final = ".manifest"
#: OPA's names of hashes to Python's; MD5 and SHA-1, which OPA still knows, prove nothing
_HASHES: Final = {
    "SHA-224": "sha224",
    "SHA-256": "sha256",
    "SHA-384": "sha384",
    "SHA-512": "sha512",
    "SHA-512-224": "sha512_224",
    "SHA-512-256": "sha512_256",
}
_HEX: Final = re.compile(r"[0-9a-fA-F]{56,128}")
#: what Go's JSON escapes beyond quote and backslash
_ESCAPES: Final = {0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0C: "\\f", 0x0D: "\\r", 0x22: '\\"', 0x5C: "\\\\"}
_ESCAPED: Final = {n: f"\\u{n:04x}" for n in (*range(0x20), 0x2028, 0x2029)} | _ESCAPES


@dataclass(frozen=True, slots=True)
class Verification:
    """How bundles are verified; see the settings `bundle_*`. Without a key only unsigned ones load."""

    key: Path | None = None
    key_id: str | None = None
    algorithm: str = "RS256"
    scope: str = ""
    exclude: tuple[str, ...] = ()
    skip: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Verification:
        return cls(
            settings.bundle_verification_key,
            settings.bundle_verification_key_id,
            settings.bundle_verification_algorithm,
            settings.bundle_verification_scope,
            settings.bundle_verification_exclude,
            settings.bundle_skip_verification,
        )

    def excluded(self, name: str) -> bool:
        """Whether a file is left out of verification; `*` and `?` match within one segment."""
        return any(_pattern(one).fullmatch(name) for one in self.exclude)


class _Number(str):
    """A number as it is written: what OPA hashes."""

    __slots__ = ()


def verify_files(verification: Verification, signatures: bytes, files: Mapping[str, bytes]) -> None:
    """Hold every file of a bundle to what its token says.

    Args:
        signatures: the bytes of `.signatures.json`.
        files: all others, by name.

    Raises:
        PolicyError: `bundle_signature_invalid`, naming the file where one is at fault.
        ConfigError: the key can't be used.
    """
    listed = _listed(verification, _payload(verification, signatures))
    for name, content in files.items():
        found = listed.pop(name, None)
        if verification.excluded(name):
            continue
        if found is None:
            _refuse(f"`{name}` is not among the files that were signed", file=name)
        algorithm, expected = found
        if _digest(name, content, algorithm) != expected:
            _refuse(f"`{name}` is not what was signed", file=name)
    if listed:
        _refuse(f"`{min(listed)}` was signed and is missing", file=min(listed))


def _payload(verification: Verification, signatures: bytes) -> dict[str, Any]:
    """What the token says, its signature verified."""
    try:
        body = strict_loads(signatures, max_bytes=len(signatures))
    except BadRequestError as error:
        _refuse(f"`{SIGNATURES}`: {error.message}")
    if not isinstance(body, dict) or body.get("plugin", "_default") not in ("", "_default"):
        _refuse(f"`{SIGNATURES}` is none that can be verified: an object is wanted, without a plugin")
    tokens = body.get("signatures")
    if not isinstance(tokens, list) or len(tokens) != 1 or not isinstance(tokens[0], str):
        _refuse(f"`{SIGNATURES}` has to hold one token")
    algorithm = verification.algorithm
    jws = jwt.PyJWS(algorithms=[algorithm], options={"verify_signature": True, "enforce_minimum_key_length": True})
    try:
        token = jws.decode_complete(tokens[0], _key(verification), algorithms=[algorithm])
        payload = strict_loads(token["payload"], max_bytes=len(token["payload"]))
    except jwt.InvalidKeyError as error:
        raise _bad_key(verification, str(error)) from error
    except (jwt.PyJWTError, BadRequestError) as error:
        _refuse(f"the signature does not verify with {algorithm}: {show(str(error))}")
    if not isinstance(payload, dict):
        _refuse("the token's payload is no object")
    named = token["header"].get("kid") or payload.get("keyid")
    if verification.key_id is not None and named != verification.key_id:
        _refuse(f"the token names the key {show(named)}, not {show(verification.key_id)}")
    return payload


def _listed(verification: Verification, payload: Mapping[str, Any]) -> dict[str, tuple[str, bytes]]:
    """File name to hash algorithm and hash, as the token has them."""
    scope = payload.get("scope", "")
    if scope != verification.scope:
        _refuse(f"the token's scope is {show(scope)}, not {show(verification.scope)}")
    files = payload.get("files")
    listed: dict[str, tuple[str, bytes]] = {}
    for one in files if isinstance(files, list) else ():
        name, algorithm, digest = (one.get(k) if isinstance(one, dict) else None for k in ("name", "algorithm", "hash"))
        if not isinstance(name, str) or name in listed:
            _refuse(f"the token lists {show(name)} twice, or it is no name")
        if algorithm not in _HASHES:
            _refuse(f"the token hashes `{name}` with {show(algorithm)}", file=name)
        if not isinstance(digest, str) or not _HEX.fullmatch(digest):
            _refuse(f"the token's hash of `{name}` is none", file=name)
        listed[name] = _HASHES[algorithm], bytes.fromhex(digest)
    if not listed:
        _refuse("the token lists no files")
    return listed


def _key(verification: Verification) -> Any:
    """The key of the algorithm's own kind."""
    path, algorithm = verification.key, verification.algorithm
    if path is None:
        raise ConfigError("there is no key to verify with", setting="bundle_verification_key")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _bad_key(verification, error.strerror or type(error).__name__) from error
    if algorithm.startswith("HS"):
        return raw
    try:
        if b"-----BEGIN CERTIFICATE-----" in raw:
            key: Any = load_pem_x509_certificate(raw).public_key()
        else:
            key = load_pem_public_key(raw)
    except ValueError as error:
        raise _bad_key(verification, "it is no public key or certificate in PEM") from error
    if not isinstance(key, EllipticCurvePublicKey if algorithm.startswith("ES") else RSAPublicKey):
        raise _bad_key(verification, f"it is no key for {algorithm}")
    return key


def _bad_key(verification: Verification, reason: str) -> ConfigError:
    return ConfigError(
        f"the key at {show(str(verification.key))} can't be used: {reason}", setting="bundle_verification_key"
    )


def _digest(name: str, content: bytes, algorithm: str) -> bytes:
    """A file's hash. Of data and manifest the values are hashed, not the bytes, so that their layout is no matter."""
    digest = hashlib.new(algorithm)
    base = PurePosixPath(name).name
    if base in DATA_FILES or base == MANIFEST:
        value = document(content, name)
        with contextlib.suppress(ValueError):  # YAML; what is JSON is read as JSON, whatever it is called
            value = json.loads(content, parse_int=_Number, parse_float=_Number)
        for piece in _canonical(value):
            digest.update(piece.encode("utf-8"))
    else:
        digest.update(content)
    return digest.digest()


def _canonical(value: Any) -> Iterator[str]:
    """A document as OPA hashes it: keys sorted by their bytes, numbers as written, strings as Go's encoder has them."""
    if isinstance(value, dict):
        for i, key in enumerate(sorted(value, key=lambda k: k.encode("utf-8"))):
            yield from (",{"[i == 0], _string(key), ":")
            yield from _canonical(value[key])
        yield "}" if value else "{}"
    elif isinstance(value, list):
        for i, one in enumerate(value):
            yield ",["[i == 0]
            yield from _canonical(one)
        yield "]" if value else "[]"
    elif isinstance(value, _Number):
        yield value
    elif isinstance(value, str):
        yield _string(value)
    elif isinstance(value, float):
        yield _double(value)
    else:
        yield json.dumps(value)


def _string(text: str) -> str:
    return f'"{text.translate(_ESCAPED)}"'


def _double(value: float) -> str:
    """A number of YAML as Go writes it: the shortest digits, an exponent below 1e-6 and from 1e21 on."""
    mantissa, _, exponent = repr(value).partition("e")
    if 1e-6 <= abs(value) < 1e21 or value == 0:
        return _plain(mantissa, int(exponent or 0))
    return f"{mantissa}e{int(exponent):+d}"


def _plain(mantissa: str, exponent: int) -> str:
    """Digits without an exponent."""
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, part = mantissa.lstrip("-").partition(".")
    part = "" if part == "0" else part
    if exponent >= 0:
        part = part.ljust(exponent, "0")
        whole, part = whole + part[:exponent], part[exponent:]
    else:
        digits = whole.rjust(1 - exponent, "0")
        whole, part = digits[:exponent], digits[exponent:] + part
    whole = whole.lstrip("0") or "0"
    return f"{sign}{whole}.{part}" if part else f"{sign}{whole}"


def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": "[^/]*", "?": "[^/]"}.get(c, re.escape(c)) for c in pattern), re.DOTALL)


def _refuse(message: str, **detail: Any) -> NoReturn:
    raise PolicyError(message, code="bundle_signature_invalid", **detail)
