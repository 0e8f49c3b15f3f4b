"""The key store against a dict, under merges, loads, expiry and many writers."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.journal import KeyStore, Reservation
from enrich.journal._runs import Run, merge, pack, split

DAY_US = 86_400_000_000
T0 = 1_795_000_000_000_000


def key(i: int) -> bytes:
    return random.Random(i).randbytes(16)


def write(store: KeyStore, keys: list[bytes], contents: list[bytes], seq: int, t: int = T0) -> Reservation:
    """Reserve and commit what is new."""
    reservation = store.check_and_reserve(keys, contents, timeout=5)
    if reservation.new:
        store.commit(reservation, seq, [t] * len(reservation.new))
    return reservation


def fates(r: Reservation) -> tuple[list[int], list[int], list[int], int]:
    return r.new, r.duplicates, r.conflicts, r.known_seq


@pytest.mark.parametrize("size", [1, 3, 24, 25, 1000])
@pytest.mark.parametrize("merged", [False, True])
def test_new_then_duplicate_or_conflict(size: int, merged: bool) -> None:
    store = KeyStore()
    keys, contents = [key(i) for i in range(size)], [key(-i - 1) for i in range(size)]
    everyone = list(range(size))
    assert fates(write(store, keys, contents, 101)) == (everyone, [], [], 0)
    while merged and store.merge_step():
        pass
    assert fates(write(store, keys, contents, 999)) == ([], everyone, [], 100 + size)
    others = [c if i % 2 else b"other content 16" for i, c in enumerate(contents)]
    got = write(store, keys, others, 999)
    assert fates(got) == ([], everyone[1::2], everyone[::2], 100 + size)
    assert len(store) == size


@pytest.mark.parametrize("size", [4, 40])
def test_doubles_within_one_batch(size: int) -> None:
    store = KeyStore()
    keys, contents = [key(i) for i in range(size)], [key(-i - 1) for i in range(size)]
    keys[2], contents[2] = keys[0], contents[0]  # the same event twice
    keys[3] = keys[1]  # another event under the same key
    got = write(store, keys, contents, 50)
    assert fates(got) == ([0, 1, *range(4, size)], [2], [3], 0)
    again = write(store, keys, contents, 500)
    assert fates(again) == ([], [0, 1, 2, *range(4, size)], [3], 50 + size - 3)


def test_a_released_key_is_free_again() -> None:
    store = KeyStore()
    for size in (2, 200):
        keys = [key(size * 1000 + i) for i in range(size)]
        first = store.check_and_reserve(keys, keys)
        store.release(first)
        store.release(first)
        with pytest.raises(ValueError, match="before"):
            store.commit(first, 1, [T0] * size)
        second = store.check_and_reserve(keys, keys, timeout=1)
        assert second.new == list(range(size))
        with pytest.raises(ValueError, match="times are given"):
            store.commit(second, 1, [T0])
        store.release(second)


@pytest.mark.parametrize("first_size", [1, 100])
@pytest.mark.parametrize("second_size", [1, 100])
@pytest.mark.parametrize("succeeds", [True, False])
def test_the_second_writer_waits_then_is_a_duplicate_or_takes_over(
    first_size: int, second_size: int, succeeds: bool
) -> None:
    store = KeyStore()
    first_keys = [key(0), *(key(1000 + i) for i in range(first_size - 1))]
    second_keys = [*(key(2000 + i) for i in range(second_size - 1)), key(0)]
    first = store.check_and_reserve(first_keys, first_keys)
    with pytest.raises(TimeoutError):
        store.check_and_reserve(second_keys, second_keys, timeout=0.02)
    got: list[Reservation] = []
    thread = threading.Thread(target=lambda: got.append(store.check_and_reserve(second_keys, second_keys, timeout=10)))
    thread.start()
    time.sleep(0.05)
    assert not got
    if succeeds:
        store.commit(first, 7, [T0] * first_size)
    else:
        store.release(first)
    thread.join()
    last = second_size - 1
    if succeeds:
        assert fates(got[0]) == (list(range(last)), [last], [], 7)
    else:
        assert fates(got[0]) == (list(range(second_size)), [], [], 0)


def test_a_waiting_writer_holds_nothing() -> None:
    store = KeyStore()
    a, b, c = key(1), key(2), key(3)
    first = store.check_and_reserve([a], [a])
    thread = threading.Thread(target=lambda: store.release(store.check_and_reserve([b, a], [b, a], timeout=10)))
    thread.start()
    time.sleep(0.05)
    other = store.check_and_reserve([c, b], [c, b], timeout=1)  # not held up by the one that waits for `a`
    assert other.new == [0, 1]
    store.release(other)
    store.release(first)
    thread.join()


def test_many_writers_of_the_same_keys_each_key_is_new_once() -> None:
    store = KeyStore()
    order = threading.Lock()
    seq = [1]
    accepted: dict[bytes, int] = {}
    stop = threading.Event()

    def merge_all() -> None:
        while not stop.is_set():
            store.merge_step()

    def work(seed: int) -> None:
        random_ = random.Random(seed)
        for _ in range(120):
            n = random_.choice([1, 1, 2, 30, 60])
            keys = [key(random_.randrange(3000)) for _ in range(n)]
            reservation = store.check_and_reserve(keys, keys, owner=seed, timeout=30)
            assert not reservation.conflicts
            if not reservation.new:
                continue
            if random_.random() < 0.2:
                store.release(reservation)
                continue
            with order:
                for i in reservation.new:
                    assert keys[i] not in accepted
                    accepted[keys[i]] = seq[0]
                    seq[0] += 1
                store.commit(reservation, seq[0] - len(reservation.new), [T0] * len(reservation.new))

    failures: list[BaseException] = []

    def guarded(seed: int) -> None:
        try:
            work(seed)
        except BaseException as error:  # noqa: BLE001 - handed to the test below
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(s,)) for s in range(12)]
    merger = threading.Thread(target=merge_all)
    for t in (*threads, merger):
        t.start()
    for t in threads:
        t.join()
    stop.set()
    merger.join()
    assert not failures
    assert len(store) == len(accepted) == seq[0] - 1
    for k, s in accepted.items():
        assert store.check_and_reserve([k], [k]).known_seq == s
    assert not store._reserved


def test_bulk_load_in_blocks_then_find_each() -> None:
    store = KeyStore()
    random_ = np.random.default_rng(1)
    n = 60_000
    keys, contents = (random_.integers(0, 2**64, (n, 2), dtype=np.uint64) for _ in range(2))
    seqs, times = np.arange(1, n + 1), np.full(n, T0)
    for start in range(0, n, 7000):
        part = slice(start, start + 7000)
        store.load(keys[part], contents[part], seqs[part], times[part])
    store.settle()
    assert len(store) == n
    assert store.nbytes / n < 33.5
    raw = [k.tobytes() for k in keys.astype(">u8")]
    raw_contents = [c.tobytes() for c in contents.astype(">u8")]
    for i in range(0, n, 997):
        assert fates(store.check_and_reserve([raw[i]], [raw_contents[i]])) == ([], [0], [], i + 1)
    some = list(range(0, n, 13))
    got = store.check_and_reserve([raw[i] for i in some], [raw_contents[i] for i in some])
    assert fates(got) == ([], list(range(len(some))), [], some[-1] + 1)
    mixed = [raw[5], *(key(i) for i in range(100)), raw[9]]
    got = store.check_and_reserve(mixed, [raw_contents[5], *[key(0)] * 100, key(0)])
    assert fates(got) == (list(range(1, 101)), [0], [101], 10)


def test_records_read_from_the_journal_can_be_added() -> None:
    store = KeyStore()
    keys = [key(i) for i in range(5)]
    store.add(keys, keys, 11, [T0] * 5)
    assert fates(store.check_and_reserve(keys, keys)) == ([], [0, 1, 2, 3, 4], [], 15)


def test_keys_with_the_same_first_half_are_told_apart() -> None:
    store = KeyStore()
    keys = [b"samehalf" + i.to_bytes(8, "big") for i in range(300)]
    write(store, keys[:100], keys[:100], 1)
    write(store, keys[100:101], keys[100:101], 101)
    while store.merge_step():
        pass
    got = write(store, keys, keys, 200)
    assert fates(got) == (list(range(101, 300)), list(range(101)), [], 101)
    while store.merge_step():
        pass
    assert fates(write(store, keys, keys, 999)) == ([], list(range(300)), [], 398)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("size", [3, 300])
def test_expired_keys_are_as_if_never_seen(size: int, merged: bool) -> None:
    store = KeyStore()
    old, young = [key(i) for i in range(size)], [key(10_000 + i) for i in range(size)]
    write(store, old, old, 1, T0)
    write(store, young, young, 1001, T0 + 2 * DAY_US)
    while merged and store.merge_step():
        pass
    store.expire(T0 - 1)
    assert write(store, old, old, 1).new == []
    store.expire(T0 + DAY_US)
    while merged and store.merge_step():
        pass
    assert len(store) == (size if merged and size > 24 else 2 * size)  # a short dict of the newest may keep some
    again = write(store, old + young, old + young, 5000, T0 + 3 * DAY_US)
    assert fates(again) == (list(range(size)), list(range(size, 2 * size)), [], 1000 + size)
    assert fates(write(store, old, old, 9999)) == ([], list(range(size)), [], 4999 + size)
    while store.merge_step():
        pass
    assert len(store) == 2 * size
    assert fates(write(store, old, old, 9999)) == ([], list(range(size)), [], 4999 + size)


def test_a_key_is_held_at_most_six_hours_beyond_its_event() -> None:
    store = KeyStore()
    times = [T0 + i * 3_600_000_000 for i in range(48)]
    keys = [key(i) for i in range(48)]
    store.add(keys, keys, 1, times)
    store.expire(T0 + 24 * 3_600_000_000)
    held = store.check_and_reserve(keys, keys).duplicates
    assert set(range(24, 48)) <= set(held)
    assert min(held) >= 18


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["write", "write", "write", "fail", "merge", "expire", "load"]),
            st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2)), max_size=45),
            st.integers(0, 5),
        ),
        max_size=30,
    )
)
def test_any_run_behaves_like_a_dict(steps: list[tuple[str, list[tuple[int, int]], int]]) -> None:
    store = KeyStore()
    model: dict[int, tuple[int, int, int]] = {}  # id -> content, seq, day
    seq, cutoff = 1, -1
    for what, events, day in steps:
        live = {k: v for k, v in model.items() if v[2] >= cutoff}
        if what == "merge":
            store.merge_step()
        elif what == "expire":
            cutoff = max(cutoff, day)
            store.expire(cutoff * DAY_US + 1_767_225_600_000_000)
        elif what == "load":
            fresh = [i for i in dict.fromkeys(i for i, _ in events) if i not in live]
            if fresh and day >= cutoff:
                t = [day * DAY_US + 1_767_225_600_000_000] * len(fresh)
                store.add([key(i) for i in fresh], [key(-1)] * len(fresh), seq, t)
                model.update({i: (0, seq + n, day) for n, i in enumerate(fresh)})
                seq += len(fresh)
        else:
            expected: tuple[list[int], list[int], list[int]] = ([], [], [])
            highest, batch = 0, {}
            for n, (i, c) in enumerate(events):
                if i in live:
                    expected[1 if live[i][0] == c else 2].append(n)
                    highest = max(highest, live[i][1])
                elif i not in batch:
                    batch[i] = c
                    expected[0].append(n)
                else:
                    expected[1 if batch[i] == c else 2].append(n)
            got = store.check_and_reserve([key(i) for i, _ in events], [key(-1 - c) for _, c in events])
            assert fates(got) == (*expected, highest)
            if what == "fail":
                store.release(got)
            elif got.new:
                store.commit(got, seq, [day * DAY_US + 1_767_225_600_000_000] * len(got.new))
                model.update({events[n][0]: (events[n][1], seq + r, day) for r, n in enumerate(got.new)})
                seq += len(got.new)
    while store.merge_step():
        pass
    for i, (c, s, day) in model.items():
        got = store.check_and_reserve([key(i)], [key(-1 - c)])
        assert fates(got) == (([], [0], [], s) if day >= cutoff else ([0], [], [], 0))
        store.release(got)


def test_merging_keeps_every_column_with_its_key() -> None:
    random_ = np.random.default_rng(3)
    runs: list[Run] = []
    everything: dict[Any, Any] = {}
    for part in range(3):
        keys = [random_.bytes(16) for _ in range(500)]
        hi, lo = split(keys)
        order = np.argsort(hi)
        seqs = np.arange(500) + part * 500
        packed = pack(np.full(500, T0), seqs)
        runs.append(Run(hi[order], lo[order], hi[order] ^ lo[order], packed[order]))
        everything |= {(int(h), int(x)): (int(h ^ x), int(p)) for h, x, p in zip(hi, lo, packed, strict=True)}
    whole = merge(runs)
    assert len(whole) == 1500
    assert all(whole.find(h, x, 0) == entry for (h, x), entry in everything.items())


def test_one_lookup_is_quick_and_a_commit_does_not_grow_with_the_batch() -> None:
    store = KeyStore()
    random_ = np.random.default_rng(1)
    n = 300_000
    keys, contents = (random_.integers(0, 2**64, (n, 2), dtype=np.uint64) for _ in range(2))
    store.load(keys, contents, np.arange(n), np.full(n, T0))
    store.settle()

    def best(action: Any) -> float:
        return min(_timed(action) for _ in range(5))

    singles = [key(i) for i in range(300)]
    held = store._held
    assert best(lambda: [store._find(k, held) for k in singles]) / 300 < 30e-6  # about 1 us when nothing else runs
    commits = []
    for b in range(5):
        ids = [random_.bytes(16) for _ in range(10_000)]
        reservation = store.check_and_reserve(ids, ids)
        times = [T0] * 10_000
        commits.append(_timed(lambda r=reservation, s=b, t=times: store.commit(r, 10_000 * s, t)))
    assert min(commits) < 1e-3  # about 20 us


def _timed(action: Any) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
