"""Anchors of a running engine: the head to keep elsewhere, and those kept that a start is held against."""

from __future__ import annotations

from collections.abc import Sequence

from enrich.errors import BadRequestError, ConfigError, JournalBehindError, show
from enrich.events import format_us
from enrich.journal import Anchor, Journal, anchor_problem, newest_anchors, read_anchors
from enrich.settings import Settings

__all__ = ["durable_anchor", "kept_anchors", "refuse_unanchored"]


def durable_anchor(journal: Journal) -> Anchor:
    """The last record that is known to be on disk, as it stands there.

    Raises:
        BadRequestError: `nothing_recorded`.
        JournalBehindError: the files have another record there than this process wrote.
    """
    durable = journal.durable
    if not durable.seq:
        raise BadRequestError("the journal has no record yet", code="nothing_recorded")
    record = next(journal.read(after=durable.seq - 1), None)
    if record is None or record.position != durable:
        raise JournalBehindError(f"the files have another record at {show(durable.seq)}", seq=durable.seq)
    return Anchor(journal.journal_id, durable.seq, durable.hash, format_us(record.at_us))


def kept_anchors(settings: Settings) -> list[Anchor]:
    """The newest of the anchors that the settings name; they speak for all before them.

    Raises:
        ConfigError: the file is missing, or a line of it is no anchor.
    """
    path = settings.anchors
    if path is None:
        return []
    try:
        return newest_anchors(read_anchors(path.read_bytes(), path.name))
    except OSError as error:
        raise ConfigError(
            f"the anchors {show(str(path))} can't be read: {error.strerror}",
            hint="`enrich journal anchor --out FILE` begins such a file; an empty one says nothing",
            setting="anchors",
        ) from error
    except BadRequestError as error:
        raise ConfigError(error.message, hint=error.detail.get("hint"), setting="anchors") from error


def refuse_unanchored(journal: Journal, anchors: Sequence[Anchor]) -> None:
    """Check that the journal has the very records that the anchors were taken of.

    Raises:
        JournalBehindError: it is another journal, ends before, or has another record there.
    """
    for one in anchors:
        record = next(journal.read(after=one.seq - 1), None)
        found = None if record is None or record.last_seq != one.seq else record.hash
        problem = anchor_problem(one, journal.identity, journal.head.seq, found)
        if problem is not None:
            raise JournalBehindError(
                problem.reason,
                hint="put back the journal's files: records that were acknowledged are missing or replaced. `enrich "
                "journal verify --anchor` holds it against every anchor",
                seq=problem.seq,
            )
