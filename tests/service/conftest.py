"""One running service for the tests that don't need their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .running import Running, definitions, serving


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = definitions(tmp_path_factory.mktemp("service"))
    with serving(directory) as running:
        yield running
        # whatever the tests sent, nothing reached the last line of defence
        assert "unhandled" not in running.log.read_text()
        assert running.stop() == 0
