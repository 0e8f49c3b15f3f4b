"""DATA/lock: one process per data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from enrich.errors import LockedError, show

__all__ = ["DirectoryLock"]


class DirectoryLock:
    """An exclusive `flock` on DATA/lock, held until `release` or the end of the process.

    Raises:
        LockedError: another process (or another journal of this one) holds it; `detail` has its `pid` where known.
        OSError: the file can't be opened.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "lock"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise LockedError(
                f"the data directory {show(str(directory))} is held by process {show(holder or 'unknown')}",
                hint="stop that process, or talk to it with `--url`",
                pid=int(holder) if holder.isdigit() else None,
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let others in; twice does no harm."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
