"""Reading entity ids from a policy's input, and putting the history into it.

In: the input as the caller sent it, and the settings' paths. Out: the ids by entity, and a new input that holds
`history`. The caller's own objects are never changed: only the objects along the history path are copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from enrich.errors import BadRequestError, HistoryForgedError, InvalidEntityIdError, show

__all__ = ["MAX_APPROVERS", "InputPaths", "check_id", "split_path"]

MAX_APPROVERS: Final = 32
_MAX_ID: Final = 200
_MAX_CHECKED: Final = 65_536


def split_path(path: str) -> tuple[str, ...]:
    """`identity.actor_id` as its keys."""
    return tuple(path.split("."))


def check_id(value: object, entity: str, where: str) -> str:
    """The id itself, if it can be one.

    Raises:
        InvalidEntityIdError: wrong type, empty, padded, over 200 characters, control characters, lone surrogates.
    """
    if type(value) is str and 0 < len(value) <= _MAX_ID:
        if value.isascii() and value.isprintable() and value[0] != " " and value[-1] != " ":
            return value
        if value == value.strip() and not any(
            c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in value
        ):
            return value
    raise InvalidEntityIdError(
        f"{entity} id at `{where}` is {show(value)}", entity=entity, field=where, value=show(value).strip("`")
    )


class InputPaths:
    """Where the ids stand in an input, and where history is put. Paths are tuples of keys.

    Args:
        ids: entity to path.
    """

    __slots__ = ("_checked", "_history_where", "_ids", "approvers", "history", "ids")

    def __init__(
        self, ids: Mapping[str, tuple[str, ...]], approvers: tuple[str, ...], history: tuple[str, ...]
    ) -> None:
        self.ids = ids
        self.approvers = approvers
        self.history = history
        parents: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._ids = tuple(
            (entity, parents.setdefault(path[:-1], path[:-1]), path[-1], ".".join(path)) for entity, path in ids.items()
        )
        self._history_where = ".".join(history)
        #: ids that were found good, so that those that come again and again are not looked at again
        self._checked: set[str] = set()

    @classmethod
    def of(cls, ids: Mapping[str, str], approvers: str, history: str) -> InputPaths:
        """From dotted paths."""
        return cls({e: split_path(p) for e, p in ids.items()}, split_path(approvers), split_path(history))

    def entity_ids(self, document: Mapping[str, Any]) -> dict[str, str | None]:
        """The id of every configured entity, None where it is missing or null.

        Raises:
            InvalidEntityIdError: a value that can't be an id, or an object expected on the way to it that is none.
        """
        found: dict[str, str | None] = {}
        checked = self._checked
        near: tuple[str, ...] | None = None
        parent: Any = None
        for entity, above, key, where in self._ids:
            if above is not near:  # entities that stand side by side share the way there
                parent = document
                for step in above:
                    parent = parent.get(step) if type(parent) is dict else _step(parent, step, entity, where)
                near = above
            # a dict is the common case; anything else is looked at closely
            value = parent.get(key) if type(parent) is dict else _step(parent, key, entity, where)
            if value is not None and not (type(value) is str and value in checked):
                check_id(value, entity, where)
                if len(checked) >= _MAX_CHECKED:
                    checked.clear()
                checked.add(value)
            found[entity] = value
        return found

    def approver_ids(self, document: Mapping[str, Any]) -> list[str]:
        """The candidate approvers, in order, each once."""
        if self.approvers[0] not in document:
            return []
        value = _dig(document, self.approvers, "approver")
        if value is None:
            return []
        where = ".".join(self.approvers)
        if not isinstance(value, list):
            raise InvalidEntityIdError(
                f"approver ids at `{where}` are {show(value)}, not an array", entity="approver", field=where
            )
        if len(value) > MAX_APPROVERS:
            raise InvalidEntityIdError(
                f"{len(value)} approver ids at `{where}`, at most {MAX_APPROVERS} are answered",
                entity="approver",
                field=where,
            )
        return list(dict.fromkeys(check_id(v, "approver", f"{where}[{i}]") for i, v in enumerate(value)))

    def refuse_forged(self, document: Mapping[str, Any]) -> None:
        """INVARIANT: what stands at the history path was written by the engine.

        Raises:
            HistoryForgedError: the caller sent something at `history`, or at the configured path.
        """
        if "history" in document:
            raise HistoryForgedError("the input has its own `history`", field="history")
        if len(self.history) == 1 and self.history[0] not in document:
            return
        at: Any = document
        for key in self.history:
            if not isinstance(at, Mapping) or key not in at:
                return
            at = at[key]
        where = self._history_where
        raise HistoryForgedError(f"the input has its own `{where}`", field=where)

    def put(self, document: Mapping[str, Any], history: dict[str, Any]) -> dict[str, Any]:
        """A new input with `history` at its path; missing parents are created.

        Raises:
            BadRequestError: something on the path is no object.
        """
        result = dict(document)
        at = result
        for i, key in enumerate(self.history[:-1]):
            below = at.get(key)
            if below is None:
                copy: dict[str, Any] = {}
            elif isinstance(below, Mapping):
                copy = dict(below)
            else:
                where = ".".join(self.history[: i + 1])
                raise BadRequestError(
                    f"`{where}` is {show(below)}: history is put under it, so it must be an object",
                    field=where,
                )
            at[key] = copy
            at = copy
        at[self.history[-1]] = history
        return result


def _dig(document: Mapping[str, Any], path: Sequence[str], entity: str) -> Any:
    at: Any = document
    for key in path:
        at = at.get(key) if type(at) is dict else _step(at, key, entity, ".".join(path))
    return at


def _step(at: Any, key: str, entity: str, where: str) -> Any:
    if at is None:
        return None
    if isinstance(at, Mapping):
        return at.get(key)
    raise InvalidEntityIdError(
        f"{entity} id at `{where}`: {show(at)} on the way to it is no object", entity=entity, field=where
    )
