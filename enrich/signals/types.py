"""SQL types as DuckDB binds them: what a value may be, and what range its numbers keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "BIGINT",
    "BOOLEAN",
    "DOUBLE",
    "HUGEINT",
    "INTERVAL",
    "INT_RANGES",
    "NULL",
    "TIMESTAMPTZ",
    "VARCHAR",
    "SqlType",
]

#: integer type to (least, greatest) value
INT_RANGES: Final[dict[str, tuple[int, int]]] = {
    "TINYINT": (-(2**7), 2**7 - 1),
    "SMALLINT": (-(2**15), 2**15 - 1),
    "INTEGER": (-(2**31), 2**31 - 1),
    "BIGINT": (-(2**63), 2**63 - 1),
    "HUGEINT": (-(2**127), 2**127 - 1),
}


@dataclass(frozen=True, slots=True)
class SqlType:
    """A type by DuckDB's name; `width` and `scale` for DECIMAL only."""

    id: str
    width: int = 0
    scale: int = 0

    @property
    def is_int(self) -> bool:
        return self.id in INT_RANGES

    @property
    def is_decimal(self) -> bool:
        return self.id == "DECIMAL"

    @property
    def is_exact(self) -> bool:
        """Held as a Python int: an integer, or a DECIMAL as its scaled integer."""
        return self.id in INT_RANGES or self.id == "DECIMAL"

    @property
    def is_double(self) -> bool:
        return self.id == "DOUBLE"

    @property
    def is_bool(self) -> bool:
        return self.id == "BOOLEAN"

    @property
    def range(self) -> tuple[int, int]:
        """The least and greatest (scaled) integer that the type holds."""
        if self.is_decimal:
            return 1 - 10**self.width, 10**self.width - 1
        return INT_RANGES[self.id]

    def __str__(self) -> str:
        return f"DECIMAL({self.width},{self.scale})" if self.is_decimal else self.id


BOOLEAN: Final = SqlType("BOOLEAN")
BIGINT: Final = SqlType("BIGINT")
HUGEINT: Final = SqlType("HUGEINT")
DOUBLE: Final = SqlType("DOUBLE")
VARCHAR: Final = SqlType("VARCHAR")
TIMESTAMPTZ: Final = SqlType("TIMESTAMP WITH TIME ZONE")
INTERVAL: Final = SqlType("INTERVAL")
#: the type of a bare NULL
NULL: Final = SqlType("NULL")
