"""Which rows a page shows, and the cursor that goes on with it: the same for all that is listed."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import orjson

from enrich.errors import BadRequestError, show

__all__ = ["Filter", "check_limit"]

_MAX_LIMIT: Final = 1000


def check_limit(limit: int) -> None:
    """
    Raises:
        BadRequestError: `invalid_parameter`, a limit that is not 1 to 1000.
    """
    if not 1 <= limit <= _MAX_LIMIT:
        raise BadRequestError(f"limit {show(limit)} is not between 1 and {_MAX_LIMIT}", code="invalid_parameter")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows of a table: values by filter, and bounds of its time, inclusive, in microseconds.

    Attributes:
        NAME: what is listed; a cursor of one listing is none of another.
        COLUMNS: name of a filter to the column that it compares.
        TIME: the column of the bounds.
    """

    NAME: ClassVar[str]
    COLUMNS: ClassVar[Mapping[str, str]]
    TIME: ClassVar[str]

    values: Mapping[str, str]
    since_us: int | None = None
    until_us: int | None = None

    @classmethod
    def of(cls, since_us: int | None = None, until_us: int | None = None, **filters: str | None) -> Self:
        """From keywords; a filter that is None does not filter.

        Raises:
            BadRequestError: `invalid_parameter`, a filter that does not exist.
        """
        for name in filters:
            if name not in cls.COLUMNS:
                raise BadRequestError(
                    f"no filter {show(name)}", code="invalid_parameter", hint=f"filters: {', '.join(cls.COLUMNS)}"
                )
        return cls({n: v for n, v in sorted(filters.items()) if v is not None}, since_us, until_us)

    def where(self) -> tuple[list[str], list[Any]]:
        """Conditions, and the values of their `?`."""
        conditions = [f"{self.COLUMNS[name]} = ?" for name in self.values]
        values: list[Any] = list(self.values.values())
        for sign, bound in ((">=", self.since_us), ("<=", self.until_us)):
            if bound is not None:
                conditions.append(f"{self.TIME} {sign} make_timestamptz(?)")
                values.append(bound)
        return conditions, values

    def encode(self, at_seq: int, time_us: int, seq: int) -> str:
        """The cursor of the page after this row."""
        text = orjson.dumps([1, at_seq, time_us, seq, self._checksum()])
        return base64.urlsafe_b64encode(text).decode().rstrip("=")

    def decode(self, cursor: str, reached: int) -> tuple[int, int, int]:
        """(seq of the walk, time of the row, its seq) of a cursor.

        Args:
            reached: no walk is at a seq above this.

        Raises:
            BadRequestError: `invalid_cursor`.
        """
        try:
            fields = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        except (ValueError, binascii.Error):
            fields = None
        if (
            not isinstance(fields, list)
            or len(fields) != 5
            or not all(type(f) is int and abs(f) < 1 << 62 for f in fields)
            or fields[0] != 1
            or not 0 <= fields[1] <= reached
        ):
            raise BadRequestError(f"cursor {show(cursor)} is none of this API", code="invalid_cursor")
        if fields[4] != self._checksum():
            raise BadRequestError(
                "the cursor belongs to a call with other filters",
                code="invalid_cursor",
                hint="repeat the filters of the first page with every cursor",
            )
        return fields[1], fields[2], fields[3]

    def _checksum(self) -> int:
        """Tells walks with other filters, or of something else, apart."""
        values = [f"{name}={value}" for name, value in self.values.items()]
        return binascii.crc32(orjson.dumps([self.NAME, *values, self.since_us, self.until_us]))
