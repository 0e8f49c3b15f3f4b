"""Room kept back: below `disk_low_bytes` ordinary records are refused, and a reserved file can be given up for the
others."""

from __future__ import annotations

import contextlib
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
        self._low = False
        self._look_again = False
        self.look()

    @property
    def low(self) -> bool:
        """Whether there is less room than `low_bytes`, as of 0.2 s ago at most.

        INVARIANT: whoever asks looks. Nothing is written while it is low, so nobody else would see the room come back.
        """
        now = time.monotonic()
        if self._low_bytes and now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            with contextlib.suppress(OSError):  # it can't be told: what was found last stands
                self._free = self._disk.free_bytes(self._directory)
            self._low = self._free < self._low_bytes
            self._look_again = True
        return self._low

    def look(self) -> None:
        """Look at the free space, at most five times a second; keep the reserved file while there is room for it."""
        if self.low or not self._look_again:
            return
        self._look_again = False
        path = self._directory / _FILE
        if path.exists():
            return
        # where there is no room after all, or no such call, the free space below the mark is the reserve
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.posix_fallocate(fd, 0, min(_MOST_BYTES, self._low_bytes))
            except OSError:
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
