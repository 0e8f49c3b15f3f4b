"""What a backtest found: flips in full, everything else counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
import polars as pl

from enrich.decisions.backtest.flips import FLIPS, KINDS, flips_frame, json_text
from enrich.decisions.backtest.jobs import Against, Count, Tested
from enrich.errors import BadRequestError, PayloadTooLargeError, show
from enrich.events.times import parse_rfc3339_us

__all__ = ["OPEN_LOOP", "Backtest", "Found", "Slowdown", "check_kinds", "failures", "flips_of"]

OPEN_LOOP: Final = (
    "open-loop: a decision that would be another one would have changed what came after it, which is not simulated"
)
#: flips are turned into a frame when there are so many: as Python they take several times the memory
_FRAMED: Final = 5_000
#: columns that are JSON's text, and those that are lists of changes
_JSON: Final = ("result_before", "result_after")
_CHANGES: Final = ("moved", "rules")


@dataclass(frozen=True, slots=True)
class Slowdown:
    """How long the changed policies take, against the live ones on the same inputs, in turns; medians in us."""

    ratio: float
    before_us: float
    after_us: float
    samples: int


class Found:
    """Gathers what comes of jobs. Not thread-safe."""

    def __init__(self) -> None:
        self.counts: Counter[Count] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        self.changed_results = 0
        self._rows: list[tuple[Any, ...]] = []
        self._frames: list[pl.DataFrame] = []

    def add(self, tested: Tested) -> None:
        """Take in what came of some jobs."""
        self.counts.update(tested.counts)
        self.refused.update(tested.refused)
        self.changed_results += tested.changed_results
        self._rows += tested.flips
        if len(self._rows) >= _FRAMED:
            self._settle()

    def frame(self) -> pl.DataFrame:
        """All flips, in the order of their seqs."""
        self._settle()
        return pl.concat(self._frames).sort("seq") if self._frames else flips_frame([])

    def _settle(self) -> None:
        if self._rows:
            self._frames.append(flips_frame(self._rows))
            self._rows = []


@dataclass(frozen=True, slots=True)
class Backtest:
    """The flips, and what they are flips of.

    Attributes:
        frame: a row for each flip, with the columns of `FLIPS`.
        counts: path, basis, input, before, after, cause_after (String) and decisions (Int64): everything tested.
        not_testable: path, reason (String) and decisions (Int64): what was left out, and why.
        changed_results: decisions that stay, with another result around them.
        slowdown: None when nothing was measured.
        against: what the changed definitions are held against.
        changes: what differs between the live definitions and the changed ones, for people.
        mapping: which columns of events stand where in a synthesised input; empty when none was made.
        seq: nothing that was learned later was tested or seen.
        catalog, policies: the versions that were tried.
    """

    frame: pl.DataFrame
    counts: pl.DataFrame
    not_testable: pl.DataFrame
    changed_results: int
    slowdown: Slowdown | None
    against: Against
    changes: Sequence[str]
    mapping: Sequence[str]
    seq: int
    catalog: str
    policies: str

    @classmethod
    def of(cls, found: Found, **more: Any) -> Backtest:
        """From what was gathered."""
        schema = {
            "path": pl.String, "basis": pl.String, "input": pl.String, "before": pl.String, "after": pl.String,
            "cause_after": pl.String, "decisions": pl.Int64,
        }  # fmt: skip
        counts = pl.DataFrame([(*c, n) for c, n in found.counts.items()], schema=schema, orient="row")
        refused = pl.DataFrame(
            [(*r, n) for r, n in found.refused.items()],
            schema={"path": pl.String, "reason": pl.String, "decisions": pl.Int64},
            orient="row",
        )
        return cls(
            found.frame(),
            counts.sort("path", "basis", "before", "after", "cause_after"),
            refused.sort("decisions", "reason", descending=[True, False]),
            found.changed_results,
            **more,
        )

    @property
    def tested(self) -> int:
        """How many decisions were tested."""
        return int(self.counts["decisions"].sum())

    @property
    def untested(self) -> int:
        """How many were left out."""
        return int(self.not_testable["decisions"].sum())

    @property
    def notes(self) -> list[str]:
        """What whoever reads the figures must know of them."""
        basis = {row[0]: row[1] for row in self.counts.group_by("basis").agg(pl.col("decisions").sum()).iter_rows()}
        told, recorded = basis.get("event_time", 0), basis.get("as_recorded", 0)
        notes = [OPEN_LOOP]
        if recorded:
            notes.append(f"{recorded} decisions as recorded: each on what was known when it was made")
        if told:
            notes.append(
                f"{told} decisions known only as events, by event time: each on what is known now of the time before "
                "it, as if nothing had been suspended and nobody were a candidate for approval; input synthesised: "
                + ", ".join(self.mapping)
            )
        return notes

    def flips(self, by: Literal["kind", "agent", "rule", "signal"] = "kind") -> pl.DataFrame:
        """How many flips, by kind, agent, rule or signal, the most first.

        A flip counts once for every rule or signal that it changed with; under a null rule stand those of which nobody
        knows it.

        Returns:
            `by` (String), kind (String; not when that is `by`), flips (Int64).
        """
        if by in ("kind", "agent"):
            keys: list[str] = list(dict.fromkeys((by, "kind")))
            counted = self.frame.group_by(keys).agg(pl.len().cast(pl.Int64).alias("flips"))
        else:
            lists = "rules" if by == "rule" else "moved"
            keys = [by, "kind"]
            named = self.frame.select("kind", pl.col(lists).list.eval(pl.element().struct.field("name")).alias(by))
            if by == "signal":
                named = named.filter(pl.col(by).list.len() > 0)
            counted = named.explode(by).group_by(keys).agg(pl.len().cast(pl.Int64).alias("flips"))
        return counted.sort("flips", *keys, descending=[True, *(False for _ in keys)])

    def failures(self, fail_on: Collection[str] = (), max_slowdown: float | None = None) -> list[str]:
        """See `failures`."""
        return failures(self.body(rows=0), fail_on, max_slowdown)

    def body(self, rows: int | None = None) -> dict[str, Any]:
        """As JSON: everything counted, and the flips, or the first `rows` of them."""
        shown = self.frame if rows is None else self.frame.head(rows)
        s = self.slowdown
        return {
            "tested": self.tested,
            "not_tested": self.untested,
            "flipped": self.frame.height,
            "changed_results": self.changed_results,
            "flips_by": {by: self.flips(by).to_dicts() for by in ("kind", "agent", "rule", "signal")},
            "flips": [_row(row) for row in shown.iter_rows(named=True)],
            "counts": self.counts.to_dicts(),
            "not_testable": self.not_testable.to_dicts(),
            "slowdown": None if s is None else {
                "ratio": s.ratio, "before_us": s.before_us, "after_us": s.after_us, "samples": s.samples,
            },
            "against": self.against,
            "changes": list(self.changes),
            "mapping": list(self.mapping),
            "notes": list(self.notes),
            "seq": self.seq,
            "catalog": self.catalog,
            "policies": self.policies,
        }  # fmt: skip


def failures(body: Mapping[str, Any], fail_on: Collection[str] = (), max_slowdown: float | None = None) -> list[str]:
    """Why changed definitions don't pass; empty when they do.

    What was not measured does not pass: neither decisions of which none could be tested, nor a slowdown without a
    sample.

    Args:
        body: see `Backtest.body`.
        fail_on: kinds of flips of which there may be none.
        max_slowdown: how many times as long as the live policies the changed ones may take.

    Raises:
        BadRequestError: `invalid_parameter`, a kind that is none.
    """
    check_kinds(fail_on)
    reasons = ["no decision was tested"] if fail_on and not body["tested"] else []
    reasons += [f"{one['flips']} {one['kind']}" for one in body["flips_by"]["kind"] if one["kind"] in fail_on]
    if max_slowdown is not None:
        slowdown = body["slowdown"]
        if slowdown is None:
            reasons.append("the slowdown was not measured")
        elif slowdown["ratio"] > max_slowdown:
            reasons.append(f"the policies take {slowdown['ratio']:.2f} times as long, more than {max_slowdown:g}")
    return reasons


def flips_of(body: Mapping[str, Any]) -> pl.DataFrame:
    """The frame again, of a body that has all flips.

    Raises:
        PayloadTooLargeError: `too_many_decisions`, it has only the first of them.
    """
    if len(body["flips"]) < body["flipped"]:
        raise PayloadTooLargeError(
            f"of {body['flipped']} flips the answer holds {len(body['flips'])}",
            code="too_many_decisions",
            hint="narrow it by since, until or agent, or run `enrich backtest` on the data directory",
        )
    rows = [tuple(_text_of(name, row[name]) for name in FLIPS) for row in body["flips"]]
    return flips_frame(rows)


def _text_of(name: str, value: Any) -> Any:
    """A column of a flip as the frame has it."""
    if name == "as_of":
        return parse_rfc3339_us(value)
    if name in _JSON:
        return json_text(value)
    if name in _CHANGES and value is not None:
        return [{"name": c["name"], "before": json_text(c["before"]), "after": json_text(c["after"])} for c in value]
    return value


def check_kinds(kinds: Collection[str]) -> None:
    """
    Raises:
        BadRequestError: `invalid_parameter`, a kind of flip that is none.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise BadRequestError(
                f"no flip is called {show(kind)}", code="invalid_parameter", hint=f"kinds: {', '.join(KINDS)}"
            )


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A flip as JSON: values where the frame has their text."""
    shown = dict(row)
    shown["as_of"] = row["as_of"].isoformat(timespec="microseconds").replace("+00:00", "Z")
    for name in _JSON:
        shown[name] = _value(row[name])
    for name in _CHANGES:
        if row[name] is not None:
            shown[name] = [
                {"name": c["name"], "before": _value(c["before"]), "after": _value(c["after"])} for c in row[name]
            ]
    return shown


def _value(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)
