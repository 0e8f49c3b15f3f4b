"""The OpenAPI document is complete, and what it shows as an example is what the service takes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest

from .running import Running, definitions, serving

ROOT = Path(__file__).parents[2]
_EXAMPLE_ID = "0b9c6a1e-6a55-4a9b-9a55-3f2f5b8f0c11"
METHODS = {"get", "post", "put", "delete", "patch", "head", "options"}


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service for which the examples' dates are never too old."""
    directory = definitions(tmp_path_factory.mktemp("openapi"))
    for shipped in (ROOT / "queries").glob("*.sql"):
        shutil.copy(shipped, directory / "queries")
    (directory / "queries" / "agent_runs.sql").unlink()
    with serving(directory, environment={"ENRICH_RETENTION_DAYS": "36500"}) as running:
        yield running


@pytest.fixture(scope="module")
def document(lenient: Running) -> dict[str, Any]:
    return dict(lenient.http.get("/openapi.json").json())


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            yield method, path, operation


def test_every_operation_is_documented(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    names = set()
    for method, path, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert operation["tags"], where
        names.add(operation["operationId"])
        assert operation["responses"]["200"]["content"], where
        refusals = {status for status in operation["responses"] if status >= "400"}
        assert {"405", "500", "503"} <= refusals, where
        if operation["security"]:
            assert {"401", "403"} <= refusals, where
        for status in refusals:
            content = operation["responses"][status]["content"]["application/json"]
            assert content["schema"]["$ref"].endswith("Error"), (where, status)
            assert content["example"], (where, status)
        if method == "post" and path.startswith(("/v1/e", "/v1/data", "/v0", "/")) and "requestBody" in operation:
            for media in operation["requestBody"]["content"].values():
                assert media["examples"], where
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (where, parameter["name"])
            assert parameter["in"] != "path" or parameter["example"], (where, parameter["name"])
    assert len(names) == sum(1 for _ in operations(document))


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.split('"')[0] in schemas
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_path_parameters_are_those_of_the_path(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert declared == {part.split("}")[0] for part in path.split("{")[1:]}, (method, path)


def requests(document: dict[str, Any]) -> Iterator[tuple[str, str, str | None, Any]]:
    """Method, URL, content type and body of every example."""
    for method, path, operation in operations(document):
        query = {}
        for parameter in operation.get("parameters", []):
            if "example" not in parameter:
                continue
            if parameter["in"] == "path":
                value = quote(parameter["example"], safe="/" if parameter["name"] == "path" else "")
                path = path.replace(f"{{{parameter['name']}}}", value)
            else:
                query[parameter["name"]] = parameter["example"]
        url = path + (f"?{urlencode(query)}" if query else "")
        if "requestBody" not in operation:
            yield method, url, None, None
            continue
        for media, content in operation["requestBody"]["content"].items():
            for example in content["examples"].values():
                yield method, url, media, example["value"]


def ask(service: Running, method: str, url: str, content: str | None, headers: dict[str, str]) -> httpx.Response:
    """As a client does: a 503 that names a time to come again is asked again."""
    for _ in range(10):
        answer = service.http.request(method, url, content=content, headers=headers)
        if answer.status_code != 503:
            break
        time.sleep(float(answer.headers["retry-after"]))
    return answer


def test_every_example_is_taken_by_the_service(lenient: Running, document: dict[str, Any]) -> None:
    count = 0
    asked = {"input": {"identity": {"actor_id": "a"}}}
    for method, url, media, body in requests(document):
        if "/data" in url:
            url = url.replace("gantral/authority/decision", "test/authority/decision")
        if _EXAMPLE_ID in url:  # one each: an outcome is reported once
            decided = lenient.http.post("/v1/data/test/authority/decision", json=asked).json()["decision_id"]
            url = url.replace(_EXAMPLE_ID, decided)
        content = body if isinstance(body, str) else json.dumps(body)
        headers = {} if media is None else {"content-type": media}
        answer = ask(lenient, method, url, None if media is None else content, headers)
        # above the decision, and the root that nobody has put there
        expected = {"/v1/data": 400, "/v0/data": 400, "/": 404}.get(url.partition("?")[0], 200)
        assert answer.status_code == expected, (method, url, media, answer.text)
        if url == "/v1/events" and method == "post":
            assert answer.json()["rejected_count"] == 0, answer.text
        count += 1
    assert count >= 25


def test_answers_have_the_documented_keys(lenient: Running, document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for method, url, media, body in requests(document):
        path = url.partition("?")[0]
        operation = document["paths"].get(path, {}).get(method)
        if operation is None:
            continue
        schema = operation["responses"]["200"]["content"].get("application/json", {}).get("schema", {})
        if "$ref" not in schema:
            continue
        content = body if isinstance(body, str) else json.dumps(body)
        headers = {} if media is None else {"content-type": media}
        answer = ask(lenient, method, url, None if media is None else content, headers).json()
        declared = schemas[schema["$ref"].rpartition("/")[2]]
        assert set(declared["required"]) <= set(answer), (method, url)
        if declared.get("additionalProperties") is False:
            assert set(answer) <= set(declared["properties"]), (method, url)


def test_documented_error_codes_of_the_common_refusals_are_real(lenient: Running) -> None:
    answers: list[httpx.Response] = [
        lenient.http.get("/v1/entities/colour/a"),
        lenient.http.post("/v1/events", content=b"{"),
        lenient.http.put("/v1/events"),
        lenient.http.post("/v1/events", content=b"x", headers={"content-type": "text/plain"}),
    ]
    codes = [answer.json()["error"]["code"] for answer in answers]
    assert codes == ["unknown_entity", "invalid_json", "method_not_allowed", "unsupported_media_type"]


def test_the_reference_page_is_what_the_document_says() -> None:
    from enrich.service.reference import reference

    page = ROOT / "docs" / "reference" / "http.md"
    assert page.read_text() == reference(), "run `python -m enrich.service.reference > docs/reference/http.md`"
