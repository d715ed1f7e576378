"""`bentoml build` makes a bento that serves the embedded model the same way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx

from tests.end_to_end.conftest import ROOT, Reference, Server, picture
from tests.end_to_end.edges import check_edges


def test_a_bento_answers_as_the_checkout_does(
    tmp_path: Path, serve: Callable[..., AbstractContextManager[Server]], reference: Reference
) -> None:
    bentoml = (sys.executable, "-m", "bentoml")
    home = {"BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    subprocess.run([*bentoml, "build", "--version", "test"], cwd=ROOT, env={**os.environ, **home}, check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with serve(
        *bentoml, "serve", "resnet-serving:test", cwd=elsewhere, workers=2, RESNET_PRECISION="fp32", **home
    ) as server:
        response = httpx.post(f"{server.url}/v1/classify", content=(data := picture(1)))
        reference.check(response.json()["results"][0]["predictions"], data)
        check_edges(server.url, tmp_path)
        for page in ("/docs", "/web/docs.js", "/openapi.json"):  # the pages' files are part of it
            assert httpx.get(server.url + page).status_code == 200
