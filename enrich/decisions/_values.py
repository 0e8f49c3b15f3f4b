"""What a local of a plan may hold, as far as it matters for what is read of the input.

A `Value` says which subtrees of the input a local may be, which texts it may be, and what stands in an object or array
that the policy built. INVARIANT: a piece of the input that a value may hold and does not name was read whole before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["NOTHING", "OPAQUE", "InputPath", "Value", "array", "element", "joined", "mapping", "texts"]

#: keys of nested objects from the input down; None stands for any key
InputPath = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """One abstract value; what is joined may be any of its parts.

    Attributes:
        paths: the subtrees of the input that it may be.
        texts: the texts that it may be; None: anything that holds no unread piece of the input, texts included.
        items: it may be an array with just these elements.
        fields: it may be an object with these values by key.
        rest: it may be an array, a set or an object with this at some place; None when it is none.
    """

    paths: frozenset[InputPath] = frozenset()
    texts: frozenset[str] | None = frozenset()
    items: tuple[Value, ...] | None = None
    fields: tuple[tuple[str, Value], ...] = ()
    rest: Value | None = None

    @property
    def only_input(self) -> bool:
        """Nothing but subtrees of the input."""
        return bool(self.paths) and self.texts == frozenset() and not self.built

    @property
    def only_texts(self) -> bool:
        """Nothing but texts that are known."""
        return bool(self.texts) and not self.paths and not self.built

    @property
    def only_array(self) -> bool:
        """Nothing but one array whose elements are known."""
        return self.items is not None and not (self.paths or self.fields or self.rest) and self.texts == frozenset()

    @property
    def built(self) -> bool:
        """It may be an object, an array or a set that the policy made."""
        return self.items is not None or bool(self.fields) or self.rest is not None

    @property
    def keys(self) -> frozenset[str] | None:
        """The keys that it may be; None when it may be any."""
        return None if self.paths or self.built else self.texts

    def parts(self) -> Iterator[Value]:
        """The values within it."""
        yield from self.items or ()
        yield from (value for _, value in self.fields)
        if self.rest is not None:
            yield self.rest

    def all_paths(self) -> Iterator[InputPath]:
        """The subtrees of the input that it may be or hold."""
        yield from self.paths
        for part in self.parts():
            yield from part.all_paths()

    def size(self) -> int:
        """How much there is to it: a bound on this keeps an analysis short."""
        return 1 + len(self.paths) + len(self.texts or ()) + sum(2 + part.size() for part in self.parts())


#: no value yet; also what has no pieces and is no key: an empty object
NOTHING: Final = Value()
#: anything that holds no unread piece of the input
OPAQUE: Final = Value(texts=None)


def texts(found: Collection[str] | None) -> Value:
    """One of these texts; any for None."""
    return OPAQUE if found is None else Value(texts=frozenset(found))


def array(items: Collection[Value]) -> Value:
    return Value(items=tuple(items))


def mapping(fields: Mapping[str, Value]) -> Value:
    return Value(fields=tuple(sorted(fields.items(), key=lambda item: item[0])))


def joined(a: Value, b: Value) -> Value:
    """Either of the two."""
    if a == b or b == NOTHING:
        return a
    if a == NOTHING:
        return b
    rest = a.rest if b.rest is None else b.rest if a.rest is None else joined(a.rest, b.rest)
    items = a.items if b.items is None else b.items
    if a.items is not None and b.items is not None:
        if len(a.items) == len(b.items):
            items = tuple(map(joined, a.items, b.items))
        else:
            items = None
            for item in (*a.items, *b.items):
                rest = joined(rest or NOTHING, item)
            rest = rest or NOTHING
    fields = dict(a.fields)
    for key, value in b.fields:
        fields[key] = joined(fields.get(key, NOTHING), value)
    return Value(
        a.paths | b.paths,
        None if a.texts is None or b.texts is None else a.texts | b.texts,
        items,
        tuple(sorted(fields.items(), key=lambda item: item[0])),
        rest,
    )


def element(value: Value, keys: frozenset[str] | None) -> Value:
    """What stands at one of the keys (None: at any); an index is no key, and finds every element."""
    wanted: tuple[str | None, ...] = (None,) if keys is None else tuple(keys)
    found = Value(frozenset((*path, key) for path in value.paths for key in wanted))
    if value.texts is None:
        found = joined(found, OPAQUE)
    for item in value.items or ():
        found = joined(found, item)
    for key, field in value.fields:
        if keys is None or key in keys:
            found = joined(found, field)
    return found if value.rest is None else joined(found, value.rest)
