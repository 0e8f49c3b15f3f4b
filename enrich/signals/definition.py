"""One signal set, from its file to expressions over what the index keeps."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from enrich.errors import DefinitionError, show
from enrich.signals.bind import EVENT_TYPES, Binder, BoundError
from enrich.signals.facts import Facts, Known
from enrich.signals.header import Header, column_comments, parse_header
from enrich.signals.ir import Node, Span, all_of, constant
from enrich.signals.lower import PlanTables
from enrich.signals.read import Aggregate, BoundSet, read_plan
from enrich.signals.rules import Refuse, check_rows, check_scalars, normalise, refine
from enrich.signals.scan import normalised, scan
from enrich.signals.shape import Shape, bound_error, read_shape
from enrich.signals.source import Source
from enrich.signals.types import BIGINT, SqlType

__all__ = ["Draft", "Signal", "SignalSet", "compile_columns", "draft", "lower_set"]


@dataclass(frozen=True, slots=True)
class Signal:
    """One column of a set. `always` says that it is never absent, `may_fail` that arithmetic can overflow, which in
    DuckDB would stop the query and here means no value."""

    name: str
    type: SqlType
    comment: str
    node: Node
    always: bool
    may_fail: bool


@dataclass(frozen=True, slots=True)
class SignalSet:
    """A compiled set. `sql` is the definition with its parameters written in; `version` the hash of its meaning."""

    name: str
    header: Header
    text: str
    sql: str
    version: str
    derived: bool
    signals: tuple[Signal, ...]
    reads: frozenset[tuple[str, str, str]] = frozenset()  # of a derived set: (entity, window's key or "", signal)

    @property
    def entity(self) -> str:
        return self.header.entity

    def renamed(self, names: Mapping[Node, Node]) -> SignalSet:
        """The same set after the leaves of its expressions changed their places in the index."""
        memo = dict(names)
        signals = tuple(replace(s, node=s.node.replace(lambda n: None, memo)) for s in self.signals)
        return replace(self, signals=signals)


@dataclass(frozen=True, slots=True)
class Draft:
    """A definition read as far as it goes without the others: header, shape, parameters."""

    name: str
    source: Source
    header: Header
    shape: Shape

    @property
    def derived(self) -> bool:
        return self.shape.relation == "signals"

    def refuse(self, fallback: Span | None = None) -> Refuse:
        def error(message: str, at: Span | None, hint: str | None) -> DefinitionError:
            return self.source.error_at(message, at or fallback, code="unsupported", hint=hint)

        return error


def draft(name: str, text: str, binder: Binder, file: str | None = None) -> Draft:
    """Read a definition's header and outer shape.

    Raises:
        DefinitionError: at the first thing that can't be read.
    """
    source = Source(file or f"{name}.sql", text)
    header = parse_header(source)
    used = source.substitute({p.name: p.literal for p in header.params.values()})
    for param in header.params.values():
        if param.name not in used:
            raise source.error(f"parameter {show(param.name)} is not used", param.start, len(param.literal))
    shape = read_shape(source, binder)
    found = Draft(name, source, header, shape)
    if found.derived and header.windows:
        raise source.error_at(
            "a derived set with windows",
            (shape.from_at, 7),
            hint="leave the header line `windows:` out; columns name them: last_24h.failure_rate",
        )
    if not found.derived and not header.windows:
        raise source.error("the header names no windows", 0, 1, hint="write `-- windows: 1h, 24h, 7d`")
    for parts, at in shape.columns if found.derived else ():
        if len(parts) > 1 and parts[0].lower() == "signals":
            raise source.error_at(
                f"{show('.'.join(parts))} names the relation",
                at,
                code="unsupported",
                hint=f"write it without: {'.'.join(parts[1:])}",
            )
    for item in shape.items:
        if item.name in EVENT_TYPES and not found.derived:
            raise source.error_at(
                f"the name {show(item.name)} is a column of events",
                item.at,
                hint="a column beats an alias of the same name: choose another name",
            )
        if item.name in header.params:
            raise source.error_at(f"the name {show(item.name)} is a parameter", item.at, hint="choose another name")
    return found


def bind(d: Draft, binder: Binder, names: tuple[str, ...] = ()) -> BoundSet:
    """Bind a definition in DuckDB.

    Args:
        names: known names, for "did you mean" when a column is unknown.
    """
    try:
        return read_plan(d.source, d.shape, binder.plan(d.source.sql))
    except BoundError as error:
        refused = bound_error(d.source, error)
        if error.name is not None and names:
            near = difflib.get_close_matches(error.name, names, 1)
            if near:
                refused.detail["hint"] = f"did you mean `{near[0]}`?"
        raise refused from None


def lower_set(d: Draft, bound: BoundSet, tables: PlanTables) -> tuple[Node, ...]:
    """The columns of a set over events, as expressions over the tables of its entity.

    Raises:
        DefinitionError: something has no exact or no bounded form.
    """
    refuse = d.refuse(d.shape.items[0].at)

    def rows(node: Node) -> Node:
        node = refine(normalise(node, refuse), tables.rows)
        check_rows(node, tables.rows, refuse)
        return node

    where = all_of([rows(node) for node in bound.where])
    leaves: list[Node] = []
    for aggregate in bound.aggregates:
        refuse = d.refuse(aggregate.at)
        ready = Aggregate(
            aggregate.name,
            aggregate.type,
            _arguments(aggregate, rows, refuse),
            None if aggregate.filter is None else rows(aggregate.filter),
            aggregate.distinct,
            aggregate.quantile,
            aggregate.at,
        )
        leaves.append(tables.lower(ready, where, refuse))

    def leaf(node: Node) -> Node | None:
        return leaves[int(node.value)] if node.op == "aggregate" else None  # type: ignore[call-overload]

    return tuple(column.replace(leaf) for column in bound.columns)


def _arguments(aggregate: Aggregate, rows: Callable[[Node], Node], refuse: Refuse) -> tuple[Node, ...]:
    """The operands as row expressions; what the library and arg_max take besides stays as it is."""
    found: list[Node] = []
    for i, arg in enumerate(aggregate.args):
        if arg.op == "struct":
            found.append(arg.with_args((rows(arg.args[0]), *(normalise(a, refuse) for a in arg.args[1:]))))
        elif aggregate.name in ("var_samp", "stddev_samp") or i > 0 or _constant_column(aggregate, arg):
            found.append(arg if i > 0 or _constant_column(aggregate, arg) else _through_cast(arg, rows))
        else:
            found.append(rows(arg))
    return tuple(found)


def _constant_column(aggregate: Aggregate, arg: Node) -> bool:
    return aggregate.name in ("min", "max") and arg.op == "column" and arg.value == "as_of"


def _through_cast(arg: Node, rows: Callable[[Node], Node]) -> Node:
    """Variance casts integers to DOUBLE; the integers themselves are what is summed."""
    if arg.op == "cast" and arg.type.is_double and arg.args[0].type.is_int:
        return rows(arg.args[0])
    if arg.op == "const" and isinstance(arg.value, float) and arg.value.is_integer():
        return constant(BIGINT, int(arg.value), arg.at)
    return rows(arg)


def compile_columns(
    d: Draft, nodes: tuple[Node, ...], leaf_facts: Callable[[Node], Facts], comments: list[str]
) -> tuple[Signal, ...]:
    """Check and refine the columns of a set; what is left is ready for the emitters."""
    known = Known(leaf_facts)
    signals = []
    for item, node, comment in zip(d.shape.items, nodes, comments, strict=True):
        refuse = d.refuse(item.at)
        ready = refine(normalise(node, refuse), known)
        check_scalars(ready, known, refuse)
        facts = known(ready)
        limited = ready.type.id == "HUGEINT" and (facts.low < -(2**63) or facts.high >= 2**63)
        absent = facts.nullable or facts.fails or limited or (ready.type.is_double and not facts.finite)
        signals.append(Signal(item.name, ready.type, comment, ready, not absent, facts.fails or limited))
    return tuple(signals)


def finish(d: Draft, signals: tuple[Signal, ...], reads: frozenset[tuple[str, str, str]] = frozenset()) -> SignalSet:
    """The set as the catalog keeps it."""
    # without what stands behind the last word of code: the text is put into parentheses and before GROUP BY
    end = next(t for t in reversed(list(scan(d.source.sql))) if t.kind != "comment" and t.text != ";").end
    sql = d.source.sql[:end]
    return SignalSet(d.name, d.header, d.source.text, sql, version(d), d.derived, signals, reads)


def comments_of(d: Draft) -> list[str]:
    starts = [d.source.original(*item.at)[0] for item in d.shape.items]
    return column_comments(d.source, starts, d.source.original(d.shape.from_at, 1)[0])


def version(d: Draft) -> str:
    """The hash of what a set means: its normalised SQL and its header; not its layout and column comments."""
    h = d.header
    parts: Mapping[str, str] = {
        "entity": h.entity,
        "windows": ",".join(f"{w.name}" for w in h.windows),
        "owner": h.owner,
        "description": h.description,
        "params": ",".join(f"{p.name}={p.literal}" for p in h.params.values()),
        "sql": normalised(d.source.sql),
    }
    digest = hashlib.sha256("\n".join(f"{k}: {v}" for k, v in parts.items()).encode())
    return f"sha256:{digest.hexdigest()}"
