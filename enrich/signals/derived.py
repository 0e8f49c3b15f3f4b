"""Derived sets: signals over other signals of the same request, bound against a relation typed like a context.

last_24h STRUCT(failure_rate DOUBLE, ...), workflow STRUCT(last_30d STRUCT(...)), ...
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence

from enrich.errors import DefinitionError, show
from enrich.events.model import ENTITY_KEYS
from enrich.signals.bind import Binder
from enrich.signals.definition import Draft, SignalSet, bind, comments_of, compile_columns, finish
from enrich.signals.entity import EntitySets
from enrich.signals.facts import Facts, Known
from enrich.signals.ir import Node, input_of
from enrich.signals.layout import function
from enrich.signals.nesting import MAX_DERIVED_LEVELS, depth_of
from enrich.signals.pieces import Val
from enrich.signals.plan import DerivedFunction
from enrich.signals.scalar import Scalars
from enrich.signals.shape import Item
from enrich.signals.types import SqlType
from enrich.signals.window import OUTPUT_NAMES, outputs

__all__ = ["Path", "compile_derived", "derived_function", "inputs_of", "relation_columns"]

#: (entity, window's key or "", signal)
Path = tuple[str, str, str]


def relation_columns(
    own: str, sets: Mapping[str, EntitySets], derived: Mapping[str, Mapping[str, SqlType]]
) -> dict[str, str]:
    """The columns of `signals` for derived sets of entity `own`, with their SQL types."""
    columns: dict[str, str] = {}
    for entity in {**sets, **derived}:
        fields: dict[str, str] = {}
        if entity in sets:
            for key, signals in sets[entity].signals.items():
                fields[key] = _struct({n: str(node.type) for n, node in signals.items()})
        fields.update({n: str(t) for n, t in derived.get(entity, {}).items()})
        if entity == own:
            columns.update(fields)
        elif fields and entity != "approver":  # a request has many approvers: none of them is the one
            columns[entity] = _struct(fields)
    return columns or {"nothing": "BOOLEAN"}


def _struct(fields: Mapping[str, str]) -> str:
    return "STRUCT(" + ", ".join(f'"{n}" {t}' for n, t in fields.items()) + ")"


def compile_derived(
    drafts: Sequence[Draft], sets: Mapping[str, EntitySets], binder: Binder, problems: list[DefinitionError]
) -> list[SignalSet]:
    """Compile the derived sets, each after those it reads; refusals go into `problems`."""
    owner = {(d.header.entity, item.name): d for d in drafts for item in d.shape.items}
    ready: dict[str, dict[str, SqlType]] = {}
    nodes: dict[tuple[str, str], Node] = {}
    done: list[SignalSet] = []
    for d in _in_order(drafts, owner, problems):
        try:
            compiled = _compile(d, sets, ready, nodes, binder)
        except DefinitionError as error:
            problems.append(error)
            continue
        done.append(compiled)
        for signal in compiled.signals:
            ready.setdefault(d.header.entity, {})[signal.name] = signal.type
            nodes[d.header.entity, signal.name] = signal.node
    return done


def _in_order(
    drafts: Sequence[Draft], owner: Mapping[tuple[str, str], Draft], problems: list[DefinitionError]
) -> list[Draft]:
    """Each draft after those it reads; a cycle is refused."""
    order: list[Draft] = []
    state: dict[str, int] = {}

    def visit(d: Draft, trail: tuple[str, ...]) -> None:
        state[d.name] = 1
        own = {item.name for item in d.shape.items}
        for parts, at in d.shape.columns:
            names = tuple(p.lower() for p in parts)
            key = (d.header.entity, names[0]) if len(names) == 1 else (names[0], names[1])
            needed = owner.get(key)
            if needed is None or (needed is d and (len(names) > 1 or names[0] in own)):
                continue
            if state.get(needed.name) == 1:
                path = " → ".join((*trail[trail.index(needed.name) :], needed.name))
                problems.append(
                    d.source.error_at(
                        f"derived sets read each other in a cycle: {path}",
                        at,
                        code="cycle",
                        hint="move what both need into a set of its own",
                    )
                )
            elif needed.name not in state:
                visit(needed, (*trail, needed.name))
        state[d.name] = 2
        order.append(d)

    for d in drafts:
        if d.name not in state:
            visit(d, (d.name,))
    return order


def _compile(
    d: Draft,
    sets: Mapping[str, EntitySets],
    ready: Mapping[str, Mapping[str, SqlType]],
    nodes: Mapping[tuple[str, str], Node],
    binder: Binder,
) -> SignalSet:
    own = d.header.entity
    columns = relation_columns(own, sets, ready)
    for item in d.shape.items:
        if item.name in columns or item.name in ENTITY_KEYS:
            raise d.source.error_at(
                f"the name {show(item.name)} is taken",
                item.at,
                hint="it stands beside it under history: choose another",
            )
    binder.define_signals(columns)
    try:
        bound = bind(d, binder, tuple(columns))
    except DefinitionError as error:
        _suggest(d, error, sets, ready)
        raise
    reads: set[Path] = set()

    def resolved(column: Node, item: Item) -> Node:
        refuse = d.refuse(item.at)

        def resolve(node: Node) -> Node | None:
            if node.op == "input" and node.type.id == "STRUCT":
                raise refuse("a window or an entity as a whole", node.at, "name one of its signals: last_24h.rate")
            return _resolve(node, own, sets, nodes, reads) if node.op == "input" else None

        written_out = column.replace(resolve)
        if depth_of(written_out) > MAX_DERIVED_LEVELS:
            raise refuse(
                f"more than {MAX_DERIVED_LEVELS} operations one inside the other, with what it reads in derived sets",
                None,
                "read fewer derived signals one through the other",
            )
        return written_out

    found = tuple(resolved(column, item) for column, item in zip(bound.columns, d.shape.items, strict=True))
    return finish(d, compile_columns(d, found, input_facts(sets), comments_of(d)), frozenset(reads))


def _suggest(
    d: Draft, error: DefinitionError, sets: Mapping[str, EntitySets], ready: Mapping[str, Mapping[str, SqlType]]
) -> None:
    """Add "did you mean" to a refusal of an unknown signal."""
    own = d.header.entity
    known: list[str] = []
    for entity, one in sets.items():
        prefix = "" if entity == own else f"{entity}."
        known += [f"{prefix}{key}.{n}" for key, signals in one.signals.items() for n in signals]
    for entity, names in ready.items():
        known += [n if entity == own else f"{entity}.{n}" for n in names]
    for parts, at in d.shape.columns:
        written = ".".join(parts).lower()
        start, length = d.source.original(*at)
        if start <= _start(d, error) < start + length and written not in known:
            near = difflib.get_close_matches(written, known, 1)
            if near:
                error.detail["hint"] = f"did you mean `{near[0]}`?"


def _start(d: Draft, error: DefinitionError) -> int:
    lines = d.source.text.split("\n")
    line = int(error.detail.get("line", 1))
    return sum(len(x) + 1 for x in lines[: line - 1]) + int(error.detail.get("column", 1)) - 1


def _resolve(
    node: Node,
    own: str,
    sets: Mapping[str, EntitySets],
    nodes: Mapping[tuple[str, str], Node],
    reads: set[Path],
) -> Node | None:
    """A path as written to a window's signal, or to another derived signal's own expression."""
    path = node.value
    if not isinstance(path, tuple):
        return None
    names = tuple(str(p).lower() for p in path)
    entity = own
    if names[0] in ENTITY_KEYS and len(names) > 1:
        entity, names = names[0], names[1:]
    if len(names) == 2 and entity in sets and names[1] in sets[entity].signals.get(names[0], {}):
        reads.add((entity, names[0], names[1]))
        return input_of(node.type, (entity, *names), node.at)
    inner = nodes.get((entity, names[0]))
    if inner is not None and len(names) == 1:
        reads.add((entity, "", names[0]))
        return Node("settled", node.type, (inner,), at=node.at) if node.type.is_double else inner
    return None


def input_facts(sets: Mapping[str, EntitySets]) -> Callable[[Node], Facts]:
    """Facts of `input` leaves: those of the signal they name, as a context shows it."""

    def facts(node: Node) -> Facts:
        path: Path = node.value  # type: ignore[assignment]
        entity, window, name = path
        one = sets[entity]
        source = one.signals[window][name]
        if source.type.is_double:
            return one.known(Node("settled", source.type, (source,)))
        known = one.known(source)
        return Facts(known.nullable or known.fails, known.low, known.high, nonzero=known.nonzero)

    return facts


def inputs_of(node: Node) -> set[Path]:
    """The windows' signals that an expression reads."""
    return {n.value for n in node.walk() if n.op == "input"}  # type: ignore[misc]


def derived_function(
    signals: Mapping[str, Node], slots: Mapping[Path, int], sets: Mapping[str, EntitySets]
) -> DerivedFunction:
    """Compile derived signals of one entity: raw values of all entities in, JSON-ready signals out."""
    known = Known(input_facts(sets))
    loads: dict[str, str] = {}
    lists: dict[str, str] = {}

    def leaf(node: Node) -> Val:
        path: Path = node.value  # type: ignore[assignment]
        raw = lists.setdefault(path[0], f"raw_{path[0]}")
        name = f"i_{path[0]}_{slots[path]}"
        loads[name] = f"{name} = {raw}[{slots[path]}]"
        return Val(name, (f"{name} is not None",) if known(node).nullable else ())

    scalars = Scalars(signals.values(), known, leaf)
    always, lines = outputs(scalars, known, signals, {})
    body = [
        *(f"{name} = raws[{entity!r}]" for entity, name in lists.items()),
        *loads.values(),
        f"d = {{{', '.join(always)}}}",
        *lines,
        "return d",
    ]
    made: DerivedFunction = function("derived", "raws", body, OUTPUT_NAMES)
    return made
