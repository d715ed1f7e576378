"""Which pages of other origins may ask."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from service.http.api import Api
from service.http.cors import with_cors
from service.runtime import Runtime
from tests.service.conftest import a_png, serving, some_settings

HERE = "https://app.example.com"
ELSEWHERE = ["https://evil.example", "https://app.example.com.evil.example", "http://app.example.com", "null",
             "https://app.example.com:8443", "https://APP.example.com"]  # fmt: skip


def ask(root: Path, method: str, origins: str = HERE, **headers: str) -> httpx.Response:
    async def use(runtime: Runtime) -> httpx.Response:
        app = with_cors(Api(runtime), runtime.settings.access.cors_origins)
        transport = httpx.ASGITransport(app)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=sent) as client:
            return await client.request(method, "/v1/classify", content=a_png() if method == "POST" else None)

    return serving(some_settings(root, cors_origins=origins), use)


PREFLIGHT = {
    "access_control_request_method": "POST",
    "access_control_request_headers": "authorization,content-type,x-api-key",
}


def test_a_page_that_may_ask(tiny_root: Path) -> None:
    asked = ask(tiny_root, "OPTIONS", f"https://other.example, {HERE}", origin=HERE, **PREFLIGHT)
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, HERE)
    assert "POST" in asked.headers["access-control-allow-methods"]
    answered = ask(tiny_root, "POST", origin=HERE)
    assert (answered.status_code, answered.headers["access-control-allow-origin"]) == (200, HERE)
    assert "Retry-After" in answered.headers["access-control-expose-headers"]
    assert answered.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answered.headers


@pytest.mark.parametrize("origin", ELSEWHERE)
def test_a_page_that_may_not(tiny_root: Path, origin: str) -> None:
    asked = ask(tiny_root, "OPTIONS", origin=origin, **PREFLIGHT)
    assert asked.status_code == 400
    assert "access-control-allow-origin" not in asked.headers
    assert "access-control-allow-origin" not in ask(tiny_root, "POST", origin=origin).headers


@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
def test_without_the_setting_no_page_may(tiny_root: Path, method: str) -> None:
    answer = ask(tiny_root, method, "", origin=HERE, **PREFLIGHT)
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert answer.status_code == {"POST": 200, "OPTIONS": 405}[method]


def test_a_page_reads_that_the_service_is_full(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What refuses before there is a request knows no origins: it leaves those to what does."""
    monkeypatch.setattr(Runtime, "busy", True)
    headers = [(b"host", b"test"), (b"origin", HERE.encode())]

    async def use(runtime: Runtime) -> bool:
        api = Api(runtime)
        assert api.refusal("POST", "/v1/classify", headers[:1]) is not None
        return api.refusal("POST", "/v1/classify", headers) is None

    assert serving(some_settings(tiny_root, cors_origins=HERE), use)
    assert not serving(some_settings(tiny_root, cors_origins=""), use)
    refused = ask(tiny_root, "POST", origin=HERE)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (429, HERE)
