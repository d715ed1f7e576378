"""Every command in README and docs is run, as it stands but for port and paths; an unknown one fails here."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service.config import reference
from tests.end_to_end.conftest import ROOT, Server, free_port, running
from tests.end_to_end.edges import check_edges

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands() -> list[str]:
    """The lines of all ``sh`` blocks, comments cut off."""
    blocks = [re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL) for path in DOCUMENTS]
    lines = [line.split("  #")[0].strip() for found in blocks for block in found for line in block.splitlines()]
    return sorted({line for line in lines if line})


def run(command: str, **environment: str) -> str:
    """Run ``command`` with this environment's programs in the place of ``.venv``'s."""
    here = command.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    done = subprocess.run(
        ["bash", "-c", here], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def made_server() -> Iterator[Server]:
    """`make serve`, in this checkout."""
    with running("make", "serve") as server:
        yield server


def test_every_command_is_known() -> None:
    makes = {f"make {target}" for target in TARGETS}
    known = (
        "curl ",
        "base64 ",  # with curl behind it
        "kubectl ",  # what they apply is rendered in tests/deploy/test_kubernetes.py
        ".venv/bin/python -m zipfile ",
        ".venv/bin/python -m export ",
        ".venv/bin/python -m tests.reliability.",  # run in tests/reliability
        "make install-dev RUNTIME=gpu",  # this and the next: a GPU's, in tests/gpu/test_serving.py
        ".venv-gpu/bin/python -m export quantize ",
        ".venv/bin/python -m service tune ",  # run in tests/service/commands/test_tune.py
        ".venv/bin/python -m benchmarks.replicas ",  # run in tests/benchmarks/test_programs.py
        ".venv/bin/python -m service bulk ",  # run in test_bulk_document.py
        ".venv/bin/python -m service client ",  # run in test_client_documents.py
        "cat docs/images/ship.jpg | .venv/bin/python -m service client ",
        "RESNET_MODEL_STORE=models make serve",
        "RESNET_ADMIN_KEY=a-key-of-your-own make serve",  # run in test_models_document.py
        ".venv/bin/python -m service -h",  # this and what follows run in test_command_line.py
        ".venv/bin/python -m service settings",
        ".venv/bin/python -m service metrics",
        ".venv/bin/python -m service keys ",  # this and what follows run in test_access_document.py
        "RESNET_API_KEYS_FILE=$PWD/keys.txt make serve",
        "SERVER_API_KEY=$(cat mobile-app.key) .venv/bin/python -m service client ",
        "RESNET_TLS_CERT=$PWD/cert.pem RESNET_TLS_KEY=$PWD/key.pem RESNET_TLS_CLIENT_CA=$PWD/clients.pem make serve",
        "RESNET_MODEL_STORE=s3://bucket/models make serve",  # run in test_remote_store.py
        ".venv/bin/bentoml build",
        ".venv/bin/bentoml serve resnet-serving:latest",
        "docker build -f docker/Dockerfile -t ",  # with what follows, run or said not to be in tests/container
        "docker build --build-arg REMOTE=1 -f docker/Dockerfile -t ",
        "docker build -f docker/Dockerfile.gpu -t ",
        "docker run -d --name resnet ",
        "docker run --rm --gpus all ",
        "docker stop --time 30 resnet",
        "docker compose -f docker/compose.yaml up",
        ".venv/bin/bentoml containerize resnet-serving:latest",
    )
    unknown = [command for command in commands() if command not in makes and not command.startswith(known)]
    assert not unknown


def curl(command: str, url: str) -> httpx.Response:
    """What ``command`` would get; done here, as a machine with nothing but Python need not have curl.

    What comes before it in a pipe is run, and is what ``@-`` stands for. Where it would write to is passed over.
    """
    before, _, command = command.rpartition(" | ")
    words = iter(shlex.split(command.replace("localhost:3000", url))[1:])
    method, content, files, target = "", None, [], ""
    headers: dict[str, str] = {}
    files_of_tls: dict[str, str] = {}
    for word in words:
        if word == "--data-binary":
            source = next(words).removeprefix("@")
            content = run(before).encode() if source == "-" else (ROOT / source).read_bytes()
        elif word == "-F":
            name, _, path = next(words).partition("=@")
            files.append((name, (path, (ROOT / path).read_bytes())))
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-o":
            next(words)
        elif word in ("--cacert", "--cert", "--key"):
            files_of_tls[word] = next(words)
        elif word == "-X":
            method = next(words)
        else:
            target = word
    method = method or ("POST" if content or files else "GET")
    context = ssl.create_default_context(cafile=files_of_tls.get("--cacert"))
    if "--cert" in files_of_tls:
        context.load_cert_chain(files_of_tls["--cert"], files_of_tls.get("--key"))
    asked = httpx.request(method, target, content=content, files=files or None, headers=headers, verify=context)
    return asked.raise_for_status()


# Run in test_models_document.py, with a store that has what they ask for, in test_access_document.py, and below.
ELSEWHERE = ("/v1/models", "/v2/repository", "version=canary", "/v1/jobs", ".key)", "https://")


@pytest.mark.parametrize(
    "command",
    [line for line in commands() if re.search(r"(^|\| )curl ", line) and not any(path in line for path in ELSEWHERE)],
)
def test_a_request_of_the_documents(made_server: Server, command: str) -> None:
    answer = curl(command, made_server.url)
    kind = answer.headers["content-type"]
    if kind == "image/png":
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.size == (640, 480)
    elif kind == "application/x-npy":
        assert np.load(io.BytesIO(answer.content)).shape == (2, 128)
    elif "/v2/" in command:
        assert answer.json()["outputs"][0]["name"] == "probabilities"
    else:
        assert {"predictions", "embedding"} & set(answer.json()["results"][0])


def test_bentomls_edges_are_off_where_make_serves(made_server: Server, tmp_path: Path) -> None:
    check_edges(made_server.url, tmp_path)


def test_the_inference_protocols_example(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "inference-protocol.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (shown,) = re.findall(r'"data": (\["0.*?\])', page)
    port = free_port()
    with running(RESNET_GRPC_PORT=str(port)):
        exec(example.replace("localhost:8001", f"localhost:{port}").replace("docs/", f"{ROOT}/docs/"), {})  # noqa: S102
    printed = capsys.readouterr().out
    assert [name in printed for name in ("8:ship", "9:truck")] == [True, True]
    assert [string.split(":")[1:] for string in json.loads(shown)] == [["8", "ship"], ["9", "truck"]]


def test_a_job_by_its_page(made_server: Server, tmp_path: Path) -> None:
    """docs/jobs.md from its first command to its last, with the lines that it shows."""
    page = (ROOT / "docs" / "jobs.md").read_text().replace("pictures.zip", str(tmp_path / "pictures.zip"))
    pack, create, show, get, remove = (
        line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()
    )
    run(pack)
    created = curl(create, made_server.url)
    example = json.loads(re.findall(r"```json\n(\{\n.*?)```", page, re.DOTALL)[0])
    assert created.status_code == 202
    assert set(created.json()) == set(example)
    assert {name: created.json()[name] for name in ("task", "model", "images")} == {
        name: example[name] for name in ("task", "model", "images")
    }
    show, get, remove = (line.replace("$JOB", created.json()["id"]) for line in (show, get, remove))
    while (state := curl(show, made_server.url).json()["state"]) not in ("done", "failed"):
        assert state in ("queued", "running")
    shown = [json.loads(line) for line in re.findall(r'^\{"name".*$', page, re.MULTILINE)]
    found = [json.loads(line) for line in curl(get, made_server.url).text.splitlines()]
    assert [(line["name"], line["index"]) for line in found] == [(line["name"], line["index"]) for line in shown]
    assert found[0]["predictions"][0]["label"] == shown[0]["predictions"][0]["label"]
    assert found[1] == shown[1]
    assert curl(remove, made_server.url).status_code == 204


def test_the_first_request_has_the_answer_that_readme_shows(made_server: Server) -> None:
    """To the third digit where the same arithmetic runs, else as near as another gated one of this model is."""
    served = httpx.get(f"{made_server.url}/v1/models").json()["models"][0]
    shown_one = (served["provider"], served["precision"]) == ("openvino", "int8")
    readme = (ROOT / "README.md").read_text()
    command, shown = re.findall(r"```sh\n(curl[^\n]*)\n```\n\n```json\n(.*?)```", readme, re.DOTALL)[0]
    answer = curl(command, made_server.url).json()
    expected = json.loads(shown)
    assert answer["model"] == expected["model"]
    (got,), (wanted,) = ([r["predictions"] for r in a["results"]] for a in (answer, expected))
    assert [p["label"] for p in got] == [p["label"] for p in wanted]
    error = 1e-3 if shown_one else 3e-3
    assert [p["probability"] for p in got] == pytest.approx([p["probability"] for p in wanted], abs=error)


def test_configuration_is_the_settings_own_page() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == reference()


def test_links_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.slow
def test_an_own_model_by_the_readme(tmp_path: Path) -> None:
    """The README's export and serve, with a seeded ResNet-50 in the place of a trained one."""
    import torch

    from export.networks.build import build
    from export.networks.specs import get_spec

    torch.save(build(get_spec("resnet50"), 12, seed=0).state_dict(), tmp_path / "checkpoint.pth")
    (tmp_path / "labels.txt").write_text("".join(f"thing {i}\n" for i in range(12)))
    (export,) = (
        line for line in commands() if "python -m export checkpoint.pth" in line and line.endswith("--store models")
    )
    for name in ("checkpoint.pth", "labels.txt", "models"):
        export = re.sub(rf"(?<= ){re.escape(name)}\b", str(tmp_path / name), export)
    assert "RESNET_MODEL_STORE=" in run(export)
    with running("make", "serve", RESNET_MODEL_STORE=str(tmp_path / "models")) as server:
        command = "curl --data-binary @docs/images/ship.jpg 'localhost:3000/v1/classify?model=mine&top_k=12'"
        (result,) = curl(command, server.url).json()["results"]
        assert {p["label"] for p in result["predictions"]} == {f"thing {i}" for i in range(12)}


def test_help_names_commands_that_exist() -> None:
    assert "make serve" in run("make help")
    assert "CHECKPOINT --arch NAME" in run(".venv/bin/python -m export --help")
