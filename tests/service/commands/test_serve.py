"""``python -m service serve``: what is run in its place, and with which settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.__main__ import cli

Started = list[tuple[list[str], dict[str, str]]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """What was to be run, and the environment for it; nothing is, and this process keeps its own."""
    found: Started = []
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name in ("RESNET_MODEL_STORE", "RESNET_MODELS", "BENTOML_HOST", "BENTOML_PORT"):
        monkeypatch.delitem(os.environ, name, raising=False)
    monkeypatch.setattr(os, "execv", lambda _, words: found.append((words, dict(os.environ))))
    return found


def serve(*words: str) -> Result:
    return CliRunner().invoke(cli, ["serve", *words])


@pytest.mark.parametrize(
    ("words", "variables", "where"),
    [
        ([], {}, ("127.0.0.1", "3000")),
        (["--host", "0.0.0.0", "--port", "80"], {"BENTOML_HOST": "::1"}, ("0.0.0.0", "80")),  # noqa: S104
        ([], {"BENTOML_HOST": "::1", "BENTOML_PORT": "81"}, ("::1", "81")),
    ],
)
def test_where_it_listens(
    started: Started, words: list[str], variables: dict[str, str], where: tuple[str, str]
) -> None:
    os.environ.update(variables)
    assert serve(*words).exit_code == 0
    ((command, environment),) = started
    server = [sys.executable, "-m", "bentoml", "serve", "service.app:ResNetService"]
    assert command == [*server, "--host", where[0], "--port", where[1]]
    assert environment["BENTOML_DO_NOT_TRACK"] == "True"
    assert not {"RESNET_MODEL_STORE", "RESNET_MODELS"} & set(environment)


def test_options_are_settings_of_what_is_run(started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    os.environ["RESNET_MODELS"] = "other"
    assert serve("--store", "models", "--model", "mine@2", "--model", "yours").exit_code == 0
    ((_, environment),) = started
    assert (environment["RESNET_MODEL_STORE"], environment["RESNET_MODELS"]) == ("models", "mine@2,yours")


@pytest.mark.parametrize(
    ("words", "variables", "told"),
    [
        (["--port", "0"], {}, "--port"),
        (["--model", "A!"], {}, "RESNET_MODELS='A!'"),
        (["--store", "s3://"], {}, "--store"),
        (["--store", "/nowhere"], {}, "/nowhere: no such model store; export a model to it first"),
        ([], {"RESNET_SLOTS": "many"}, "RESNET_SLOTS='many'"),
        ([], {"RESNET_SLOT": "2"}, "did you mean RESNET_SLOTS?"),
    ],
)
def test_what_is_wrong_is_said_before_it_starts(
    started: Started, words: list[str], variables: dict[str, str], told: str
) -> None:
    os.environ.update(variables)
    done = serve(*words)
    assert done.exit_code == 2
    assert told in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not started
