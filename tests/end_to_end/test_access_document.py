"""docs/access.md from its first command to its last, against services that are started as it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.conftest import ROOT, running
from tests.end_to_end.test_documents import curl
from tests.end_to_end.test_tls import Tls

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "access.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
MAKE, SERVE, BEARER, HEADER, CLIENT, SERVE_TLS, CURL_TLS = COMMANDS


def settings(command: str, folder: Path) -> dict[str, str]:
    """The variables before ``make serve``."""
    assert command.endswith(" make serve")
    return dict(re.findall(r"(RESNET_\w+)=(\S+)", command.replace("$PWD", str(folder))))


def shell(command: str, folder: Path, **environment: str) -> str:
    command = command.replace(".venv/bin/python", sys.executable).replace("docs/", f"{ROOT}/docs/")
    environ = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_keys(tmp_path: Path) -> None:
    assert shell(MAKE, tmp_path) == ""
    key = (tmp_path / "mobile-app.key").read_text().strip()
    assert re.fullmatch(r"mobile-app sha256:[0-9a-f]{64} images_per_s=50\n", (tmp_path / "keys.txt").read_text())
    with running("make", "serve", **settings(SERVE, tmp_path)) as server:
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            curl("curl --data-binary @docs/images/ship.jpg localhost:3000/v1/classify", server.url)
        for command, part in ((BEARER, "predictions"), (HEADER, "embedding")):
            assert part in curl(command.replace("$(cat mobile-app.key)", key), server.url).json()["results"][0]
        assert "ship" in shell(CLIENT, tmp_path, SERVER_URL=server.url)


def test_tls(tmp_path: Path) -> None:
    tls = Tls(tmp_path)
    (tmp_path / "server.pem").rename(tmp_path / "cert.pem")
    (tmp_path / "server-key.pem").rename(tmp_path / "key.pem")
    (tmp_path / "clients.pem").write_bytes(tls.ca.read_bytes())
    with running("make", "serve", **settings(SERVE_TLS, tmp_path)) as server:
        command = CURL_TLS
        for name in ("ca.pem", "client.pem", "client-key.pem"):
            command = command.replace(f" {name} ", f" {tmp_path / name} ")
        answer = curl(command, server.url.removeprefix("http://"))
        assert "predictions" in answer.json()["results"][0]
