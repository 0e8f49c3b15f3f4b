"""Run by test_crash: eight threads append to a journal and print each seq and hash once it is durable, until killed."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from enrich.journal import Journal
from tests.journal.samples import batch


def main(directory: str, seed: str, fsync: str) -> None:
    journal = Journal.open(Path(directory), segment_bytes=40_000, sidecar_rows=8, fsync=fsync == "fsync")
    order = threading.Lock()
    os.write(1, b"open\n")

    def write(writer: int) -> None:
        for i in range(10_000):
            if i % 9 == 8:
                record = journal.prepare("anchor", {"writer": writer, "i": i})
            else:
                n = (1, 1, 2, 5, 9)[(i + writer) % 5]
                record = journal.prepare_events(batch(n, journal.hash_key, seed=(int(seed) * 8 + writer) * 10_000 + i))
            with order:
                done = journal.append(record)
            journal.wait_durable(done.last_seq)
            os.write(1, f"{done.seq} {done.count} {record.type} {done.hash}\n".encode())

    threads = [threading.Thread(target=write, args=(w,), daemon=True) for w in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
