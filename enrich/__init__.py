"""Policy-context enrichment: an agent's history inside the input of every authority decision."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enrich.engine import Engine

__all__ = ["Engine"]


def __getattr__(name: str) -> Any:
    """`Engine` is loaded when it is asked for: a command's `--help` need not wait for DuckDB."""
    if name == "Engine":
        from enrich.engine import Engine

        return Engine
    raise AttributeError(f"module `enrich` has no attribute `{name}`")
