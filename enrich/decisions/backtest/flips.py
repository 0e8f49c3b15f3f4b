"""A decision that would be another one: its row in the frame, and which signals moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any, Final, get_args

import orjson
import polars as pl

from enrich.decisions.verdict import DecisionName

__all__ = ["FLIPS", "KINDS", "flips_frame", "kind_of", "moved"]

_CHANGE: Final = pl.Struct({"name": pl.String, "before": pl.String, "after": pl.String})
#: columns and dtypes of the frame; `before` and `after` of signals and rules are JSON, null where there is no value
FLIPS: Final[Mapping[str, Any]] = {
    "decision_id": pl.String,
    "seq": pl.Int64,
    "as_of": pl.Datetime("us", "UTC"),
    "agent": pl.String,
    "team": pl.String,
    "workflow": pl.String,
    "path": pl.String,
    "before": pl.String,
    "after": pl.String,
    "kind": pl.String,
    "cause_before": pl.String,
    "cause_after": pl.String,
    "result_before": pl.String,
    "result_after": pl.String,
    "moved": pl.List(_CHANGE),
    "rules": pl.List(_CHANGE),
    "basis": pl.String,
    "input": pl.String,
}
#: what says of a context where it comes from, and is no signal
_ENVELOPE: Final = frozenset(
    ("as_of", "seq", "catalog", "status", "lag_seconds", "observed_since", "suspended", "suspensions")
)


def kind_of(before: str, after: str) -> str:
    """What a flip is called: `allow-to-deny`, `require-human-to-allow`."""
    return f"{before}-to-{after}".lower().replace("_", "-")


KINDS: Final = tuple(kind_of(a, b) for a, b in permutations(get_args(DecisionName), 2))


def flips_frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """Rows as a frame with the columns of `FLIPS`; `as_of` comes in microseconds."""
    plain = {**FLIPS, "as_of": pl.Int64}
    frame = pl.DataFrame(rows, schema=plain, orient="row")
    return frame.with_columns(pl.col("as_of").cast(FLIPS["as_of"]))


def moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, str | None]]:
    """The signals whose values differ between two contexts, by path, such as `agent.last_24h.failures`."""
    names = sorted((before.keys() | after.keys()) - _ENVELOPE)
    return [
        {"name": name, "before": json_text(old), "after": json_text(new)}
        for entity in names
        for name, old, new in _differences(entity, before.get(entity), after.get(entity))
    ]


def _differences(name: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) or isinstance(new, Mapping):
        olds, news = (v if isinstance(v, Mapping) else {} for v in (old, new))
        for key in sorted(olds.keys() | news.keys()):
            yield from _differences(f"{name}.{key}", olds.get(key), news.get(key))
    elif type(old) is not type(new) or old != new:
        yield name, old, new


def json_text(value: Any) -> str | None:
    """A value as JSON; None where there is none."""
    return None if value is None else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
