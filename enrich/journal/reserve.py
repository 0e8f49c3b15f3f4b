"""Room kept back: below `disk_low_bytes` ordinary records are refused, and a reserved file can be given up for the
others."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from enrich.errors import JournalFullError
from enrich.journal.disk import Disk

__all__ = ["Reserve"]

_FILE: Final = "reserve"
_MOST_BYTES: Final = 1 << 20
_LOOK_SECONDS: Final = 0.2


class Reserve:
    """Watches the free space of a directory.

    Args:
        low_bytes: less free space than this is `low`; 0 switches both the watch and the reserved file off.
    """

    hint: Final = "make room on the disk of the data directory; suspensions go on being written"

    def __init__(self, directory: Path, disk: Disk, low_bytes: int) -> None:
        self._directory = directory
        self._disk = disk
        self._low_bytes = low_bytes
        self._free = 0
        self._looked = -_LOOK_SECONDS
        self.low = False
        self.look()

    def look(self) -> None:
        """Look at the free space, at most five times a second; keep the reserved file while there is room for it."""
        now = time.monotonic()
        if not self._low_bytes or now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        self._free = self._disk.free_bytes(self._directory)
        self.low = self._free < self._low_bytes
        path = self._directory / _FILE
        if not self.low and not path.exists():
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.posix_fallocate(fd, 0, min(_MOST_BYTES, self._low_bytes))
            except OSError:  # no room after all, or no such call here: the free space below the mark is the reserve
                path.unlink()
            finally:
                os.close(fd)

    def release(self) -> bool:
        """Give up the reserved file; False when there is none."""
        try:
            (self._directory / _FILE).unlink()
        except OSError:
            return False
        return True

    def error(self) -> JournalFullError:
        return JournalFullError(
            f"the data directory has {self._free} bytes left, {self._low_bytes} are kept back",
            hint=self.hint, free_bytes=self._free, disk_low_bytes=self._low_bytes,
        )  # fmt: skip
