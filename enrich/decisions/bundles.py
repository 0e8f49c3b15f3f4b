"""Policies from a directory or an OPA bundle: one file, read as a whole or not at all.

A bundle is a gzipped tar archive as `opa build -b` makes it: `.manifest`, modules, base documents, and a signature.
Nothing of it is ever written anywhere. What OPA would take in another sense than we do is refused.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final, NoReturn

from enrich.decisions.policies import (
    DATA_FILES,
    PolicySet,
    add_document,
    document,
    is_module,
    leaves,
    load_policies,
    module_text,
    policy_set,
)
from enrich.decisions.signatures import MANIFEST, SIGNATURES, Verification, verify_files
from enrich.errors import PolicyError, show

__all__ = ["MAX_BYTES", "MAX_FILES", "MAX_UNPACKED_BYTES", "load_bundle", "load_source"]

#: of the file, of all that is in it, and how many files that may be
MAX_BYTES: Final = 32 << 20
MAX_UNPACKED_BYTES: Final = 128 << 20
MAX_FILES: Final = 10_000
_GZIP: Final = 16 + zlib.MAX_WBITS
#: how an archive ends: two blocks of zeros
_END_BYTES: Final = 1024
_FIELDS: Final = frozenset(("revision", "roots", "wasm", "rego_version", "file_rego_versions", "metadata"))


def load_source(source: Path, verification: Verification) -> PolicySet:
    """The policies of a directory or of a bundle, whichever `source` is.

    Raises:
        PolicyError: see `load_policies` and `load_bundle`; `bundle_unsigned`, a directory where a key is set.
    """
    if source.is_file():
        return load_bundle(source, verification)
    if verification.key is not None and source.is_dir():
        raise PolicyError(
            f"`{source}` is a directory, which nobody signed",
            code="bundle_unsigned",
            hint="with `bundle_verification_key` set, policies come from a signed bundle",
        )
    return load_policies(source)


def load_bundle(path: Path, verification: Verification) -> PolicySet:
    """Read, verify and check a bundle.

    Raises:
        PolicyError: `not_found`; `bundle_too_large`; `invalid_bundle`, no archive or one of another form;
            `bundle_unsupported`, what we do not evaluate; `bundle_unsigned`, `bundle_key_missing`,
            `bundle_signature_invalid`; `bundle_roots`, what lies outside the manifest's; and as `load_policies`, with
            the file.
        ConfigError: the key to verify with can't be used.
    """
    files = dict(_files(_unpacked(_read(path))))
    signatures = files.pop(SIGNATURES, None)
    _verify(verification, signatures, files)
    _refuse_other_forms(files)
    manifest = _manifest(files.get(MANIFEST))
    _refuse_compiled(manifest, files)
    modules: dict[str, str] = {}
    data: dict[str, Any] = {}
    for name, content in sorted(files.items()):
        if is_module(name):
            modules[name] = module_text(content, name)
        elif PurePosixPath(name).name in DATA_FILES:
            if name.startswith("."):  # OPA drops the dots from where it stands
                _malformed(f"{show(name)} is no place for data", file=name)
            add_document(data, content, name)
    found = policy_set(modules, data, revision=manifest.get("revision", ""))
    _check_roots(manifest, found)
    return found


def _read(path: Path) -> bytes:
    """The whole file, opened once: one that is replaced meanwhile is read as it was."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"`{path}` can't be read: {error.strerror}", code="not_found") from error
    if len(raw) > MAX_BYTES:
        raise PolicyError(f"`{path}` has more than {MAX_BYTES} bytes", code="bundle_too_large")
    return raw


def _unpacked(raw: bytes) -> bytes:
    unpack = zlib.decompressobj(_GZIP)
    try:
        tar = unpack.decompress(raw, MAX_UNPACKED_BYTES + 1)
    except zlib.error as error:
        _malformed(f"the file is no gzip: {error}")
    if len(tar) > MAX_UNPACKED_BYTES:
        raise PolicyError(f"there are more than {MAX_UNPACKED_BYTES} bytes in the bundle", code="bundle_too_large")
    if not unpack.eof or unpack.unused_data:
        _malformed("the file ends early, or something follows its end")
    return tar


def _files(tar: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in an archive, names as paths without a leading slash."""
    seen: set[str] = set()
    count = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            for member in archive:
                count += 1
                if count > MAX_FILES:
                    raise PolicyError(f"there are more than {MAX_FILES} files in the bundle", code="bundle_too_large")
                if member.isdir():
                    continue
                name = _name(member)
                if name in seen:
                    _malformed(f"{show(name)} is there twice", file=name)
                seen.add(name)
                content = archive.extractfile(member)
                if content is None:
                    _malformed(f"{show(name)} can't be read", file=name)
                yield name, content.read()
            end = archive.offset
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        _malformed(f"the archive is damaged: {show(str(error))}")
    # INVARIANT: tarfile takes a damaged header for the end; a file behind it may be the one that denies
    if any(tar[end:]) or len(tar) - end < _END_BYTES:
        _malformed("the archive is damaged: it does not end where its files do")


def _name(member: tarfile.TarInfo) -> str:
    """A file's path in the bundle. OPA writes a leading slash, tar may write `./`."""
    name = member.name.removeprefix("./").removeprefix("/")
    if not member.isreg() or member.issparse():
        _malformed(f"{show(name)} is no plain file", file=name)
    segments = name.split("/")
    if any(part in ("", ".", "..") for part in segments) or "\\" in name or not name.isprintable():
        _malformed(f"{show(member.name)} is no path in a bundle", file=member.name)
    return name


def _verify(verification: Verification, signatures: bytes | None, files: Mapping[str, bytes]) -> None:
    if verification.skip:
        return
    if verification.key is not None:
        if signatures is None:
            raise PolicyError("the bundle has no signature", code="bundle_unsigned", file=SIGNATURES)
        verify_files(verification, signatures, files)
    elif signatures is not None:
        raise PolicyError(
            "the bundle is signed, and there is no key to verify it with",
            code="bundle_key_missing",
            hint="set `bundle_verification_key`, or `bundle_skip_verification` to load it as it is",
        )


def _refuse_other_forms(files: Mapping[str, bytes]) -> None:
    for name in files:
        base = PurePosixPath(name).name
        if base == "patch.json" or base.endswith(".manifest.pb"):
            what = "a delta" if base == "patch.json" else "a manifest in protobuf"
            _unsupported(f"{what} is not taken: build a whole bundle", file=name)
        if base == SIGNATURES or (name.endswith(MANIFEST) and name != MANIFEST):
            _malformed(f"{show(name)} belongs at the top of the bundle", file=name)


def _manifest(raw: bytes | None) -> dict[str, Any]:
    """What the manifest says, its roots without slashes around them; without one, what OPA takes for granted."""
    manifest = {} if raw is None else document(raw, MANIFEST)
    unknown = sorted(manifest.keys() - _FIELDS)
    if unknown:
        _malformed(f"the manifest has a field {show(unknown[0])}", file=MANIFEST)
    roots, versions = manifest.get("roots", [""]), manifest.get("file_rego_versions", {})
    if not isinstance(manifest.get("revision", ""), str):
        _malformed("the manifest's `revision` is no string", file=MANIFEST)
    if not isinstance(roots, list) or not all(isinstance(root, str) for root in roots):
        _malformed("the manifest's `roots` are no list of strings", file=MANIFEST)
    if not isinstance(versions, dict):
        _malformed("the manifest's `file_rego_versions` are no object", file=MANIFEST)
    # True is 1 to Python
    other = [v for v in (manifest.get("rego_version", 1), *versions.values()) if type(v) is not int or v != 1]
    if other:
        _unsupported(f"Rego of version {show(other[0])}: only version 1 is evaluated", file=MANIFEST)
    manifest["roots"] = [root.strip("/") for root in roots]
    for i, root in enumerate(manifest["roots"]):
        for one in manifest["roots"][:i]:
            if _within(root, [one]) or _within(one, [root]):
                raise PolicyError(f"the roots `{one}` and `{root}` overlap", code="bundle_roots", file=MANIFEST)
    return manifest


def _refuse_compiled(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """INVARIANT: without the rules that OPA compiled a bundle's modules lack some, perhaps the one that denies."""
    found = [name for name in files if PurePosixPath(name).name == "policy.wasm"]
    if found or manifest.get("wasm"):
        _unsupported(
            "rules of the bundle are compiled to WebAssembly: evaluators compile them themselves",
            file=found[0] if found else MANIFEST,
            hint="build it with `-t rego`",
        )
    if not any(is_module(name) for name in files) and any(name.endswith("plan.json") for name in files):
        _unsupported("there is a plan in the bundle and no Rego", file="plan.json")


def _check_roots(manifest: Mapping[str, Any], policies: PolicySet) -> None:
    """Everything lies below one of the roots, so that bundles put together can't speak for each other."""
    roots = manifest["roots"]
    for name, package in policies.packages.items():
        if not _within("/".join(package), roots):
            _outside(manifest, f"package `{'.'.join(package)}`", name)
    for leaf in leaves(policies.data):
        if not _within("/".join(leaf), roots):
            _outside(manifest, f"data at `{'/'.join(leaf)}`", MANIFEST)


def _within(path: str, roots: Sequence[str]) -> bool:
    return any(not root or path == root or path.startswith(root + "/") for root in roots)


def _outside(manifest: Mapping[str, Any], what: str, name: str) -> NoReturn:
    roots = ", ".join(f"`{root}`" for root in manifest["roots"])
    raise PolicyError(f"{what} lies outside the manifest's roots {roots or '(none)'}", code="bundle_roots", file=name)


def _malformed(message: str, **detail: Any) -> NoReturn:
    raise PolicyError(message, code="invalid_bundle", **detail)


def _unsupported(message: str, **detail: Any) -> NoReturn:
    raise PolicyError(message, code="bundle_unsupported", **detail)
