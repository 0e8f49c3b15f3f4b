"""Contexts as changed signals would have given them: recomputed where that is exact, attested where it can't be.

What no event tells, whether history could be relied on, since when it was observed, what was suspended, stands as the
record has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from enrich.context import Key, Rolling
from enrich.events import format_us, parse_rfc3339_us
from enrich.history import History
from enrich.settings import Settings
from enrich.signals import Catalog

__all__ = ["PRUNED", "PastContexts"]

PRUNED: Final = "events of that time were pruned"
#: of a recorded context, what stays as it was
_ATTESTED: Final = (
    "suspended", "suspensions", "as_of", "seq", "status", "lag_seconds", "observed_since",
)  # fmt: skip
#: of a recorded entity's object, what signals have no part in
_OF_ENTITY: Final = ("known", "in_flight")


class PastContexts:
    """Contexts of one catalog at moments of the past, in the order of their seqs. For one thread.

    Args:
        at_seq: no moment asked about has a lower seq.
    """

    def __init__(self, history: History, catalog: Catalog, settings: Settings, *, at_seq: int) -> None:
        self._rolling = Rolling(history, catalog, retention_us=settings.retention_us, at_seq=at_seq)
        self._version = catalog.version
        self._pruned_us = history.pruned_before_us()
        self._observed_us = history.observed_since_us()
        self._longest_us = max((w.us for e in catalog.plans for w in catalog.windows(e)), default=0)
        self._retention_us = settings.retention_us

    def of_record(self, body: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any] | None:
        """The context of a decision's record, with these signals; None when events that it saw were pruned since.

        Args:
            recorded: the context that the record has.
        """
        as_of_us = parse_rfc3339_us(body["as_of"])
        if self._pruned_us is not None and as_of_us - self._longest_us < self._pruned_us:
            return None
        self._rolling.advance(body["context_seq"])
        since = recorded.get("observed_since")
        ids = {entity: id_ for entity, id_ in body["entities"].items() if entity != "approvers"}
        entities = self._rolling.entities(
            ids, body["entities"]["approvers"], as_of_us, None if since is None else parse_rfc3339_us(since)
        )
        people, known = entities.get("approvers", {}), recorded.get("approvers", {})
        for who, object_ in people.items():
            _attest(object_, known.get(who))
        for name, object_ in entities.items():
            if name != "approvers":
                _attest(object_, recorded.get(name))
        attested = {name: recorded[name] for name in _ATTESTED if name in recorded}
        return {**entities, **attested, "catalog": self._version}

    def before_event(
        self, keys: Mapping[str, Key | None], approvers: Sequence[str], us: int, seq: int
    ) -> dict[str, Any] | None:
        """The context of the microsecond before an event, from all that is known at `seq`; None when events that belong
        to it were pruned.

        INVARIANT: neither the event nor anything that occurred at its time or later is seen.
        """
        as_of_us = us - 1
        pruned = self._pruned_us
        if pruned is not None and as_of_us - self._longest_us < pruned:
            return None
        self._rolling.advance(seq)
        since = self._observed_us
        entities = self._rolling.entities(keys, approvers, as_of_us, since)
        if pruned is not None and as_of_us - self._retention_us < pruned:
            # who is unknown may have been known by what was pruned
            people = entities.get("approvers", {}).values()
            single = (o for name, o in entities.items() if name != "approvers")
            if any(o["id"] is not None and not o["known"] for o in (*single, *people)):
                return None
        return {
            **entities,
            "suspended": False,
            "suspensions": [],
            "as_of": format_us(as_of_us),
            "seq": seq,
            "status": "fresh",
            "lag_seconds": None,
            "observed_since": None if since is None else format_us(since),
            "catalog": self._version,
        }


def _attest(new: dict[str, Any], old: Any) -> None:
    """Take over what the record says of an entity besides its signals."""
    if not isinstance(old, Mapping):
        return
    for name in _OF_ENTITY:
        if name in old:
            new[name] = old[name]
    for window, signals in new.items():
        was = old.get(window)
        if isinstance(signals, dict) and isinstance(was, Mapping) and "complete" in signals and "complete" in was:
            signals["complete"] = was["complete"]
