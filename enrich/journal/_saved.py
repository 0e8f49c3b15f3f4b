"""Idempotency keys saved for a quick start: files of sorted runs, mapped at load, and a manifest.

The manifest names what belongs together, with sizes and SHA-256 digests, and is replaced by rename after all of it is
on disk. A place that a run was loaded from, or saved to before, is named again instead of being written again.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from enrich.failpoints import failpoint
from enrich.journal._runs import Run
from enrich.journal.format import Position

__all__ = ["FORMAT", "SavedKeys", "keys_position", "read_keys", "write_keys"]

FORMAT: Final = 1
_MANIFEST: Final = "manifest.json"
_ALIGN: Final = 64
_READERS: Final = 2  # hashing gives up the GIL


class _NotWholeError(Exception):
    """A file is not what the manifest says."""


@dataclass(frozen=True, slots=True)
class SavedKeys:
    """All keys of the journal up to and including the record that ends at `position`: a store's runs by shard."""

    journal_id: str
    position: Position
    fresh: tuple[Run, ...]
    base: tuple[Run, ...]


def write_keys(directory: Path, keys: SavedKeys, settle: Callable[[Position], None]) -> None:
    """Make these keys the directory's; `settle` is called before they become that, to wait until they are durable.

    Raises:
        OSError: the disk does not take it; what was saved before stays.
    """
    directory.mkdir(parents=True, exist_ok=True)
    places = {"fresh": _write_runs(directory, keys.fresh, True), "base": _write_runs(directory, keys.base, False)}
    settle(keys.position)
    manifest = {
        "format": FORMAT,
        "journal_id": keys.journal_id,
        "seq": keys.position.seq,
        "hash": keys.position.hash,
        **places,
    }
    body = orjson.dumps(manifest)
    fresh = directory / (_MANIFEST + ".new")
    with fresh.open("wb") as file:
        file.write(orjson.dumps({"sha256": hashlib.sha256(body).hexdigest()}) + b"\n" + body)
        file.flush()
        os.fsync(file.fileno())
    _sync_directory(directory)
    failpoint("keys.written")
    fresh.rename(directory / _MANIFEST)
    _sync_directory(directory)
    failpoint("keys.renamed")
    kept = {_MANIFEST, *(place["file"] for runs in places.values() for place in runs)}
    for path in directory.iterdir():
        if path.name not in kept:
            path.unlink()


def _write_runs(directory: Path, runs: Sequence[Run], together: bool) -> list[dict[str, Any]]:
    """Where each run stands; those that stand nowhere yet are written to one new file, or all of them `together`."""
    path = directory / f"{uuid.uuid4().hex}.runs"
    unsaved = [r for r in runs if r.saved is None or not (directory / r.saved["file"]).exists()]
    if unsaved:
        if together:
            unsaved = list(runs)
        with path.open("wb") as file:
            places = [_write_run(file, run) for run in unsaved]
            file.flush()
            os.fsync(file.fileno())
        for run, place in zip(unsaved, places, strict=True):
            run.saved = {"file": path.name, **place}
    return [r.saved for r in runs if r.saved is not None]


def _write_run(file: IO[bytes], run: Run) -> dict[str, Any]:
    digest = hashlib.sha256()
    arrays: list[list[Any]] = []
    start = at = file.tell()
    for array in run.arrays():
        data = np.ascontiguousarray(array)
        padding = bytes(-at % _ALIGN)
        arrays.append([at + len(padding), data.dtype.str, len(data)])
        for piece in (padding, data.view(np.uint8).data):
            at += file.write(piece)
            digest.update(piece)
    return {
        "start": start, "end": at, "sha256": digest.hexdigest(), "arrays": arrays, "oldest": run.oldest,
        "place": list(run.place),
    }  # fmt: skip


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_keys(directory: Path) -> SavedKeys | None:
    """The saved keys, mapped from their files; None when there are none of this format, or they are not whole.

    Every byte is checked. Whether the position belongs to the journal is for the caller to say.
    """
    try:
        manifest = _read_manifest(directory)
        files = {place["file"] for name in ("fresh", "base") for place in manifest[name]}
        data = {name: np.asarray(np.memmap(directory / name, np.uint8, "r")) for name in files}
        with ThreadPoolExecutor(_READERS, "keys") as pool:
            fresh, base = (
                tuple(pool.map(lambda place: _read_run(data[place["file"]], place), manifest[name]))
                for name in ("fresh", "base")
            )
    except (OSError, ValueError, KeyError, TypeError, _NotWholeError):
        # missing, cut short, damaged or not readable: the caller loads the keys from DuckDB
        return None
    return SavedKeys(manifest["journal_id"], Position(manifest["seq"], manifest["hash"]), fresh, base)


def keys_position(directory: Path) -> tuple[str, Position] | None:
    """Which journal the saved keys follow, and up to where; None when there are none of this format.

    It is known also where the keys themselves are damaged.
    """
    try:
        manifest = _read_manifest(directory)
    except (OSError, ValueError, KeyError, TypeError, _NotWholeError):
        return None
    return manifest["journal_id"], Position(manifest["seq"], manifest["hash"])


def _read_manifest(directory: Path) -> dict[str, Any]:
    head, _, body = (directory / _MANIFEST).read_bytes().partition(b"\n")
    if orjson.loads(head)["sha256"] != hashlib.sha256(body).hexdigest():
        raise _NotWholeError(f"`{_MANIFEST}` does not have the hash that it carries")
    manifest: dict[str, Any] = orjson.loads(body)
    if manifest["format"] != FORMAT:
        raise _NotWholeError(f"`{_MANIFEST}` has format {manifest['format']}")
    return manifest


def _read_run(data: npt.NDArray[np.uint8], place: dict[str, Any]) -> Run:
    own = data[place["start"] : place["end"]].data
    if len(data) < place["end"] or hashlib.sha256(own).hexdigest() != place["sha256"]:
        raise _NotWholeError(f"`{place['file']}` is not what was written")
    run = Run.of_arrays(_arrays(data, place["arrays"]), place["oldest"], tuple(place["place"]))
    run.saved = place
    return run


def _arrays(data: npt.NDArray[np.uint8], places: Sequence[Sequence[Any]]) -> list[npt.NDArray[Any]]:
    return [data[at : at + np.dtype(dtype).itemsize * n].view(dtype) for at, dtype, n in places]
