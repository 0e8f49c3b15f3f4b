"""The catalog: every signal set of a directory, compiled together."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, Final

from enrich.errors import ConfigError, DefinitionError, EnrichError, show
from enrich.events.model import ENTITY_KEYS
from enrich.signals.bind import Binder
from enrich.signals.definition import (
    Draft,
    Signal,
    SignalSet,
    bind,
    comments_of,
    compile_columns,
    draft,
    finish,
    lower_set,
)
from enrich.signals.derived import Path, compile_derived, derived_function, inputs_of
from enrich.signals.describe import describe, json_schema
from enrich.signals.entity import EntitySets, entity_plan
from enrich.signals.header import Window
from enrich.signals.lower import PlanTables
from enrich.signals.plan import EntityFunctions, EntityPlan, WindowFunction
from enrich.signals.selection import select_paths

__all__ = ["Catalog", "DefinitionErrors", "load_catalog"]

_CACHED_SELECTIONS: Final = 128


class DefinitionErrors(EnrichError):
    """Every problem of a directory of definitions; `errors` holds one DefinitionError each."""

    code = "invalid_definitions"
    status = 400

    def __init__(self, errors: Sequence[DefinitionError]) -> None:
        super().__init__(f"{len(errors)} problem(s) in the definitions", problems=[e.pretty() for e in errors])
        self.errors = tuple(errors)

    def pretty(self) -> str:
        return "\n".join(e.pretty() for e in self.errors)


class Catalog:
    """Compiled signal sets.

    Attributes:
        version: hash of all sets' versions.
        sets: in order of their names.
        sources: set's name to its text, as loaded.
        plans: entity to what the index keeps for it.
        attribute_keys: the keys of `attributes` that definitions read.
    """

    def __init__(self, sets: Sequence[SignalSet], entities: Mapping[str, EntitySets]) -> None:
        self.sets = tuple(sorted(sets, key=lambda s: s.name))
        self.sources: Mapping[str, str] = {s.name: s.text for s in self.sets}
        digest = hashlib.sha256("\n".join(f"{s.name} {s.version}" for s in self.sets).encode())
        self.version = f"sha256:{digest.hexdigest()}"
        self.entities = dict(entities)
        self.plans: Mapping[str, EntityPlan] = {e: one.plan for e, one in entities.items()}
        self.attribute_keys = frozenset(
            str(node.value) for one in entities.values() for root in one.roots() for node in root.walk()
            if node.op == "attribute"
        )  # fmt: skip
        self._derived = {(s.entity, signal.name): signal.node for s in self.sets if s.derived for signal in s.signals}
        self._paths: tuple[Path, ...] = (
            *((e, key, n) for e, one in self.entities.items() for key, signals in one.signals.items() for n in signals),
            *((e, "", n) for e, n in self._derived),
        )
        of_entities = {e: one.windows for e, one in self.entities.items()} | {
            e: () for e, _ in self._derived if e not in self.entities
        }
        #: what stands around signals can be selected too: the object of an entity, and of a window, without any
        self._members: tuple[Path, ...] = tuple(
            (entity, *member)
            for entity, windows in of_entities.items()
            for member in [("", "id"), ("", "known"), *((window.key, "complete") for window in windows)]
        )
        self._lock = threading.Lock()
        self._selections: OrderedDict[tuple[str, ...] | None, Mapping[str, EntityFunctions]] = OrderedDict()
        self._compiled: OrderedDict[Any, WindowFunction] = OrderedDict()

    def windows(self, entity: str) -> tuple[Window, ...]:
        """The windows of an entity over all its sets, ascending."""
        one = self.entities.get(entity)
        return () if one is None else one.windows

    def set_named(self, name: str) -> SignalSet | None:
        return next((s for s in self.sets if s.name == name), None)

    def made_of(self, signal: Signal) -> Iterator[Signal]:
        """The signal, and those of sets over events that it reads."""
        yield signal
        paths = {n.value for n in signal.node.walk() if n.op == "input" and isinstance(n.value, tuple)}
        for entity, _, name in paths:
            yield from (
                c for s in self.sets if s.entity == entity and not s.derived for c in s.signals if c.name == name
            )

    def functions(self, select: Sequence[str] | None = None) -> Mapping[str, EntityFunctions]:
        """The compiled functions of a selection, by entity; those of a selection asked for lately are kept.

        Args:
            select: None for everything, else entries such as `agent.last_24h.failure_rate`, `agent.last_24h.*`,
                `team.*` or, for derived signals, `agent.failed_significantly`, which brings in only what it reads;
                `agent.known` and `agent.last_24h.complete` select the objects around signals alone.

        Raises:
            BadRequestError: `unknown_signal`.
        """
        key = None if select is None else tuple(select)
        with self._lock:
            found = self._selections.get(key)
            if found is not None:
                self._selections.move_to_end(key)
                return found
        made = self._functions(select_paths(key, self._paths, self._members))
        with self._lock:
            self._selections[key] = made
            while len(self._selections) > _CACHED_SELECTIONS:
                self._selections.popitem(last=False)
        return made

    def selected(self, select: Sequence[str] | None = None) -> frozenset[Path]:
        """What a selection names: (entity, window's key or "", name), see `functions`.

        Raises:
            BadRequestError: `unknown_signal`.
        """
        return select_paths(select, self._paths, self._members)

    def describe(self) -> dict[str, Any]:
        """Sets, signals, types, windows, parameters and documentation, JSON-ready."""
        return describe(self)

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of the `history` object that a full selection gives."""
        return json_schema(self)

    def _functions(self, selected: frozenset[Path]) -> dict[str, EntityFunctions]:
        derived: dict[str, dict[str, Any]] = {}
        read: dict[str, dict[Path, None]] = {}
        for entity, name in self._derived:
            if (entity, "", name) in selected:
                node = self._derived[entity, name]
                derived.setdefault(entity, {})[name] = node
                for path in sorted(inputs_of(node)):
                    read.setdefault(path[0], {})[path] = None
        slots = {entity: {path: i for i, path in enumerate(paths)} for entity, paths in read.items()}
        made: dict[str, EntityFunctions] = {}
        for entity, one in self.entities.items():
            mine = slots.get(entity, {})
            shown = any(path[0] == entity for path in selected)
            if not shown and not mine:
                continue
            windows: list[tuple[str, int, WindowFunction]] = []
            hidden: set[str] = set()
            for window in one.windows:
                names = frozenset(n for e, w, n in selected if e == entity and w == window.key)
                raw = {path[2]: slot for path, slot in mine.items() if path[1] == window.key}
                if names or raw:
                    windows.append((window.key, window.us, self._window(one, window, names, raw)))
                    if not names:
                        hidden.add(window.key)
            made[entity] = self._entity(entity, tuple(windows), frozenset(hidden), derived, slots, shown)
        for entity in dict.fromkeys([*derived, *(path[0] for path in selected)]):
            if entity not in made:  # derived sets only, over other entities
                made[entity] = self._entity(entity, (), frozenset(), derived, slots, True)
        return made

    def _entity(
        self,
        entity: str,
        windows: tuple[tuple[str, int, WindowFunction], ...],
        hidden: frozenset[str],
        derived: Mapping[str, Mapping[str, Any]],
        slots: Mapping[str, Mapping[Path, int]],
        shown: bool,
    ) -> EntityFunctions:
        own = derived.get(entity)
        function = None
        reads: frozenset[str] = frozenset()
        if own:
            every = {path: slot for paths in slots.values() for path, slot in paths.items()}
            function = derived_function(own, every, self.entities)
            reads = frozenset(path[0] for node in own.values() for path in inputs_of(node))
        return EntityFunctions(entity, windows, hidden, function, reads, len(slots.get(entity, ())), shown)

    def _window(self, one: EntitySets, window: Window, names: frozenset[str], raw: Mapping[str, int]) -> WindowFunction:
        """A window's function; windows with the same signals share one."""
        key = (one.entity, names, tuple(sorted(raw.items())), tuple(one.signals[window.key]))
        with self._lock:
            found = self._compiled.get(key)
        if found is None:
            found = one.function(sorted(names), window, raw)
            with self._lock:
                self._compiled[key] = found
                while len(self._compiled) > 4 * _CACHED_SELECTIONS:
                    self._compiled.popitem(last=False)
        return found


def _read_sources(
    where: FilePath | str | Iterable[FilePath] | Mapping[str, str], problems: list[DefinitionError]
) -> dict[str, tuple[str, str]]:
    """Set's name to (file's name for messages, text); what can't be read is added to `problems`."""
    if isinstance(where, Mapping):
        return {name: (f"{name}.sql", text) for name, text in where.items()}
    paths: list[FilePath] = []
    for root in [FilePath(where)] if isinstance(where, (str, FilePath)) else [FilePath(p) for p in where]:
        if not root.exists():
            raise ConfigError(f"no signal definitions at {show(str(root))}", hint="name a directory of *.sql files")
        paths += sorted(p for p in root.glob("*.sql") if not p.is_dir()) if root.is_dir() else [root]
    sources: dict[str, tuple[str, str]] = {}
    for path in dict.fromkeys(paths):
        if path.stem in sources:
            problems.append(_taken(path.stem, str(path), sources[path.stem][0]))
            continue
        try:
            sources[path.stem] = (str(path), path.read_bytes().decode("utf-8"))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            problems.append(DefinitionError(f"can't be read: {reason}", code="unreadable_file", file=str(path)))
        except UnicodeDecodeError as error:
            problems.append(_not_utf8(path, error))
    return sources


def _taken(name: str, file: str, other: str) -> DefinitionError:
    return DefinitionError(
        f"the set {show(name)} is also {show(other, 1000)}",
        file=file,
        line=1,
        column=1,
        hint="a set is named after its file, the same in upper and lower case: rename one",
    )


def _not_utf8(path: FilePath, error: UnicodeDecodeError) -> DefinitionError:
    before = error.object[: error.start]
    return DefinitionError(
        f"byte {error.start} is not UTF-8",
        code="invalid_utf8",
        file=str(path),
        line=before.count(b"\n") + 1,
        column=len(before.rpartition(b"\n")[2].decode()) + 1,
    )


def load_catalog(where: FilePath | str | Iterable[FilePath] | Mapping[str, str]) -> Catalog:
    """Compile the definitions of a directory, of several files, or of a mapping from names to texts.

    Raises:
        DefinitionErrors: all problems of all files.
        ConfigError: there is no such directory or file.
    """
    binder = Binder()
    try:
        problems: list[DefinitionError] = []
        return _Loading(binder, problems).load(_read_sources(where, problems))
    finally:
        binder.close()


class _Loading:
    """One load: problems are collected, so that all are reported at once."""

    def __init__(self, binder: Binder, problems: list[DefinitionError]) -> None:
        self.binder = binder
        self.problems = problems

    def load(self, sources: Mapping[str, tuple[str, str]]) -> Catalog:
        drafts: list[Draft] = []
        files: dict[str, str] = {}
        for name, (file, text) in sorted(sources.items()):
            # names of tables in SQL are made of it
            if other := files.get(name.lower()):
                self.problems.append(_taken(name, file, other))
            files[name.lower()] = file
            if '"' in name or not name.isprintable():
                message = f"a set's name is {show(name)}"
                hint = "a set is named after its file: letters, digits and _"
                self.problems.append(DefinitionError(message, file=file, line=1, column=1, hint=hint))
            try:
                drafts.append(draft(name, text, self.binder, file))
            except DefinitionError as error:
                self.problems.append(error)
        self._unique(drafts)
        sets: list[SignalSet] = []
        entities: dict[str, EntitySets] = {}
        for entity in ENTITY_KEYS:
            mine = [d for d in drafts if d.header.entity == entity and not d.derived]
            if mine:
                tables = PlanTables()
                compiled = [s for d in mine if (s := self._compile(d, tables)) is not None]
                names = tables.compact([c.node for s in compiled for c in s.signals])
                compiled = [s.renamed(names) for s in compiled]
                sets += compiled
                entities[entity] = EntitySets(entity, tables, compiled, entity_plan(entity, tables, self.binder))
        failed = {s.name for s in sets} != {d.name for d in drafts if not d.derived}
        if not failed:  # otherwise every derived set would complain about signals that did not compile
            sets += compile_derived([d for d in drafts if d.derived], entities, self.binder, self.problems)
        if self.problems:
            raise DefinitionErrors(self.problems)
        catalog = Catalog(sets, entities)
        catalog.functions()  # compiled once here, so that a mistake shows at load
        return catalog

    def _compile(self, d: Draft, tables: PlanTables) -> SignalSet | None:
        try:
            nodes = lower_set(d, bind(d, self.binder), tables)
            return finish(d, compile_columns(d, nodes, tables.leaf_facts, comments_of(d)))
        except DefinitionError as error:
            self.problems.append(error)
            return None

    def _unique(self, drafts: Sequence[Draft]) -> None:
        """INVARIANT: a signal's name is used once per entity, over all its sets."""
        seen: dict[tuple[str, str], str] = {}
        for d in drafts:
            for item in d.shape.items:
                first = seen.setdefault((d.header.entity, item.name), d.name)
                if first != d.name:
                    self.problems.append(
                        d.source.error_at(
                            f"entity {show(d.header.entity)} has a signal {show(item.name)} already, in {show(first)}",
                            item.at,
                            hint="signals of one entity stand side by side: choose another name",
                        )
                    )
