"""The real service over a store on a real S3 server, by the commands of docs/stores.md."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
import torch

from export.networks.build import build
from export.networks.specs import get_spec
from tests.end_to_end.conftest import ROOT, Server, picture, running, until
from tests.end_to_end.test_documents import run
from tests.s3 import BUCKET, S3Server, s3_server

pytestmark = pytest.mark.slow

Serve = Callable[..., AbstractContextManager[Server]]
PAGE = (ROOT / "docs" / "stores.md").read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
EXPORT, LIST, PROMOTE, SERVE = LINES
URL = f"s3://{BUCKET}/models"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page's command, for a small network with seeded weights."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(build(get_spec("cifar_resnet16_wide2"), 10, seed=0).state_dict(), folder / "checkpoint.pth")
    (folder / "labels.txt").write_text("".join(f"thing {i}\n" for i in range(10)))
    command = EXPORT
    for name in ("checkpoint.pth", "labels.txt"):
        command = re.sub(rf"(?<= ){re.escape(name)}\b", str(folder / name), command)
    return command


def answered_by(server: Server) -> str:
    """The version of the answer; fails where there is none."""
    answer = httpx.post(f"{server.url}/v1/classify", content=picture(1), timeout=60).raise_for_status()
    return str(answer.json()["model"]["version"])


def all_answer(server: Server, version: str) -> bool:
    return {answered_by(server) for _ in range(8)} == {version}


def reachable(server: Server) -> str:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    (line,) = (line for line in lines if line.startswith("resnet_store_reachable{"))
    return line.rpartition(" ")[2]


def test_a_store_on_s3_from_publication_to_outage(s3: S3Server, export: str, tmp_path: Path) -> None:
    here = {**s3.environment, "HOME": str(tmp_path)}
    assert f"RESNET_MODEL_STORE={URL} make serve" in run(export, **here)
    assert re.search(r"^\| mine +\| 1 \(served\) ", run(LIST, **here), re.MULTILINE)
    setting, *command = shlex.split(SERVE)
    assert setting == f"RESNET_MODEL_STORE={URL}"
    settings = {"RESNET_MODEL_STORE": URL, "RESNET_STORE_CACHE": str(tmp_path / "cache"), "RESNET_WATCH_S": "0.3"}
    with running(*command, workers=2, **s3.environment, **settings) as server:
        assert all_answer(server, "1")
        run(export, **here)
        until(lambda: all_answer(server, "2"), "version 2")
        run(PROMOTE, **here)
        until(lambda: all_answer(server, "1"), "the way back")
        assert reachable(server) == "1.0"
        s3.stop()
        server.wait_for_line("what is loaded is served on")
        assert all_answer(server, "1")
        until(lambda: reachable(server) == "0.0", "the metric")
        s3.start()
        server.wait_for_line("the store answers again")
        run(PROMOTE.replace("@1", "@2"), **here)
        until(lambda: all_answer(server, "2"), "version 2 again")
    log = "".join(server.log)
    assert log.count("what is loaded is served on") == 1
    assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in log

    # Started while the store is away.
    s3.stop()
    try:
        with running(**s3.environment, **settings) as server:
            assert answered_by(server) == "2"
        log = "".join(server.log)
        assert "Could not connect" in log
        assert "what was fetched earlier is served" in log
        done = subprocess.run(
            [sys.executable, "-m", "bentoml", "serve", "service.app:ResNetService", "--port", "0"],
            cwd=ROOT,
            env={**os.environ, **s3.environment, **settings, "RESNET_STORE_CACHE": str(tmp_path / "empty")},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    finally:
        s3.start()
    assert done.returncode != 0
    (line,) = (line for line in done.stderr.splitlines() if "resnet-serving:" in line)
    assert line.startswith(f"resnet-serving: {URL}: the store cannot be used: Could not connect")
    assert "Traceback" not in done.stdout + done.stderr
