"""The saved index: one file per block, written once and mapped at load, and a manifest naming what belongs together.

A manifest is replaced by rename after everything it names is on disk, so a directory always holds one whole index.
Files that a block was loaded from, or saved to before, are named again instead of being written again. The manifest
carries its own hash and a digest of every file it names: all bytes are checked at load, since a mapped number that
has changed would be a wrong answer without a word.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import orjson

from enrich.failpoints import failpoint
from enrich.signals.plan import EntityPlan
from enrich.windows.block import Block
from enrich.windows.codes import Names, view
from enrich.windows.columns import BlockColumn
from enrich.windows.digest import digest
from enrich.windows.layout import Layout

__all__ = ["FORMAT", "SavedPosition", "Snapshot", "read_index", "restore", "saved_position", "write_index"]

FORMAT = 2
_MANIFEST = "manifest.json"
_ALIGN = 64
_PIECE = 1 << 22
_READERS = 2  # files checked at a time: hashing and summing give up the GIL


class _NotWholeError(Exception):
    """A file of the index is not what the manifest says."""


@dataclass(frozen=True, slots=True)
class SavedPosition:
    """The last journal record that an index has seen."""

    journal_id: str
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything visible at one position; tails are already in blocks."""

    blocks: Mapping[str, tuple[Block, ...]]
    names: Mapping[str, list[Any]]
    texts: list[Any]


def write_index(
    directory: Path,
    snapshot: Snapshot,
    position: SavedPosition,
    catalog_version: str,
    settle: Callable[[SavedPosition], None] | None = None,
) -> None:
    """Writes a snapshot and makes it the directory's index; `settle` is called before it becomes that.

    Raises OSError when the disk does not take it; the index saved before then stays.
    """
    directory.mkdir(parents=True, exist_ok=True)
    kept = {_MANIFEST}
    entities: dict[str, Any] = {}
    for entity, blocks in snapshot.blocks.items():
        written = []
        for block in blocks:
            saved = block.saved
            if saved is None or saved["directory"] != str(directory) or not (directory / saved["file"]).exists():
                saved = block.saved = {**_write_block(directory, block), "directory": str(directory)}
            kept.add(saved["file"])
            written.append({k: v for k, v in saved.items() if k != "directory"})
        names = _write_file(directory, "names", orjson.dumps(snapshot.names[entity]))
        kept.add(names["file"])
        entities[entity] = {"names": names, "blocks": written}
    texts = _write_file(directory, "texts", orjson.dumps(snapshot.texts))
    kept.add(texts["file"])
    if settle is not None:
        settle(position)
    manifest = {
        "format": FORMAT,
        "catalog": catalog_version,
        "journal_id": position.journal_id,
        "seq": position.seq,
        "hash": position.hash,
        "texts": texts,
        "entities": entities,
    }
    fresh = directory / (_MANIFEST + ".new")
    with fresh.open("wb") as file:
        file.write(_sealed(manifest))
        file.flush()
        os.fsync(file.fileno())
    _sync_directory(directory)
    failpoint("index.written")
    fresh.rename(directory / _MANIFEST)
    _sync_directory(directory)
    failpoint("index.renamed")
    for path in directory.iterdir():
        if path.name not in kept:
            path.unlink()


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sealed(manifest: Mapping[str, Any]) -> bytes:
    """Canonical JSON with `sha256`, the hash of the rest."""
    body = orjson.dumps(dict(manifest), option=orjson.OPT_SORT_KEYS)
    seal = hashlib.sha256(body).hexdigest()
    return orjson.dumps({**manifest, "sha256": seal}, option=orjson.OPT_SORT_KEYS)


def _read_manifest(directory: Path) -> dict[str, Any]:
    """
    Raises:
        FileNotFoundError, _NotWholeError
    """
    data = (directory / _MANIFEST).read_bytes()
    try:
        manifest: dict[str, Any] = orjson.loads(data)
        manifest.pop("sha256")
        whole = _sealed(manifest) == data
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise _NotWholeError("the manifest does not have the hash that it carries")
    return manifest


def saved_position(directory: Path) -> SavedPosition | None:
    """What the saved index has seen, whatever its catalog; None when there is none of this format, or it is damaged."""
    try:
        manifest = _read_manifest(directory)
    except (FileNotFoundError, _NotWholeError):
        return None
    return _position(manifest) if manifest["format"] == FORMAT else None


def _position(manifest: Mapping[str, Any]) -> SavedPosition:
    return SavedPosition(manifest["journal_id"], manifest["seq"], manifest["hash"])


def _write_file(directory: Path, kind: str, data: bytes) -> dict[str, str]:
    name = f"{uuid.uuid4().hex}.{kind}"
    with (directory / name).open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return {"file": name, "sha256": hashlib.sha256(data).hexdigest()}


def _read_file(directory: Path, saved: Mapping[str, str]) -> bytes:
    data = (directory / saved["file"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != saved["sha256"]:
        raise _NotWholeError(f"`{saved['file']}` is not what was written")
    return data


def _write_block(directory: Path, block: Block) -> dict[str, Any]:
    name = f"{uuid.uuid4().hex}.block"
    with (directory / name).open("wb") as file:
        meta = {
            "file": name,
            "seq_base": block.seq_base,
            "forms": list(block.layout.forms),
            "totals": block.totals,
            "peaks": [str(p) for p in block.peaks],
            "arrays": {
                "entities": _write_array(file, block.entities),
                "bounds": _write_array(file, block.bounds),
                "times": _write_array(file, block.times),
                "seqs": _write_array(file, block.seqs),
                "records": _write_array(file, block.records.view(np.uint8)),
            },
            "columns": [{k: _write_array(file, a) for k, a in c.arrays.items()} for c in block.columns],
        }
        file.flush()
        os.fsync(file.fileno())
        meta["bytes"] = file.tell()
    meta["digest"] = digest(np.asarray(np.memmap(directory / name, np.uint8, "r")))
    return meta


def _write_array(file: IO[bytes], array: npt.NDArray[Any]) -> list[Any]:
    """[offset, dtype, length]; every array is one-dimensional."""
    file.write(bytes(-file.tell() % _ALIGN))
    offset = file.tell()
    flat = np.ascontiguousarray(array).reshape(-1)
    data = view(flat.view(np.uint8))
    for at in range(0, len(data), _PIECE):
        file.write(data[at : at + _PIECE])
    return [offset, flat.dtype.str, len(flat)]


def read_index(
    directory: Path, catalog_version: str, plans: Mapping[str, EntityPlan]
) -> tuple[SavedPosition, Snapshot] | None:
    """The saved index, its arrays mapped from the files, every byte checked; None when there is none of this format and
    catalog, or it is not whole. Whether the position belongs to the journal is for the caller to say."""
    try:
        manifest = _read_manifest(directory)
        if manifest["format"] != FORMAT or manifest["catalog"] != catalog_version:
            return None
        if manifest["entities"].keys() != plans.keys():
            return None
        names: dict[str, list[Any]] = {}
        blocks: dict[str, tuple[Block, ...]] = {}
        with ThreadPoolExecutor(_READERS, "index-check") as pool:
            for entity, saved in manifest["entities"].items():
                data = list(pool.map(lambda meta: _map_block(directory, meta), saved["blocks"]))
                keys = orjson.loads(_read_file(directory, saved["names"]))
                names[entity] = [tuple(k) if isinstance(k, list) else k for k in keys]
                blocks[entity] = tuple(
                    _read_block(directory, meta, mapped, plans[entity], len(keys))
                    for meta, mapped in zip(saved["blocks"], data, strict=True)
                )
        texts = orjson.loads(_read_file(directory, manifest["texts"]))
    except FileNotFoundError:
        return None
    except _NotWholeError as error:
        logging.getLogger(__name__).warning("the saved index is damaged and will be built anew: %s", error)
        return None
    return _position(manifest), Snapshot(blocks, names, texts)


def _map_block(directory: Path, meta: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    path = directory / meta["file"]
    if path.stat().st_size != meta["bytes"]:
        raise _NotWholeError(f"`{path.name}` is not as long as the manifest says")
    data = np.asarray(np.memmap(path, np.uint8, "r"))
    if digest(data) != meta["digest"]:
        raise _NotWholeError(f"`{path.name}` is not what was written")
    return data


def _read_block(
    directory: Path, meta: dict[str, Any], data: npt.NDArray[np.uint8], plan: EntityPlan, n_entities: int
) -> Block:

    def array(place: list[Any]) -> npt.NDArray[Any]:
        offset, dtype, length = place
        size = np.dtype(dtype).itemsize * length
        found: npt.NDArray[Any] = data[offset : offset + size].view(dtype)
        return found

    layout = Layout(len(plan.counts), meta["forms"])
    arrays = meta["arrays"]
    block = Block(
        layout,
        array(arrays["entities"]),
        array(arrays["bounds"]),
        array(arrays["times"]),
        array(arrays["seqs"]),
        meta["seq_base"],
        array(arrays["records"]).view(layout.dtype),
        meta["totals"],
        [int(p) for p in meta["peaks"]],
        [
            BlockColumn(column, {k: array(place) for k, place in saved.items()})
            for column, saved in zip(plan.values, meta["columns"], strict=True)
        ],
        n_entities,
    )
    block.saved = {**meta, "directory": str(directory)}
    return block


def restore(names: Names, keys: list[Any]) -> None:
    """Gives keys the numbers they had when saved; `names` must be empty."""
    for key in keys:
        names.number(key)
