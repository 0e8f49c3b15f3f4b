"""Tokens and scopes, on every route."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from enrich.errors import ConfigError, ForbiddenError, UnauthorizedError
from enrich.service.auth import SCOPES, Access, Scope, refuse_open_bind

from .running import Running, definitions, enrich, serving

TOKENS = {scope: f"token-of-{scope}" for scope in SCOPES}

#: every route, with the scope it needs
ROUTES: list[tuple[str, str, Scope]] = [
    ("POST", "/v1/events", "ingest"),
    ("GET", "/v1/events", "read"),
    ("POST", "/v1/logs", "ingest"),
    ("POST", "/v1/logs/eu", "ingest"),
    ("POST", "/v1/enrich", "decide"),
    ("GET", "/v1/data", "decide"),
    ("POST", "/v1/data", "decide"),
    ("GET", "/v1/data/test/authority", "decide"),
    ("POST", "/v1/data/test/authority", "decide"),
    ("POST", "/v0/data/test/authority", "decide"),
    ("POST", "/v0/data", "decide"),
    ("POST", "/", "decide"),
    ("GET", "/v1/decisions", "read"),
    ("GET", "/v1/decisions/d-1", "read"),
    ("POST", "/v1/backtest", "admin"),
    ("POST", "/v1/decisions/d-1/outcome", "decide"),
    ("POST", "/v1/decisions/d-1/replay", "read"),
    ("GET", "/v1/entities/agent/a", "read"),
    ("GET", "/v1/entities/agent_workflow/a/w", "read"),
    ("GET", "/v1/signals", "read"),
    ("GET", "/v1/signals/schema.json", "read"),
    ("GET", "/v1/signals/agent_runs/sql?id=a&window=24h", "read"),
    ("PUT", "/v1/suspensions/team/t", "admin"),
    ("GET", "/v1/suspensions/team/t", "read"),
    ("DELETE", "/v1/suspensions/team/t", "admin"),
    ("PUT", "/v1/suspensions/all", "admin"),
    ("GET", "/v1/suspensions/all", "read"),
    ("DELETE", "/v1/suspensions/all", "admin"),
    ("GET", "/v1/suspensions", "read"),
    ("POST", "/v1/reload", "admin"),
    ("POST", "/v1/check", "admin"),
    ("POST", "/v1/journal/verify", "admin"),
    ("GET", "/v1/journal/anchor", "read"),
    ("GET", "/metrics", "admin"),
]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = definitions(tmp_path_factory.mktemp("guarded"))
    tokens = {f"ENRICH_TOKENS_{scope.upper()}": token for scope, token in TOKENS.items()}
    with serving(directory, environment=tokens) as running:
        yield running


def test_every_route_is_listed_here(guarded: Running) -> None:
    document = guarded.http.get("/openapi.json").json()
    declared = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if operation["security"]
    }
    concrete = {
        "/v1/logs/{partition}": "/v1/logs/eu",
        "/v1/data/{path}": "/v1/data/test/authority",
        "/v0/data/{path}": "/v0/data/test/authority",
        "/v1/decisions/{id}": "/v1/decisions/d-1",
        "/v1/decisions/{id}/outcome": "/v1/decisions/d-1/outcome",
        "/v1/decisions/{id}/replay": "/v1/decisions/d-1/replay",
        "/v1/entities/{entity}/{id}": "/v1/entities/agent/a",
        "/v1/entities/{entity}/{id}/{id2}": "/v1/entities/agent_workflow/a/w",
        "/v1/suspensions/{scope}/{id}": "/v1/suspensions/team/t",
        "/v1/signals/{set}/sql": "/v1/signals/agent_runs/sql",
    }
    assert {(m, concrete.get(p, p)) for m, p in declared} == {(m, p.partition("?")[0]) for m, p, _ in ROUTES}


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_a_route_asks_for_its_scope_and_nothing_less(guarded: Running, method: str, path: str, scope: Scope) -> None:
    def ask(token: str | None) -> httpx.Response:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return guarded.http.request(method, path, headers=headers)

    def code(answer: httpx.Response) -> Any:
        body = answer.json()
        return body["error"]["code"] if "error" in body else body["code"]

    for token in (None, "wrong", TOKENS[scope] + "x", TOKENS[scope][:-1]):
        answer = ask(token)
        assert (answer.status_code, code(answer)) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    for other in SCOPES:
        answer = ask(TOKENS[other])
        if other == scope:
            assert answer.status_code not in (401, 403), answer.text
        else:
            assert (answer.status_code, code(answer)) == (403, "forbidden")


def test_another_moment_needs_its_own_scope(guarded: Running) -> None:
    headers = {"authorization": f"Bearer {TOKENS['read']}"}
    answer = guarded.http.get("/v1/entities/agent/a?as_of=2026-11-01T00:00:00Z", headers=headers)
    assert (answer.status_code, answer.json()["error"]["detail"]["scope"]) == (403, "as_of")


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/openapi.json"])
def test_probes_need_no_token(guarded: Running, path: str) -> None:
    assert guarded.http.get(path).status_code == 200


def test_the_command_line_sends_its_token(guarded: Running) -> None:
    refused = enrich("events", "--url", guarded.url, cwd=guarded.directory)
    assert refused.returncode == 1
    assert "unauthorized" in refused.stderr
    environment = {"ENRICH_URL": guarded.url, "ENRICH_TOKEN": TOKENS["read"]}
    assert enrich("events", cwd=guarded.directory, environment=environment).returncode == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_without_tokens_only_loopback_is_listened_on(host: str) -> None:
    with pytest.raises(ConfigError, match="without tokens"):
        refuse_open_bind(host, Access({}))
    refuse_open_bind(host, Access({"read": ["t"]}))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_loopback_needs_no_tokens(host: str) -> None:
    refuse_open_bind(host, Access({}))


def test_serve_refuses_an_open_bind(service: Running) -> None:
    answer = enrich(
        "serve", "--data", "other", "--queries", "queries", "--host", "0.0.0.0", "--port", "0", cwd=service.directory
    )
    assert answer.returncode == 1
    assert "refusing to listen on `0.0.0.0` without tokens" in answer.stderr
    assert "Traceback" not in answer.stderr


def _request(*headers: tuple[bytes, bytes]) -> Request:
    return Request({"type": "http", "headers": list(headers), "server": ("127.0.0.1", 8686)})


def test_a_scope_without_tokens_is_closed_once_another_has_some() -> None:
    access = Access({"read": ["r"], "admin": []})
    access.authorize(_request((b"authorization", b"bearer r")), "read")
    with pytest.raises(ForbiddenError) as refused:
        access.authorize(_request((b"authorization", b"Bearer r")), "admin")
    assert refused.value.detail == {"scope": "admin"}


@pytest.mark.parametrize("value", [b"", b"Bearer", b"Bearer ", b"Basic cjpy", b"r", b"\xff"])
def test_what_is_no_bearer_token_is_unauthorized(value: bytes) -> None:
    with pytest.raises(UnauthorizedError):
        Access({"read": ["r"]}).authorize(_request((b"authorization", value)), "read")


@pytest.mark.parametrize("tokens", [{"colour": ["t"]}, {"read": [""]}])
def test_a_wrong_configuration_is_refused(tokens: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError):
        Access(tokens)


@pytest.mark.parametrize(
    "header",
    [
        (b"origin", b"https://evil.example"),
        (b"origin", b"null"),
        (b"origin", b"http://[::1"),
        (b"sec-fetch-site", b"cross-site"),
        (b"host", b"rebound.example:8686"),
        (b"host", b"127.0.0.1.rebound.example"),
        (b"host", b"[::1"),
    ],
)
def test_without_tokens_a_page_of_another_site_is_refused(header: tuple[bytes, bytes]) -> None:
    access = Access({})
    with pytest.raises(ForbiddenError):
        access.authorize(_request(header), "ingest")
    access.authorize(_request(header), None)


@pytest.mark.parametrize(
    "header",
    [
        (b"origin", b"http://localhost:3000"),
        (b"origin", b"http://127.0.0.1:8686"),
        (b"accept", b"*/*"),
        (b"host", b"localhost:8686"),
        (b"host", b"127.0.0.1"),
        (b"host", b"[::1]:8686"),
    ],
)
def test_without_tokens_loopback_pages_and_tools_pass(header: tuple[bytes, bytes]) -> None:
    Access({}).authorize(_request(header), "ingest")


def test_over_a_unix_socket_the_host_has_no_meaning() -> None:
    request = _request((b"host", b"enrich"))
    for server in (("/run/enrich.sock", None), None):
        request.scope["server"] = server
        Access({}).authorize(request, "ingest")
