"""Bundles for tests: built and signed by the real OPA, or packed by hand where OPA would not make them."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from .opa_server import opa_binary

__all__ = ["POLICY", "build", "keys", "opa_takes", "pack", "replace_file", "sign", "write_files"]

POLICY: Final = """\
package shop

decision := {"decision": "ALLOW"} if input.amount < data.limits.most

decision := {"decision": "DENY"} if input.amount >= data.limits.most
"""
_CURVES: Final = {"256": ec.SECP256R1(), "384": ec.SECP384R1(), "512": ec.SECP521R1()}


def write_files(directory: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


def keys(directory: Path, algorithm: str = "RS256") -> tuple[Path, Path]:
    """A fresh private and public key for an algorithm, or one secret twice."""
    directory.mkdir(exist_ok=True)
    if algorithm.startswith("HS"):
        secret = directory / "secret"
        secret.write_text(os.urandom(64).hex())
        return secret, secret
    curve = _CURVES[algorithm[2:]] if algorithm.startswith("ES") else None
    key = rsa.generate_private_key(65537, 2048) if curve is None else ec.generate_private_key(curve)
    private, public = directory / "key.pem", directory / "key.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def build(directory: Path, target: Path, *options: str) -> Path:
    """`opa build -b` of a directory; relative to it, so that paths in the bundle are those below it."""
    _opa("build", "-b", ".", "-o", str(target), *options, where=directory)
    return target


def sign(directory: Path, private: Path, *options: str) -> bytes:
    """`opa sign`: what goes into `.signatures.json`."""
    _opa("sign", "-b", ".", "--signing-key", str(private), *options, where=directory)
    return (directory / ".signatures.json").read_bytes()


def opa_takes(bundle: Path, *options: str) -> bool:
    """Whether OPA itself loads the bundle, with `--verification-key` and the like."""
    command = [opa_binary(), "build", "-b", str(bundle), "-o", os.devnull, *options]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _opa(*arguments: str, where: Path) -> None:
    found = subprocess.run([opa_binary(), *arguments], cwd=where, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def pack(
    target: Path, files: Mapping[str, bytes | str], more: Sequence[tarfile.TarInfo] = (), *, end: bytes | None = None
) -> Path:
    """An archive of these files in this order, then of `more` entries without contents; `end` in place of its end."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            raw = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
        for info in more:
            archive.addfile(info)
        at = archive.offset
    tar = packed.getvalue() if end is None else packed.getvalue()[:at] + end
    replace_file(target, gzip.compress(tar, mtime=0))
    return target


def replace_file(target: Path, content: bytes) -> None:
    """In place of what is there, by rename."""
    fresh = target.with_name(target.name + ".new")
    fresh.write_bytes(content)
    fresh.replace(target)
