from __future__ import annotations

import hashlib
import random
from pathlib import Path

import orjson
import pytest

from enrich.errors import EnrichError, JournalCorruptError
from enrich.journal import verify
from enrich.journal.format import encode_head
from enrich.journal.identity import sealed, unseal
from tests.journal.samples import batch, fill, fill_segments, open_journal


def _small(directory: Path) -> None:
    """Two closed segments and an open one, inline events, a sidecar and other types."""
    with open_journal(directory, segment_bytes=1200, sidecar_rows=3) as journal:
        for i in range(2):
            fill(journal, [1], seed=10 + i)
            journal.wait_durable(journal.append(journal.prepare("anchor", {"i": i, "x": 1.0})).last_seq)
        fill(journal, [4], seed=20)
        fill_segments(journal, 1)


def _files(directory: Path) -> list[Path]:
    files = [p for p in sorted((directory / "journal").rglob("*")) if p.is_file() and p.stat().st_size]
    kinds = {p.suffix for p in files}
    assert {".ndjson", ".json", ".parquet", ".key"} <= kinds
    return files


def test_a_sound_journal_verifies(tmp_path: Path) -> None:
    _small(tmp_path)
    seen: list[tuple[int, int]] = []
    report = verify(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert report.ok
    assert report.sidecars == 1
    assert report.events == report.records - 2 + 3  # two anchors, one record of four
    assert (report.torn_bytes, report.unnamed_sidecars) == (0, 0)
    assert seen[-1][0] == seen[-1][1]
    with open_journal(tmp_path) as journal:
        assert report.head == journal.head
        assert verify(tmp_path).ok  # beside a live one


def _finds(directory: Path, path: Path, at: int, value: int) -> bool:
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[at] = value
    path.write_bytes(changed)
    try:
        return not verify(directory).ok
    except EnrichError:
        return True
    finally:
        path.write_bytes(whole)


def test_a_flipped_bit_in_any_byte_of_any_file_is_found(tmp_path: Path) -> None:
    _small(tmp_path)
    random_ = random.Random(1)
    for path in _files(tmp_path):
        data = path.read_bytes()
        step = 1 if path.suffix != ".parquet" else 7
        for at in range(0, len(data), step):
            value = data[at] ^ (1 << random_.randrange(8))
            assert _finds(tmp_path, path, at, value), f"{path.name} byte {at}: {data[at]:#x} became {value:#x}"
    assert verify(tmp_path).ok


@pytest.mark.slow
def test_any_other_value_of_any_byte_is_found(tmp_path: Path) -> None:
    _small(tmp_path)
    random_ = random.Random(2)
    for path in _files(tmp_path):
        data = path.read_bytes()
        for at in range(0, len(data), 1 if path.suffix != ".parquet" else 5):
            for value in {data[at] ^ 0x20, random_.choice([0, 10, random_.randrange(256)])} - {data[at]}:
                assert _finds(tmp_path, path, at, value), f"{path.name} byte {at}: {data[at]:#x} became {value:#x}"


def test_flips_in_a_larger_journal_are_found(tmp_path: Path) -> None:
    with open_journal(tmp_path, segment_bytes=40_000, sidecar_rows=64) as journal:
        for i in range(40):
            fill(journal, [1, 20, 100 if i % 10 == 0 else 2], seed=i)
        fill_segments(journal, 3)
    random_ = random.Random(3)
    files = _files(tmp_path)
    for _ in range(60):
        path = random_.choice(files)
        data = path.read_bytes()
        at = random_.randrange(len(data))
        assert _finds(tmp_path, path, at, data[at] ^ (1 << random_.randrange(8))), (path.name, at)


def test_a_start_finds_a_flip_anywhere_in_the_lines_it_verifies(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1, 2])
    path = tmp_path / "journal" / "00000001.ndjson"
    whole = path.read_bytes()
    random_ = random.Random(4)
    for at in range(0, len(whole) - 1, 3):
        changed = bytearray(whole)
        changed[at] ^= 1 << random_.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(EnrichError):
            open_journal(tmp_path)
    path.write_bytes(whole)
    open_journal(tmp_path).close()


def test_a_sidecar_replaced_together_with_its_name_is_found(tmp_path: Path) -> None:
    with open_journal(tmp_path, sidecar_rows=2) as journal:
        fill(journal, [3])
        (sidecar,) = [r.sidecar for r in journal.read()]
        other = journal.prepare_events(batch(3, journal.hash_key, seed=77)).sidecar
    assert sidecar is not None
    assert other is not None
    path = tmp_path / "journal" / "00000001.ndjson"
    path.write_bytes(path.read_bytes().replace(sidecar.stem.encode(), other.stem.encode()))
    sidecar.unlink()
    report = verify(tmp_path)
    assert [p.reason for p in report.problems] == ["the sidecar's events do not have their leaf hashes"]
    assert (report.problems[0].file, report.problems[0].line, report.problems[0].seq) == ("00000001.ndjson", 1, 1)


def test_a_forged_segment_with_a_forged_manifest_breaks_the_chain(tmp_path: Path) -> None:
    with open_journal(tmp_path, segment_bytes=600) as journal:
        fill_segments(journal, 2)
        journal_id = journal.journal_id
    files = tmp_path / "journal"
    manifest = unseal((files / "00000001.manifest.json").read_bytes(), "m")
    assert manifest["journal_id"] == journal_id
    body = b'{"salt":"00"}'
    digest = hashlib.sha256(body).hexdigest()
    head, hash_ = encode_head(1, 1, "anchor", manifest["last_at"], digest, manifest["prev"])
    data = head + body + b"}\n"
    (files / "00000001.ndjson").write_bytes(data)
    forged = manifest | {
        "hash": hash_, "last_seq": 1, "lines": 1, "file_bytes": len(data),
        "file_sha256": hashlib.sha256(data).hexdigest(), "sidecars": [],
    }  # fmt: skip
    (files / "00000001.manifest.json").write_bytes(sealed(forged))
    assert [p.reason for p in verify(tmp_path).problems] == ["the segment does not follow the one before"]


def test_a_missing_body_verifies_only_if_a_later_record_names_its_seq(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [2, 1])
        journal.wait_durable(journal.append(journal.prepare("prune", {"seqs": [[1, 2]]})).last_seq)
    path = tmp_path / "journal" / "00000001.ndjson"
    lines = path.read_bytes().splitlines(keepends=True)
    gone = [line[: line.index(b'"body":')] + b'"body":null}\n' for line in lines]
    path.write_bytes(gone[0] + lines[1] + lines[2])
    assert verify(tmp_path).ok
    with open_journal(tmp_path) as journal:
        first = next(journal.read())
        assert (first.body, first.batch) == (None, None)
    path.write_bytes(lines[0] + gone[1] + lines[2])
    assert [(p.seq, p.reason) for p in verify(tmp_path).problems] == [(3, "the body is missing")]
    with pytest.raises(JournalCorruptError, match="the body is missing"):
        open_journal(tmp_path)


def test_where_there_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(JournalCorruptError, match="has no journal"):
        verify(tmp_path)


def test_a_problem_names_file_line_seq_and_reason(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        fill(journal, [1, 3, 1])
    path = tmp_path / "journal" / "00000001.ndjson"
    lines = path.read_bytes().splitlines(keepends=True)
    event = orjson.loads(lines[1])["body"]["events"][1]["event_id"]
    lines[1] = lines[1].replace(f'"{event}"'.encode(), b'"1-X"')
    path.write_bytes(b"".join(lines))
    (problem,) = verify(tmp_path).problems
    assert (problem.file, problem.line, problem.seq) == ("00000001.ndjson", 2, 2)
    assert problem.reason == "the events do not have their leaf hashes"
