"""Named places where a crash test kills the process: `ENRICH_FAILPOINT=journal.write:3` does so at the third passing.

Off, a passing is one call that returns. The process is killed with SIGKILL, so that nothing is flushed, closed or
answered on the way out.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Mapping
from typing import Final

from enrich.errors import ConfigError, show

__all__ = ["FAILPOINTS", "VARIABLE", "Failpoint", "ProcessFailpoint", "failpoint", "from_environment"]

Failpoint = Callable[[str], None]

VARIABLE: Final = "ENRICH_FAILPOINT"

FAILPOINTS: Final = (
    "journal.write",  # a record's line is written, nothing else has seen it
    "journal.before_fsync",
    "journal.after_fsync",  # durable, nobody was told
    "journal.rotate.closed",  # the full segment has its manifest
    "journal.rotate.created",  # the next segment's directory entry is durable
    "journal.prune.recorded",  # a durable record names bodies that are still there
    "journal.prune.renamed",  # the segment has lost them, its manifest has not taken its place
    "journal.prune.replaced",  # the manifest has, the engine still holds the old one
    "sidecar.written",  # no line names it yet
    "history.before_commit",
    "history.after_commit",
    "engine.applied",  # appended and applied in memory
    "index.written",  # the saved index's files are durable, its manifest still names the old ones
    "index.renamed",  # the manifest names the new files, the old ones are still there
    "keys.written",  # the saved idempotency keys are durable, their manifest still names the old ones
    "keys.renamed",  # the manifest names the new files, the old ones are still there
    "backup.file",  # a file of a backup, or of a restored journal, is durable
    "backup.written",  # all of them are, and nothing says yet that they are whole
    "restore.identity",  # the restored journal has its identity, and is still marked as incomplete
)


def _nothing(name: str) -> None:
    """A passing with no failpoint armed."""


def from_environment(environment: Mapping[str, str]) -> Failpoint:
    """The failpoint that `ENRICH_FAILPOINT` arms: `name` or `name:n`; one that does nothing when it is not set.

    Raises:
        ConfigError: no such name, or `n` is no positive integer.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        return _nothing
    armed, _, number = text.partition(":")
    if armed not in FAILPOINTS:
        raise ConfigError(
            f"{VARIABLE} names {show(armed)}, which is no failpoint", hint=f"one of {', '.join(FAILPOINTS)}"
        )
    if number and not (number.isascii() and number.isdigit() and int(number) > 0):
        raise ConfigError(f"{VARIABLE} counts to {show(number)}, which is no positive integer")
    last = int(number or 1)
    passings = itertools.count(1)  # next() on it is atomic between threads

    def kill(name: str) -> None:
        if name == armed and next(passings) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


class ProcessFailpoint:
    """The failpoint that every room of this process passes. A fork server arms it anew in each process it makes."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._pass = from_environment(environment)

    def __call__(self, name: str) -> None:
        self._pass(name)

    def arm(self, environment: Mapping[str, str]) -> None:
        """Take what `environment` arms instead, counting from here on.

        Raises:
            ConfigError: see `from_environment`.
        """
        self._pass = from_environment(environment)


#: the process's own; the one place where the environment is read at import, since every room passes here
failpoint: Final = ProcessFailpoint(os.environ)
