from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from enrich.journal import KeyStore, Position, SavedKeys, read_keys, write_keys
from tests.journal.test_keys import T0, key, write

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


def content(i: int) -> bytes:
    return key(i + 10_000_000)


def save(store: KeyStore, directory: Path, seq: int) -> None:
    write_keys(directory, SavedKeys("j", Position(seq, "h"), *store.snapshot()()), lambda at: None)


def loaded(directory: Path) -> KeyStore:
    saved = read_keys(directory)
    assert saved is not None
    store = KeyStore()
    store.restore(saved.fresh, saved.base)
    return store


def verdicts(store: KeyStore, asked: list[tuple[bytes, bytes]], size: int) -> list[tuple[list[int], ...]]:
    found: list[tuple[list[int], ...]] = []
    for a in range(0, len(asked), size):
        r = store.check_and_reserve([k for k, _ in asked[a : a + size]], [c for _, c in asked[a : a + size]])
        store.release(r)
        found.append((r.new, r.duplicates, r.conflicts, [r.known_seq]))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_saved_store_says_of_every_key_what_a_store_of_the_same_events_says(tmp_path: Path, seed: int) -> None:
    rng, kept, n = random.Random(seed), KeyStore(), 0
    other = KeyStore()
    while n < 60_000:
        if rng.random() < 0.2:
            size = rng.choice([1, 3, 40, 700, 9_000])
            ids = range(n, n + size)
            for store in (kept, other):
                write(store, [key(i) for i in ids], [content(i) for i in ids], n + 1, T0 + n * HOUR_US // 60)
            n += size
        elif rng.random() < 0.5:
            kept.merge_step()
        elif rng.random() < 0.2:
            save(kept, tmp_path, n)
            if rng.random() < 0.5:
                kept = loaded(tmp_path)
        elif rng.random() < 0.1:
            for store in (kept, other):
                store.expire(T0 + (n - 9_000) * HOUR_US // 60)
    save(kept, tmp_path, n)
    again = loaded(tmp_path)
    again._cutoff = other._cutoff  # DuckDB's file remembers it
    asked = [(key(i), content(i if rng.random() < 0.7 else -1)) for i in rng.sample(range(n + 9_000), 5_000)]
    for size in (1, 500):
        assert verdicts(again, asked, size) == verdicts(kept, asked, size) == verdicts(other, asked, size)
    while again.merge_step():
        pass
    assert verdicts(again, asked, 500) == verdicts(other, asked, 500)


def test_what_is_committed_after_the_snapshot_is_not_in_it() -> None:
    store = KeyStore()
    write(store, [key(1)], [content(1)], 1)
    take = store.snapshot()
    write(store, [key(2)], [content(2)], 2)
    write(store, [key(i) for i in range(10, 60)], [content(i) for i in range(10, 60)], 3)
    while store.merge_step():
        pass
    early, late = KeyStore(), KeyStore()
    early.restore(*take())
    late.restore(*store.snapshot()())
    asked = [(key(i), content(i)) for i in (1, 2, 10, 59)]
    assert [v[1] for v in verdicts(early, asked, 4)] == [[0]]
    assert [v[1] for v in verdicts(late, asked, 4)] == [[0, 1, 2, 3]]
    assert [v[1] for v in verdicts(store, asked, 4)] == [[0, 1, 2, 3]]


def test_a_snapshot_of_an_empty_tail_stays_empty_when_the_tail_fills() -> None:
    store = KeyStore()
    take = store.snapshot()
    write(store, [key(1)], [content(1)], 1)
    fresh, base = take()
    assert sum(map(len, (*fresh, *base))) == 0


def test_loaded_keys_are_completed_and_expire(tmp_path: Path) -> None:
    store = KeyStore()
    ids = range(40_000)
    write(store, [key(i) for i in ids], [content(i) for i in ids], 1, T0)
    while store.merge_step():
        pass
    save(store, tmp_path, 40_000)
    again = loaded(tmp_path)
    again.add([key(i) for i in range(40_000, 40_100)], [content(0)] * 100, 40_001, [T0 + 3 * DAY_US] * 100)
    again.settle()
    assert len(again) == 40_100
    assert [v[1] for v in verdicts(again, [(key(5), content(5)), (key(40_005), content(0))], 2)] == [[0, 1]]
    again.expire(T0 + DAY_US)
    for _ in range(2):
        assert [v[0] for v in verdicts(again, [(key(5), content(5)), (key(40_005), content(0))], 2)] == [[0]]
        while again.merge_step():
            pass
    assert len(again) == 100
    before = set(tmp_path.glob("*.runs"))
    save(again, tmp_path, 40_100)
    assert not before & set(tmp_path.glob("*.runs"))
    assert len(loaded(tmp_path)) == 100


def test_what_is_saved_already_is_not_written_again(tmp_path: Path) -> None:
    store = KeyStore()
    ids = range(40_000)
    store.add([key(i) for i in ids], [content(i) for i in ids], 1, [T0] * 40_000)
    save(store, tmp_path, 40_000)
    big = max(tmp_path.glob("*.runs"), key=lambda p: p.stat().st_size)
    when = big.stat().st_mtime_ns
    write(store, [key(50_000)], [content(50_000)], 40_001)
    save(store, tmp_path, 40_001)
    again = loaded(tmp_path)
    save(again, tmp_path, 40_001)
    assert big.stat().st_mtime_ns == when
    assert len(list(tmp_path.iterdir())) == 3
    assert len(again) == 40_001


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def flip_in_the_middle(directory: Path) -> None:
    path = max(directory.glob("*.runs"), key=lambda p: p.stat().st_size)
    flip(path, path.stat().st_size // 2)


def flip_the_position(directory: Path) -> None:
    path = directory / "manifest.json"
    flip(path, path.read_bytes().index(b'"seq":') + 6)


def cut_short(directory: Path) -> None:
    path = max(directory.glob("*.runs"), key=lambda p: p.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])


def take_away(directory: Path) -> None:
    max(directory.glob("*.runs"), key=lambda p: p.stat().st_size).unlink()


def empty_out(directory: Path) -> None:
    max(directory.glob("*.runs"), key=lambda p: p.stat().st_size).write_bytes(b"")


def no_manifest(directory: Path) -> None:
    (directory / "manifest.json").unlink()


def half_a_manifest(directory: Path) -> None:
    path = directory / "manifest.json"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def newer_format(directory: Path) -> None:
    path = directory / "manifest.json"
    body = orjson.dumps({**orjson.loads(path.read_bytes().partition(b"\n")[2]), "format": 2})
    path.write_bytes(orjson.dumps({"sha256": hashlib.sha256(body).hexdigest()}) + b"\n" + body)


@pytest.mark.parametrize(
    "damage",
    [
        flip_in_the_middle, flip_the_position, cut_short, take_away, empty_out, no_manifest, half_a_manifest,
        newer_format,
    ],
)  # fmt: skip
def test_what_is_not_whole_or_of_another_format_is_not_read(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store = KeyStore()
    write(store, [key(i) for i in range(500)], [content(i) for i in range(500)], 1)
    save(store, tmp_path, 500)
    assert read_keys(tmp_path) is not None
    damage(tmp_path)
    assert read_keys(tmp_path) is None


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    store = KeyStore()
    write(store, [key(i) for i in range(30)], [content(i) for i in range(30)], 1)
    save(store, tmp_path, 30)
    for path in sorted(tmp_path.iterdir()):
        for at in range(0, path.stat().st_size, 7):
            flip(path, at)
            assert read_keys(tmp_path) is None, (path.name, at)
            flip(path, at)
    assert read_keys(tmp_path) is not None


def test_a_snapshot_of_other_shards_is_refused() -> None:
    fresh, base = KeyStore().snapshot()()
    with pytest.raises(ValueError, match="no snapshot"):
        KeyStore().restore(fresh[1:], base)
