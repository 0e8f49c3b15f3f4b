"""The process between the engine and its OPA, so that none is left behind: nothing but the standard library.

`python _opa_guard.py COMMAND...` runs the command until standard input ends, which it does when the engine closes it,
and when the engine is gone, however it went. The command's process id is written to standard output as a line. Linux
ends the command with this process, should that be killed first.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """In the child, before the command: this process has one thread so far, and only its end is meant."""
    with contextlib.suppress(OSError, AttributeError):  # other systems than Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _main() -> None:
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=2, preexec_fn=_end_with_parent)
    sys.stdout.write(f"{child.pid}\n")
    sys.stdout.flush()

    def leave() -> None:
        child.wait()
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()
    while sys.stdin.buffer.read(4096):
        pass
    child.kill()  # which a stopped process heeds too
    child.wait()
    os._exit(0)


if __name__ == "__main__":
    _main()
