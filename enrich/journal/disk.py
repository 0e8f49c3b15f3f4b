"""The file system calls whose failing or order matters to the journal, in one place so that tests can make them
fail."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["BUSY_ERRNOS", "FULL_ERRNOS", "Disk"]

#: errors of a write that say "no room", not "broken"
FULL_ERRNOS: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
#: errors that say nothing about the disk: no descriptor or memory is left to ask it
BUSY_ERRNOS: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))


class Disk:
    """File system calls of the journal.

    Args:
        fsync: False skips every fsync: for tests and throw-away directories only.
    """

    def __init__(self, *, fsync: bool = True) -> None:
        self.fsync = fsync

    def write(self, fd: int, parts: Sequence[bytes | memoryview]) -> int:
        """One `writev(2)`; returns how many bytes it took."""
        return os.writev(fd, parts)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def datasync(self, fd: int) -> None:
        if self.fsync:
            os.fdatasync(fd)

    def sync_file(self, path: Path) -> None:
        """fsync by path, metadata included."""
        if not self.fsync:
            return
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def sync_dir(self, path: Path) -> None:
        """Make the directory's entries durable."""
        self.sync_file(path)

    def replace(self, source: Path, target: Path) -> None:
        """Rename over `target` and make the new entry durable."""
        os.replace(source, target)
        self.sync_dir(target.parent)

    def link(self, source: Path, target: Path) -> None:
        """A second, durable name for a file that nobody changes any more; a copy where there are no hard links."""
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:
            self.write_file(target, source.read_bytes())
            return
        self.sync_dir(target.parent)

    def remove(self, path: Path) -> None:
        """Unlink, durably."""
        path.unlink()
        self.sync_dir(path.parent)

    def write_file(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        """A small file that is there whole or not at all: written aside, fsynced, renamed, directory fsynced."""
        aside = path.with_name(path.name + ".tmp")
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            if self.fsync:
                os.fsync(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            raise
        finally:
            os.close(fd)
        self.replace(aside, path)

    def free_bytes(self, path: Path) -> int:
        """What an unprivileged process may still write on the file system of `path`."""
        stat = os.statvfs(path)
        return stat.f_bavail * stat.f_frsize
