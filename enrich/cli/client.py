"""The HTTP client of a running service: the same questions the engine is asked, over `--url`."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson

from enrich.errors import BadRequestError, BusyError, EnrichError, show

__all__ = ["RemoteError", "ServiceClient"]

_ATTEMPTS: Final = 6
_TOKEN: Final = re.compile(r"[!-~]+")
_TIMEOUT_SECONDS: Final = 60.0


class RemoteError(EnrichError):
    """The service's own error, told on. Its code is the service's."""

    def __init__(self, code: str, message: str, detail: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.detail.update(detail)
        self._code = code

    @property
    def error_code(self) -> str:
        return self._code


class ServiceClient:
    """A service at `http://host:port`, or `unix:PATH`.

    Args:
        url: where it listens.
        token: the bearer token, if it asks for one.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        transport, base = None, url.rstrip("/")
        if url.startswith("unix:"):
            transport, base = httpx.HTTPTransport(uds=url.removeprefix("unix:")), "http://enrich"
        elif not url.startswith(("http://", "https://")):
            raise BadRequestError(
                f"url {show(url)} has no scheme", hint="write http://127.0.0.1:8686, or unix:/path/to/socket"
            )
        if token is not None and not _TOKEN.fullmatch(token):
            raise BadRequestError(
                "the token has characters that stand in no token",
                code="invalid_token",
                hint="a token is visible ASCII, without spaces or a line end; this one is not shown",
            )
        self.url = url
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        try:
            # a proxy of the environment is not for this machine's own services
            self._http = httpx.Client(
                transport=transport,
                base_url=base,
                headers=headers,
                timeout=_TIMEOUT_SECONDS,
                trust_env=transport is None and not _is_loopback(httpx.URL(base).host),
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise _no_url(url) from error

    def __enter__(self) -> ServiceClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def record(self, lines: Sequence[bytes]) -> dict[str, Any]:
        """Posts one event per line. A busy service is asked again: what it already has, it counts as duplicate."""
        body = b"\n".join(lines)
        for attempt in range(_ATTEMPTS):
            try:
                return self._ask("POST", "/v1/events", content=body, headers={"content-type": "application/x-ndjson"})
            except BusyError:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(min(8.0, 0.5 * 2**attempt))
        raise AssertionError("unreachable")

    def entity(self, entity: str, ids: Sequence[str], as_of: str | None, select: Sequence[str]) -> dict[str, Any]:
        """See `Engine.entity`."""
        path = "/".join(quote(part, safe="") for part in (entity, *ids))
        return self._ask(
            "GET", f"/v1/entities/{path}", params=_given(as_of=as_of, select=",".join(select) if select else None)
        )

    def events(self, **filters: Any) -> dict[str, Any]:
        """See `Engine.events`."""
        return self._ask("GET", "/v1/events", params=_given(**filters))

    def decisions(self, **filters: Any) -> dict[str, Any]:
        """See `Engine.decisions`."""
        return self._ask("GET", "/v1/decisions", params=_given(**filters))

    def decision(self, decision_id: str) -> dict[str, Any]:
        """See `Engine.decision`."""
        return self._ask("GET", f"/v1/decisions/{quote(decision_id, safe='')}")

    def replay(self, decision_id: str) -> dict[str, Any]:
        """See `Replays.one`."""
        return self._ask("POST", f"/v1/decisions/{quote(decision_id, safe='')}/replay", timeout=None)

    def outcome(self, decision_id: str, outcome: str, actual: Mapping[str, Any]) -> dict[str, Any]:
        """See `Outcomes.report`."""
        body, headers = orjson.dumps({"outcome": outcome, **actual}), {"content-type": "application/json"}
        path = f"/v1/decisions/{quote(decision_id, safe='')}/outcome"
        return self._ask("POST", path, content=body, headers=headers)

    def entity_of(self, name: str) -> str | None:
        """The entity of a signal set; None where there is no such set."""
        sets = self._ask("GET", "/v1/signals")["sets"]
        return next((str(one["entity"]) for one in sets if one["name"] == name), None)

    def sql(self, name: str, ids: Sequence[str], window: str | None, as_of: str | None) -> str:
        """See `Engine.sql`."""
        pair = dict(zip(("id", "id2"), ids, strict=False))
        answer = self._ask(
            "GET", f"/v1/signals/{quote(name, safe='')}/sql", params=_given(window=window, as_of=as_of, **pair)
        )
        return str(answer["sql"])

    def suspend(self, scope: str, id_: str | None, reason: str, until: str | None, by: str | None) -> dict[str, Any]:
        """See `BreakGlass.suspend`."""
        body = orjson.dumps(_given(reason=reason, until=until, by=by))
        headers = {"content-type": "application/json"}
        answer: dict[str, Any] = self._ask("PUT", _suspension(scope, id_), content=body, headers=headers)["suspension"]
        return answer

    def lift(self, scope: str, id_: str | None, by: str | None) -> dict[str, Any]:
        """See `BreakGlass.lift`."""
        answer: dict[str, Any] = self._ask("DELETE", _suspension(scope, id_), params=_given(by=by))["lifted"]
        return answer

    def suspensions(self) -> list[dict[str, Any]]:
        """What is in force, oldest first."""
        answer: list[dict[str, Any]] = self._ask("GET", "/v1/suspensions")["suspensions"]
        return answer

    def backtest(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Lets the service test decisions; see `Backtests.run`."""
        headers = {"content-type": "application/json"}
        return self._ask("POST", "/v1/backtest", content=orjson.dumps(wanted), headers=headers, timeout=None)

    def reload(self) -> dict[str, Any]:
        """See `Engine.reload`."""
        return self._ask("POST", "/v1/reload")

    def check(self) -> dict[str, Any]:
        """Lets the service compare its live definitions with DuckDB, and load what its directories hold."""
        return self._ask("POST", "/v1/check")

    def verify(self, anchors: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Lets the service verify its journal, and hold it against anchors."""
        headers = {"content-type": "application/json"}
        body = orjson.dumps({"anchors": anchors}) if anchors else None
        return self._ask("POST", "/v1/journal/verify", content=body, headers=headers, timeout=None)

    def anchor(self) -> dict[str, Any]:
        """See `Engine.anchor`."""
        return self._ask("GET", "/v1/journal/anchor")

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **options)
        except (httpx.InvalidURL, OverflowError, UnicodeError) as error:
            raise _no_url(self.url) from error
        except httpx.RequestError as error:
            raise RemoteError(
                "unreachable",
                f"no answer from {show(self.url)}: {error}",
                {"hint": "is the service running? `enrich serve` starts one"},
            ) from error
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            raise RemoteError(
                "not_enrich", f"{show(self.url)} answered {response.status_code} and no JSON", {}
            ) from error
        if response.is_success and isinstance(answer, dict):
            return answer
        raise _told_on(response.status_code, answer)


def _suspension(scope: str, id_: str | None) -> str:
    return "/v1/suspensions/" + "/".join(quote(part, safe="") for part in (scope, id_) if part is not None)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _no_url(url: str) -> BadRequestError:
    return BadRequestError(
        f"{show(url)} is no url", code="invalid_url", hint="write http://127.0.0.1:8686, or unix:/path/to/socket"
    )


def _given(**parameters: Any) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def _told_on(status: int, answer: Any) -> EnrichError:
    error: Mapping[str, Any] = answer.get("error", {}) if isinstance(answer, dict) else {}
    code, message = str(error.get("code", "unknown")), str(error.get("message", f"status {status}"))
    if code == BusyError.code:
        return BusyError(message)
    return RemoteError(code, message, error.get("detail") or {})
