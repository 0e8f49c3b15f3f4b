"""What a command asks: the engine of a data directory, or a running service. Both answer the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from enrich.cli.client import ServiceClient
from enrich.cli.output import errors
from enrich.errors import LockedError, NotFoundError, PolicyError, show
from enrich.settings import Settings

if TYPE_CHECKING:
    from enrich.engine import Engine

__all__ = ["LocalTarget", "Target", "has_journal", "open_engine", "open_target", "refuse_no_data", "service_named"]


class Target(Protocol):
    """What can be asked of both."""

    def entity(self, entity: str, ids: Sequence[str], as_of: str | None, select: Sequence[str]) -> dict[str, Any]: ...
    def events(self, **filters: Any) -> dict[str, Any]: ...
    def decisions(self, **filters: Any) -> dict[str, Any]: ...
    def decision(self, decision_id: str) -> dict[str, Any]: ...
    def outcome(self, decision_id: str, outcome: str, actual: Mapping[str, Any]) -> dict[str, Any]: ...
    def entity_of(self, name: str) -> str | None: ...
    def sql(self, name: str, ids: Sequence[str], window: str | None, as_of: str | None) -> str: ...
    def suspend(
        self, scope: str, id_: str | None, reason: str, until: str | None, by: str | None
    ) -> dict[str, Any]: ...
    def lift(self, scope: str, id_: str | None, by: str | None) -> dict[str, Any]: ...
    def suspensions(self) -> list[dict[str, Any]]: ...


class LocalTarget:
    """An engine opened for this command."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def entity(self, entity: str, ids: Sequence[str], as_of: str | None, select: Sequence[str]) -> dict[str, Any]:
        return self.engine.entity(entity, ids, as_of=as_of, select=list(select) or None)

    def events(self, **filters: Any) -> dict[str, Any]:
        page = self.engine.events(**filters)
        return {"events": list(page.events), "next_cursor": page.next_cursor, "seq": page.seq}

    def decisions(self, **filters: Any) -> dict[str, Any]:
        page = self.engine.decisions(**filters)
        return {"decisions": list(page.decisions), "next_cursor": page.next_cursor, "seq": page.seq}

    def decision(self, decision_id: str) -> dict[str, Any]:
        return self.engine.decision(decision_id)

    def outcome(self, decision_id: str, outcome: str, actual: Mapping[str, Any]) -> dict[str, Any]:
        return self.engine.outcomes.report(decision_id, outcome, **actual).body()

    def entity_of(self, name: str) -> str | None:
        found = self.engine.catalog.set_named(name)
        return None if found is None else found.entity

    def sql(self, name: str, ids: Sequence[str], window: str | None, as_of: str | None) -> str:
        return self.engine.sql(name, ids, window, as_of=as_of)

    def suspend(self, scope: str, id_: str | None, reason: str, until: str | None, by: str | None) -> dict[str, Any]:
        return self.engine.break_glass.suspend(scope, id_, reason=reason, until=until, by=by).body()

    def lift(self, scope: str, id_: str | None, by: str | None) -> dict[str, Any]:
        return self.engine.break_glass.lift(scope, id_, by=by).body()

    def suspensions(self) -> list[dict[str, Any]]:
        held, _, _ = self.engine.break_glass.in_force()
        return [one.body() for one in held]


@contextmanager
def open_engine(settings: Settings, *, temporary: bool = False) -> Iterator[Engine]:
    """The engine of `settings.data`, closed at the end; a start that takes long shows how far it is.

    Args:
        temporary: on an empty directory of its own instead, removed at the end.

    Raises:
        LockedError: another process holds the directory; the message says what to do.
    """
    from enrich.engine import Engine  # half a second of imports that --help need not wait for

    console = errors()
    hint = "ask it: use --url http://127.0.0.1:8686 (or where it listens) instead of --data"
    with console.status("opening") as status:

        def progress(what: str, done: int, total: int) -> None:
            status.update(f"opening: {what} {done} of {total}")

        try:
            with service_named(settings.data, hint):
                engine = Engine.open(
                    None if temporary else settings.data,
                    queries=settings.queries,
                    policies=settings.policies,
                    settings=settings,
                    progress=progress,
                )
        except PolicyError as error:
            shadow = "shadow" in error.detail
            raise _located(error, settings.shadow_policies if shadow else settings.policies) from error
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def service_named(data: Path, hint: str) -> Iterator[None]:
    """A held directory is told as what it is to whoever called: a running service's, with `hint` what to do."""
    try:
        yield
    except LockedError as error:
        if "file" in error.detail:
            raise  # whoever has that one file open is no service
        raise LockedError(f"a running service holds {show(str(data))}", hint=hint) from error


def has_journal(data: Path) -> bool:
    """Whether an engine has ever been open there."""
    return any((data / "journal").glob("*.ndjson"))


def refuse_no_data(data: Path) -> NotFoundError:
    """What whoever only reads says where no engine has ever been open."""
    return NotFoundError(
        f"no data at {show(str(data))}",
        code="no_data",
        hint="`enrich ingest` or `enrich serve` begins a data directory; name another one by --data",
    )


def _located(error: PolicyError, policies: Path | None) -> PolicyError:
    """The error with the path of its file and the line of text that it is about; the place stands in `detail` only."""
    detail = dict(error.detail)
    if policies is None or "file" not in detail:
        return error
    message, file, line = error.message, detail["file"], detail.get("line")
    message = message.removeprefix(f"{file}:{line}:{detail.get('column')}: ")
    detail["file"] = str(policies / file)
    if policies.is_file():  # of a bundle, which has its lines inside
        return PolicyError(message, code=error.error_code, **detail)
    if "source" not in detail and isinstance(line, int):
        lines = (policies / file).read_text("utf-8", "replace").split("\n")
        detail["source"] = lines[line - 1] if 1 <= line <= len(lines) else None
    return PolicyError(message, code=error.error_code, **detail)


@contextmanager
def open_target(settings: Settings, url: str | None, token: str | None) -> Iterator[Target]:
    """The service at `url`, or the engine of `settings.data`, which is there already.

    Raises:
        NotFoundError: `no_data`; nothing was made.
    """
    if url is None:
        if not has_journal(settings.data):
            raise refuse_no_data(settings.data)
        with open_engine(settings) as engine:
            yield LocalTarget(engine)
        return
    with ServiceClient(url, token) as client:
        yield client
