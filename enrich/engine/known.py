"""The idempotency keys of all events held: saved beside the index, completed from DuckDB at the start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock

from enrich.engine.followed import KEYS
from enrich.history import History
from enrich.journal import Journal, KeyStore, Position, SavedKeys, read_keys, write_keys

__all__ = ["load_keys", "save_keys"]

def load_keys(data: Path, journal: Journal, history: History, progress: Callable[[str, int, int], None]) -> KeyStore:
    """The keys of everything that DuckDB has applied, which must be all of the journal.

    The saved ones are a shortcut: damaged ones are left out, and all keys come from DuckDB. That the journal goes on
    from where they stand was checked before (`refuse_replaced`).
    """
    keys, after = KeyStore(), 0
    saved = read_keys(data / KEYS)
    if saved is not None:
        keys.restore(saved.fresh, saved.base)
        after = saved.position.seq
        pruned = history.pruned_before_us()
        if pruned is not None:
            keys.expire(pruned)
    total, done = history.count(), len(keys)
    for block in history.key_blocks(after=after):
        keys.load(block.keys, block.contents, block.seq, block.occurred_at_us)
        done += len(block.seq)
        progress("keys", done, total)
    keys.settle()
    return keys


def save_keys(data: Path, journal: Journal, keys: KeyStore, order: Lock, position: Callable[[], Position]) -> None:
    """Save the keys for a quick start, once they are durable.

    Args:
        order: held for an instant, so that no record is being ordered meanwhile.
        position: called then: what the keys are complete up to.

    Raises:
        OSError: the disk does not take it; what was saved before stays.
    """
    with order:
        at = position()
        runs = keys.snapshot()
    if at.seq:
        write_keys(data / KEYS, SavedKeys(journal.journal_id, at, *runs()), lambda p: journal.wait_durable(p.seq))
