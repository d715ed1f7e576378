"""BentoML's own clients against the running service, and the bound on what goes BentoML's way."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import bentoml
import httpx
import psutil
import pytest
from bentoml.exceptions import BentoMLException

from tests.end_to_end.conftest import ROOT, Reference, Server, picture

MIB = 2**20
PATHS = ["/classify", "/v1/classify", "/livez", "/schema.json", "/nowhere"]

# BentoML's clients, imported when first used, use what pathspec and pydantic call by other names now.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

IN_PROCESS = """
import asyncio, json, pathlib, sys
from bentoml.exceptions import BentoMLException
from service.app import ResNetService, runtime

async def main():
    await runtime.start()
    service = ResNetService()
    answer = await service.classify(pathlib.Path(sys.argv[1]).read_bytes())
    try:
        await service.classify(b"no image")
    except BentoMLException as error:
        status, message = error.error_code, error.message
    await runtime.stop()
    print(json.dumps({"answer": answer, "status": status, "message": message}))

asyncio.run(main())
"""


@contextmanager
def connected(url: str) -> Iterator[bentoml.SyncHTTPClient]:
    with bentoml.SyncHTTPClient(url) as client:
        try:
            yield client
        finally:
            tidy(client)


def tidy(client: bentoml.SyncHTTPClient | bentoml.AsyncHTTPClient) -> None:
    """Remove the folder that it leaves to the garbage collector, which warns of that."""
    client._temp_dir.cleanup()


def check(answer: Any, reference: Reference, data: bytes) -> None:
    assert set(answer) == {"model", "results", "request_id"}
    (result,) = answer["results"]
    reference.check(result["predictions"], data)


def test_the_client_classifies(server: Server, reference: Reference) -> None:
    data = picture(11)
    with connected(server.url) as client:
        check(client.classify(data), reference, data)


def test_the_asynchronous_client_classifies_many_at_a_time(server: Server, reference: Reference) -> None:
    images = [picture(seed) for seed in range(12)]

    async def classify() -> list[Any]:
        async with bentoml.AsyncHTTPClient(server.url) as client:
            answers = await asyncio.gather(*(client.classify(data) for data in images))
        tidy(client)
        return answers

    for answer, data in zip(asyncio.run(classify()), images, strict=True):
        check(answer, reference, data)


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"no image", 415, "not_an_image"),
        (picture(1)[:-2000], 422, "bad_image"),
        (b"", 400, "bad_request"),
        (bytes(33 * MIB), 413, "body_too_large"),
    ],
)
def test_our_errors_come_out_with_their_status(server: Server, data: bytes, status: int, code: str) -> None:
    with connected(server.url) as client, pytest.raises(BentoMLException) as raised:
        client.classify(data)
    assert raised.value.error_code == status
    assert json.loads(raised.value.message)["error"]["code"] == code


def test_the_documented_client_says_what_is_on_the_picture(server: Server) -> None:
    """The program of docs/bentoml.md, as it stands but for the port."""
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "bentoml.md").read_text(), re.DOTALL)
    command = [sys.executable, "-c", program.replace("http://localhost:3000", server.url)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "ship\n", done.stderr


def test_the_schema_names_the_method(client: httpx.Client) -> None:
    (route,) = client.get("/schema.json").json()["routes"]
    assert (route["name"], route["route"], route["input"]["type"]) == ("classify", "/classify", "string")


def test_a_call_within_the_process(tmp_path: Path, reference: Reference) -> None:
    (tmp_path / "image.jpg").write_bytes(data := picture(7))
    environ = {k: v for k, v in os.environ.items() if not k.startswith("RESNET_")}
    done = subprocess.run(
        [sys.executable, "-c", IN_PROCESS, str(tmp_path / "image.jpg")],
        cwd=ROOT,
        env={**environ, "BENTOML_DO_NOT_TRACK": "True", "RESNET_PRECISION": "fp32"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    check(found["answer"], reference, data)
    assert found["status"] == 415
    assert found["message"]


def test_a_pickle_is_never_opened(client: httpx.Client) -> None:
    """What BentoML would take apart is here just bytes that are no image."""
    for path in ("/classify", "/v1/classify"):
        response = client.post(path, content=b"\x80\x04N.", headers={"content-type": "application/vnd.bentoml+pickle"})
        assert (response.status_code, response.json()["error"]["code"]) == (415, "not_an_image")


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_says_that_it_is_too_large_is_refused_at_once(server: Server, path: str) -> None:
    """Nothing of the 300 MB is sent, and still there is an answer: nobody waited for it."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {300 * MIB}\r\n\r\n".encode())
        status = connection.recv(64).split()[1]
    assert status == (b"404" if path == "/nowhere" else b"413")  # nobody reads what is sent to no path


def test_an_endless_body_is_not_kept(serve: Callable[..., AbstractContextManager[Server]]) -> None:
    """300 MB in chunks, without a length: an error, and the service does not grow by a tenth of them."""

    def endless() -> Iterator[bytes]:
        for _ in range(300):
            yield bytes(MIB)

    statuses: dict[str, int | None] = dict.fromkeys(PATHS)
    with serve(RESNET_MAX_BODY_BYTES=str(8 * MIB)) as server:
        processes = psutil.Process(server.process.pid).children(recursive=True)
        before = sum(process.memory_info().rss for process in processes)
        for path in PATHS:
            # The service may hang up while the client still sends.
            with suppress(httpx.WriteError, httpx.ReadError):
                statuses[path] = httpx.post(server.url + path, content=endless(), timeout=60).status_code
        grown = sum(process.memory_info().rss for process in processes) - before
        assert httpx.get(f"{server.url}/readyz").status_code == 200
    assert statuses["/classify"] in (413, None)
    assert all(status is None or status >= 400 for status in statuses.values()), statuses
    assert any(statuses.values()), "no path answered at all"
    assert grown < 30 * MIB
