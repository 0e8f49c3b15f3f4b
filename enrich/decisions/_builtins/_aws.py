"""Requests signed for AWS, version 4 of its signatures."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from enrich.decisions._builtins._texts import marshal
from enrich.decisions._builtins._uris import parse_uri
from enrich.decisions._builtins._values import NoAnswerError, check, integer, wrong
from enrich.decisions._terms import RegoFloat, RegoObject

__all__ = ["AWS"]

#: what `http.send` takes for a request
_ALLOWED: Final = frozenset(
    [
        *("method", "url", "body", "enable_redirect", "force_json_decode", "force_yaml_decode", "headers"),
        *("raw_body", "tls_use_system_certs", "tls_ca_cert", "tls_ca_cert_file", "tls_ca_cert_env_variable"),
        *("tls_client_cert", "tls_client_cert_file", "tls_client_cert_env_variable", "tls_client_key"),
        *("tls_client_key_file", "tls_client_key_env_variable", "tls_insecure_skip_verify", "tls_server_name"),
        *("timeout", "cache", "force_cache", "force_cache_duration_seconds", "raise_error", "caching_mode"),
        *("max_retry_attempts", "cache_ignored_headers"),
    ]
)
_NEEDED: Final = ("aws_service", "aws_access_key", "aws_secret_access_key", "aws_region")
#: what a proxy may change is not signed
_UNSIGNED: Final = frozenset({"authorization", "user-agent", "x-amzn-trace-id"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _sign(request: Any, config: Any, time_ns: Any) -> dict[str, Any]:
    check(1, request, "object")
    check(1, config, "object")
    if isinstance(request, RegoObject) or isinstance(config, RegoObject):
        raise NoAnswerError("providers.aws.sign_req: keys that are no texts are not supported")
    if not all(isinstance(config.get(name), str) for name in _NEEDED):
        raise wrong(2, "must hold the required AWS config parameters, as strings")
    moment = _moment(time_ns)
    if request.keys() - _ALLOWED or not request.keys() >= {"method", "url"}:
        raise wrong(1, "must hold the required request parameters, and none that there is not")
    headers = _headers(request)
    if not isinstance(request["url"], str) or not isinstance(request["method"], str):
        raise wrong(1, "has invalid values for required request parameters")
    uri = parse_uri(request["url"])
    unsigned = config.get("disable_payload_signing", False)
    body = _body(request)
    if not isinstance(unsigned, bool):
        raise wrong(2, "has an invalid value for `disable_payload_signing`")
    content = "UNSIGNED-PAYLOAD" if unsigned else hashlib.sha256(body).hexdigest()
    added = {"host": uri.host, "x-amz-date": f"{moment:%Y%m%dT%H%M%SZ}"}
    if config["aws_service"] in ("s3", "glacier"):
        added["x-amz-content-sha256"] = content
    session = config.get("aws_session_token")
    if session and isinstance(session, str):
        added["x-amz-security-token"] = session
    signed = dict(sorted({**added, **_signed(headers)}.items()))
    lines = [request["method"], uri.escaped_path(), uri.query, *(f"{k}:{v}" for k, v in signed.items())]
    asked = "\n".join([*lines, "", ";".join(signed), content])
    authorization = _authorization(config, moment, ";".join(signed), asked)
    return {**request, "headers": {**headers, "Authorization": authorization, **added}}


def _moment(time_ns: Any) -> datetime:
    nanoseconds = integer(3, time_ns)
    # as it is written: a number with an exponent is none for OPA here
    if isinstance(time_ns, RegoFloat) or not -(1 << 63) <= nanoseconds < 1 << 63:
        raise wrong(3, "could not convert time_ns value into a unix timestamp")
    return _EPOCH + timedelta(seconds=nanoseconds // 10**9)


def _headers(request: Mapping[str, Any]) -> dict[str, str]:
    headers = check(0, request.get("headers", {}), "object")
    if isinstance(headers, RegoObject):
        raise NoAnswerError("providers.aws.sign_req: headers that are no texts are not supported")
    return {name: value if isinstance(value, str) else "" for name, value in headers.items()}


def _signed(headers: Mapping[str, str]) -> dict[str, str]:
    found = {name.lower(): value for name, value in headers.items()}
    if len(found) != len(headers) or not all(name.isascii() for name in headers):
        raise NoAnswerError("providers.aws.sign_req: a header that is there twice is not supported")
    return {name: value for name, value in found.items() if name not in _UNSIGNED}


def _body(request: Mapping[str, Any]) -> bytes:
    if "raw_body" in request:
        raw = request["raw_body"]
        return raw.encode() if isinstance(raw, str) else b""
    return marshal(request["body"]).encode() if "body" in request else b""


def _authorization(config: Mapping[str, Any], moment: datetime, names: str, asked: str) -> str:
    day, region, service = f"{moment:%Y%m%d}", config["aws_region"], config["aws_service"]
    scope = f"{day}/{region}/{service}/aws4_request"
    told = f"AWS4-HMAC-SHA256\n{moment:%Y%m%dT%H%M%SZ}\n{scope}\n{hashlib.sha256(asked.encode()).hexdigest()}"
    key = f"AWS4{config['aws_secret_access_key']}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, told.encode(), "sha256").hex()
    credential = f"{config['aws_access_key']}/{scope}"
    return f"AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={names},Signature={signature}"


#: by name
AWS: Final[dict[str, Callable[..., Any]]] = {"providers.aws.sign_req": _sign}
