"""`serve`: uvicorn around the application, one process, drained on SIGTERM, reloaded on SIGHUP."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import structlog
import uvicorn

from enrich.engine import Engine
from enrich.errors import ConfigError, show
from enrich.service.app import create_app
from enrich.service.auth import Access, refuse_open_bind
from enrich.service.protocol import BoundedProtocol
from enrich.settings import Settings

__all__ = ["serve"]

#: how soon a thread that waits for the interpreter gets it from one that computes; CPython's 5 ms would be the longest
#: pause a request sees while a large body is parsed beside it
_SWITCH_INTERVAL_SECONDS: Final = 0.0005
_KEEP_ALIVE_SECONDS: Final = 75
_DRAIN_SECONDS: Final = 10
_MOST_CONNECTIONS: Final = 8192
_BACKLOG: Final = 2048


def serve(
    engine: Engine,
    settings: Settings,
    *,
    watch: Sequence[Path] = (),
    started: Callable[[str], None] = lambda where: None,
) -> None:
    """Serves `engine` until SIGTERM or SIGINT, then lets requests under way end; `engine` stays open.

    Args:
        settings: `uds`, or `host` and `port`; limits; tokens.
        watch: directories and files whose changes reload the definitions.
        started: called once the socket listens, with the URL (or `unix:` and a path) that reaches it.

    Raises:
        ConfigError: the host is not a loopback address and no token is configured, or it can't be listened on.
    """
    if settings.uds is None:
        refuse_open_bind(settings.host, Access(settings.tokens()))
    listener, where = _listen(settings)
    sys.setswitchinterval(_SWITCH_INTERVAL_SECONDS)
    app = create_app(engine, settings, watch=watch)
    # what is there now stays: looking through a million ids for garbage would pause every request for 50 ms
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        backlog=_BACKLOG,
        limit_concurrency=_MOST_CONNECTIONS,
    )
    server = _Server(config, lambda: started(where))
    try:
        with _ended_by_signal(), asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_run(server, listener, app.state.runtime.reloader.quietly))
    finally:
        gc.unfreeze()  # or what is left at the interpreter's end would never be looked through, and DuckDB reports it
        listener.close()
        if settings.uds is not None:
            settings.uds.unlink(missing_ok=True)


def _listen(settings: Settings) -> tuple[socket.socket, str]:
    try:
        if settings.uds is not None:
            _remove_stale(settings.uds)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(settings.uds))
            return listener, f"unix:{settings.uds}"
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        target = settings.uds or f"{settings.host}:{settings.port}"
        raise ConfigError(f"can't listen on {show(str(target))}: {error.strerror or error}") from error
    port = listener.getsockname()[1]
    return listener, f"http://{f'[{settings.host}]' if ':' in settings.host else settings.host}:{port}"


def _remove_stale(path: Path) -> None:
    """Removes a Unix socket that a killed process left behind; one that answers stays, and binding refuses it."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


async def _run(server: _Server, listener: socket.socket, reload: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def hang_up() -> None:
        task = loop.create_task(reload("SIGHUP"))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    try:
        await server.serve(sockets=[listener])
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
    structlog.stdlib.get_logger("enrich.service").info("drained")


class _Server(uvicorn.Server):
    """uvicorn's server, telling when it listens."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell_started()


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """uvicorn raises the signal that ended it once more, after draining, for whoever handled it before. That is
    us: it ends `serve` orderly, so that the engine can be closed, and the process exits with 0."""

    def nothing(number: int, frame: FrameType | None) -> None:
        return

    before = {number: signal.signal(number, nothing) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
