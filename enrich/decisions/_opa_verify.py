"""Whether an OPA holds the very policies and data whose hash goes into the record.

Two things together say so. Each answer names the revision of the bundle that it was made with, in the transaction that
it was made in; and what the bundle of that revision holds was read back and compared, over a connection that is still
open, so that it is the same process. A bundle that owns all of `data` can't be added to by other calls. What can't be
compared is no agreement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson

from enrich.decisions._opa_client import Reply
from enrich.decisions.policies import PolicySet, leaves
from enrich.decisions.protocol import DataPath
from enrich.errors import show

__all__ = ["Expected", "UnverifiedError", "askable", "document_target"]

#: of OPA's own below `data.system`
_OPAS_OWN: Final = frozenset({"bundles", "version"})


class UnverifiedError(Exception):
    """The OPA holds something else, or it can't be told; the text says what."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What an OPA has to hold.

    Attributes:
        version: of OPA itself; it stands in the record.
        revision: of its one bundle.
        own: the engine wrote the bundle, and nobody else can reach that OPA.
    """

    version: str
    revision: str
    policies: PolicySet
    rules: frozenset[DataPath]
    own: bool

    def check(self, ask: Callable[[str], Reply]) -> None:
        """Read back what an OPA holds.

        Args:
            ask: the answer to a GET of a path.

        Raises:
            UnverifiedError, and what `ask` raises.
        """
        system = _result(ask("/v1/data/system?provenance=true"), self)
        bundles = system.get("bundles")
        if not isinstance(bundles, dict) or len(bundles) != 1:
            raise UnverifiedError("the OPA does not have exactly one bundle")
        (manifest,) = (_object(_object(b).get("manifest")) for b in bundles.values())
        if manifest.get("roots") != [""]:
            raise UnverifiedError("the OPA's bundle does not own all of `data`: others could add to it")
        held = _result(ask("/v1/policies"), None, list)
        if Counter(_object(p).get("raw") for p in held) != Counter(self.policies.modules.values()):
            raise UnverifiedError(f"the OPA's policies are not those of revision {show(self.revision)}")
        self._check_data(ask, system)

    def answered(self, body: Mapping[str, Any]) -> None:
        """Check what one answer says that it was made with.

        Raises:
            UnverifiedError: it does not say so, or was made with something else.
        """
        said = body.get("provenance")
        if not isinstance(said, dict):
            raise UnverifiedError("the answer does not say what it was made with")
        if said.get("version") != self.version:
            raise UnverifiedError(
                f"the OPA has version {show(said.get('version'))}, the executable at `opa_path` {show(self.version)}"
            )
        bundles = said.get("bundles")
        if not isinstance(bundles, dict) or len(bundles) != 1:
            raise UnverifiedError("the OPA does not have exactly one bundle")
        (bundle,) = bundles.values()
        if bundle != {"revision": self.revision}:
            found = bundle.get("revision") if isinstance(bundle, dict) else bundle
            raise UnverifiedError(f"the OPA has revision {show(found)}, not {show(self.revision)}")

    def _check_data(self, ask: Callable[[str], Reply], system: Mapping[str, Any]) -> None:
        """The base documents. Of a bundle that the engine wrote those that can be read without evaluating any rule; of
        another one all that `data` shows without an input, apart from rules: it may hold more."""
        if self.own:
            for path, value in self._beside_packages(self.policies.data):
                if not _same(_result(ask(document_target(path) + "?provenance=true"), self, object), value):
                    raise UnverifiedError(f"the OPA's data differs at {show('.'.join(path))}")
            return
        shown = dict(_result(ask("/v1/data?provenance=true"), self))
        shown["system"] = {key: value for key, value in system.items() if key not in _OPAS_OWN}
        theirs, ours = dict(self._beside_rules(shown)), dict(self._beside_rules(self.policies.data))
        different = sorted(".".join(p) for p in theirs.keys() | ours.keys() if not _same(theirs.get(p), ours.get(p)))
        if different:
            raise UnverifiedError(f"the OPA's data differs at {show(different[0])}")

    def _beside_rules(self, data: Mapping[str, Any]) -> Iterator[tuple[DataPath, Any]]:
        for path in leaves(data):
            value: Any = data
            for segment in path:
                value = value[segment]
            # an object without anything in it is what a package shows whose rules are all undefined
            if value != {} and not any(path[:n] in self.rules for n in range(1, len(path) + 1)):
                yield path, value

    def _beside_packages(self, data: Mapping[str, Any], at: DataPath = ()) -> Iterator[tuple[DataPath, Any]]:
        """The largest documents in which no rule lies, and whose path can stand in a URL."""
        branches = {path[:n] for path in self.policies.packages.values() for n in range(1, len(path) + 1)}
        for key, value in data.items():
            path = (*at, key)
            if path in branches and isinstance(value, dict):
                yield from self._beside_packages(value, path)
            elif askable(key) and path[0] != "system":
                yield path, value


def askable(segment: str) -> bool:
    """Whether OPA takes a segment in a URL."""
    return bool(segment) and '"' not in segment


def document_target(path: DataPath) -> str:
    """The path of a document's URL. A segment of dots would be taken for a way up."""
    return "/v1/data" + "".join(
        "/" + (s.replace(".", "%2E") if s in (".", "..") else quote(s, safe="", errors="surrogatepass")) for s in path
    )


def _result(reply: Reply, expected: Expected | None, kind: type = dict) -> Any:
    if reply.status != 200:
        raise UnverifiedError(f"the OPA does not show what it holds: HTTP {reply.status}")
    try:
        body = orjson.loads(reply.body)
    except orjson.JSONDecodeError as error:
        raise UnverifiedError("the OPA does not show what it holds: no JSON") from error
    if expected is not None:
        expected.answered(_object(body))
    result = _object(body).get("result")
    if not isinstance(result, kind):
        raise UnverifiedError("the OPA does not show what it holds")
    return result


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UnverifiedError("the OPA does not show what it holds")
    return value


def _same(a: object, b: object) -> bool:
    """Equal as JSON: true is not 1, and 1 is 1.0."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return isinstance(a, bool) == isinstance(b, bool) and a == b
