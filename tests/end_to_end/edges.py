"""BentoML's edges: what a service of its kind answers by itself, and what of that nobody may reach here.

Held against each way of running the service that the documents name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import httpx

from service.http.probes import BENTOML_PATHS

PICKLE: Final = "application/vnd.bentoml+pickle"

# Routes of BentoML's service: its page, its document and its files, tasks, metrics; and ways to write them.
OFF: Final = (
    "/docs.json",
    "/docs.json/",
    "/schema.json/",
    "/static_content/swagger-ui.css",
    "/static_content/../app.py",
    "/static_content/%2e%2e/app.py",
    "/assets/index.js",
    "/assets/..%2f..%2fapp.py",
    "/classify/",
    "/classify/submit",
    "/classify/status?task_id=1",
    "/classify/get?task_id=1",
    "/classify/retry",
    "/classify/cancel",
    "/web/../app.py",
    "/web/..%2f..%2fapp.py",
    "/web/%2e%2e%2fapp.py",
    "/web/..%5capp.py",
    "/web/%00",
    "/metrics/",
    "/healthz/",
)
TAKES_IMAGES: Final = ("/classify", "/v1/classify", "/v1/embed", "/v1/explain")
OTHERS: Final = (
    "/",
    "/livez",
    "/readyz",
    "/healthz",
    "/schema.json",
    "/metrics",
    "/v2/models/x/infer",
    *OFF,
)


class _Bomb:
    """Who unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


def check_edges(url: str, folder: Path) -> None:
    """Fails where ``url`` answers anything of BentoML's that is not meant to be there, or opens a pickle."""
    hooks = {"response": [_check_headers]}
    with httpx.Client(
        base_url=url, timeout=60, headers={"origin": "https://elsewhere.example"}, event_hooks=hooks
    ) as client:
        _check_routes(client)
        _check_pickles(client, folder / "unpickled")


def _check_headers(answer: httpx.Response) -> None:
    """No page of another origin may read anything, and no answer of ours may be kept or taken for something else."""
    assert not [name for name in answer.headers if name.startswith("access-control")], answer.url
    if answer.url.path not in BENTOML_PATHS:
        assert answer.headers["x-content-type-options"] == "nosniff", answer.url
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], answer.url
        assert answer.headers["cache-control"] in ("no-store", "no-cache"), answer.url


def _check_routes(client: httpx.Client) -> None:
    for path in OFF:
        for method in ("GET", "POST", "PUT"):
            answer = client.request(method, path)
            refused = {404: "not_found"} | ({} if method == "GET" else {405: "method_not_allowed"})
            assert answer.status_code in refused, f"{method} {path}: {answer.status_code}"
            assert answer.json()["error"]["code"] == refused[answer.status_code], path
    index = client.get("/", headers={"accept": "application/json"}).json()
    assert index["service"] == "resnet-serving"
    assert "resnet_workers_ready" in client.get("/metrics").text
    assert "bentoml" not in client.get("/metrics").text
    (route,) = client.get("/schema.json").json()["routes"]
    assert (route["name"], route["route"], route["batchable"]) == ("classify", "/classify", False)
    # Bytes: of paths, files and images BentoML opens what clients name, and fetches addresses.
    assert route["input"] == {"type": "string", "format": "binary", "root_input": True}


def _check_pickles(client: httpx.Client, made: Path) -> None:
    import pickle

    for payload in (pickle.dumps(_Bomb(made)), pickle.dumps({"image": _Bomb(made)}, protocol=2)):
        for headers in ({}, {"args-number": "1"}, {"payload-meta": '[{"format":"default"}]'}):
            for path in TAKES_IMAGES:
                answer = client.post(path, content=payload, headers={"content-type": PICKLE, **headers})
                assert answer.status_code == 415, f"{path}: {answer.status_code} {answer.text}"
            for path in OTHERS:
                answer = client.post(path, content=payload, headers={"content-type": PICKLE, **headers})
                assert 400 <= answer.status_code < 500, f"{path}: {answer.status_code} {answer.text}"
    assert not made.exists(), "a pickle was opened"
