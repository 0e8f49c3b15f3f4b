"""Cutting a journal, and moving aside the followers that are ahead of the cut.

They would rightly refuse the next start, `journal_behind`. They are moved last, after the journal has become what it
shall be: as long as one of them is left, an interrupted cut does not start, and the same cut can be made again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from enrich.engine.followed import Followed, followed
from enrich.errors import JournalFailedError, show
from enrich.history import FILE_NAME, stored_position
from enrich.journal import CutPlan, DirectoryLock, Disk, aside_name, give_up, plan_cut
from enrich.journal.identity import journal_files

__all__ = ["JournalCut"]

#: DuckDB's log, and what stands beside it while DuckDB rewrites its file
_LOGS = (".wal", ".wal.checkpoint", ".wal.recovery")


class JournalCut:
    """A cut that was worked out; the data directory is locked until `close`. Nothing changes before `make`.

    Attributes:
        plan: what the journal keeps and gives up.
        ahead: the followers that have seen what is given up; they are built again at the next start.
    """

    def __init__(self, data: Path, after: int, *, disk: Disk | None = None) -> None:
        """Lock the directory and work out the cut behind the record whose last seq is `after`.

        Raises:
            LockedError: another process holds the directory, or has the history open.
            BadRequestError: `not_a_record_end`.
            JournalCorruptError: there is no journal, or something up to `after` does not verify.
            JournalBehindError: a follower follows another journal.
            NewerFormatError, DataDirError: where a follower stands can't be told.
            JournalFailedError: a file can't be read.
        """
        self._disk = disk or Disk()
        self._data = data
        journal_files(data)  # where there is none, no lock is made either
        try:
            self._lock = DirectoryLock(data)
        except OSError as error:
            raise JournalFailedError(f"{show(str(data))} can't be locked: {error.strerror}") from error
        try:
            self.plan: CutPlan = plan_cut(data, after)
            self.ahead: tuple[Followed, ...] = tuple(self._ahead())
        except OSError as error:
            self.close()
            raise JournalFailedError(f"the journal can't be read: {error}") from error
        except BaseException:
            self.close()
            raise

    @property
    def needed(self) -> bool:
        """Whether there is anything to be done."""
        return bool(self.plan.paths or self.ahead)

    def make(self) -> list[Path]:
        """Make the cut; returns where what was given up now is. Interrupted, it can be worked out and made again.

        Raises:
            JournalFailedError: the disk does not take it.
        """
        try:
            made = give_up(self.plan, self._disk)
            made += [self._move(one.path) for one in self.ahead]
        except OSError as error:
            raise JournalFailedError(
                f"the cut was interrupted: {error}",
                hint=f"make room or mend the disk, and run `enrich journal cut --after {self.plan.kept.seq}` again",
            ) from error
        return made

    def close(self) -> None:
        """Let go of the directory."""
        self._lock.release()

    def __enter__(self) -> JournalCut:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ahead(self) -> Sequence[Followed]:
        found = followed(self._data)
        if (history := stored_position(self._data)) is not None:
            found.append(Followed("history tables", *history, self._data / FILE_NAME))
        for one in found:
            one.check_journal(self.plan.journal_id)
        return [one for one in found if one.position.seq > self.plan.kept.seq]

    def _move(self, path: Path) -> Path:
        """A file or directory to a `.cut` name; DuckDB's log before the file itself, which without it is as it was at
        its last checkpoint, while a log without its file would be thrown away."""
        target = aside_name(path, *_LOGS)
        for suffix in _LOGS:
            log = path.with_name(path.name + suffix)
            if os.path.lexists(log):
                self._disk.replace(log, target.with_name(target.name + suffix))
        self._disk.replace(path, target)
        return target
