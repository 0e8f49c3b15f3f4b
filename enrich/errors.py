"""Every error the engine raises, each with a stable code, an HTTP status, and a hint.

A message is lowercase, has no final period, and shows the offending value in backticks. What a caller may do about it
stands in `hint`, apart from the message. `detail` holds machine-readable facts (field, value, line, column).
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "BackupError",
    "BadRequestError",
    "BusyError",
    "ConfigError",
    "ConflictError",
    "DataDirError",
    "DefinitionError",
    "EnrichError",
    "EvaluationError",
    "EventError",
    "ForbiddenError",
    "HistoryBehindError",
    "HistoryForgedError",
    "HistoryGapError",
    "IndexNotReadyError",
    "InvalidEntityIdError",
    "JournalBehindError",
    "JournalCorruptError",
    "JournalFailedError",
    "JournalFullError",
    "LockedError",
    "MethodNotAllowedError",
    "NewerFormatError",
    "NotDurableError",
    "NotFoundError",
    "NumberNotExactError",
    "PayloadTooLargeError",
    "PolicyError",
    "UnauthorizedError",
    "UnsupportedMediaTypeError",
    "show",
]


def show(value: object, limit: int = 80) -> str:
    """A value in backticks, shortened to `limit` characters, safe for a log line or an error body."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: limit + 1])
    return f"`{text[:limit]}…`" if len(text) > limit else f"`{text}`"


class EnrichError(Exception):
    """Root of all errors of this project."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None, **detail: Any) -> None:
        super().__init__(message)
        self.message = message
        self.detail: dict[str, Any] = {k: v for k, v in detail.items() if v is not None}
        text = hint if hint is not None else self.hint
        if text:
            self.detail.setdefault("hint", text)

    def body(self) -> dict[str, Any]:
        """The one error body of the HTTP API."""
        return {"error": {"code": self.error_code, "message": self.message, "detail": self.detail}}

    @property
    def error_code(self) -> str:
        return self.code


class _CodedError(EnrichError):
    """An error whose code is chosen where it is raised, from a documented list."""

    def __init__(
        self, message: str, *, code: str | None = None, hint: str | None = None, **detail: Any
    ) -> None:
        super().__init__(message, hint=hint, **detail)
        self._code = code

    @property
    def error_code(self) -> str:
        return self._code or self.code


class BadRequestError(_CodedError):
    """The request can't be taken: malformed JSON, wrong content type, too deep, duplicate keys."""

    code = "bad_request"
    status = 400


class EventError(_CodedError):
    """One event is refused; its neighbours are kept. `detail` has `field` and `value`."""

    code = "invalid_event"
    status = 400


class HistoryForgedError(EnrichError):
    """A caller sent its own history: only the engine writes there."""

    code = "history_forged"
    status = 400
    hint = "leave the history path out of the input: the engine fills it"


class InvalidEntityIdError(EnrichError):
    code = "invalid_entity_id"
    status = 400
    hint = "an id is a string of 1 to 200 characters, without padding or control characters"


class NumberNotExactError(EnrichError):
    code = "number_not_exact"
    status = 400
    hint = "send a number that a 64-bit integer or a double holds exactly, or send it as a string"


class UnauthorizedError(_CodedError):
    code = "unauthorized"
    status = 401


class ForbiddenError(EnrichError):
    """The token is known but does not hold the scope. `detail` has `scope`."""

    code = "forbidden"
    status = 403


class NotFoundError(_CodedError):
    code = "not_found"
    status = 404


class MethodNotAllowedError(EnrichError):
    """The path exists, the method does not. `detail` has `allow`, the methods that do."""

    code = "method_not_allowed"
    status = 405


class ConflictError(_CodedError):
    """The request contradicts an earlier one."""

    code = "conflict"
    status = 409


class PayloadTooLargeError(_CodedError):
    """The body has more bytes, or more events, than one request may bring."""

    code = "body_too_large"
    status = 413


class UnsupportedMediaTypeError(EnrichError):
    """The content type is not one that the call reads."""

    code = "unsupported_media_type"
    status = 415


class BusyError(EnrichError):
    """A queue is full. Try again after `retry_after_seconds`."""

    code = "busy"
    status = 503
    retry_after_seconds: ClassVar[int] = 1


class IndexNotReadyError(EnrichError):
    code = "not_ready"
    status = 503


class HistoryBehindError(EnrichError):
    """DuckDB has not applied the sequence number this answer needs."""

    code = "history_behind"
    status = 503


class HistoryGapError(EnrichError):
    """Records reached the history that are not the next ones."""

    code = "history_gap"
    status = 500


class JournalFailedError(EnrichError):
    """An fsync failed; nothing above the durable sequence number can be answered until a restart."""

    code = "journal_failed"
    status = 503


class JournalFullError(EnrichError):
    code = "journal_full"
    status = 503


class NotDurableError(EnrichError):
    """A suspension acts from now on, in memory: the journal could not take it, and a restart forgets it."""

    code = "not_durable"
    status = 503
    hint = "authority is withdrawn; mend the disk and suspend again, or it is back after a restart"


class JournalCorruptError(EnrichError):
    """The journal does not verify. `detail` has `file`, `line`, `seq` and the reason."""

    code = "journal_corrupt"
    status = 500


class JournalBehindError(EnrichError):
    """A follower knows records that the journal lost or replaced."""

    code = "journal_behind"
    status = 500


class NewerFormatError(EnrichError):
    """A file was written by a newer version of the engine."""

    code = "newer_format"
    status = 500
    hint = "start the version that wrote it, or a newer one"


class LockedError(EnrichError):
    """Another process holds the data directory."""

    code = "data_dir_locked"
    status = 503


class BackupError(_CodedError):
    """A backup can't be made or restored; or it is taken for what it is not."""

    code = "backup_damaged"
    status = 500


class DataDirError(EnrichError):
    code = "data_dir"
    status = 500


class ConfigError(EnrichError):
    """A setting has a value that can't be used."""

    code = "invalid_setting"
    status = 500


class DefinitionError(_CodedError):
    """A signal definition is refused. `detail` has `file`, `line`, `column`, `length`, and `source` (the line).

    `pretty()` shows the source line with the position underlined.
    """

    code = "invalid_definition"
    status = 400

    def pretty(self) -> str:
        d = self.detail
        where = f"{d.get('file', '<sql>')}:{d.get('line', 1)}:{d.get('column', 1)}"
        lines = [f"{where}: {self.error_code}: {self.message}"]
        if "source" in d:
            source = str(d["source"])
            lines += [
                "  " + source,
                "  " + " " * (int(d.get("column", 1)) - 1) + "^" * max(1, int(d.get("length", 1))),
            ]
        if "hint" in d:
            lines.append(f"  help: {d['hint']}")
        return "\n".join(lines)


class PolicyError(_CodedError):
    """A policy does not load."""

    code = "invalid_policy"
    status = 400


class EvaluationError(_CodedError):
    """A policy was loaded but its evaluation failed."""

    code = "evaluation_error"
    status = 500
