"""Many threads parse their first event at the same time, in a process that has parsed none before."""

from __future__ import annotations

import subprocess
import sys

_FIRST_EVENTS = """
import sys, threading, time
sys.setswitchinterval(1e-6)
from enrich.events import EventParser
parser = EventParser(hash_key=b"k" * 16, retention_us=90 * 86_400_000_000, attribute_keys=None)
now = time.time_ns() // 1000
event = {"source": "s", "event_id": "e", "kind": "execution", "outcome": "failed", "agent_id": "a"}
event["occurred_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
start = threading.Barrier(32)
accepted = []
def parse():
    start.wait()
    accepted.append(parser.parse([event], now).batch.n)
threads = [threading.Thread(target=parse) for _ in range(32)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(accepted != [1] * 32)
"""


def test_the_first_events_of_many_threads_do_not_crash_the_process() -> None:
    """msgspec 0.22 ended about one process in ten here before its types were worked out ahead."""
    for _ in range(12):
        done = subprocess.run([sys.executable, "-c", _FIRST_EVENTS], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
